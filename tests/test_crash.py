"""A process that is killed at any moment: the library and the evidence are whole afterwards."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from bench.crash import SlowEmbedder, evidence_kills, library_kills, pdfs, services_of
from ingest.originals import Record
from ingest.store import LOCAL_OWNER
from rag.services import Services

OWNER = LOCAL_OWNER
NAME, DATA = sorted(pdfs().items())[2]
ID = hashlib.sha256(DATA).hexdigest()


def opened(folder: Path) -> Services:
    """What the next process does: open the index, work off the queue."""
    services = services_of(folder, SlowEmbedder())
    _ = services.store
    services.queue.run_pending()
    return services


def filled(folder: Path) -> Services:
    services = services_of(folder, SlowEmbedder())
    _ = services.store
    services.queue.add(NAME, DATA, owner=OWNER)
    services.queue.run_pending()
    return services


def sources(services: Services) -> list[str]:
    return [document.source for document in services.store.documents(owner=OWNER)]


def test_a_library_that_is_killed_at_random_moments_stays_whole(tmp_path: Path) -> None:
    kills = library_kills(tmp_path, 9, seed=3, steps=6)
    assert [kill.violations for kill in kills] == [()] * 9


def test_evidence_that_is_killed_while_it_is_written_is_the_old_or_the_new(tmp_path: Path) -> None:
    kills = evidence_kills(tmp_path, 3, seed=3)
    assert [kill.violations for kill in kills] == [()] * 3


def test_a_file_stored_by_a_process_that_died_before_it_was_queued_is_read(tmp_path: Path) -> None:
    services = opened(tmp_path)
    services.originals.save(DATA, owner=OWNER, source=NAME)
    services.close()
    services = opened(tmp_path)
    assert sources(services) == [NAME]
    services.close()


def test_a_deletion_that_was_begun_is_finished(tmp_path: Path) -> None:
    services = filled(tmp_path)
    services.originals.discard(ID, owner=OWNER)
    services.close()
    services = opened(tmp_path)
    assert sources(services) == []
    assert services.originals.records(owner=OWNER) == set()
    services.close()


def test_an_undo_that_was_begun_is_finished_with_name_and_date(tmp_path: Path) -> None:
    services = filled(tmp_path)
    (before,) = services.store.documents(owner=OWNER)
    services.delete(ID, owner=OWNER)
    services.originals.restore(ID, owner=OWNER)
    services.close()
    services = opened(tmp_path)
    assert services.store.documents(owner=OWNER) == [before]
    services.close()


def test_a_refused_file_that_is_still_there_goes(tmp_path: Path) -> None:
    services = opened(tmp_path)
    job = services.queue.add(NAME, DATA, owner=OWNER)
    services.queue._set(job.id, "refused", "no text")
    services.close()
    services = opened(tmp_path)
    assert services.originals.files(owner=OWNER) == set()
    assert services.queue.job(job.id, owner=OWNER).state == "refused"
    services.close()


def test_half_written_files_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    services = filled(tmp_path)
    folder = services.originals.path(ID, owner=OWNER).parent
    dead, alive = folder / f"{ID}.pdf.4194304-1.part", folder / f"{ID}.pdf.1-1.part"
    dead.write_bytes(b"%PDF-")
    alive.write_bytes(b"%PDF-")
    services.close()
    services = opened(tmp_path)
    assert (dead.exists(), alive.exists()) == (False, True)
    services.close()


def test_what_a_killed_command_was_working_on_is_worked_on_by_the_next(tmp_path: Path) -> None:
    services = opened(tmp_path)
    job = services.queue.add(NAME, DATA, owner=OWNER)
    assert services.queue._claim(job.id)
    services.close()
    services = services_of(tmp_path, SlowEmbedder())
    _ = services.store
    services.queue.run(job.id)  # would wait for ever if it took the job for somebody else's
    assert services.queue.job(job.id, owner=OWNER).state == "done"
    services.close()


def test_a_deletion_that_the_index_refuses_leaves_document_and_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ingest.errors import StoreUnavailable

    services = filled(tmp_path)

    def down(*_: object, **__: object) -> bool:
        raise StoreUnavailable("Qdrant does not answer.")

    with monkeypatch.context() as patch:
        patch.setattr(services.store, "delete", down)
        with pytest.raises(StoreUnavailable):
            services.delete(ID, owner=OWNER)
    assert sources(services) == [NAME]
    assert services.originals.record(ID, owner=OWNER) == Record(
        OWNER, NAME, services.store.documents(owner=OWNER)[0].added
    )
    assert services.originals.files(owner=OWNER) == {ID}
    services.close()
