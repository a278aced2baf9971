"""Files that a crash leaves as they were or as they are meant to be, never half written."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path


def replace_file(path: Path, data: bytes) -> None:
    """Write a file durably: beside its place, synced, then put there at once. Makes the folder.

    Raises OSError where the disk is full or the folder cannot be written; what was there before is still there.
    """
    partial = path.with_name(f"{path.name}.{threading.get_ident()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink()
        raise
