"""Runs the PDF reader in worker processes with a time and a memory limit.

A worker is a fresh interpreter with pipes of its own: it reads calls from its stdin and answers on its
stdout, so a call that crashes, hangs or grows takes no other call with it. The workers are not
multiprocessing's, because those import the parent's `__main__`, which under Streamlit is a page.
Of the parent's environment they get what Python needs and nothing else: no keys, no tokens.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, LifoQueue, SimpleQueue
from typing import IO, Any, Self, TypeVar, TypeVarTuple, cast

from ingest.errors import PdfRefused
from ingest.pdf import (
    Outline,
    Section,
    has_words,
    inspect,
    load_parsers,
    read_outline,
    read_pages,
    reread_pages,
    settle_hyphens,
)
from ingest.types import Page

CALLS_PER_WORKER = 500
"""A worker is replaced after this many, so that what a parser leaks never adds up to the memory limit."""

_COMMAND = (sys.executable, "-P", "-c", "from ingest.sandbox import serve; serve()")
_READY = b"ready\n"
_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "LANG", "LC_ALL", "TMPDIR")

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Pages:
    """What a PDF holds: its title or "", its sections and pages in reading order, and what to warn of."""

    title: str
    sections: tuple[Section, ...]
    pages: tuple[Page, ...]
    warnings: tuple[str, ...]


def read_document(
    sandbox: Sandbox,
    path: Path,
    password: str,
    *,
    max_pages: int,
    on_progress: Callable[[int, int], None] = lambda *_: None,
    slice_pages: int = 25,
) -> Pages:
    """Read a whole PDF; `on_progress` is told (pages read, pages), first with 0 read.

    Raises PdfRefused, of whichever kind applies.
    """
    count = sandbox.call(inspect, path, password)
    if count > max_pages:
        message = (
            f"The file has {count:,} pages, and at most {max_pages:,} are read. Split it or raise MAX_PAGES."
        )
        raise PdfRefused("too_many_pages", message)
    on_progress(0, count)
    pages: list[Page] = []
    for first in range(1, count + 1, slice_pages):
        last = min(first + slice_pages - 1, count)
        pages += sandbox.call(read_pages, path, first, last, password)
        on_progress(last, count)
    pages = _reread_wordless(sandbox, path, password, pages, slice_pages)
    wordless = sum(not has_words(page.text) for page in pages)
    if wordless == count:
        raise PdfRefused("no_text", _no_text(count))
    outline = _outline(sandbox, path, password)
    warnings = (outline.warning, _wordless_warning(wordless, count))
    return Pages(outline.title, outline.sections, settle_hyphens(pages), tuple(filter(None, warnings)))


def _reread_wordless(
    sandbox: Sandbox, path: Path, password: str, pages: list[Page], slice_pages: int
) -> list[Page]:
    """Give pages without words to the second parser, until it fails on this file."""
    numbers = [page.number for page in pages if not has_words(page.text)]
    reread: dict[int, Page] = {}
    try:
        for start in range(0, len(numbers), slice_pages):
            some = numbers[start : start + slice_pages]
            reread |= {page.number: page for page in sandbox.call(reread_pages, path, some, password)}
    except PdfRefused:
        pass  # what pdfium read is enough; the pages left without words are warned of
    return [reread.get(page.number, page) for page in pages]


def _outline(sandbox: Sandbox, path: Path, password: str) -> Outline:
    try:
        return sandbox.call(read_outline, path, password)
    except PdfRefused as problem:
        return Outline("", (), 0, f"The file's title and outline are left out: {problem}")


def _no_text(count: int) -> str:
    pages = "The only page has" if count == 1 else f"All {count:,} pages have"
    return f"{pages} no text (scanned?). Run OCR on the file, for example with ocrmypdf, and upload it again."


def _wordless_warning(wordless: int, count: int) -> str:
    if not wordless:
        return ""
    if wordless == 1:
        return f"1 of {count:,} pages has no text (scanned?): it cannot be searched."
    return f"{wordless:,} of {count:,} pages have no text (scanned?): they cannot be searched."


class Sandbox:
    """Workers that take one call each at a time, from any thread.

    `seconds` is what a call may take, `memory_mb` the address space of a worker.
    """

    def __init__(self, *, workers: int = 1, seconds: float = 30.0, memory_mb: int = 1500) -> None:
        self._seconds = seconds
        self._closed = False
        self._workers = tuple(_Worker(memory_mb) for _ in range(workers))
        self._idle: LifoQueue[_Worker] = LifoQueue()
        self._release(self._workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, function: Callable[[*Arguments], Result], *args: *Arguments) -> Result:
        """Run `function(*args)` in the next idle worker; both, and what comes back, must be picklable.

        Raises PdfRefused (timed_out, out_of_memory or crashed), or whatever the function raised.
        """
        worker = self._idle.get()
        try:
            self._check_open()
            answer: Result = worker.ask(function, args, self._seconds)
            return answer
        except PdfRefused:
            self._check_open()  # else a worker that `close` killed would pass for one that crashed
            raise
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """Stop all workers; a call that is running or waiting raises RuntimeError."""
        self._closed = True
        idle: list[_Worker] = []
        while len(idle) < len(self._workers):
            for worker in self._workers:
                worker.kill()  # again and again: one may only now have been started
            with suppress(Empty):
                idle.append(self._idle.get(timeout=0.1))
        for worker in idle:
            worker.stop()
        self._release(idle)

    def _release(self, workers: Iterable[_Worker]) -> None:
        for worker in workers:
            self._idle.put(worker)

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("The sandbox is closed.")


class _Worker:
    """One child process: started by the first call, and by the next one after it was stopped.

    Only `kill` may be called while another thread waits in `ask`.
    """

    def __init__(self, memory_mb: int) -> None:
        self._memory_mb = memory_mb
        self._process: subprocess.Popen[bytes] | None = None
        self._calls = 0

    def ask(self, function: Callable[..., object], args: tuple[object, ...], seconds: float) -> Any:
        """Run `function(*args)` in the child; the child is stopped when it failed in any but a usual way."""
        call = pickle.dumps((function, args))
        process = self._running()
        expired = threading.Event()
        try:
            with _time_limit(process, seconds, expired):
                succeeded, answer = _exchange(process, call)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            self.stop()
            raise self._timed_out(seconds) if expired.is_set() else self._crashed() from error
        except BaseException:
            self.stop()  # the rest of an answer may be in the pipe
            raise
        if expired.is_set() or isinstance(answer, MemoryError):
            self.stop()
        if succeeded:
            return answer
        raise self._out_of_memory() if isinstance(answer, MemoryError) else answer

    def kill(self) -> None:
        """End the child at once; the thread that waits in `ask` sees it crash."""
        if self._process is not None:
            self._process.kill()

    def stop(self) -> None:
        """End the child and close its pipes."""
        if self._process is None:
            return
        process, self._process = self._process, None
        _end(process)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None or self._calls >= CALLS_PER_WORKER:
            self.stop()
            self._process = _start(self._memory_mb)
            self._calls = 0
        self._calls += 1
        return self._process

    def _timed_out(self, seconds: float) -> PdfRefused:
        message = f"Reading it takes longer than {seconds:g} seconds. Split the file or raise PARSE_SECONDS."
        return PdfRefused("timed_out", message)

    def _out_of_memory(self) -> PdfRefused:
        message = (
            f"Reading it takes more than {self._memory_mb:,} MB. Split the file or raise PARSE_MEMORY_MB."
        )
        return PdfRefused("out_of_memory", message)

    def _crashed(self) -> PdfRefused:
        message = (
            f"The PDF parser crashed: the file is damaged, or takes more than {self._memory_mb:,} MB "
            "(PARSE_MEMORY_MB). Open it in a PDF viewer, save it as a new PDF and upload that one."
        )
        return PdfRefused("crashed", message)


def _start(memory_mb: int) -> subprocess.Popen[bytes]:
    """Start a child and wait until it can take calls."""
    environment = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(str(Path(folder).absolute()) for folder in sys.path)
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and code
        [*_COMMAND, str(memory_mb)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    _, answers = _pipes(process)
    if answers.readline() != _READY:
        _end(process)
        raise RuntimeError("The PDF worker does not start; what it printed says why.")
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in _pipes(process):
        with suppress(OSError):  # a call that was never read cannot be flushed
            pipe.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in _pipes(process):
        with suppress(OSError):  # a call that was never read cannot be flushed
            pipe.close()


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    return cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)


def _exchange(process: subprocess.Popen[bytes], call: bytes) -> tuple[bool, Any]:
    calls, answers = _pipes(process)
    pickle.dump(call, calls)
    calls.flush()
    succeeded, answer = pickle.load(answers)  # noqa: S301 - from our own child
    return succeeded, answer


@contextmanager
def _time_limit(process: subprocess.Popen[bytes], seconds: float, expired: threading.Event) -> Iterator[None]:
    def expire() -> None:
        expired.set()
        process.kill()

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def serve() -> None:
    """Be a worker: answer the calls on stdin on stdout; the memory limit in MB is the argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then stops its workers
    calls, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what a parser prints must not end up between the answers
    waiting: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_receive, args=(calls, waiting), daemon=True).start()
    load_parsers()
    _limit_memory(int(sys.argv[1]))
    answers.write(_READY)
    answers.flush()
    while True:
        answers.write(_answer(waiting.get()))
        answers.flush()


def _receive(calls: IO[bytes], waiting: SimpleQueue[bytes]) -> None:
    """Take calls until stdin ends: then the parent is gone, and no call may outlive it."""
    try:
        while True:
            waiting.put(pickle.load(calls))  # noqa: S301 - from our own parent
    except EOFError:
        os._exit(0)


def _answer(call: bytes) -> bytes:
    try:
        function, args = pickle.loads(call)  # noqa: S301 - from our own parent
        return pickle.dumps((True, function(*args)))
    except Exception as error:  # noqa: BLE001 - it is raised in the parent
        return _failure(error)


def _failure(error: Exception) -> bytes:
    """Pickle the error with its traceback as a note, or its text where it does not survive pickling."""
    if not isinstance(error, PdfRefused | MemoryError):
        error.add_note(traceback.format_exc())
    try:
        answer = pickle.dumps((False, error))
        pickle.loads(answer)  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - any error may come from another library's pickling
        return pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))
    return answer


def _limit_memory(memory_mb: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    wanted = memory_mb * 2**20
    limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
