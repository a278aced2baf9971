"""The durable queue of uploads: on disk before it says "queued", worked off by one background thread."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Literal

from ingest.ahead import ReadAhead
from ingest.errors import BadRequest, LimitReached, PdfRefused, StoreUnavailable, UserError
from ingest.originals import Originals, Record
from ingest.pipeline import Cut, Stage, Tools, ingest, read_and_cut
from ingest.store import Store
from ingest.types import Document

log = logging.getLogger(__name__)

State = Literal["queued", "reading", "embedding", "done", "unchanged", "refused", "password", "failed"]
"""`refused`: the file cannot be indexed. `password`: it waits for one. `failed`: something else broke
(Qdrant down, a model missing); the file is kept and can be tried again."""
OPEN: tuple[State, ...] = ("queued", "reading", "embedding")
"""States that still need work."""
RETRIABLE: tuple[State, ...] = ("password", "failed")
"""States in which the file is kept and can be queued again."""
MAX_ATTEMPTS = 3
"""A file during which the whole process died this often is refused."""
KEPT_FINISHED = 1000
"""So many uploads of an owner that ended well or were refused stay on the list; older ones leave it."""

_SCHEMA = """
create table if not exists jobs (
    id integer primary key autoincrement,
    owner text not null,
    doc_id text not null,
    source text not null,
    size integer not null,
    state text not null,
    message text not null default '',
    attempts integer not null default 0,
    added real not null,
    again integer not null default 0 -- 1: was in the library before; 2: and cannot be read any more
)
"""
_COLUMNS = "id, owner, doc_id, source, size, state, message, attempts, added, again"


@dataclass(frozen=True, slots=True)
class Job:
    """One uploaded file on its way into the index.

    `done` of `total` counts pages while reading and chunks while embedding; `seconds_left` is an estimate
    of the current stage, None while there is nothing to estimate from. `added` is Unix time. A file that is read
    `again` was in the library before: it is kept whatever becomes of the job.
    """

    id: int
    owner: str
    doc_id: str
    source: str
    size: int
    state: State
    message: str
    attempts: int
    added: float
    again: bool = False
    done: int = 0
    total: int = 0
    seconds_left: float | None = None

    @property
    def open(self) -> bool:
        """True while there is work to do."""
        return self.state in OPEN


@dataclass(frozen=True, slots=True)
class _Live:
    stage: Stage
    done: int
    total: int
    since: float


class UploadQueue:
    """Takes uploads at any time from any thread; `start` works them off in the background."""

    def __init__(
        self,
        path: Path,
        originals: Originals,
        tools: Callable[[], Tools],
        *,
        store: Callable[[], Store],
        max_bytes: int,
        max_open: int | None = None,
        max_waiting: int | None = None,
    ) -> None:
        """`tools` is called when there is work, so that models load no earlier than that.

        `max_open` is how many uploads one owner may have that wait for work or for the owner, `max_waiting` how
        many may wait for work in all; None: any number.
        """
        self._originals = originals
        self._tools = tools
        self._store = store
        self._max_bytes = max_bytes
        self._max_open = max_open
        self._max_waiting = max_waiting
        self._lock = threading.RLock()
        self.storing = threading.Lock()
        """Held while a file is on the disk and not yet on the list."""
        self._live: dict[int, _Live] = {}
        self._passwords: dict[int, str] = {}
        self._ahead = ReadAhead()
        self._claimed: set[int] = set()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._path = path
        with self._told():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._db.execute("pragma journal_mode=wal")
            self._db.execute("pragma synchronous=full")
            self._db.execute(_SCHEMA)
            if "again" not in {row[1] for row in self._db.execute("pragma table_info(jobs)")}:
                self._db.execute("alter table jobs add column again integer not null default 0")

    def add(self, source: str, data: bytes, *, owner: str, password: str = "") -> Job:
        """Store an upload and queue it; a file that cannot be a PDF comes back refused, with the reason.

        Raises StoreUnavailable when it cannot be stored, LimitReached when too much waits already.
        """
        source = clean_name(source)
        problem = self._problem(data)
        if problem:
            return self._insert(owner, "", source, len(data), "refused", problem)
        self.check_room(1, owner=owner)
        with self.storing:
            doc_id = self._originals.save(data, owner=owner, source=source)
            with self._lock:
                waiting = [job for job in self.jobs(owner=owner) if job.doc_id == doc_id and job.open]
                job = waiting[0] if waiting else self._insert(owner, doc_id, source, len(data), "queued", "")
                if password:
                    self._passwords[job.id] = password
        self._wake.set()
        return job

    def check_room(self, uploads: int, *, owner: str) -> None:
        """Raise LimitReached where so many more uploads of an owner are too many."""
        own = self._count("where owner = ? and state in (?, ?, ?, ?, ?)", owner, *OPEN, *RETRIABLE)
        if self._max_open is not None and uploads > self._max_open:
            raise LimitReached(
                f"These are {uploads} files, and of yours at most {self._max_open} may wait: upload fewer at once."
                " The operator can raise MAX_OPEN_UPLOADS."
            )
        if self._max_open is not None and own + uploads > self._max_open:
            raise LimitReached(
                f"{own} of your uploads wait already, and at most {self._max_open} may: upload these when some "
                "are done or removed. The operator can raise MAX_OPEN_UPLOADS."
            )
        every = self._count("where state in (?, ?, ?)", *OPEN)
        if self._max_waiting is not None and every + uploads > self._max_waiting:
            raise LimitReached(
                f"The queue is full: at most {self._max_waiting} uploads may wait for work. Try again later; the "
                "operator can raise MAX_QUEUE."
            )

    def retry(self, job_id: int, *, owner: str, password: str = "") -> Job:
        """Queue a job again that failed or waits for a password. Raises BadRequest for any other."""
        with self._lock:
            job = self.job(job_id, owner=owner)
            if job.state not in RETRIABLE:
                raise BadRequest(f"{job.source} is {job.state}: there is nothing to try again.")
            if password:
                self._passwords[job_id] = password
            self._set(job_id, "queued", "")
        self._wake.set()
        return self.job(job_id, owner=owner)

    def dismiss(self, job_id: int, *, owner: str) -> None:
        """Take a job off the list; a file that could have been tried again is deleted with it."""
        job = self.job(job_id, owner=owner)
        if job.open:
            raise BadRequest(f"{job.source} is still being worked on.")
        if job.state in RETRIABLE and not self._wanted(job):
            # said before it is done: were the process killed in between, the next one would finish it
            self._set(job_id, "refused", "Removed from the list.")
            self._originals.remove(job.doc_id, owner=owner)
        with self._lock:
            self._execute("delete from jobs where id = ?", job_id)
            self._passwords.pop(job_id, None)

    def job(self, job_id: int, *, owner: str) -> Job:
        """One job as it stands. Raises BadRequest where the owner has none of that number."""
        for job in self.jobs(owner=owner):
            if job.id == job_id:
                return job
        raise BadRequest(f"There is no upload number {job_id}.")

    def jobs(self, *, owner: str) -> list[Job]:
        """All jobs of an owner, oldest first, with live progress."""
        return [self._with_progress(job) for job in self._select("where owner = ? order by id", owner)]

    def run_pending(self, on_change: Callable[[Job], None] = lambda _: None) -> None:
        """Work off everything that is queued, in this thread, oldest first."""
        while not self._stopping:
            queued = self._select("where state = 'queued' order by id limit 1")
            if not queued:
                return
            self._work(queued[0], on_change)

    def run(self, job_id: int, on_change: Callable[[Job], None] = lambda _: None) -> None:
        """Work off one job in this thread, or wait while another process does."""
        while not self._stopping:
            (job,) = self._select("where id = ?", job_id)
            if job.state == "queued":
                self._work(job, on_change)
            elif job.open:
                time.sleep(0.2)
            else:
                return

    def start(self) -> None:
        """Work in a background thread from now on, beginning with what an earlier process left unfinished."""
        self.free()
        self._thread = threading.Thread(target=self._loop, name="ingest", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop after the current step and close the file; what is unfinished is resumed at the next start."""
        self._stopping = True
        self._wake.set()
        if self._thread:
            self._thread.join(timeout=30)
        in_vain = self._ahead.close()
        if in_vain is not None:
            with suppress(StoreUnavailable):  # it then counts as one of a few tries, no more
                self._attempt(in_vain, -1)
        self._db.close()

    def free(self) -> None:
        """Queue what was being worked on by a process that is gone."""
        with self._lock:
            for job in self._select("where state in ('reading', 'embedding')"):
                if job.id not in self._claimed:
                    self._set(job.id, "queued", "")

    def owners(self) -> set[str]:
        """Everybody who has uploads on the list."""
        with self._lock, self._told(), closing(self._db.execute("select distinct owner from jobs")) as cursor:
            return {row[0] for row in cursor.fetchall()}

    def latest(self, *, owner: str) -> dict[str, Job]:
        """The newest job of each document of an owner, by the document's id."""
        return {
            job.doc_id: job for job in self._select("where owner = ? and doc_id != '' order by id", owner)
        }

    def read_again(self, records: Iterable[tuple[str, Record]], *, password: str = "") -> list[Job]:
        """Queue kept files to be read again, (id, record) each: all or, if the process is killed, none."""
        with self._lock, self._told():
            self._db.execute("begin immediate")
            try:
                jobs = [self._queue_again(doc_id, record) for doc_id, record in records]
                self._db.execute("commit")
            except BaseException:
                with suppress(sqlite3.Error):  # what went wrong first is told
                    self._db.execute("rollback")
                raise
            if password:
                self._passwords |= {job.id: password for job in jobs}
        self._wake.set()
        return jobs

    def being_read_again(self) -> list[Job]:
        """What `read_again` queued, of every owner: not done yet, or failed for a reason outside the file."""
        return self._select("where again = 1 and state in (?, ?, ?, 'failed') order by id", *OPEN)

    def _queue_again(self, doc_id: str, record: Record) -> Job:
        """Queue one file; a job that is open, failed or waiting for a password is used again."""
        job = self.latest(owner=record.owner).get(doc_id)
        if job is None or not (job.open or job.state in RETRIABLE):
            size = self._originals.path(doc_id, owner=record.owner).stat().st_size
            job = self._insert(record.owner, doc_id, record.source, size, "queued", "")
        elif not job.open:
            self._set(job.id, "queued", "")
        self._execute("update jobs set again = 1 where id = ?", job.id)
        return self._select("where id = ?", job.id)[0]

    def _loop(self) -> None:
        while not self._stopping:
            try:
                self._take_back()
                self.run_pending()
            except StoreUnavailable as error:  # a full disk; the next round tries again
                log.warning("%s", error)
            self._wake.wait(timeout=5)
            self._wake.clear()

    def _take_back(self) -> None:
        """Queue again what this thread worked on when the disk did not take the result."""
        for job_id in sorted(self._claimed):
            self._attempt(job_id, -1)
            self._set(job_id, "queued", "")
            self._claimed.discard(job_id)

    def _work(self, job: Job, on_change: Callable[[Job], None]) -> None:
        if not self._claim(job.id):
            return  # another process was faster
        self._try(job, on_change)
        self._ahead.drop(job.id)
        self._claimed.discard(job.id)

    def _try(self, job: Job, on_change: Callable[[Job], None]) -> None:
        """Work on a claimed job; raises StoreUnavailable where its end cannot be written down."""
        if job.attempts >= MAX_ATTEMPTS:
            reason = f"The process ended {MAX_ATTEMPTS} times while it read this file, so it is left out."
            self._end(job, "refused", reason, on_change)
            return
        if self._ahead.job_id != job.id:  # else it has been counted
            self._attempt(job.id, +1)
        try:
            state, message = self._ingest(job, on_change)
        except _Stopped:
            self._postpone(job)
            return
        except PdfRefused as refused:
            state, message = "password" if refused.kind == "password" else "refused", str(refused)
        except UserError as error:
            state, message = "failed", str(error)
        except Exception as error:  # one file's surprise must not stop the others
            if self._stopping:  # the sandbox was closed under it
                self._postpone(job)
                return
            log.exception("Unexpected error while ingesting document %s", job.doc_id)
            state, message = "failed", f"Unexpected {type(error).__name__}; the log has the details."
        self._end(job, state, message, on_change)

    def _end(self, job: Job, state: State, message: str, on_change: Callable[[Job], None]) -> None:
        if state == "refused" and job.again:
            state = "failed"  # it was in the library: its file is not thrown away
            self._execute("update jobs set again = 2 where id = ?", job.id)
        with self._lock:
            self._live.pop(job.id, None)
            self._passwords.pop(job.id, None)
            self._set(job.id, state, message)
            if state != "refused":
                self._execute("update jobs set attempts = 0 where id = ?", job.id)
        if state == "refused":
            self._originals.remove(job.doc_id, owner=job.owner)
        on_change(self.job(job.id, owner=job.owner))

    def _postpone(self, job: Job) -> None:
        self._attempt(job.id, -1)
        self._set(job.id, "queued", "")

    def _claim(self, job_id: int) -> bool:
        with self._lock, self._told():
            claimed = self._db.execute(
                "update jobs set state = 'reading' where id = ? and state = 'queued'", (job_id,)
            )
            if claimed.rowcount == 1:
                self._claimed.add(job_id)
            return claimed.rowcount == 1

    def _wanted(self, job: Job) -> bool:
        """True where another upload, or the library, rests on the same file."""
        others = self._select("where owner = ? and doc_id = ? and id != ?", job.owner, job.doc_id, job.id)
        if any(other.open or other.state in RETRIABLE for other in others):
            return True
        return any(document.id == job.doc_id for document in self._store().documents(owner=job.owner))

    def _attempt(self, job_id: int, step: int) -> None:
        self._execute("update jobs set attempts = attempts + ? where id = ?", step, job_id)

    def _ingest(self, job: Job, on_change: Callable[[Job], None]) -> tuple[State, str]:
        tools = self._tools()
        known = {document.id: document for document in tools.store.documents(owner=job.owner)}
        if job.doc_id in known and not job.again:
            return "unchanged", f"Already in the library as {known[job.doc_id].source}: nothing changed."

        def on_stage(stage: Stage, done: int, total: int) -> None:
            if self._reached(job, stage, done, total):
                self._set(job.id, stage, "")
                if stage == "embedding":
                    with suppress(StoreUnavailable):  # whatever it is will be told of a file whose turn it is
                        self._read_next(job, tools)
            on_change(self.job(job.id, owner=job.owner))

        path = self._originals.path(job.doc_id, owner=job.owner)
        if not path.exists():
            raise StoreUnavailable(f"Its file {path} is gone: remove it from this list and upload it again.")
        password = self._passwords.get(job.id, "")
        document = ingest(
            path,
            tools,
            doc_id=job.doc_id,
            source=job.source,
            owner=job.owner,
            added=self._recorded(job).added,
            password=password,
            cut=self._ahead.take(job.id, password),
            on_stage=on_stage,
        )
        return "done", _summary(document)

    def _reached(self, job: Job, stage: Stage, done: int, total: int) -> bool:
        """Note how far a job is; True where the stage is a new one. Raises _Stopped when the queue closes."""
        if self._stopping:
            raise _Stopped
        before = self._live.get(job.id)
        begins = before is None or before.stage != stage
        since = time.monotonic() if before is None or begins else before.since
        self._live[job.id] = _Live(stage, done, total, since)
        return begins

    def _read_next(self, present: Job, tools: Tools) -> None:
        """Begin to read what comes after this job.

        The try is counted first, because the process may die of it; the file is then not read ahead again, or the
        next death would count against the one that was embedded meanwhile.
        """
        following = self._select("where state = 'queued' and id != ? order by id limit 1", present.id)
        if not following or following[0].attempts:
            return
        job = following[0]
        path = self._originals.path(job.doc_id, owner=job.owner)
        password = self._passwords.get(job.id, "")

        def on_stage(stage: Stage, done: int, total: int) -> None:
            self._reached(job, stage, done, total)

        def read() -> Cut:
            return read_and_cut(
                path, tools, doc_id=job.doc_id, source=job.source, password=password, on_stage=on_stage
            )

        self._attempt(job.id, +1)
        if not self._ahead.begin(job.id, password, read):
            self._attempt(job.id, -1)

    def _recorded(self, job: Job) -> Record:
        """The record of a job's file, made to say what the job says."""
        record = self._originals.record(job.doc_id, owner=job.owner)
        if record is None or record.source != job.source:
            record = Record(job.owner, job.source, utc(job.added))
            self._originals.write_record(job.doc_id, record)
        return record

    def _problem(self, data: bytes) -> str:
        if not data:
            return "The file is empty (0 bytes)."
        if len(data) > self._max_bytes:
            limit = self._max_bytes / 1e6
            return (
                f"The file has {len(data) / 1e6:.1f} MB, more than the {limit:.0f} MB allowed. "
                "Split it, or raise MAX_UPLOAD_MB."
            )
        if b"%PDF-" not in data[:1024]:
            return "This is not a PDF: it does not begin with %PDF-. Export or print it to PDF first."
        return ""

    def _with_progress(self, job: Job) -> Job:
        live = self._live.get(job.id)
        if live is None or not job.open:
            return job
        elapsed = time.monotonic() - live.since
        left = elapsed / live.done * (live.total - live.done) if live.done and elapsed > 0.5 else None
        return replace(job, done=live.done, total=live.total, seconds_left=left)

    def _insert(self, owner: str, doc_id: str, source: str, size: int, state: State, message: str) -> Job:
        with self._lock, self._told():
            cursor = self._db.execute(
                "insert into jobs (owner, doc_id, source, size, state, message, added) values (?,?,?,?,?,?,?)",
                (owner, doc_id, source, size, state, message, time.time()),
            )
            self._db.execute(
                "delete from jobs where owner = ? and state in ('done', 'unchanged', 'refused') and id <= "
                "(select id from jobs where owner = ? order by id desc limit 1 offset ?)",
                (owner, owner, KEPT_FINISHED),
            )
            return self._select("where id = ?", cursor.lastrowid)[0]

    def _set(self, job_id: int, state: State, message: str) -> None:
        self._execute("update jobs set state = ?, message = ? where id = ?", state, message, job_id)

    def _execute(self, statement: str, *values: object) -> None:
        with self._lock, self._told():
            self._db.execute(statement, values)

    def _count(self, clause: str, *values: object) -> int:
        statement = f"select count(*) from jobs {clause}"  # noqa: S608 - as in _select
        with self._lock, self._told(), closing(self._db.execute(statement, values)) as cursor:
            return int(cursor.fetchone()[0])

    def _select(self, clause: str, *values: object) -> list[Job]:
        statement = f"select {_COLUMNS} from jobs {clause}"  # noqa: S608 - `clause` is always a constant of this module
        with self._lock, self._told(), closing(self._db.execute(statement, values)) as cursor:
            return [replace(Job(*row[:-1]), again=bool(row[-1])) for row in cursor.fetchall()]

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say what keeps the queue from being read or written."""
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise StoreUnavailable(
                f"The upload queue {self._path} cannot be used: {error}. Free some space or make the data folder "
                "writable, then try again."
            ) from error


class _Stopped(UserError):
    """The queue closes; the job stays open and is resumed."""


def clean_name(name: str) -> str:
    """A file name fit to be shown: no folders, no control or direction characters, at most 120 long."""
    base = PurePath(name.replace("\\", "/")).name
    shown = "".join(character for character in base if character.isprintable()).strip()
    return shown[-120:] or "unnamed.pdf"


def utc(seconds: float) -> str:
    """Unix time as ISO 8601 in UTC, whole seconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _summary(document: Document) -> str:
    return " ".join([f"{document.pages} pages, {document.chunks} chunks.", *document.warnings])
