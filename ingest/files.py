"""Files that a crash leaves as they were or as they are meant to be, never half written."""

from __future__ import annotations

import os
import re
import threading
import time
from contextlib import suppress
from pathlib import Path

LEFT_BEHIND_SECONDS = 3600.0
"""A partial file this old is nobody's any more, whoever has its writer's process number now."""
_PARTIAL = re.compile(r"\.(\d+)-\d+\.part$")


def replace_file(path: Path, data: bytes) -> None:
    """Write a file durably: beside its place, synced, then put there at once. Makes the folder.

    Raises OSError where the disk is full or the folder cannot be written; what was there before is still there.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
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
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names that were given, moved or removed in a folder survive a power cut. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_partials(folder: Path) -> int:
    """Delete what killed processes had begun to write in a folder or below; returns how many. Raises OSError."""
    left = [path for path in folder.rglob("*.part") if _is_left_behind(path)]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


def _is_left_behind(path: Path) -> bool:
    writer = _PARTIAL.search(path.name)
    try:
        old = time.time() - path.stat().st_mtime > LEFT_BEHIND_SECONDS
    except FileNotFoundError:
        return False
    return writer is not None and (old or not _runs(int(writer[1])))


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # somebody else's
        return True
    return True
