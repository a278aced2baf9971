"""The PDF parser behind a wall: worker processes with a time limit and a memory limit for each step.

pdfium is C++ and uploads are hostile: a crash, a hang or a flood of memory costs one file, not the app.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as TimedOut
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, TypeVar

from ingest.errors import PdfRefused
from ingest.pdf import Section, has_words, inspect, read_outline, read_pages, reread_pages, settle_hyphens
from ingest.types import Page

P = ParamSpec("P")
T = TypeVar("T")

SLICE_PAGES = 25
"""Pages read in one step: often enough for progress, rarely enough that opening the file does not count."""


@dataclass(frozen=True, slots=True)
class Pages:
    """A whole PDF as text; `sections` are its outline in reading order."""

    title: str
    sections: tuple[Section, ...]
    pages: tuple[Page, ...]
    warnings: tuple[str, ...]


class Sandbox:
    """Runs functions of `ingest.pdf` in worker processes; one that misbehaves is ended and replaced."""

    def __init__(self, *, seconds: float, memory_mb: int, workers: int = 1) -> None:
        """`seconds` is the wall time of one call, `memory_mb` the address space of one worker."""
        from pebble import ProcessPool

        self._seconds = seconds
        self._memory_mb = memory_mb
        # spawned, not forked: a worker must not begin with the app's memory, threads and locks
        self._pool = ProcessPool(
            max_workers=workers,
            context=multiprocessing.get_context("spawn"),
            initializer=_limit_memory,
            initargs=(memory_mb,),
        )

    def call(self, function: Callable[P, T], *args: P.args, **_: P.kwargs) -> T:
        """Run a function in a worker. Raises what it raises, or PdfRefused when its worker had to end."""
        from pebble import ProcessExpired

        future = self._pool.schedule(function, args=args, timeout=self._seconds)
        try:
            result: T = future.result()
        except TimedOut as error:
            raise PdfRefused(
                "timed_out",
                f"Reading took longer than {self._seconds:g} seconds at one place, so it was stopped. "
                "Save the file anew, or split it, and upload it again; PARSE_SECONDS sets the limit.",
            ) from error
        except MemoryError as error:
            raise PdfRefused(
                "out_of_memory",
                f"Reading needed more than {self._memory_mb} MB of memory, so it was stopped. "
                "Split the file and upload the parts; PARSE_MEMORY_MB sets the limit.",
            ) from error
        except ProcessExpired as error:
            raise PdfRefused(
                "crashed",
                "The PDF parser crashed on this file, so it is left out; other files are not affected. "
                "Open it in a PDF viewer, save it as a new PDF and upload that one.",
            ) from error
        return result

    def close(self) -> None:
        """End the workers, also those at work."""
        self._pool.stop()
        self._pool.join()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_document(
    sandbox: Sandbox,
    path: Path,
    password: str,
    *,
    max_pages: int,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> Pages:
    """Read a PDF slice by slice; `on_progress` is called with (pages read, pages).

    Raises PdfRefused, for the reasons of `inspect` and of the sandbox, for too many pages, and where no page
    has any text.
    """
    count = sandbox.call(inspect, path, password)
    if count > max_pages:
        raise PdfRefused(
            "too_many_pages",
            f"The file has {count} pages, more than the {max_pages} allowed. Split it, or raise MAX_PAGES.",
        )
    on_progress(0, count)
    pages: list[Page] = []
    for first in range(1, count + 1, SLICE_PAGES):
        last = min(first + SLICE_PAGES - 1, count)
        pages += sandbox.call(read_pages, path, first, last, password)
        on_progress(last, count)
    pages = _with_second_parser(sandbox, path, password, pages)
    blank = sum(not has_words(page.text) for page in pages)
    if blank == count:
        raise PdfRefused("no_text", _no_text(count))
    outline = sandbox.call(read_outline, path, password)
    warnings = [outline.warning] if outline.warning else []
    if blank:
        warnings.append(f"{blank} of {count} pages have no text (scanned?): they cannot be searched.")
    return Pages(outline.title, outline.sections, settle_hyphens(pages), tuple(warnings))


def _with_second_parser(sandbox: Sandbox, path: Path, password: str, pages: Sequence[Page]) -> list[Page]:
    """The pages, with pypdf's text where pdfium gave none; what pypdf cannot read stays empty."""
    empty = [page.number for page in pages if not has_words(page.text)]
    found = {}
    for begin in range(0, len(empty), SLICE_PAGES):
        numbers = empty[begin : begin + SLICE_PAGES]
        try:
            found |= {page.number: page.text for page in sandbox.call(reread_pages, path, numbers, password)}
        except PdfRefused:
            break  # the pages stay empty, and a warning or a refusal says so
    return [replace(page, text=found.get(page.number) or page.text) for page in pages]


def _no_text(count: int) -> str:
    which = "The only page is" if count == 1 else f"All {count} pages are"
    image = "a scanned image" if count == 1 else "scanned images"
    return (
        f"{which} {image} without a text layer. Run OCR on the file, for example with ocrmypdf, "
        "and upload it again."
    )


def _limit_memory(megabytes: int) -> None:
    """Bound this process's address space, where the system knows such a bound."""
    if sys.platform != "win32":
        import resource

        limit = megabytes * 1_000_000
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
