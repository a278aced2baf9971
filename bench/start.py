"""How long a start takes: `python -m bench.start [--runs N] [--json] [--quick]`.

The app with 50,000 chunks is started again and again, after one start that is not counted. From the start of
its process: to the question box in Chromium, which knows nothing of the app yet; then a question is asked at
once, while the models are still loading: to the first reranked card, and to the first words of the answer
(quotes, as without an LLM). Then the same question on the command line, from the start of the process to its
end; the import of what the app takes of `rag` and `ingest` before its first page; and of all their modules but the
few that wait for a library of their own.

The rival in the same rounds is the tutorial that people begin with: sentence-transformers and qdrant-client,
both models loaded with the same weights, 50 candidates from a local collection of 625 chunks only, reranked;
from the start of its process to the first answer. Exits with 1 where a median misses its goal.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from playwright.sync_api import Browser, expect, sync_playwright

from bench.library import CHUNKS, FOLDER, REAL, fill, questions
from bench.timing import ROOT, machine, ratio, table
from ingest.weights import bundled_minilm
from rag.services import opened
from rag.settings import Settings
from tests.browser.conftest import ARGUMENTS, CHROMIUM, start_app, stop_app
from tests.test_flow import AT_FIRST_USE, FLOW

RUNS = 5
IMPORTS = 5
SLOW_MS = 120_000
GOALS = {"page": 3.0, "card": 8.0, "answer": 8.0, "command": 8.0, "import": 0.3}
FIRST = ("rag.cli", "rag.services", "ingest.store.edge")
"""What the app imports of this project before its first page, and by these the rest of it."""
LABELS = {
    "page": "first page: the question box",
    "card": "first reranked card, models cold",
    "answer": "first words of the answer, models cold",
    "command": "`second-look ask`, to its end",
    "import": "import of rag and ingest, as the app does it at its start",
    "import of all": "import of all modules of rag and ingest",
    "tutorial": "the tutorial's first answer",
}
TUTORIAL = """
import sys
from qdrant_client import QdrantClient
from sentence_transformers import CrossEncoder, SentenceTransformer

model, collection, question = sys.argv[1:]
embedder = SentenceTransformer(model, device="cpu")
reranker = CrossEncoder(model, num_labels=1, device="cpu")
client = QdrantClient(path=collection)
found = client.query_points("chunks", query=embedder.encode(question).tolist(), limit=50).points
passages = [point.payload["text"] for point in found]
scores = reranker.predict([(question, passage) for passage in passages])
print(passages[int(scores.argmax())])
client.close()
"""


def environ_of(folder: Path) -> dict[str, str]:
    """What a start on this library sees: no LLM, no server."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("OPENAI", "LLM", "QDRANT"))
    }
    return kept | {"SECOND_LOOK_DATA": str(folder), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}


