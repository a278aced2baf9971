"""Reading ahead: the next upload is read while the present one is embedded, and nothing else changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ingest.embed import Vectors
from ingest.queue import Job
from ingest.sandbox import Sandbox
from tests.fakes import WordEmbedder
from tests.pdfs import encrypted_pdf, scanned_pdf, text_pdf
from tests.test_queue import ME, PAGES, Library

FIRST = text_pdf(PAGES)
SECOND = text_pdf(PAGES[1:])


class Slow(WordEmbedder):
    """Calls `during` before it embeds."""

    def __init__(self) -> None:
        self.during: Callable[[], None] = lambda: None

    def embed(
        self, texts: Sequence[str], *, on_progress: Callable[[int, int], None] | None = None
    ) -> Vectors:
        self.during()
        return super().embed(texts, on_progress=on_progress)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(seconds=20, memory_mb=1500) as opened:
        yield opened


@pytest.fixture
def library(tmp_path: Path, sandbox: Sandbox) -> Iterator[Library]:
    made = Library(tmp_path, sandbox)
    made.tools = replace(made.tools, embedder=Slow())
    yield made
    made.close()


def slow(library: Library) -> Slow:
    assert isinstance(library.tools.embedder, Slow)
    return library.tools.embedder


def by_source(library: Library) -> dict[str, Job]:
    return {job.source: job for job in library.queue.jobs(owner=ME)}


def wait_for(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_next_file_is_read_while_one_is_embedded(library: Library) -> None:
    seen = []

    def wait_until_read() -> None:
        slow(library).during = lambda: None
        wait_for(lambda: by_source(library)["b.pdf"].done == 2)
        seen.append((by_source(library)["a.pdf"].state, by_source(library)["b.pdf"].state))

    slow(library).during = wait_until_read
    library.queue.add("a.pdf", FIRST, owner=ME)
    library.queue.add("b.pdf", SECOND, owner=ME)
    library.queue.run_pending()
    assert seen == [("embedding", "queued")]
    assert {job.state for job in by_source(library).values()} == {"done"}
    assert {document.source: document.pages for document in library.store.documents()} == {
        "a.pdf": 3,
        "b.pdf": 2,
    }
    assert library.queue._db.execute("select max(attempts) from jobs").fetchone() == (0,)


def test_what_is_wrong_with_the_next_file_is_told_in_its_turn(library: Library) -> None:
    for source, data in (("a.pdf", FIRST), ("scan.pdf", scanned_pdf()), ("b.pdf", SECOND)):
        library.queue.add(source, data, owner=ME)
    library.queue.run_pending()
    states = {source: job.state for source, job in by_source(library).items()}
    assert states == {"a.pdf": "done", "scan.pdf": "refused", "b.pdf": "done"}
    assert "no text" in by_source(library)["scan.pdf"].message


def test_a_password_that_comes_after_the_file_was_read_without_it_is_used(library: Library) -> None:
    locked = encrypted_pdf(PAGES, password="secret")

    def bring_the_password() -> None:
        slow(library).during = lambda: None
        wait_for(lambda: library.queue._ahead._begun is not None and library.queue._ahead._begun.cut.done())
        library.queue.add("locked.pdf", locked, owner=ME, password="secret")

    slow(library).during = bring_the_password
    library.queue.add("a.pdf", FIRST, owner=ME)
    library.queue.add("locked.pdf", locked, owner=ME)
    library.queue.run_pending()
    assert by_source(library)["locked.pdf"].state == "done"


def test_a_file_during_which_the_process_died_once_is_not_read_ahead_again(library: Library) -> None:
    library.queue.add("a.pdf", FIRST, owner=ME)
    library.queue.add("b.pdf", SECOND, owner=ME)
    library.queue._db.execute("update jobs set attempts = 1 where source = 'b.pdf'")
    ahead = []
    slow(library).during = lambda: ahead.append(library.queue._ahead.job_id)
    library.queue.run_pending()
    assert ahead == [None, None]
    assert {job.state for job in by_source(library).values()} == {"done"}


def test_what_was_read_in_vain_before_a_stop_does_not_count_as_a_try(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    library = Library(tmp_path, sandbox)
    library.tools = replace(library.tools, embedder=Slow())

    def stop() -> None:
        wait_for(lambda: library.queue._ahead.job_id is not None)
        library.queue._stopping = True

    slow(library).during = stop
    library.queue.add("a.pdf", FIRST, owner=ME)
    library.queue.add("b.pdf", SECOND, owner=ME)
    library.queue.run_pending()
    library.close()
    again = Library(tmp_path, sandbox)
    assert {(job.state, job.attempts) for job in again.queue.jobs(owner=ME)} == {("queued", 0)}
    again.queue.run_pending()
    assert {job.state for job in again.queue.jobs(owner=ME)} == {"done"}
    again.close()


def test_what_another_process_took_is_forgotten_and_the_one_after_it_is_read(library: Library) -> None:
    seen: list[int | None] = []

    def take_away() -> None:
        ahead = library.queue._ahead
        if not seen:
            wait_for(lambda: ahead._begun is not None and ahead._begun.cut.done())
            library.queue._db.execute("update jobs set state = 'done' where source = 'b.pdf'")
        seen.append(ahead.job_id)

    slow(library).during = take_away
    jobs = [
        library.queue.add(source, text_pdf([[word]]), owner=ME)
        for source, word in (("a.pdf", "apple"), ("b.pdf", "pear"), ("c.pdf", "plum"), ("d.pdf", "fig"))
    ]
    library.queue.run_pending()
    assert seen == [jobs[1].id, jobs[3].id, None]
