"""What the app holds in memory: `python -m bench.memory [--pdf FILE] [--json] [--quick]`.

The real app with the real models and 50,000 chunks, the page open in Chromium, after 20 questions of one
conversation; then the most that it holds, on top of that, while it ingests a PDF of 1,000 dense pages (made
here, or FILE). Counted is the app with all its worker processes, without the browser, every 50 ms. PSS counts
a page of memory that several processes share once in all; RSS counts it once for each. Both count the parts
of the index's files that the app has read and that lie in the system's cache anyway; the table says how much
that is. Exits with 1 where a goal is missed. Linux only.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import httpx2
from playwright.sync_api import Page, expect, sync_playwright

from bench.library import CHUNKS, FOLDER, REAL, fill, paragraphs, pdf_of, questions
from bench.timing import machine, table
from tests.browser.conftest import ARGUMENTS, CHROMIUM, App, start_app, stop_app
from tests.fake_llm import FakeLlm, say

PAGES, QUICK_PAGES = 1_000, 200
ASKED, QUICK_ASKED = 20, 5
EVERY = 0.05
GOAL_APP_MB = 1600
GOAL_INGEST_MB = 600
SLOW_MS = 120_000
SAID = "It stands in the sources [1]."
LABELS = {
    "started": "just started",
    "answered": "after the questions",
    "most_while_asking": "the most while asking",
    "most_while_ingesting": "the most while ingesting",
    "after_ingest": "after the ingest",
}


@dataclass(frozen=True, slots=True)
class Memory:
    """Megabytes of some processes together; `files` is the part of `pss` that is mapped from files."""

    pss: float = 0.0
    rss: float = 0.0
    files: float = 0.0

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.pss + other.pss, self.rss + other.rss, self.files + other.files)


def of_process(pid: int) -> Memory:
    """What a process holds now; nothing where it has just ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return Memory()
    return parse(text)


def parse(rollup: str) -> Memory:
    """The numbers of a `smaps_rollup`, which are kilobytes there."""
    kilobytes = {
        line.split(":")[0]: int(line.split()[1]) for line in rollup.splitlines() if line.endswith(" kB")
    }
    return Memory(
        kilobytes.get("Pss", 0) / 1024, kilobytes.get("Rss", 0) / 1024, kilobytes.get("Pss_File", 0) / 1024
    )


def family(pid: int) -> list[int]:
    """A process with all that descend from it."""
    found = [pid]
    for each in found:
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            try:
                found += [int(child) for child in children.read_text(encoding="ascii").split()]
            except (FileNotFoundError, ProcessLookupError):
                continue  # a thread that has just ended
    return found


def of_family(pid: int) -> Memory:
    """What a process and all its descendants hold now."""
    return sum((of_process(each) for each in family(pid)), Memory())


@dataclass(slots=True)
class Peak:
    """The most that was seen at once, and what each process then held, the app first."""

    most: Memory
    parts: tuple[float, ...] = ()
    looks: int = 0


@contextmanager
def watched(pid: int) -> Iterator[Peak]:
    """Look every 50 ms while the block runs."""
    peak, done = Peak(Memory()), threading.Event()

    def look() -> None:
        while not done.wait(EVERY):
            parts = [of_process(each) for each in family(pid)]
            total = sum(parts, Memory())
            peak.looks += 1
            if total.pss > peak.most.pss:
                peak.most, peak.parts = total, tuple(part.pss for part in parts)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def ask(page: Page, count: int) -> None:
    """Ask so many questions, each answered before the next."""
    box = page.get_by_test_id("stChatInput").locator("textarea")
    for question in questions(count):
        box.fill(question)
        box.press("Enter")
        expect(page.locator("[data-test-script-state='notRunning']")).to_have_count(1, timeout=SLOW_MS)
        expect(page.get_by_text(question).first).to_be_visible(timeout=SLOW_MS)
        expect(page.get_by_role("button", name="Regenerate").first).to_be_visible(timeout=SLOW_MS)
        expect(page.locator("[data-test-script-state='notRunning']")).to_have_count(1, timeout=SLOW_MS)


def dense_pdf(pages: int) -> bytes:
    """So many pages of 38 lines of 80 characters."""
    texts = paragraphs()
    return pdf_of([" ".join(islice(texts, 6)) for _ in range(pages)], "A thousand pages")


