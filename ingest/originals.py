"""The uploaded PDFs on disk: each stored once per owner, named by the SHA-256 of its bytes.

Beside each lies a small record of what its bytes do not tell: whose it is, what it was called and when it came.
With both the index can be made anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ingest.errors import BadRequest, StoreUnavailable
from ingest.files import remove_partials, replace_file

log = logging.getLogger(__name__)

_DOC_ID = re.compile(r"[0-9a-f]{64}")
_PLAIN_OWNER = re.compile(r"[a-z0-9-]{1,40}")


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of a document besides its bytes; `added` is ISO 8601 in UTC.

    `pdf` is False for a document that was never a PDF: it cannot be read again.
    """

    owner: str
    source: str
    added: str
    pdf: bool = True


class Originals:
    """Files under `folder/OWNER/SHA256.pdf`; deleted ones wait in `trash` until they are purged.

    A file that lies in `folder` is wanted: moving it is what decides on a deletion and on its undo, and after a
    crash the index is made to follow. Every method raises StoreUnavailable where the disk does not let it.
    """

    def __init__(self, folder: Path, trash: Path) -> None:
        self._folder = folder
        self._trash = trash

    @property
    def folder(self) -> Path:
        """Where the files are, for people."""
        return self._folder

    def path(self, doc_id: str, *, owner: str) -> Path:
        """Where a document's PDF is, or would be. Raises BadRequest for anything but a SHA-256 in hex."""
        return _place(self._folder, doc_id, owner)

    def save(self, data: bytes, *, owner: str, source: str = "") -> str:
        """Write the bytes durably and return their SHA-256; the same bytes again change nothing.

        `source` is the name of the file; with one, a record is there before the file is.
        """
        doc_id = hashlib.sha256(data).hexdigest()
        path = self.path(doc_id, owner=owner)
        with _told(f"The upload cannot be stored in {self._folder}", "then upload again"):
            if source and self.record(doc_id, owner=owner) is None:
                self.write_record(doc_id, Record(owner, source, now()))
            if not (path.exists() and path.stat().st_size == len(data)):
                replace_file(path, data)
        return doc_id

    def record(self, doc_id: str, *, owner: str) -> Record | None:
        """What is known of a document besides its bytes; None where there is no record, or a damaged one."""
        path = self.path(doc_id, owner=owner).with_suffix(".json")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return Record(str(data["owner"]), str(data["source"]), _date(data["added"]), bool(data["pdf"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("The record %s cannot be read (%s); its name and date are lost.", path, error)
            return None

    def write_record(self, doc_id: str, record: Record) -> None:
        """Write a document's record, in place of the one that is there."""
        path = self.path(doc_id, owner=record.owner).with_suffix(".json")
        data = {"owner": record.owner, "source": record.source, "added": record.added, "pdf": record.pdf}
        with _told(f"The record {path} cannot be written"):
            replace_file(path, json.dumps(data, ensure_ascii=False).encode())

    def files(self, *, owner: str) -> set[str]:
        """Ids of the PDFs that an owner has here."""
        return _ids(self._folder, owner, ".pdf")

    def records(self, *, owner: str) -> set[str]:
        """Ids of the documents of an owner of which there is a record, with or without a PDF."""
        return _ids(self._folder, owner, ".json")

    def owners(self, known: set[str]) -> set[str]:
        """Whose files are here, besides those `known`.

        A folder that is named by a hash is told by its records, or by who is known; else it stays out, and the
        log says so.
        """
        by_folder = {_folder_name(owner): owner for owner in known}
        found = (by_folder.get(folder.name) or _owner_of(folder) for folder in self._folder.glob("*/"))
        return known | {owner for owner in found if owner}

    def remove(self, doc_id: str, *, owner: str) -> None:
        """Delete the file for good; no error where there is none."""
        path = self.path(doc_id, owner=owner)
        with _told(f"{path} cannot be deleted"):
            path.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)

    def discard(self, doc_id: str, *, owner: str) -> None:
        """Move the file to the trash, from where `restore` brings it back."""
        path, target = self.path(doc_id, owner=owner), _place(self._trash, doc_id, owner)
        with _told(f"{path} cannot be moved to {self._trash}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            for kind in (".pdf", ".json"):
                if path.with_suffix(kind).exists():
                    os.utime(path.with_suffix(kind))
                    path.with_suffix(kind).replace(target.with_suffix(kind))

    def discarded(self, doc_id: str, *, owner: str) -> bool:
        """Tell whether a file is in the trash and not here."""
        here, gone = self.path(doc_id, owner=owner), _place(self._trash, doc_id, owner)
        return gone.exists() and not here.exists()

    def restore(self, doc_id: str, *, owner: str) -> bool:
        """Bring a discarded file back; False when it is gone."""
        path, source = self.path(doc_id, owner=owner), _place(self._trash, doc_id, owner)
        there = source.exists()
        with _told(f"{source} cannot be moved to {self._folder}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            for kind in (".json", ".pdf"):
                if source.with_suffix(kind).exists():
                    source.with_suffix(kind).replace(path.with_suffix(kind))
        return there

    def purge(self, *, older_than: float = 0.0) -> int:
        """Delete files that were discarded at least `older_than` seconds ago; returns how many PDFs."""
        limit = time.time() - older_than
        with _told(f"The trash {self._trash} cannot be emptied"):
            old = [path for path in self._trash.glob("*/*") if path.stat().st_mtime <= limit]
            for path in old:
                path.unlink(missing_ok=True)
        return sum(path.suffix == ".pdf" for path in old)

    def forget(self, doc_id: str, *, owner: str) -> None:
        """Delete one discarded file for good."""
        path = _place(self._trash, doc_id, owner)
        with _told(f"{path} cannot be deleted"):
            path.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)

    def tidy(self) -> None:
        """Delete what killed processes left half written."""
        with _told(f"Half written files in {self._folder} cannot be deleted"):
            remove_partials(self._folder)


def now() -> str:
    """The time as it is kept: ISO 8601 in UTC, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _date(text: object) -> str:
    return datetime.fromisoformat(str(text)).isoformat(timespec="seconds")


def _ids(folder: Path, owner: str, kind: str) -> set[str]:
    found = (folder / _folder_name(owner)).glob(f"*{kind}")
    return {path.stem for path in found if _DOC_ID.fullmatch(path.stem)}


def _owner_of(folder: Path) -> str:
    """The owner whose folder this is: its own name, or what a record says if that leads here; else empty."""
    if _PLAIN_OWNER.fullmatch(folder.name):
        return folder.name
    for path in folder.glob("*.json"):
        try:
            owner = json.loads(path.read_text(encoding="utf-8"))["owner"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a damaged record is told where it is read for its document
        if isinstance(owner, str) and _folder_name(owner) == folder.name:
            return owner
    log.warning("Whose files are in %s cannot be told; they are left alone.", folder)
    return ""


def _place(folder: Path, doc_id: str, owner: str) -> Path:
    if not _DOC_ID.fullmatch(doc_id):
        raise BadRequest("A document id is a SHA-256 in hex: 64 characters from 0-9 and a-f.")
    return folder / _folder_name(owner) / f"{doc_id}.pdf"


def _folder_name(owner: str) -> str:
    return owner if _PLAIN_OWNER.fullmatch(owner) else hashlib.sha256(owner.encode()).hexdigest()


@contextmanager
def _told(what: str, then: str = "then try again") -> Iterator[None]:
    """Say what the disk does not allow, and what to do about it."""
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(
            f"{what}: {error.strerror}. Free some space or make the folder writable, {then}."
        ) from error
