"""16 users asking together against the same questions one at a time: `python -m bench.crowd [--json] [--quick]`.

Through `rag.pipeline.rank` with the real models, among 50,000 chunks, in one process as in the app. The users
come 50 ms after one another; each asks a question, waits for its ranking and asks the next. Measured is how
much gets done against the same questions one at a time, before and after; the waits; and the order: the rank
correlation of when questions were asked and when they were answered, how many later questions at most
overtook one, and the longest wait against the fair share, which is one question of each user, one after the
other. Then the same while documents are ingested. Exits with 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import count, islice
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

import numpy as np

from bench.library import CHUNKS, FOLDER, REAL, fill, paragraphs, pdf_of, questions
from bench.timing import machine, table
from ingest.chunk import CHUNKER
from ingest.pipeline import Tools, ingest
from ingest.store import LOCAL_OWNER, Recipe
from ingest.store.edge import open_edge_store
from rag.pipeline import Stages, rank
from rag.services import Services, opened
from rag.settings import Settings

USERS = 16
EACH = 2
APART = 0.05
"""Seconds between one user's coming and the next one's."""

GOAL_THROUGHPUT = 0.95
GOAL_CORRELATION = 0.9
GOAL_SHARE = 1.5
LABELS = {
    "alone": "one at a time",
    "alone_while_ingesting": "one at a time, ingest running",
    "together": f"{USERS} together",
    "together_while_ingesting": f"{USERS} together, ingest running",
}


@dataclass(frozen=True, slots=True)
class Wait:
    """One question: when it was asked and answered, in seconds of the same clock."""

    asked: float
    answered: float

    @property
    def seconds(self) -> float:
        """How long its user waited."""
        return self.answered - self.asked


@dataclass(frozen=True, slots=True)
class Crowd:
    """What many users saw; `correlation` is Spearman's, of the order asked and the order answered."""

    seconds: float
    p50: float
    p95: float
    longest: float
    correlation: float
    overtaken: int

    @classmethod
    def of(cls, waits: Sequence[Wait]) -> Crowd:
        """Sum up."""
        seconds = [wait.seconds for wait in waits]
        begun, ended = min(wait.asked for wait in waits), max(wait.answered for wait in waits)
        asked, answered = [wait.asked for wait in waits], [wait.answered for wait in waits]
        return cls(
            seconds=ended - begun,
            p50=median(seconds),
            p95=float(np.percentile(seconds, 95)),
            longest=max(seconds),
            correlation=float(np.corrcoef(places(asked), places(answered))[0, 1]),
            overtaken=max(overtakers(waits)),
        )


def overtakers(waits: Sequence[Wait]) -> list[int]:
    """Of each question, how many that were asked after it were answered before it."""
    return [
        sum(other.asked > wait.asked and other.answered < wait.answered for other in waits) for wait in waits
    ]


def places(times: Sequence[float]) -> Sequence[int]:
    """The place of each among all, from 0 for the earliest."""
    found: list[int] = np.argsort(np.argsort(times)).tolist()
    return found


def one_at_a_time(asked: Sequence[str], stages: Stages) -> list[float]:
    """Seconds of each question."""
    seconds = []
    for question in asked:
        begun = perf_counter()
        _whole(question, stages)
        seconds.append(perf_counter() - begun)
    return seconds


def together(asked: Sequence[str], stages: Stages) -> list[Wait]:
    """All users at once, each with its share of the questions, one after the other."""
    waits: list[Wait] = []
    errors: list[Exception] = []

    def use(mine: Sequence[str]) -> None:
        try:
            for question in mine:
                begun = perf_counter()
                _whole(question, stages)
                waits.append(Wait(begun, perf_counter()))
        except Exception as error:  # noqa: BLE001 - raised again below, in the thread that reports
            errors.append(error)

    users = [threading.Thread(target=use, args=(asked[number::USERS],)) for number in range(USERS)]
    for user in users:
        user.start()
        sleep(APART)
    for user in users:
        user.join()
    if errors:
        raise ExceptionGroup(f"{len(errors)} of {USERS} users got an error", errors)
    return waits


def _whole(question: str, stages: Stages) -> None:
    ranking = rank(question, stages)
    if ranking.rerank_problem or len(ranking.order) != len(ranking.hits):
        raise RuntimeError(f"{question!r} was not reranked: {ranking.rerank_problem}")


class _Enough(Exception):
    """The ingest that went on meanwhile may end."""