def ingest(api: httpx2.Client, name: str, pdf: bytes) -> dict[str, Any]:
    """Upload a PDF and wait until it is in the library; returns what the queue says of it then."""
    sent = api.post("/documents", files={"files": (name, pdf, "application/pdf")})
    sent.raise_for_status()
    (job,) = sent.json()
    while True:
        (now,) = (each for each in api.get("/uploads").raise_for_status().json() if each["id"] == job["id"])
        if now["state"] == "done":
            return dict(now)
        if now["state"] not in ("queued", "reading", "embedding"):
            raise RuntimeError(f"{name} is {now['state']}: {now['message']}")
        time.sleep(0.5)


def measure(app: App, name: str, pdf: bytes, asked: int) -> dict[str, Any]:
    """All numbers of the report."""
    pid = app.process.pid
    started = of_family(pid)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(app.url)
        expect(page.get_by_test_id("stChatInput")).to_be_visible(timeout=SLOW_MS)
        with watched(pid) as asking:
            ask(page, asked)
        answered = of_family(pid)
        with httpx2.Client(base_url=f"{app.url}/api", timeout=60) as api:
            begun = time.perf_counter()
            with watched(pid) as ingesting:
                done = ingest(api, name, pdf)
            seconds = time.perf_counter() - begun
            after = of_family(pid)
            api.delete(f"/documents/{done['doc_id']}").raise_for_status()
        browser.close()
    return {
        "machine": machine(),
        "chunks": CHUNKS,
        "questions": asked,
        "started": asdict(started),
        "answered": asdict(answered),
        "most_while_asking": asdict(asking.most),
        "most_while_ingesting": asdict(ingesting.most),
        "after_ingest": asdict(after),
        "on_top": ingesting.most.pss - answered.pss,
        "processes_at_the_most": ingesting.parts,
        "looks": ingesting.looks,
        "pdf": {"name": name, "megabytes": len(pdf) / 1e6, "says": done["message"], "seconds": seconds},
        "goals": {"app": GOAL_APP_MB, "ingest": GOAL_INGEST_MB},
    }


def met(result: dict[str, Any]) -> bool:
    return bool(result["answered"]["pss"] <= GOAL_APP_MB and result["on_top"] <= GOAL_INGEST_MB)


def report(result: dict[str, Any]) -> None:
    """Print the table."""
    print(result["machine"])
    pdf = result["pdf"]
    print(f"{result['chunks']:,} chunks, {result['questions']} questions; {pdf['name']}: {pdf['says']}")
    print(f"{pdf['megabytes']:.1f} MB, {pdf['seconds']:.0f} seconds, {result['looks']} looks\n")
    rows = [["app and its workers, MB", "PSS", "RSS", "of the PSS mapped files"]]
    for name, label in LABELS.items():
        memory = Memory(**result[name])
        rows.append([label, f"{memory.pss:,.0f}", f"{memory.rss:,.0f}", f"{memory.files:,.0f}"])
    print(table(rows))
    parts = " + ".join(f"{part:,.0f}" for part in result["processes_at_the_most"])
    print(f"\nby process at the most: {parts}")
    print(f"after the questions: {result['answered']['pss']:,.0f} MB (goal at most {GOAL_APP_MB:,})")
    print(f"ingest on top of that: {result['on_top']:,.0f} MB (goal at most {GOAL_INGEST_MB:,})")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"where the library is kept ({FOLDER})")
    parser.add_argument("--pdf", type=Path, help="ingest this file instead of one made here")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_PAGES} pages and {QUICK_ASKED} questions"
    )
    options = parser.parse_args()
    pages, asked = (QUICK_PAGES, QUICK_ASKED) if options.quick else (PAGES, ASKED)
    name, pdf = (
        (options.pdf.name, options.pdf.read_bytes()) if options.pdf else ("dense.pdf", dense_pdf(pages))
    )
    fill(options.folder, CHUNKS, real=REAL)
    with FakeLlm(say(SAID)) as llm:
        app = start_app(
            options.folder, options.folder / "app.log", OPENAI_BASE_URL=llm.base_url, LLM_MODEL="instant"
        )
        try:
            result = measure(app, name, pdf, asked)
        finally:
            stop_app(app)
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        report(result)
    return 0 if met(result) else 1


if __name__ == "__main__":
    sys.exit(main())
