"""Fifty people at once for ten minutes: `python -m bench.load [--sessions N] [--minutes M] [--quick] [--json]`.

The real app with the real models, served as people serve it, and as many browser tabs as sessions, which speak
Streamlit's WebSocket protocol (see bench/tab.py). Everybody asks about the sample library and about PDFs of their
own, uploads such PDFs, looks at a page now and then, and sometimes closes the tab and comes back in a new one.
Between two of these things everybody thinks for 30 to 90 seconds: two cores rerank about one and a half questions
a second, and fifty people who do something once a minute want 0.8.

Counted are errors (exceptions and error messages on pages, HTTP errors, lost connections), answers that do not
come, and uploads that are not in the library at the end, asked through the API. The resident memory of the app and
its workers is read every 10 seconds: in the last minute it may be at most 10 % above minute 2; a run of less than
four minutes is too short to say. Exits with 1 where something is missed. Linux only: memory is read from /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from time import monotonic

import httpx

from bench.tab import Broken, Tab
from bench.timing import machine, table
from rag.samples import sample_files, sample_questions
from tests.browser.conftest import App, start_app, stop_app
from tests.pdfs import text_pdf

SESSIONS, MINUTES = 50, 10.0
QUICK_SESSIONS, QUICK_MINUTES = 10, 1.5
THINK_SECONDS = (30.0, 90.0)
SHARE_OF_UPLOADS = 0.25
SHARE_OF_PAGES = 0.15
SHARE_OF_NEW_TABS = 0.05
SECONDS_BETWEEN_READINGS = 10.0
SECONDS_FOR_THE_QUEUE = 300.0
GROWTH = 0.10
SHORTEST_MINUTES = 4.0
"""Shorter runs say nothing about growth."""
SUBJECTS = ("pump", "boiler", "lathe", "crane", "press", "mixer", "kiln", "loom")


@dataclass
class Record:
    """What happened."""

    seconds: list[float] = field(default_factory=list)
    """From a question to its complete answer."""
    asked: int = 0
    uploaded: list[str] = field(default_factory=list)
    """SHA-256 of each file, in hex."""
    problems: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[float, int]] = field(default_factory=list)
    """Seconds since the start, and resident bytes."""
    tabs: int = 0


class Person:
    """Somebody with a tab, who asks, uploads, looks and thinks."""

    def __init__(self, number: int, url: str, record: Record, think: tuple[float, float]) -> None:
        self._number = number
        self._url = url
        self._record = record
        self._think = think
        self._chance = random.Random(number)
        self._own: list[str] = []
        self._tab: Tab

    async def visit(self, until: float) -> None:
        """Use the app until that moment; what goes wrong is noted, and the next thing is tried in a new tab."""
        low, high = self._think
        await asyncio.sleep(self._chance.uniform(0, high))
        await self._try(self._open())
        while monotonic() < until:
            await self._try(self._do_something())
            await asyncio.sleep(self._chance.uniform(low, high))
        await self._tab.close()

    async def _try(self, thing: Coroutine[None, None, None]) -> None:
        try:
            await thing
        except (Broken, TimeoutError, httpx.HTTPError, OSError, KeyError) as error:
            self._note(f"{type(error).__name__}: {error}")
            await self._reopen()

    def _note(self, problem: str) -> None:
        self._record.problems[problem[:200]] += 1

    async def _open(self) -> None:
        self._tab = Tab(self._url, self._note)
        self._record.tabs += 1
        await self._tab.open()

    async def _reopen(self) -> None:
        await self._tab.close()
        try:
            await self._open()
        except (Broken, TimeoutError, httpx.HTTPError, OSError) as error:
            self._note(f"cannot come back: {type(error).__name__}: {error}")

    async def _do_something(self) -> None:
        chance = self._chance.random()
        if chance < SHARE_OF_NEW_TABS:
            await self._reopen()
        elif chance < SHARE_OF_NEW_TABS + SHARE_OF_UPLOADS:
            await self._upload()
        else:
            await self._ask()

    async def _ask(self) -> None:
        own = self._own and self._chance.random() < 0.3
        question = self._chance.choice(self._own) if own else self._chance.choice(sample_questions()).text
        self._record.asked += 1
        before = self._citations()
        seconds = await self._tab.ask(question)
        if not self._citations() - before:
            raise Broken("A question was answered without a source.")
        self._record.seconds.append(seconds)
        if self._chance.random() < SHARE_OF_PAGES:
            await self._tab.click("Open page")

    def _citations(self) -> set[str]:
        """The buttons on the page that stand for a cited source: their labels begin with its number."""
        return {key for key, label in self._tab.seen.buttons.items() if re.match(r"\\\[\d+\\\] ", label)}

    async def _upload(self) -> None:
        name = f"note-{self._number}-{len(self._own)}"
        subject = self._chance.choice(SUBJECTS)
        hours = self._chance.randint(100, 900)
        lines = [
            f"The {subject} of {name} needs fresh oil every {hours} hours of work.",
            "Turn it off before.",
        ]
        await self._tab.go("documents")
        self._record.uploaded.append(
            await self._tab.upload(f"{name}.pdf", text_pdf([lines, lines], title=name))
        )
        self._own.append(f"How often does the {subject} of {name} need fresh oil?")
        await asyncio.sleep(self._chance.uniform(3, 10))  # the page shows how far the queue is
        await self._tab.go("")


async def fill(url: str) -> None:
    """Upload the sample library through the API, and wait until it is indexed."""
    async with httpx.AsyncClient(base_url=url, timeout=120) as api:
        files = [("files", (file.name, file.path.read_bytes(), "application/pdf")) for file in sample_files()]
        (await api.post("/api/documents", files=files)).raise_for_status()
        await wait_for_queue(api)


async def wait_for_queue(api: httpx.AsyncClient) -> bool:
    """Wait until no upload waits for work; False when that takes too long."""
    deadline = monotonic() + SECONDS_FOR_THE_QUEUE
    while monotonic() < deadline:
        jobs = (await api.get("/api/uploads")).raise_for_status().json()
        if not any(job["state"] in ("queued", "reading", "embedding") for job in jobs):
            return True
        await asyncio.sleep(1)
    return False


async def present(url: str, wanted: Sequence[str]) -> int:
    """How many of these documents are in the library once the queue is empty."""
    async with httpx.AsyncClient(base_url=url, timeout=120) as api:
        await wait_for_queue(api)
        documents = (await api.get("/api/documents")).raise_for_status().json()
    return len(set(wanted) & {document["id"] for document in documents})


def resident_bytes(process: int) -> int:
    """Memory of a process and all that it started."""
    parents, sizes = {}, {}
    for folder in Path("/proc").iterdir():
        try:
            lines = (folder / "status").read_text().splitlines() if folder.name.isdigit() else []
        except OSError:  # it has ended
            continue
        values = dict(line.split(":", 1) for line in lines if ":" in line)
        if "VmRSS" in values:
            parents[int(folder.name)] = int(values["PPid"])
            sizes[int(folder.name)] = int(values["VmRSS"].split()[0]) * 1024
    return sum(size for name, size in sizes.items() if process in _line(name, parents))


def _line(process: int, parents: dict[int, int]) -> list[int]:
    """A process and those it comes from."""
    line = [process]
    while line[-1] in parents:
        line.append(parents[line[-1]])
    return line


async def watch(app: App, record: Record, begun: float) -> None:
    """Read the memory of the app until cancelled."""
    while True:
        record.memory.append((monotonic() - begun, resident_bytes(app.process.pid)))
        await asyncio.sleep(SECONDS_BETWEEN_READINGS)


async def load(app: App, sessions: int, minutes: float, think: tuple[float, float]) -> Record:
    """Let everybody in, for so long."""
    record = Record()
    await fill(app.url)
    begun = monotonic()
    watching = asyncio.create_task(watch(app, record, begun))
    people = [Person(number, app.url, record, think) for number in range(sessions)]
    await asyncio.gather(*(person.visit(begun + minutes * 60) for person in people))
    watching.cancel()
    return record


def growth(memory: Sequence[tuple[float, int]], minutes: float) -> tuple[float, float, float]:
    """Resident GB in minute 2 (of short runs in the second half) and in the last minute; the growth as a share."""
    begin, end = (60.0, 120.0) if minutes >= SHORTEST_MINUTES else (minutes * 30, minutes * 60)
    early = median(size for second, size in memory if begin <= second <= end)
    late = median(size for second, size in memory if second >= minutes * 60 - 60)
    return early / 1e9, late / 1e9, late / early - 1


def report(record: Record, found: int, minutes: float) -> bool:
    """Print the tables; True where nothing is missed."""
    early, late, more = growth(record.memory, minutes)
    p50, p95 = median(record.seconds), quantiles(record.seconds, n=20)[-1]
    errors = sum(record.problems.values())
    met = {
        "errors": errors == 0,
        "answered": len(record.seconds) == record.asked,
        "present": found == len(set(record.uploaded)),
        "memory": more <= GROWTH or minutes < SHORTEST_MINUTES,
    }
    rows = [
        ["measure", "value", "goal", "met"],
        ["tabs opened", str(record.tabs), "", ""],
        ["questions asked", str(record.asked), "", ""],
        ["answered, with sources", str(len(record.seconds)), "all", _yes(met["answered"])],
        ["question to complete answer, p50", f"{p50:.1f} s", "", ""],
        ["question to complete answer, p95", f"{p95:.1f} s", "", ""],
        ["PDFs uploaded", str(len(record.uploaded)), "", ""],
        ["in the library at the end", str(found), "all", _yes(met["present"])],
        ["errors and lost connections", str(errors), "0", _yes(met["errors"])],
        ["memory in minute 2", f"{early:.2f} GB", "", ""],
        ["memory in the last minute", f"{late:.2f} GB ({more:+.1%})", f"+{GROWTH:.0%}", _yes(met["memory"])],
    ]
    print(table(rows))
    print("\nMemory every minute, GB: " + " ".join(f"{size / 1e9:.2f}" for _, size in record.memory[::6]))
    for problem, count in record.problems.most_common(20):
        print(f"{count} x {problem}")
    return all(met.values())


def _yes(met: bool) -> str:
    return "yes" if met else "no"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sessions", type=int, default=SESSIONS)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument(
        "--quick", action="store_true", help="ten people, who think a fifth as long, for 90 s"
    )
    parser.add_argument("--json", action="store_true", help="also print what was measured, as JSON")
    options = parser.parse_args()
    sessions, minutes, think = options.sessions, options.minutes, THINK_SECONDS
    if options.quick:
        sessions, minutes, think = QUICK_SESSIONS, QUICK_MINUTES, (6.0, 18.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        app = start_app(folder / "data", folder / "app.log")
        try:
            record = asyncio.run(load(app, sessions, minutes, think))
            found = asyncio.run(present(app.url, record.uploaded))
        finally:
            stop_app(app)
        traces = (folder / "app.log").read_text(errors="replace").count("Traceback")
    record.problems.update({"Traceback in the log of the app": traces} if traces else {})
    print(
        f"{machine()}\n{sessions} sessions, {minutes:g} minutes, {think[0]:g} to {think[1]:g} s of thought\n"
    )
    done = report(record, found, minutes)
    if options.json:
        print(json.dumps({"seconds": record.seconds, "memory": record.memory, "problems": record.problems}))
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
