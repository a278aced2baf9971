from __future__ import annotations

import hashlib
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.chunk import Chunker
from ingest.errors import BadRequest, StoreUnavailable
from ingest.originals import Originals
from ingest.pipeline import Tools
from ingest.queue import Job, UploadQueue, clean_name
from ingest.sandbox import Sandbox
from ingest.store import Recipe
from ingest.store.edge import EdgeStore, open_edge_store
from ingest.weights import bundled_minilm
from tests.fakes import WordEmbedder
from tests.pdfs import encrypted_pdf, scanned_pdf, text_pdf, truncated_pdf

PAGES = [["apple pear plum"], ["cherry and fig"], ["quince"]]
ME = "local"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(seconds=20, memory_mb=1500) as opened:
        yield opened


class Library:
    """A queue with all that belongs to it, in one folder."""

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        embedder = WordEmbedder()
        self.store: EdgeStore = open_edge_store(
            folder / "index", Recipe(embedder.id, "c", embedder.dimension)
        )
        chunker = Chunker(bundled_minilm() / "tokenizer.json")
        self.tools = Tools(sandbox, chunker, embedder, self.store, max_pages=4)
        self.originals = Originals(folder / "files", folder / "trash")
        self.queue = UploadQueue(
            folder / "queue.sqlite3",
            self.originals,
            lambda: self.tools,
            store=lambda: self.store,
            max_bytes=300_000,
        )

    def add(self, source: str, data: bytes, **options: str) -> Job:
        """Queue a file, work it off, and return its job."""
        job = self.queue.add(source, data, owner=ME, **options)
        self.queue.run_pending()
        return self.queue.job(job.id, owner=ME)

    def close(self) -> None:
        self.queue.close()
        self.store.close()


@pytest.fixture
def library(tmp_path: Path, sandbox: Sandbox) -> Iterator[Library]:
    made = Library(tmp_path, sandbox)
    yield made
    made.close()


def test_an_upload_is_on_disk_under_its_sha256_before_it_is_queued(library: Library) -> None:
    data = text_pdf(PAGES)
    job = library.queue.add("fruit.pdf", data, owner=ME)
    assert job.state == "queued"
    assert job.doc_id == hashlib.sha256(data).hexdigest()
    assert library.originals.path(job.doc_id, owner=ME).read_bytes() == data
    assert library.store.documents() == []


def test_a_queued_file_ends_in_the_index(library: Library) -> None:
    job = library.add("fruit.pdf", text_pdf(PAGES, title="Fruit"))
    assert (job.state, job.message) == ("done", "3 pages, 3 chunks.")
    (document,) = library.store.documents()
    assert (document.source, document.title, document.pages, document.chunks) == ("fruit.pdf", "Fruit", 3, 3)
    assert library.store.count() == 3


def test_progress_counts_pages_and_then_chunks(library: Library) -> None:
    seen: list[tuple[str, int, int]] = []
    library.queue.add("fruit.pdf", text_pdf(PAGES), owner=ME)
    library.queue.run_pending(lambda job: seen.append((job.state, job.done, job.total)))
    assert ("reading", 0, 3) in seen
    assert ("reading", 3, 3) in seen
    assert ("embedding", 3, 3) in seen
    assert seen[-1][0] == "done"


def test_the_same_bytes_again_change_nothing_and_say_so(library: Library) -> None:
    library.add("fruit.pdf", text_pdf(PAGES))
    before = library.store.documents()
    again = library.add("copy.pdf", text_pdf(PAGES))
    assert again.state == "unchanged"
    assert "Already in the library as fruit.pdf" in again.message
    assert library.store.documents() == before


def test_the_same_bytes_while_they_wait_are_one_job(library: Library) -> None:
    first = library.queue.add("a.pdf", text_pdf(PAGES), owner=ME)
    assert library.queue.add("b.pdf", text_pdf(PAGES), owner=ME).id == first.id


