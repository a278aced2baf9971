"""The packages that the app is installed from, as requirements.lock pins them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"


def pinned() -> dict[str, str]:
    """Name to version of every package in requirements.lock. Raises ValueError for a line that pins nothing."""
    found = {}
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        requirement = line.partition("#")[0].strip()
        if requirement:
            match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9._+!-]+)", requirement)
            if not match:
                raise ValueError(f"{LOCK.name}: {requirement!r} is not NAME==VERSION.")
            found[match[1]] = match[2]
    return found
