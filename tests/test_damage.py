"""A damaged index, a full disk, a folder that cannot be written: said with the way out, and nothing is lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.crash import SlowEmbedder, close_but_parser
from ingest.errors import IndexLocked, IndexMismatch, StoreUnavailable
from ingest.originals import Record
from ingest.queue import Job
from ingest.sandbox import Sandbox
from ingest.store import LOCAL_OWNER, Recipe
from ingest.store import edge as edge_module
from ingest.store.edge import EdgeStore, open_edge_store
from ingest.store.points import PointStore, Where
from rag.evidence.beir import Passage, ingest_corpus
from rag.evidence.questions import Question, QuestionSet
from rag.evidence.run import run
from rag.evidence.sets import EvidenceStore
from rag.evidence.variants import make_plan
from rag.rebuild import rebuild
from rag.services import Services
from rag.settings import Settings
from rag.threshold import Threshold
from rag.votes import Vote, VoteLog
from tests.fakes import length_reranker
from tests.pdfs import encrypted_pdf, text_pdf
from tests.test_store_http import FakeQdrant

ROOT = Path(__file__).resolve().parents[1]
OWNER = LOCAL_OWNER
ANN = "ann@example.com"
"""Her folder is named by a hash."""
FILES = {
    "fruit.pdf": text_pdf([["apple pear plum"], ["cherry and fig"]], title="Fruit"),
    "nuts.pdf": text_pdf([["almond and walnut"], ["pecan"], ["hazel"]]),
    "grain.pdf": text_pdf([["rye oat wheat"]]),
}
Points = dict[str, tuple[dict[str, Any], Any]]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(seconds=20, memory_mb=1500) as opened:
        yield opened


Open = Callable[[Path], Services]


@pytest.fixture
def services_in(sandbox: Sandbox) -> Iterator[Open]:
    """Services over a data folder; with one parser for all, and closed at the end."""
    made: list[Services] = []

    def open_(data: Path, **settings: Any) -> Services:
        services = Services(Settings(data=data, **settings))
        services.use_models(SlowEmbedder(), None, "none in this test")
        services._sandbox.put(sandbox)
        made.append(services)
        return services

    yield open_
    for services in made:
        close(services)


def close(services: Services) -> None:
    with suppress(StoreUnavailable):  # closed already
        close_but_parser(services)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox) -> Path:
    """A data folder with three documents of two owners; copied, never opened."""
    data = tmp_path_factory.mktemp("filled") / "data"
    services = Services(Settings(data=data))
    services.use_models(SlowEmbedder(), None, "none in this test")
    services._sandbox.put(sandbox)
    _ = services.store
    for owner, name in ((OWNER, "fruit.pdf"), (OWNER, "nuts.pdf"), (ANN, "grain.pdf")):
        job = services.queue.add(name, FILES[name], owner=owner)
        services.queue.run(job.id)
        services.queue.dismiss(job.id, owner=owner)
    close(services)
    return data


@pytest.fixture
def data(filled: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    target = tmp_path / "data"
    # the files of an index are mostly holes, which shutil would fill
    subprocess.run(["cp", "-R", "--sparse=always", str(filled), str(target)], check=True)
    return target


def points(services: Services) -> Points:
    store = services.store
    assert isinstance(store, PointStore)
    return {point.id: (point.payload, point.dense) for point in store._scan(Where(), vectors=True)}


def assert_same(ours: Points, theirs: Points) -> None:
    assert {id_: payload for id_, (payload, _) in ours.items()} == {
        id_: payload for id_, (payload, _) in theirs.items()
    }
    for id_, (_, vector) in ours.items():
        other = theirs[id_][1]
        assert (vector is None) == (other is None)
        if vector is not None:
            np.testing.assert_allclose(vector, other, atol=1e-6)


def sources(services: Services, owner: str = OWNER) -> set[str]:
    return {document.source for document in services.store.documents(owner=owner)}


def problem(services: Services) -> str:
    """What is told when the index is opened and used; empty where it works."""
    try:
        _ = services.store
        services.queue.run_pending()  # what the index lost without a trace is read again
        found(services)
    except (StoreUnavailable, IndexMismatch) as told:
        return str(told)
    return ""


def found(services: Services) -> list[str]:
    vector = services.embedder.embed(["apple pear plum"])[0]
    return [chunk.text for chunk, _ in services.store.search(vector, 9, owner=OWNER)]


# --- A damaged index --------------------------------------------------------------------------------------


def in_segment(name: str, change: Callable[[Path], None]) -> Callable[[Path], None]:
    """Change the files of that name in every segment."""

    def damage(index: Path) -> None:
        paths = [path for path in index.rglob(name) if path.is_file()]
        assert paths, f"the library has no file {name} any more"
        for path in paths:
            change(path)

    return damage


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def halved(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def flipped(path: Path) -> None:
    with path.open("r+b") as file:
        start = bytes(byte ^ 0x55 if byte else 0 for byte in file.read(2000))
        file.seek(0)
        file.write(start)


def gone(path: Path) -> None:
    path.unlink()


def empty_folder(index: Path) -> None:
    shutil.rmtree(index)
    index.mkdir()


def lose_segments(index: Path) -> None:
    for segment in (index / "segments").iterdir():
        shutil.rmtree(segment)
    for segment in (index / "wal").iterdir():
        segment.unlink()


DAMAGES = [
    pytest.param(shutil.rmtree, id="folder-gone"),
    pytest.param(empty_folder, id="folder-emptied"),
    pytest.param(lose_segments, id="segments-gone"),
    pytest.param(in_segment("edge_config.json", flipped), id="config-flipped"),
    pytest.param(in_segment("segment.json", emptied), id="segment-state-emptied"),
    pytest.param(in_segment("*id_tracker.mappings", halved), id="ids-halved"),
    pytest.param(in_segment("*id_tracker.mappings", flipped), id="ids-flipped"),
    pytest.param(in_segment("*id_tracker.mappings", gone), id="ids-gone"),
    pytest.param(in_segment("page_0.dat", emptied), id="payloads-emptied"),
    pytest.param(in_segment("page_0.dat", flipped), id="payloads-flipped"),
    pytest.param(in_segment("chunk_0.mmap", emptied), id="vectors-emptied"),
    pytest.param(in_segment("status.dat", gone), id="counts-gone"),
    pytest.param(in_segment("flags_a.dat", gone), id="flags-gone"),
    pytest.param(in_segment("first-index", flipped), id="log-flipped"),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_is_told_or_works_and_a_rebuild_brings_back_every_point(
    data: Path, services_in: Open, damage: Callable[[Path], None]
) -> None:
    services = services_in(data)
    before, hits = points(services), found(services)
    close(services)
    damage(data / "index")

    services = services_in(data)
    told = problem(services)
    if told:
        assert str(data / "index") in told
        assert "second-look rebuild" in told
    else:
        assert (found(services), sources(services, ANN)) == (hits, {"grain.pdf"})
    close(services)

    services = services_in(data)
    rebuilt = rebuild(services)
    assert rebuilt.whole
    assert len(rebuilt.jobs) == 3
    assert_same(points(services), before)
    assert found(services) == hits


def test_a_rebuild_moves_the_old_index_aside_and_says_where(data: Path, services_in: Open) -> None:
    services = services_in(data)
    aside = rebuild(services).aside
    assert aside is not None
    assert aside.name.startswith("index.broken-2")
    with closing(open_edge_store(aside, services.recipe)) as old:
        assert {document.source for document in old.documents(owner=OWNER)} == {"fruit.pdf", "nuts.pdf"}
    assert services.queue.jobs(owner=OWNER) == []


def test_a_rebuild_shows_which_file_of_how_many_it_reads(data: Path, services_in: Open) -> None:
    seen: list[tuple[int, int, str, str]] = []

    def note(number: int, total: int, job: Job) -> None:
        seen.append((number, total, job.source, job.state))

    rebuild(services_in(data), on_job=note)
    done = [(number, total, source) for number, total, source, state in seen if state == "done"]
    assert sorted(source for _, _, source in done) == ["fruit.pdf", "grain.pdf", "nuts.pdf"]
    assert [(number, total) for number, total, _ in done] == [(1, 3), (2, 3), (3, 3)]


class Killed(BaseException):
    """Stands for the end of the process."""


def test_a_rebuild_that_was_killed_goes_on_and_reads_nothing_twice(data: Path, services_in: Open) -> None:
    services = services_in(data)
    before = points(services)
    close(services)

    def die(number: int, _: int, job: Job) -> None:
        if number == 2 and job.state == "embedding":
            raise Killed

    services = services_in(data)
    with pytest.raises(Killed):
        rebuild(services, on_job=die)
    close(services)
    services = services_in(data)
    rebuilt = rebuild(services)
    assert (rebuilt.resumed, rebuilt.aside, len(rebuilt.jobs)) == (True, None, 2)
    assert_same(points(services), before)
    assert len(list(data.glob("index.broken-*"))) == 1


def test_an_app_that_is_started_after_a_killed_rebuild_ends_it(data: Path, services_in: Open) -> None:
    services = services_in(data)
    before = points(services)
    close(services)

    def die(*_: object) -> None:
        raise Killed

    services = services_in(data)
    with pytest.raises(Killed):
        rebuild(services, on_job=die)
    close(services)
    services = services_in(data)
    _ = services.store
    services.queue.run_pending()
    assert_same(points(services), before)


def test_a_rebuild_whose_new_index_is_damaged_in_turn_begins_anew(data: Path, services_in: Open) -> None:
    def die(*_: object) -> None:
        raise Killed

    services = services_in(data)
    with pytest.raises(Killed):
        rebuild(services, on_job=die)
    close(services)
    in_segment("edge_config.json", emptied)(data / "index")
    services = services_in(data)
    rebuilt = rebuild(services)
    assert (rebuilt.resumed, rebuilt.whole, len(rebuilt.jobs)) == (False, True, 3)
    assert sources(services) == {"fruit.pdf", "nuts.pdf"}


def test_a_rebuild_is_refused_while_the_app_has_the_index(data: Path, services_in: Open) -> None:
    app = services_in(data)
    _ = app.store
    with pytest.raises(IndexLocked):
        rebuild(services_in(data))
    assert sources(app) == {"fruit.pdf", "nuts.pdf"}


def test_another_embedder_is_a_reason_to_rebuild(data: Path, services_in: Open) -> None:
    before = services_in(data)
    close(before)
    with pytest.raises(IndexMismatch, match="second-look rebuild"):
        open_edge_store(data / "index", replace(before.recipe, embedder="another"))


def test_names_come_from_the_queue_or_the_hash_where_there_is_no_record(
    data: Path, services_in: Open
) -> None:
    services = services_in(data)
    documents = {document.source: document for document in services.store.documents(owner=OWNER)}
    close(services)
    for path in (data / "files").rglob("*.json"):
        path.unlink()  # as in a library made before there were any
    shutil.rmtree(data / "index")
    services = services_in(data)
    services.queue._insert(OWNER, documents["nuts.pdf"].id, "nuts.pdf", 9, "done", "")
    rebuilt = rebuild(services)
    made_up = f"{documents['fruit.pdf'].id[:12]}.pdf"
    assert sources(services) == {"nuts.pdf", made_up}
    assert made_up in [job.source for job in rebuilt.unnamed]
    assert "nuts.pdf" not in [job.source for job in rebuilt.unnamed]


def test_an_index_that_opens_gives_its_names_to_files_without_a_record(data: Path, services_in: Open) -> None:
    services = services_in(data)
    before = points(services)
    close(services)
    for path in (data / "files").rglob("*.json"):
        if path.parent.name == OWNER:
            path.unlink()
    services = services_in(data)
    assert rebuild(services).unnamed == ()
    assert_same(points(services), before)


def test_a_file_that_needs_a_password_is_named_and_waits_for_it(data: Path, services_in: Open) -> None:
    locked = encrypted_pdf([["a locked page"]], password="sesame")
    services = services_in(data)
    job = services.queue.add("locked.pdf", locked, owner=OWNER, password="sesame")
    services.queue.run(job.id)
    services.queue.dismiss(job.id, owner=OWNER)
    close(services)

    services = services_in(data)
    rebuilt = rebuild(services)
    waiting = [job for job in rebuilt.jobs if job.state == "password"]
    assert [job.source for job in waiting] == ["locked.pdf"]
    assert not rebuilt.whole
    assert services.originals.path(waiting[0].doc_id, owner=OWNER).exists()
    services.queue.retry(waiting[0].id, owner=OWNER, password="sesame")
    services.queue.run_pending()
    assert "locked.pdf" in sources(services)
    close(services)

    services = services_in(data)
    assert rebuild(services, password="sesame").whole


def test_a_file_that_cannot_be_read_any_more_is_named_and_kept(data: Path, services_in: Open) -> None:
    services = services_in(data, max_pages=2)  # type: ignore[call-arg]
    rebuilt = rebuild(services)
    (failed,) = (job for job in rebuilt.jobs if job.state != "done")
    assert (failed.source, failed.state) == ("nuts.pdf", "failed")
    assert "3 pages" in failed.message
    assert services.originals.path(failed.doc_id, owner=OWNER).exists()
    assert not services.queue.being_read_again()


def test_a_corpus_without_pdfs_is_named_as_what_cannot_be_rebuilt(
    data: Path, services_in: Open, tmp_path: Path
) -> None:
    folder = tmp_path / "squad"
    folder.mkdir()
    (folder / "corpus.jsonl").write_text('{"_id": "1", "text": "apple"}')
    services = services_in(data)
    tools = services.tools
    passages = (Passage("1", "", "apple"),)
    ingest_corpus(folder, passages, tools.chunker, tools.embedder, tools.store, originals=services.originals)
    close(services)
    services = services_in(data)
    rebuilt = rebuild(services)
    assert [(record.source, record.pdf) for record in rebuilt.without_file] == [("squad", False)]
    assert not rebuilt.whole


def test_a_document_whose_file_is_gone_is_named(data: Path, services_in: Open) -> None:
    services = services_in(data)
    (fruit,) = (one for one in services.store.documents(owner=OWNER) if one.source == "fruit.pdf")
    services.originals.path(fruit.id, owner=OWNER).unlink()
    close(services)
    rebuilt = rebuild(services_in(data))
    assert [(record.source, record.pdf) for record in rebuilt.without_file] == [("fruit.pdf", True)]


def test_a_collection_on_a_server_is_made_anew(tmp_path: Path, data: Path, services_in: Open) -> None:
    import threading

    local = services_in(data)
    before = points(local)
    close(local)
    with FakeQdrant() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            services = services_in(data, qdrant_url=server.url, qdrant_collection="library")  # type: ignore[call-arg]
            with pytest.raises(StoreUnavailable, match="second-look rebuild"):
                _ = services.store
            assert rebuild(services).whole
            kinds = sorted(point["payload"]["kind"] for point in server.points.values())
            assert set(server.points) == set(before)
            payloads = {id_: point["payload"] for id_, point in server.points.items()}
            assert payloads == {id_: payload for id_, (payload, _) in before.items()}
            assert kinds.count("document") == 3
            again = rebuild(services)  # in place, while everything is there
            assert (again.aside, again.whole, set(server.points)) == (None, True, set(before))
            close(services)
        finally:
            server.stopping.set()
            server.shutdown()
            thread.join()


def command(*arguments: str, data: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from rag.cli import main; main()", *arguments],
        env={**os.environ, "SECOND_LOOK_DATA": str(data), "NO_COLOR": "1", "COLUMNS": "200"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_command_tells_the_damage_and_rebuilds(data: Path) -> None:
    in_segment("segment.json", emptied)(data / "index")
    told = command("documents", data=data)
    assert told.returncode == 1
    assert "second-look rebuild" in told.stderr
    assert "Traceback" not in told.stderr
    rebuilt = command("rebuild", data=data)
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert "3 of 3 kept files are in the index again." in rebuilt.stdout
    assert "index.broken-" in rebuilt.stdout
    listed = json.loads(command("documents", "--json", data=data).stdout)
    assert {one["source"] for one in listed} == {"fruit.pdf", "nuts.pdf"}


# --- A full disk ------------------------------------------------------------------------------------------

VOTE = Vote("1", "q", "same", "plain", "a", "r", "0", "1", "2026-01-01T00:00:00+00:00")
SET = QuestionSet("fruit", (Question("q1", "apple?", ()),))


def test_a_full_disk_is_told_before_the_index_is_written_and_the_upload_goes_in_when_there_is_room(
    data: Path, services_in: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = services_in(data)
    hits = found(services)
    with monkeypatch.context() as full:
        full.setattr(edge_module, "_free", lambda _: 30_000_000)
        job = services.queue.add("grain.pdf", FILES["grain.pdf"], owner=OWNER)
        services.queue.run_pending()
        failed = services.queue.job(job.id, owner=OWNER)
        assert failed.state == "failed"
        assert "is full" in failed.message
        assert str(data / "index") in failed.message
        assert found(services) == hits
        (nuts,) = (one for one in services.store.documents(owner=OWNER) if one.source == "nuts.pdf")
        services.delete(nuts.id, owner=OWNER)  # gives room, and needs little
    services.queue.retry(job.id, owner=OWNER)
    services.queue.run_pending()
    assert sources(services) == {"fruit.pdf", "grain.pdf"}


def test_an_undo_on_a_full_disk_is_told_and_can_be_repeated(
    data: Path, services_in: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = services_in(data)
    (nuts,) = (one for one in services.store.documents(owner=OWNER) if one.source == "nuts.pdf")
    deleted = services.delete(nuts.id, owner=OWNER)
    with monkeypatch.context() as full:
        full.setattr(edge_module, "_free", lambda _: 30_000_000)
        with pytest.raises(StoreUnavailable, match="is full"):
            services.undo(deleted)
    services.undo(deleted)
    assert sources(services) == {"fruit.pdf", "nuts.pdf"}


def test_an_index_is_not_opened_on_a_disk_without_room(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_module, "_free", lambda _: 1_000_000)
    with pytest.raises(StoreUnavailable, match=r"The disk of .*index is full"):
        open_edge_store(data / "index", Recipe("a", "b", 4))


def test_files_that_cannot_be_synced_are_as_they_were(
    data: Path, services_in: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = EvidenceStore(data)
    kept.save(SET)
    services = services_in(data)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    changed = replace(SET, questions=(Question("q2", "pear?", ()),))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for write in (
            lambda: kept.save(changed),
            lambda: kept.choose_threshold(Threshold(1.0, "a", "b", "c")),
            lambda: services.queue.add("new.pdf", text_pdf([["new"]]), owner=OWNER),
        ):
            with pytest.raises(StoreUnavailable, match=r"No space left on device.*[Ff]ree some space"):
                write()
    assert kept.questions("fruit") == SET
    assert kept.threshold is None
    assert services.queue.jobs(owner=OWNER) == []
    assert list(data.rglob("*.part")) == []
    kept.save(changed)
    assert kept.questions("fruit") == changed


def test_a_queue_whose_disk_is_full_is_told_and_works_on_when_there_is_room(
    data: Path, services_in: Open
) -> None:
    services = services_in(data)
    queue = services.queue
    pages = queue._db.execute("pragma page_count").fetchone()[0]
    queue._db.execute(f"pragma max_page_count = {pages}")
    with pytest.raises(StoreUnavailable, match=r"upload queue .*queue.sqlite3 .*full.*Free some space"):
        add_many(services)
    queue._db.execute("pragma max_page_count = 100000")
    job = queue.add("grain.pdf", FILES["grain.pdf"], owner=OWNER)
    queue.run(job.id)
    assert queue.job(job.id, owner=OWNER).state == "done"


def add_many(services: Services) -> None:
    for number in range(300):
        services.queue.add(f"{number}.pdf", b"%PDF-" + b"%d" % number, owner=OWNER)


def test_the_background_thread_outlives_a_full_disk(
    data: Path, services_in: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = services_in(data)
    _ = services.store
    queue = services.queue
    write, full = queue._execute, [True]

    def execute(statement: str, *values: object) -> None:
        if full[0] and ("done" in values or "unchanged" in values):  # which it is when it is tried again
            raise StoreUnavailable("database or disk is full")
        write(statement, *values)

    monkeypatch.setattr(queue, "_execute", execute)
    job = queue.add("grain.pdf", FILES["grain.pdf"], owner=OWNER)
    queue.start()
    wait_until(lambda: job.id in queue._claimed and "grain.pdf" in sources(services))
    full[0] = False
    queue._wake.set()
    wait_until(lambda: not queue.job(job.id, owner=OWNER).open)
    assert queue.job(job.id, owner=OWNER).state in ("done", "unchanged")


def wait_until(true: Callable[[], bool], seconds: float = 20) -> None:
    import time

    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    if not shutil.which("mount"):
        pytest.skip("there is no mount command here")
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_on_a_disk_that_is_really_full_everything_is_told_and_works_again_when_there_is_room(
    tmp_path: Path, services_in: Open
) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "-t", "tmpfs", "-o", "size=90m", "tmpfs"):
        services = services_in(disk / "data")
        _ = services.store
        kept, log = EvidenceStore(services.settings.data), VoteLog(services.settings.data / "votes.sqlite3")
        kept.save(SET)
        log.add(VOTE)
        job = services.queue.add("fruit.pdf", FILES["fruit.pdf"], owner=OWNER)
        services.queue.run(job.id)
        hits = found(services)
        fill(disk)
        plan = make_plan([length_reranker()], (10,))
        for attempt in (
            lambda: services.queue.add("nuts.pdf", FILES["nuts.pdf"], owner=OWNER),
            lambda: kept.save(replace(SET, name="x" * 80)),
            lambda: log.add(replace(VOTE, turn="2" * 9000)),
            lambda: run(SET, services.embedder, services.store, plan, journals=kept.journals),
        ):
            with pytest.raises(StoreUnavailable, match=rf"{disk}.*[Ff]ree some space") as told:
                attempt()
            assert "\n" not in str(told.value)
        assert found(services) == hits
        assert (kept.questions("fruit"), len(log.votes())) == (SET, 1)
        started = command("documents", data=disk / "data2")
        assert (started.returncode, "Traceback" in started.stderr) == (1, False)
        assert str(disk) in started.stderr
        (disk / "filler").unlink()
        job = services.queue.add("nuts.pdf", FILES["nuts.pdf"], owner=OWNER)
        services.queue.run(job.id)
        assert sources(services) == {"fruit.pdf", "nuts.pdf"}
        log.add(replace(VOTE, turn="2"))
        kept.save(replace(SET, name="x" * 80))
        assert run(SET, services.embedder, services.store, plan, journals=kept.journals).finished
        close(services)


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_run_whose_disk_gets_full_is_told_with_its_file_and_goes_on_when_there_is_room(
    data: Path, services_in: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = services_in(data)
    questions = QuestionSet("fruit", tuple(Question(f"q{n}", "apple?", ()) for n in range(4)))
    plan, journals = make_plan([length_reranker()], (10,)), data / "evidence" / OWNER / "journals"
    synced: list[int] = []

    def full(handle: int) -> None:
        synced.append(handle)
        if len(synced) == 3:  # the header and one question are kept
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreUnavailable, match=rf"kept in {journals}.*No space left.*Free some space"):
            run(questions, services.embedder, services.store, plan, journals=journals)
    asked: list[int] = []
    made = run(
        questions,
        services.embedder,
        services.store,
        plan,
        journals=journals,
        on_progress=lambda progress: asked.append(progress.done),
    )
    assert made.finished
    assert asked[0] >= 1


# --- A folder that cannot be written ----------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["documents"], ["ingest", "x.pdf"], ["rebuild"], ["search", "apple"]])
def test_a_data_folder_that_cannot_be_made_is_told_by_every_command(
    tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "x.pdf").write_bytes(FILES["grain.pdf"])
    given = [str(tmp_path / one) if one == "x.pdf" else one for one in arguments]
    told = command(*given, data=tmp_path / "file" / "data")
    assert told.returncode == 1
    assert str(tmp_path / "file" / "data") in told.stderr
    assert "writable" in told.stderr
    assert "Traceback" not in told.stderr


def test_the_app_does_not_start_on_a_read_only_data_folder_and_says_why(data: Path) -> None:
    with mounted(data, "--bind", str(data)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(data)], check=True)
        told = command("serve", data=data)
        listed = command("documents", data=data)
    for one in (told, listed):
        assert one.returncode == 1
        assert str(data) in one.stderr
        assert "writable" in one.stderr
        assert "Traceback" not in one.stderr


def test_records_keep_owner_name_and_date(data: Path, services_in: Open) -> None:
    services = services_in(data)
    (grain,) = services.store.documents(owner=ANN)
    assert services.originals.record(grain.id, owner=ANN) == Record(ANN, "grain.pdf", grain.added)
    assert isinstance(services.store, EdgeStore)
