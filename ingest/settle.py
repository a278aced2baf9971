"""Files, index and queue brought together again after a process was killed, and what is kept to make an index of.

A file that lies among the originals is wanted; the index follows. See `Originals`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection

from ingest.errors import StoreUnavailable
from ingest.originals import Originals, Record
from ingest.queue import RETRIABLE, UploadQueue, utc
from ingest.store import LOCAL_OWNER, Store

log = logging.getLogger(__name__)

SHARED_GRACE_SECONDS = 3600.0
"""Where other processes use the same library, a file this young may be one that they are storing just now."""


def settle(queue: UploadQueue, originals: Originals, store: Store, *, shared: bool = False) -> None:
    """Finish what a killed process began; for when the index was opened, before it is used.

    A deletion is finished. A file that is neither in the index nor on the list of uploads is queued, unless the
    list says that it was refused. A document without a record gets one. Where the library is `shared` with other
    processes, what may be their work of just now is left alone. A disk that does not let it is told in the log:
    one can still search.
    """
    try:
        originals.tidy()
        if not shared:
            queue.free()
        for owner in sorted(everybody(queue, originals)):
            documents = {document.id: document for document in store.documents(owner=owner)}
            for doc_id in [one for one in documents if originals.discarded(one, owner=owner)]:
                log.warning(
                    "Document %s was being deleted when the process ended: it is deleted now.", doc_id
                )
                store.delete(doc_id, owner=owner)
                del documents[doc_id]
            for doc_id in documents.keys() - originals.records(owner=owner):
                found = documents[doc_id]
                pdf = originals.path(doc_id, owner=owner).exists()
                originals.write_record(doc_id, Record(owner, found.source, found.added, pdf))
            with queue.storing:
                _settle_files(queue, originals, owner, documents, SHARED_GRACE_SECONDS if shared else 0.0)
    except StoreUnavailable as error:
        log.warning("What a killed process left could not be tidied up: %s", error)


def everybody(queue: UploadQueue, originals: Originals) -> set[str]:
    """Everybody who has files or uploads."""
    return originals.owners({LOCAL_OWNER, *queue.owners()})


def kept(queue: UploadQueue, originals: Originals, *, owner: str) -> dict[str, Record]:
    """All documents of an owner that have a file or a record, by id.

    Where there is no record, name and date are those of the newest upload on the list; where there is none
    either, the name is `made_up_name` and the date is the file's.
    """
    found: dict[str, Record] = {}
    latest, files = queue.latest(owner=owner), originals.files(owner=owner)
    for doc_id in sorted(files | originals.records(owner=owner)):
        record = originals.record(doc_id, owner=owner)
        if record is None and doc_id in latest:
            record = Record(owner, latest[doc_id].source, utc(latest[doc_id].added))
        elif record is None and doc_id in files:
            changed = originals.path(doc_id, owner=owner).stat().st_mtime
            record = Record(owner, made_up_name(doc_id), utc(changed))
        if record is not None:
            found[doc_id] = record
    return found


def made_up_name(doc_id: str) -> str:
    """The name of a file of which nothing else is known any more."""
    return f"{doc_id[:12]}.pdf"


def orphans(queue: UploadQueue, originals: Originals, documents: Collection[str], *, owner: str) -> set[str]:
    """Ids of an owner's files that are not among these documents, and that no upload is about to put there."""
    latest = queue.latest(owner=owner)
    return {
        doc_id
        for doc_id in originals.files(owner=owner) - set(documents)
        if doc_id not in latest or not (latest[doc_id].open or latest[doc_id].state in RETRIABLE)
    }


def _settle_files(
    queue: UploadQueue, originals: Originals, owner: str, documents: Collection[str], grace_seconds: float
) -> None:
    latest, records = queue.latest(owner=owner), kept(queue, originals, owner=owner)
    for doc_id in sorted(orphans(queue, originals, documents, owner=owner)):
        if time.time() - originals.path(doc_id, owner=owner).stat().st_mtime < grace_seconds:
            continue
        if doc_id in latest and latest[doc_id].state == "refused":
            originals.remove(doc_id, owner=owner)
        else:
            log.warning("Document %s is kept but not in the index: it is read again.", doc_id)
            queue.read_again([(doc_id, records[doc_id])])
    for doc_id in originals.records(owner=owner) - originals.files(owner=owner) - set(documents):
        if doc_id not in records or records[doc_id].pdf:  # its file never came, or went with a deletion
            originals.remove(doc_id, owner=owner)