def timed_process(command: Sequence[str], environ: Mapping[str, str]) -> float:
    """Seconds from a process's start to its end, which must be a good one."""
    begun = perf_counter()
    done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = perf_counter() - begun
    if done.returncode or not done.stdout.strip():
        raise RuntimeError(f"{command[:2]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return seconds


def one_start(browser: Browser, folder: Path, question: str) -> dict[str, float]:
    """Seconds from the app's start to what a user sees of it first."""
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    begun = perf_counter()
    app = start_app(folder, folder / "app.log")
    try:
        page.goto(app.url)
        box = page.get_by_test_id("stChatInput").locator("textarea")
        expect(box).to_be_visible(timeout=SLOW_MS)
        seconds = {"page": perf_counter() - begun}
        box.fill(question)
        box.press("Enter")
        page.locator("h3[id$='-reranked-1']").wait_for(timeout=SLOW_MS)
        seconds["card"] = perf_counter() - begun
        page.wait_for_function(WORDS, timeout=SLOW_MS)
        seconds["answer"] = perf_counter() - begun
        return seconds
    finally:
        page.context.close()
        stop_app(app)


WORDS = (
    "() => [...document.querySelectorAll(\"[class*='st-key-answer-']\")].some((one) => "
    "one.innerText.includes('\u201c'))"
)
"""The answer is made of quotes; what stands in its place before has none."""


def import_seconds(names: Sequence[str]) -> float:
    """Of these modules, in a process of its own."""
    modules = "; ".join(f"import {name}" for name in names)
    code = f"import time; begun = time.perf_counter(); {modules}; print(time.perf_counter() - begun)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout)


def make_collection(library: Path, folder: Path) -> int:
    """The chunks with vectors of their own in a local collection, as the tutorial would have made it."""
    from qdrant_client import QdrantClient
    from qdrant_client.models import Distance, PointStruct, VectorParams

    with opened(Settings(data=library)) as services:
        documents = [each for each in services.store.documents() if each.source.startswith("volume")]
        taken = [services.store.take(document.id) for document in documents]
    points = [
        PointStruct(id=number, vector=vector.tolist(), payload={"text": chunk.passage})
        for number, (chunk, vector) in enumerate(
            pair for stored in taken if stored for pair in zip(stored.chunks, stored.vectors, strict=True)
        )
    ]
    client = QdrantClient(path=str(folder))
    size = len(taken[0].vectors[0]) if taken[0] else 0
    client.create_collection("chunks", vectors_config=VectorParams(size=size, distance=Distance.COSINE))
    client.upsert("chunks", points)
    client.close()
    return len(points)


def measure(library: Path, runs: int, scratch: Path) -> dict[str, list[float]]:
    """Seconds of everything in each round; one start before them is not counted."""
    make_collection(library, scratch / "collection")
    environ = environ_of(library)
    command = str(Path(sys.executable).with_name("second-look"))
    tutorial = [sys.executable, "-c", TUTORIAL, str(bundled_minilm()), str(scratch / "collection")]
    seconds: dict[str, list[float]] = {name: [] for name in LABELS}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        first, *others = questions(runs + 1)
        one_start(browser, library, first)
        for question in others:
            for name, value in one_start(browser, library, question).items():
                seconds[name].append(value)
            seconds["command"].append(timed_process([command, "ask", question], environ))
            seconds["tutorial"].append(timed_process([*tutorial, question], environ))
        browser.close()
    every = [name for name in FLOW if name not in AT_FIRST_USE]
    for name, modules in (("import", FIRST), ("import of all", every)):
        seconds[name] = [import_seconds(modules) for _ in range(IMPORTS)]
    return seconds


def met(seconds: Mapping[str, Sequence[float]]) -> bool:
    return all(median(seconds[name]) <= goal for name, goal in GOALS.items())


def report(seconds: Mapping[str, Sequence[float]]) -> None:
    """Print the table."""
    rows = [["from the start of the process", "seconds, median", "lowest", "highest", "goal", "met"]]
    for name, times in seconds.items():
        numbers = [f"{value:.2f}" for value in (median(times), min(times), max(times))]
        goal = GOALS.get(name)
        answer = "" if goal is None else "yes" if median(times) <= goal else "no"
        rows.append([LABELS[name], *numbers, "" if goal is None else f"{goal:g}", answer])
    print(table(rows))
    print(f"\nthe tutorial takes {ratio(seconds['tutorial'], seconds['card'])} as long as the first card")
    print(f"and {ratio(seconds['tutorial'], seconds['command'])} as long as `second-look ask`")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"where the library is kept ({FOLDER})")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="1 round")
    options = parser.parse_args()
    if options.runs < 1:
        parser.error("--runs must be at least 1")
    runs = 1 if options.quick else options.runs
    fill(options.folder, CHUNKS, real=REAL)
    with tempfile.TemporaryDirectory() as scratch:
        seconds = measure(options.folder, runs, Path(scratch))
    if options.json:
        result: dict[str, Any] = {"machine": machine(), "chunks": CHUNKS, "seconds": seconds, "goals": GOALS}
        print(json.dumps(result, indent=1))
    else:
        print(machine())
        print(f"{CHUNKS:,} chunks, {runs} rounds in turn\n")
        report(seconds)
    return 0 if met(seconds) else 1


if __name__ == "__main__":
    sys.exit(main())
