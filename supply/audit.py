"""Known vulnerabilities of the pinned packages: `python -m supply.audit`, a part of `make check`.

Asks PyPI's advisories, through pip-audit. Exits with 1 where a package has a known vulnerability. Where the
service cannot be reached, or is a mirror without advisories, this is said and nothing fails: pip-audit alone would
report "no known vulnerabilities" for packages that it could not ask about.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from supply.lock import LOCK

PROBE = "https://pypi.org/pypi/pip/json"
"""Where pip-audit asks too; what it answers names vulnerabilities."""
SECONDS = 10
SECONDS_IN_ALL = 300


def unreachable() -> str:
    """Why advisories cannot be had; "" where they can."""
    try:
        with urllib.request.urlopen(PROBE, timeout=SECONDS) as answer:
            known = "vulnerabilities" in json.load(answer)
    except (OSError, ValueError) as error:
        return str(error)
    return "" if known else f"{PROBE} names no vulnerabilities"


def audit(folder: Path) -> list[dict[str, Any]]:
    """Every pinned package with its known vulnerabilities, as pip-audit reports it."""
    report = folder / "audit.json"
    command = ["--requirement", LOCK, "--disable-pip", "--no-deps", "--timeout", SECONDS]
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", *map(str, command), "--format", "json", "--output", str(report)],
        capture_output=True,
        text=True,
        timeout=SECONDS_IN_ALL,
        check=False,
    )
    if not report.is_file():
        raise RuntimeError(f"pip-audit ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    found: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["dependencies"]
    return found


def findings(packages: list[dict[str, Any]]) -> list[str]:
    """One line a vulnerability."""
    return [
        f"{package['name']} {package['version']}: {found['id']}, "
        f"fixed in {', '.join(found['fix_versions']) or 'no version yet'}"
        for package in packages
        for found in package.get("vulns", [])
    ]


def main() -> int:
    reason = unreachable()
    if reason:
        print(f"audit: skipped, the advisory service cannot be reached ({reason}).")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        try:
            packages = audit(Path(folder))
        except subprocess.TimeoutExpired:
            print(f"audit: skipped, the advisory service took more than {SECONDS_IN_ALL} s.")
            return 0
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    if len(unknown) == len(packages):
        print("audit: skipped, the advisory service knows none of the pinned packages: is it a mirror?")
        return 0
    found = findings(packages)
    print(f"audit: {len(packages) - len(unknown)} packages, {len(found)} known vulnerabilities.")
    if unknown:
        print(f"audit: nothing is known about {', '.join(unknown)}.")
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
