"""The index made anew from the kept files, for when it is damaged or was made by other models."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ingest.errors import IndexMismatch, StoreUnavailable
from ingest.originals import Record
from ingest.queue import Job, utc
from ingest.settle import everybody, kept, made_up_name, settle
from rag.services import Services, open_store

OnJob = Callable[[int, int, Job], None]
"""Called with (number, of how many, job) whenever a file's state or progress changes."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What became of the kept documents.

    `aside` is where the old index is now, None where there was none or where it is on a server. `resumed`: it was
    begun earlier. `jobs` are the files in the order in which they were read. `without_file` could not be read
    again: they were no PDFs, or their files are gone. `unnamed` were found under their hash alone.
    """

    aside: Path | None
    resumed: bool
    jobs: tuple[Job, ...]
    without_file: tuple[Record, ...]
    unnamed: tuple[Job, ...]

    @property
    def whole(self) -> bool:
        """True when every document is in the index again."""
        return not self.without_file and all(job.state in ("done", "unchanged") for job in self.jobs)


def rebuild(services: Services, *, password: str = "", on_job: OnJob = lambda *_: None) -> Rebuilt:
    """Read every kept file again into a new index, for every owner, under its old name and date.

    The embedded index is moved aside, never deleted; on a server each document is replaced when it has been read.
    A rebuild that was killed goes on when it is started again, and also when the app is started. Files that need
    another password, or that fail, stay on the list of uploads. `services` must not have opened the index yet.
    Raises IndexLocked while the app is running, StoreUnavailable, ModelUnavailable.
    """
    queue = services.queue
    resumed = bool(queue.being_read_again()) and _opens(services)
    if resumed:
        aside, without_file = None, _without_file(services)
    else:
        aside, without_file = _begin(services, password)
    _ = services.store
    queue.free()
    begun = queue.being_read_again()
    jobs = queue.read_again([(job.doc_id, _record(job)) for job in begun], password=password)
    for number, job in enumerate(jobs, start=1):
        queue.run(job.id, partial(on_job, number, len(jobs)))
        _stop_if_broken(services, job)
    done = tuple(queue.job(job.id, owner=job.owner) for job in jobs)
    for job in done:
        if job.state in ("done", "unchanged"):
            queue.dismiss(job.id, owner=job.owner)
    unnamed = tuple(job for job in done if job.source == made_up_name(job.doc_id))
    return Rebuilt(aside, resumed, done, without_file, unnamed)


def _record(job: Job) -> Record:
    return Record(job.owner, job.source, utc(job.added))


def _stop_if_broken(services: Services, job: Job) -> None:
    """Raise StoreUnavailable where a file failed for a reason that the others would fail for, too."""
    for failed in services.queue.being_read_again():
        if failed.id == job.id and failed.state == "failed":
            raise StoreUnavailable(
                f"{failed.message} The rebuild stopped at {failed.source}: when that is put right, run "
                "`second-look rebuild` again, and it goes on there."
            )


def _begin(services: Services, password: str) -> tuple[Path | None, tuple[Record, ...]]:
    """Put the old index aside and queue every file; returns its new place, and what has no file."""
    _save_records(services)
    without_file = _without_file(services)
    aside = None
    if not services.settings.qdrant_url:
        from ingest.store.edge import move_aside

        aside = move_aside(services.settings.index)
    queue, originals = services.queue, services.originals
    records = [
        (doc_id, record)
        for owner in sorted(everybody(queue, originals))
        for doc_id, record in _oldest_first(kept(queue, originals, owner=owner))
        if originals.path(doc_id, owner=owner).exists()
    ]
    queue.read_again(records, password=password)
    return aside, without_file


def _save_records(services: Services) -> None:
    """Take names and dates out of an index that can still be read."""
    try:
        with closing(open_store(services.settings, services.recipe)) as store:
            settle(services.queue, services.originals, store, shared=bool(services.settings.qdrant_url))
    except (IndexMismatch, StoreUnavailable):
        if services.settings.qdrant_url:
            raise


def _opens(services: Services) -> bool:
    """Whether the index that an earlier rebuild began can be gone on with."""
    try:
        _ = services.store
    except (IndexMismatch, StoreUnavailable):
        if services.settings.qdrant_url:
            raise
        return False
    return True


def _oldest_first(records: dict[str, Record]) -> list[tuple[str, Record]]:
    return sorted(records.items(), key=lambda item: (item[1].added, item[1].source))


def _without_file(services: Services) -> tuple[Record, ...]:
    queue, originals = services.queue, services.originals
    return tuple(
        record
        for owner in sorted(everybody(queue, originals))
        for doc_id, record in _oldest_first(kept(queue, originals, owner=owner))
        if not originals.path(doc_id, owner=owner).exists()
    )
