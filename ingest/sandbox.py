"""Runs the PDF reader in worker processes with a time and a memory limit.

pdfium is C++ and uploads are hostile: a crash, a hang or a flood of memory costs one file, not the app.

A spawned worker imports the main script of its parent. Under Streamlit that is app_pages/main.py, whose guard
(`if __name__ == "__main__"`) keeps it from running there.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as TimedOut
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Self, TypeVar

from ingest.errors import PdfRefused
from ingest.pdf import (
    Outline,
    Section,
    has_words,
    inspect,
    is_cut_off,
    load_parsers,
    read_outline,
    read_pages,
    reread_pages,
    settle_hyphens,
)
from ingest.types import Page

if TYPE_CHECKING:
    from pebble import ProcessPool

CALLS_PER_WORKER = 500
"""A worker is replaced after this many, so that what a parser leaks never adds up to the memory limit."""
CALLS_PER_FILE = 10
"""A file may take as long as so many calls that each take all of their time."""
MAX_CHARS = 20_000_000
"""Of a whole file: some 7,000 dense pages. Its pages, chunks and vectors stand in the memory of the app."""

_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "LANG", "LC_ALL", "TMPDIR")
"""What a worker keeps of its environment: no keys, no tokens."""

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
    deadline = monotonic() + CALLS_PER_FILE * sandbox.seconds
    count = sandbox.call(inspect, path, password)
    if count > max_pages:
        message = (
            f"The file has {count:,} pages, and at most {max_pages:,} are read. Split it or raise MAX_PAGES."
        )
        raise PdfRefused("too_many_pages", message)
    on_progress(0, count)
    pages: list[Page] = []
    for first in range(1, count + 1, slice_pages):
        if monotonic() > deadline:
            raise PdfRefused("timed_out", _too_slow(CALLS_PER_FILE * sandbox.seconds))
        last = min(first + slice_pages - 1, count)
        pages += sandbox.call(read_pages, path, first, last, password)
        _refuse_flood(pages)
        on_progress(last, count)
    pages = _reread_wordless(sandbox, path, password, pages, slice_pages, deadline)
    _refuse_flood(pages)
    wordless = sum(not has_words(page.text) for page in pages)
    if wordless == count:
        raise PdfRefused("no_text", _no_text(count))
    outline = _outline(sandbox, path, password)
    warnings = (outline.warning, _wordless_warning(wordless, count), *map(_cut_off_warning, pages))
    return Pages(outline.title, outline.sections, settle_hyphens(pages), tuple(filter(None, warnings)))


def _refuse_flood(pages: list[Page]) -> None:
    """Raise PdfRefused where the pages so far have more text than the app keeps in memory."""
    if sum(len(page.text) for page in pages) > MAX_CHARS:
        message = f"The file has more than {MAX_CHARS:,} characters of text. Split it and upload its parts."
        raise PdfRefused("out_of_memory", message)


def _reread_wordless(
    sandbox: Sandbox, path: Path, password: str, pages: list[Page], slice_pages: int, deadline: float
) -> list[Page]:
    """Give pages without words to the second parser, until it fails on this file or its time is over."""
    numbers = [page.number for page in pages if not has_words(page.text)]
    reread: dict[int, Page] = {}
    try:
        for start in range(0, len(numbers), slice_pages):
            if monotonic() > deadline:
                break
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


def _too_slow(seconds: float) -> str:
    return f"Reading it takes longer than {seconds:g} seconds. Split the file or raise PARSE_SECONDS."


def _cut_off_warning(page: Page) -> str:
    if not is_cut_off(page.text):
        return ""
    return (
        f"Page {page.number:,} has too much text for one page: what comes after the first part is left out."
    )


def _wordless_warning(wordless: int, count: int) -> str:
    if not wordless:
        return ""
    if wordless == 1:
        return f"1 of {count:,} pages has no text (scanned?): it cannot be searched."
    return f"{wordless:,} of {count:,} pages have no text (scanned?): they cannot be searched."


class Sandbox:
    """Workers that take one call each at a time, from any thread.

    `seconds` is what a call may take, `memory_mb` what a worker's address space may grow to.
    """

    def __init__(self, *, workers: int = 1, seconds: float = 30.0, memory_mb: int = 1500) -> None:
        self._workers = workers
        self.seconds = seconds
        self._memory_mb = memory_mb
        self._lock = threading.Lock()
        self._closed = False
        self._pool: ProcessPool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, function: Callable[..., Result], *args: object, seconds: float | None = None) -> Result:
        """Run `function(*args)` in the next idle worker; both, and what comes back, must be picklable.

        Raises PdfRefused (timed_out, out_of_memory or crashed), or whatever the function raised.
        """
        from pebble import ProcessExpired

        limit = self.seconds if seconds is None else seconds
        try:
            result: Result = self._run(function, args, limit)
        except TimedOut as error:
            raise PdfRefused("timed_out", _too_slow(limit)) from error
        except MemoryError as error:
            raise PdfRefused(
                "out_of_memory",
                f"Reading it takes more than {self._memory_mb:,} MB. Split the file or raise PARSE_MEMORY_MB.",
            ) from error
        except ProcessExpired as error:
            raise PdfRefused(
                "crashed",
                f"The PDF parser crashed: the file is damaged, or takes more than {self._memory_mb:,} MB "
                "(PARSE_MEMORY_MB). Open it in a PDF viewer, save it as a new PDF and upload that one.",
            ) from error
        return result

    def close(self) -> None:
        """Stop all workers; a call that is running or waiting raises RuntimeError."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
        if pool:
            pool.stop()  # type: ignore[no-untyped-call]
            pool.join()

    def _run(self, function: Callable[..., Result], args: tuple[object, ...], seconds: float) -> Result:
        # a pool gives up for good when a worker is killed while it is idle, by the out-of-memory killer for
        # example: that is no fault of this call, which gets a second pool
        for last in (False, True):
            try:
                result: Result = self._open_pool().schedule(function, args=args, timeout=seconds).result()
                return result
            except (BrokenProcessPool, CancelledError) as error:
                if self._closed:
                    raise RuntimeError("The sandbox is closed.") from error
                if last:
                    raise RuntimeError("The PDF worker does not start; the log says why.") from error
        raise AssertionError  # the loop returns or raises

    def _open_pool(self) -> ProcessPool:
        with self._lock:
            if self._closed:
                raise RuntimeError("The sandbox is closed.")
            if self._pool is None or not self._pool.active:
                self._pool = self._start()
            return self._pool

    def _start(self) -> ProcessPool:
        from pebble import ProcessPool

        return ProcessPool(
            max_workers=self._workers,
            max_tasks=CALLS_PER_WORKER,
            # spawned, not forked: a worker must not begin with the app's memory, threads and locks
            context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(self._memory_mb,),
        )


def _begin(memory_mb: int) -> None:
    """Make a fresh process a worker: the parsers loaded, no secrets, no output, bounded memory."""
    for name in set(os.environ) - set(_VARIABLES):
        del os.environ[name]
    os.dup2(2, 1)  # what a parser prints is no output of the command that started it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    load_parsers()
    _limit_memory(memory_mb)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _limit_memory(memory_mb: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    wanted = memory_mb * 2**20
    limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    with suppress(ValueError):  # macOS refuses a limit of address space: its workers have none
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