def test_a_new_file_of_the_same_name_is_another_document(library: Library) -> None:
    library.add("fruit.pdf", text_pdf(PAGES))
    library.add("fruit.pdf", text_pdf(PAGES[:2]))
    assert [document.source for document in library.store.documents()] == ["fruit.pdf", "fruit.pdf"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello", "not a PDF"),
        (b"%PDF-1.7 " + b"x" * 300_000, "more than the 0 MB"),
        (truncated_pdf(), "damaged"),
        (scanned_pdf(), "scanned"),
        (text_pdf([*PAGES, *PAGES]), "6 pages"),
    ],
    ids=["empty", "not-a-pdf", "too-large", "damaged", "scanned", "too-many-pages"],
)
def test_bad_input_is_refused_with_its_reason_and_leaves_nothing_behind(
    library: Library, data: bytes, reason: str
) -> None:
    job = library.add("bad.pdf", data)
    assert job.state == "refused"
    assert reason in job.message
    assert list(library.originals._folder.rglob("*.pdf")) == []
    assert library.store.documents() == []
    assert library.store.count() == 0


def test_the_other_files_of_an_upload_go_on(library: Library) -> None:
    library.queue.add("bad.pdf", truncated_pdf(), owner=ME)
    library.queue.add("good.pdf", text_pdf(PAGES), owner=ME)
    library.queue.run_pending()
    assert [job.state for job in library.queue.jobs(owner=ME)] == ["refused", "done"]


def test_a_locked_file_waits_for_its_password(library: Library) -> None:
    job = library.add("locked.pdf", encrypted_pdf(PAGES, password="sesame"))
    assert job.state == "password"
    library.queue.retry(job.id, owner=ME, password="wrong")
    library.queue.run_pending()
    assert library.queue.job(job.id, owner=ME).state == "password"
    library.queue.retry(job.id, owner=ME, password="sesame")
    library.queue.run_pending()
    assert library.queue.job(job.id, owner=ME).state == "done"


