"""All speed benchmarks, one after the other: `python -m bench [--quick] [PART ...]`, or `make bench`.

Writes what they print into bench/RESULTS.md, between its two marks, with the machine and the day; the rest of
that paper (quality) stays as it is. With `--quick` each takes less than a minute, checks its goals, and the
paper is left alone. Exits with 1 where any goal is missed, and says which.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from datetime import UTC, datetime
from time import monotonic

from bench.timing import ROOT, machine

PARTS = {
    "rerank": ("Reranking 50 candidates", []),
    "embed": ("Embedding", []),
    "ingest": ("Ingest", ["--filings", "10", "--pages", "12"]),
    "question": ("A question among 50,000 chunks", []),
    "scale": ("Growth", []),
    "start": ("Start", []),
    "memory": ("Memory", []),
    "crowd": ("Questions at once", []),
}
"""Name of the script: its title, and what it is given in a whole run."""
RESULTS = ROOT / "bench" / "RESULTS.md"
BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"
MET = {0: "Every goal is met.", 1: "**A goal is missed.**"}
LONGEST = 900


def run(part: str, *, quick: bool) -> tuple[int, str]:
    """(exit status, the part's section of the paper)."""
    title, given = PARTS[part]
    arguments = ["--quick"] if quick else given
    command = [sys.executable, "-m", f"bench.{part}", *arguments]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST, check=False)
    except subprocess.TimeoutExpired:
        return 1, f"### {title}\n\n`bench.{part}` did not end within {LONGEST} seconds."
    said = MET.get(done.returncode, f"**It did not run (status {done.returncode}):** {done.stderr[-500:]}")
    printed = "\n".join(line for line in done.stdout.strip().splitlines() if line != machine())
    shown = " ".join(["python -m", f"bench.{part}", *arguments])
    return done.returncode, f"### {title}\n\n`{shown}`. {said}\n\n{printed}"


def write(sections: list[str]) -> None:
    """Put the sections between the marks of RESULTS.md."""
    paper = RESULTS.read_text(encoding="utf-8")
    before, rest = paper.split(BEGIN)
    after = rest.split(END)[1]
    head = f"{machine()}, {datetime.now(UTC):%Y-%m-%d}."
    body = "\n\n".join([BEGIN, head, *sections, END])
    RESULTS.write_text(before + body + after, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all without one")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"There is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}.")
    sections, missed = [], []
    for part in options.parts or PARTS:
        begun = monotonic()
        status, section = run(part, quick=options.quick)
        print(f"{section}\n\n({monotonic() - begun:.0f} s)\n", flush=True)
        sections.append(section)
        if status:
            missed.append(part)
    if not options.quick and not options.parts:
        write(sections)
        print(f"Written to {RESULTS.relative_to(ROOT)}.")
    print(f"Goals missed in: {', '.join(missed)}." if missed else "All goals met.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