@contextmanager
def ingesting(services: Services) -> Iterator[list[int]]:
    """Documents ingested into an index of their own while the block runs; yields chunks embedded so far."""
    enough, embedding, embedded = threading.Event(), threading.Event(), [0]
    stages = services.stages
    recipe = Recipe(stages.embedder.id, CHUNKER, stages.embedder.dimension)
    made = pdf_of(list(islice(paragraphs(), 200)), "Meanwhile")

    def work(folder: Path) -> None:
        pdf = folder / "meanwhile.pdf"
        pdf.write_bytes(made)
        store = open_edge_store(folder / "index", recipe)
        tools = Tools(*_readers(services), stages.embedder, store, services.settings.max_pages)
        before = 0

        def note(stage: str, done: int, _: int) -> None:
            if enough.is_set():
                raise _Enough
            if stage == "embedding":
                embedding.set()
                embedded[0] = before + done

        try:
            for number in count():
                doc_id = sha256(str(number).encode()).hexdigest()
                ingest(pdf, tools, doc_id=doc_id, source=pdf.name, owner=LOCAL_OWNER, on_stage=note)
                before = embedded[0]
        except _Enough:
            store.close()

    with tempfile.TemporaryDirectory() as scratch:
        thread = threading.Thread(target=work, args=(Path(scratch),))
        thread.start()
        embedding.wait(timeout=60)
        try:
            yield embedded
        finally:
            enough.set()
            thread.join()


def _readers(services: Services) -> tuple[Any, Any]:
    tools = services.tools
    return tools.sandbox, tools.chunker


def measure(services: Services, each: int) -> dict[str, Any]:
    """All numbers of the report."""
    stages = services.stages
    first, *asked = questions(USERS * each + 1)
    _whole(first, stages)
    before = one_at_a_time(asked, stages)
    crowd = Crowd.of(together(asked, stages))
    after = one_at_a_time(asked, stages)
    with ingesting(services) as embedded:
        alone_busy = one_at_a_time(asked[:USERS], stages)
        already = embedded[0]
        busy = Crowd.of(together(asked, stages))
        rate = (embedded[0] - already) / busy.seconds
    return {
        "machine": machine(),
        "questions": len(asked),
        "alone": before + after,
        "alone_while_ingesting": alone_busy,
        "together": asdict(crowd),
        "together_while_ingesting": asdict(busy),
        "chunks_embedded_a_second_meanwhile": rate,
        "throughput": (sum(before) + sum(after)) / 2 / crowd.seconds,
        "longest_of_fair_share": crowd.longest / (USERS * median(before + after)),
        "goals": {
            "throughput": GOAL_THROUGHPUT,
            "correlation": GOAL_CORRELATION,
            "longest_of_fair_share": GOAL_SHARE,
        },
    }


def met(result: dict[str, Any]) -> bool:
    return bool(
        result["throughput"] >= GOAL_THROUGHPUT
        and result["together"]["correlation"] >= GOAL_CORRELATION
        and result["longest_of_fair_share"] <= GOAL_SHARE
    )


def report(result: dict[str, Any]) -> None:
    """Print the tables."""
    print(result["machine"])
    print(f"{CHUNKS:,} chunks, {USERS} users, {result['questions']} questions, 50 candidates each\n")
    rows = [["", "questions a second", "p50, s", "p95, s", "longest, s", "rank correlation", "overtaken by"]]
    for name in ("alone", "alone_while_ingesting"):
        times = result[name]
        p95 = float(np.percentile(times, 95))
        rows.append(
            [LABELS[name], *_numbers(len(times) / sum(times), median(times), p95, max(times)), "", ""]
        )
    for name in ("together", "together_while_ingesting"):
        crowd = Crowd(**result[name])
        rate = result["questions"] / crowd.seconds
        cells = _numbers(rate, crowd.p50, crowd.p95, crowd.longest)
        rows.append([LABELS[name], *cells, f"{crowd.correlation:.3f}", str(crowd.overtaken)])
    print(table(rows))
    print(f"\nthroughput: {result['throughput']:.2f} x of one at a time (goal {GOAL_THROUGHPUT:g} x)")
    print(
        f"longest wait: {result['longest_of_fair_share']:.2f} x the fair share (goal at most {GOAL_SHARE:g} x)"
    )
    print(f"rank correlation: goal at least {GOAL_CORRELATION:g}; no error")
    print(f"chunks embedded a second meanwhile: {result['chunks_embedded_a_second_meanwhile']:.1f}")


def _numbers(*values: float) -> list[str]:
    return [f"{value:.2f}" for value in values]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"where the library is kept ({FOLDER})")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help=f"1 question each instead of {EACH}")
    options = parser.parse_args()
    fill(options.folder, CHUNKS, real=REAL)
    with opened(Settings(data=options.folder)) as services:
        result = measure(services, 1 if options.quick else EACH)
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        report(result)
    return 0 if met(result) else 1


if __name__ == "__main__":
    sys.exit(main())