def test_a_password_is_never_written_down(library: Library, tmp_path: Path) -> None:
    library.add("locked.pdf", encrypted_pdf(PAGES, password="opensesame"), password="opensesame")
    library.close()
    assert not any(b"opensesame" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_leaving_a_locked_file_alone_deletes_it(library: Library) -> None:
    job = library.add("locked.pdf", encrypted_pdf(PAGES, password="sesame"))
    library.queue.dismiss(job.id, owner=ME)
    assert library.queue.jobs(owner=ME) == []
    assert not library.originals.path(job.doc_id, owner=ME).exists()


def test_leaving_a_job_alone_keeps_a_file_that_the_library_rests_on(library: Library) -> None:
    locked = encrypted_pdf(PAGES, password="sesame")
    waiting = library.add("locked.pdf", locked)
    opened = library.add("again.pdf", locked, password="sesame")
    assert opened.state == "done"
    library.queue.dismiss(waiting.id, owner=ME)
    assert library.originals.path(opened.doc_id, owner=ME).exists()


def test_a_second_process_does_not_touch_what_the_first_is_working_on(
    library: Library, tmp_path: Path
) -> None:
    job = library.queue.add("fruit.pdf", text_pdf(PAGES), owner=ME)
    assert library.queue._claim(job.id)
    second = UploadQueue(
        tmp_path / "queue.sqlite3",
        library.originals,
        lambda: library.tools,
        store=lambda: library.store,
        max_bytes=300_000,
    )
    second.run_pending()
    assert second.job(job.id, owner=ME).state == "reading"
    assert not second._claim(job.id)
    second.close()


def test_what_is_not_the_files_fault_keeps_the_file_and_can_be_tried_again(library: Library) -> None:
    class Down:
        def documents(self, *, owner: str) -> list[object]:
            raise StoreUnavailable("Qdrant does not answer.")

    good = library.tools
    library.tools = Tools(good.sandbox, good.chunker, good.embedder, Down(), 4)  # type: ignore[arg-type]
    job = library.add("fruit.pdf", text_pdf(PAGES))
    assert (job.state, job.message) == ("failed", "Qdrant does not answer.")
    library.tools = good
    library.queue.retry(job.id, owner=ME)
    library.queue.run_pending()
    assert library.queue.job(job.id, owner=ME).state == "done"


def test_the_background_thread_works_off_what_is_added(library: Library) -> None:
    library.queue.start()
    job = library.queue.add("fruit.pdf", text_pdf(PAGES), owner=ME)
    deadline = time.monotonic() + 20
    while library.queue.job(job.id, owner=ME).open and time.monotonic() < deadline:
        time.sleep(0.02)
    assert library.queue.job(job.id, owner=ME).state == "done"


def test_jobs_belong_to_their_owner(library: Library) -> None:
    job = library.queue.add("fruit.pdf", text_pdf(PAGES), owner="ann")
    assert library.queue.jobs(owner="ben") == []
    with pytest.raises(BadRequest, match="no upload"):
        library.queue.job(job.id, owner="ben")


def test_a_file_on_which_the_process_died_three_times_is_left_out(library: Library) -> None:
    job = library.queue.add("fruit.pdf", text_pdf(PAGES), owner=ME)
    library.queue._db.execute("update jobs set attempts = 3")
    library.queue.run_pending()
    left = library.queue.job(job.id, owner=ME)
    assert left.state == "refused"
    assert "3 times" in left.message


def test_a_killed_process_leaves_a_queue_that_the_next_one_finishes(tmp_path: Path, sandbox: Sandbox) -> None:
    code = f"""
        import os, signal
        from pathlib import Path
        from ingest.sandbox import Sandbox
        from tests.test_queue import Library, PAGES
        from tests.pdfs import text_pdf

        def die(job):
            if job.state == "embedding":
                os.kill(os.getpid(), signal.SIGKILL)

        if __name__ == "__main__":
            library = Library(Path({str(tmp_path)!r}), Sandbox(seconds=20, memory_mb=1500))
            library.queue.add("one.pdf", text_pdf(PAGES), owner="local")
            library.queue.add("two.pdf", text_pdf(PAGES[:1]), owner="local")
            library.queue.run_pending(die)
    """
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=root, check=False, timeout=60)
    assert done.returncode == -9
    library = Library(tmp_path, sandbox)
    library.queue.start()
    deadline = time.monotonic() + 30
    while any(job.open for job in library.queue.jobs(owner=ME)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [job.state for job in library.queue.jobs(owner=ME)] == ["done", "done"]
    assert {document.source for document in library.store.documents()} == {"one.pdf", "two.pdf"}
    library.close()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/passwd.pdf", "passwd.pdf"),
        ("C:\\temp\\a.pdf", "a.pdf"),
        ("\u202egnp.fdp\x00\n.pdf", "gnp.fdp.pdf"),
        ("///", "unnamed.pdf"),
        ("x" * 300 + ".pdf", "x" * 116 + ".pdf"),
    ],
)
def test_file_names_are_shown_without_folders_and_tricks(name: str, expected: str) -> None:
    assert clean_name(name) == expected


def test_a_document_id_that_is_no_hash_reaches_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="SHA-256"):
        Originals(tmp_path, tmp_path).path("../../secret", owner=ME)


def test_an_owner_never_names_a_folder_outside(tmp_path: Path) -> None:
    path = Originals(tmp_path / "files", tmp_path / "trash").path("a" * 64, owner="../../evil")
    assert path.is_relative_to(tmp_path / "files")
    assert ".." not in path.parts


def test_discarded_files_come_back_until_they_are_purged(tmp_path: Path) -> None:
    originals = Originals(tmp_path / "files", tmp_path / "trash")
    doc_id = originals.save(b"%PDF-", owner=ME)
    originals.discard(doc_id, owner=ME)
    assert not originals.path(doc_id, owner=ME).exists()
    assert originals.purge(older_than=60) == 0
    assert originals.restore(doc_id, owner=ME)
    originals.discard(doc_id, owner=ME)
    assert originals.purge() == 1
    assert not originals.restore(doc_id, owner=ME)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "files").write_text("a file where the folder should be")
    with pytest.raises(StoreUnavailable, match="cannot be stored"):
        Originals(tmp_path / "files", tmp_path / "trash").save(b"%PDF-", owner=ME)
