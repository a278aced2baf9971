"""The uploaded PDFs on disk: each stored once per owner, named by the SHA-256 of its bytes."""

from __future__ import annotations

import hashlib
import os
import re
import time
from pathlib import Path

from ingest.errors import BadRequest, StoreUnavailable
from ingest.files import replace_file

_DOC_ID = re.compile(r"[0-9a-f]{64}")
_PLAIN_OWNER = re.compile(r"[a-z0-9-]{1,40}")


class Originals:
    """Files under `folder/OWNER/SHA256.pdf`; deleted ones wait in `trash` until they are purged."""

    def __init__(self, folder: Path, trash: Path) -> None:
        self._folder = folder
        self._trash = trash

    def path(self, doc_id: str, *, owner: str) -> Path:
        """Where a document's PDF is, or would be. Raises BadRequest for anything but a SHA-256 in hex."""
        return _place(self._folder, doc_id, owner)

    def save(self, data: bytes, *, owner: str) -> str:
        """Write the bytes durably and return their SHA-256; the same bytes again change nothing.

        Raises StoreUnavailable when the disk is full or the folder cannot be written.
        """
        doc_id = hashlib.sha256(data).hexdigest()
        path = self.path(doc_id, owner=owner)
        try:
            if not (path.exists() and path.stat().st_size == len(data)):
                replace_file(path, data)
        except OSError as error:
            raise StoreUnavailable(
                f"The upload cannot be stored in {self._folder}: {error.strerror}. "
                "Free some space or make the folder writable, then upload again."
            ) from error
        return doc_id

    def remove(self, doc_id: str, *, owner: str) -> None:
        """Delete the file for good; no error where there is none."""
        self.path(doc_id, owner=owner).unlink(missing_ok=True)

    def discard(self, doc_id: str, *, owner: str) -> None:
        """Move the file to the trash, from where `restore` brings it back."""
        target = _place(self._trash, doc_id, owner)
        target.parent.mkdir(parents=True, exist_ok=True)
        path = self.path(doc_id, owner=owner)
        if path.exists():
            path.replace(target)
            os.utime(target)

    def restore(self, doc_id: str, *, owner: str) -> bool:
        """Bring a discarded file back; False when it is gone."""
        source = _place(self._trash, doc_id, owner)
        if not source.exists():
            return False
        source.replace(self.path(doc_id, owner=owner))
        return True

    def purge(self, *, older_than: float = 0.0) -> int:
        """Delete files that were discarded at least `older_than` seconds ago; returns how many."""
        limit = time.time() - older_than
        old = [path for path in self._trash.glob("*/*.pdf") if path.stat().st_mtime <= limit]
        for path in old:
            path.unlink(missing_ok=True)
        return len(old)

    def forget(self, doc_id: str, *, owner: str) -> None:
        """Delete one discarded file for good."""
        _place(self._trash, doc_id, owner).unlink(missing_ok=True)


def _place(folder: Path, doc_id: str, owner: str) -> Path:
    if not _DOC_ID.fullmatch(doc_id):
        raise BadRequest("A document id is a SHA-256 in hex: 64 characters from 0-9 and a-f.")
    plain = _PLAIN_OWNER.fullmatch(owner)
    return folder / (owner if plain else hashlib.sha256(owner.encode()).hexdigest()) / f"{doc_id}.pdf"
