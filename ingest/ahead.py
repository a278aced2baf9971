"""The next upload is read and cut while the present one is embedded: parser and embedder work at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from ingest.pipeline import Cut


@dataclass(frozen=True, slots=True)
class _Begun:
    job_id: int
    password: str
    cut: Future[Cut]


class ReadAhead:
    """At most one file at a time, in a thread of its own; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, "read-ahead")  # makes its thread when there is work
        self._begun: _Begun | None = None

    @property
    def job_id(self) -> int | None:
        """Which job is read, or was and has not been taken."""
        begun = self._begun
        return begun.job_id if begun else None

    def begin(self, job_id: int, password: str, read: Callable[[], Cut]) -> bool:
        """Read a job's file with that password; False while another one is being read.

        What was read and never taken, because another process took the job, is thrown away.
        """
        with self._lock:
            if self._begun and not self._begun.cut.done():
                return False
            self._begun = _Begun(job_id, password, self._pool.submit(read))
            return True

    def take(self, job_id: int, password: str) -> Cut | None:
        """What was read of a job's file, once it is whole; None where nothing was, or with another password.

        Raises what the reading raised.
        """
        with self._lock:
            begun = self._begun
            if begun is None or begun.job_id != job_id:
                return None
            self._begun = None
        return begun.cut.result() if begun.password == password else None

    def drop(self, job_id: int) -> None:
        """Forget what was read of a job's file."""
        with self._lock:
            if self._begun and self._begun.job_id == job_id:
                self._begun = None

    def close(self) -> int | None:
        """Take no more work; the job that was read in vain, if there is one."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        job_id = self.job_id
        self._begun = None
        return job_id
