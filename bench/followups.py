"""Whether the rule for follow-up questions helps: `python -m bench.followups FOLDER [--turns N] [--reranked]`.

FOLDER is in BEIR layout, and each line of its queries.jsonl has `turn` and `history`: pairs of "user" or "agent"
and a text. Of the questions after the first turn that have a wanted passage, the first N are asked twice, as they
stand and as the rule puts them; the question before is what the rule made of it, as in the app. Measured is
recall@5, the share of the wanted passages among the first 5, by the bi-encoder or, with --reranked, after the
second look at 50 candidates. The gain is paired, with the 95 % interval of 10,000 bootstrap resamples.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.timing import machine, table
from ingest.chunk import CHUNKER
from ingest.embed import identify, load_embedder
from ingest.store import Recipe
from ingest.store.edge import open_edge_store
from ingest.types import Chunk, Document
from rag.conversation import by_rule
from rag.pipeline import DEPTH, Stages, rank
from rag.rerank import BUNDLED, load_reranker

TOP = 5
RESAMPLES = 10_000
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A question in the middle of a conversation: as it stands, as the rule puts it, the passages it wants."""

    text: str
    ruled: str
    wanted: frozenset[str]


def load_passages(folder: Path) -> dict[str, Chunk]:
    """Each passage of the folder by its id; a passage is a page of its own."""
    return {
        row["_id"]: Chunk(
            folder.name, folder.name, number, 0, len(row["text"]), row["text"], row.get("title", "")
        )
        for number, row in enumerate(_rows(folder / "corpus.jsonl"), start=1)
    }


def load_follow_ups(folder: Path) -> list[FollowUp]:
    """Questions after the first turn of their conversation that want a passage, in the order of the file."""
    wanted: dict[str, set[str]] = {}
    with (folder / "qrels.tsv").open(encoding="utf-8", newline="") as file:
        for judged in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            if float(judged["score"]) > 0:
                wanted.setdefault(judged["query-id"], set()).add(judged["corpus-id"])
    found = []
    for row in _rows(folder / "queries.jsonl"):
        asked = [text for speaker, text in row["history"] if speaker == "user"]
        if asked and row["_id"] in wanted:
            text = row["text"].strip()
            found.append(FollowUp(text, by_rule(text, words_before(asked)), frozenset(wanted[row["_id"]])))
    return found


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip():
            yield json.loads(line)


def words_before(asked: Sequence[str]) -> str:
    """The question before, as the app would have searched for it: each one put into words by the rule."""
    words = asked[0].strip()
    for question in asked[1:]:
        words = by_rule(question.strip(), words)
    return words


def recall(question: str, wanted: frozenset[str], stages: Stages, places: Mapping[str, str]) -> float:
    """Share of the wanted passages among the chunks that an answer would be written from."""
    ranking = rank(question, stages, depth=DEPTH, sources=TOP, reranking=stages.reranker is not None)
    return len({places[chunk.id] for chunk in ranking.chosen()} & wanted) / len(wanted)


def gain_text(gain: Floats) -> str:
    """The mean with the 2.5 and the 97.5 % point of the means of resampled questions."""
    random = np.random.default_rng(0)
    means = gain[random.integers(0, len(gain), (RESAMPLES, len(gain)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{gain.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def report(follow_ups: Sequence[FollowUp], recalls: Floats, order: str) -> str:
    """Both recalls and the gain; `recalls` is (questions, 2): as it stands, by the rule."""
    changed = np.array([each.ruled != each.text for each in follow_ups])
    rows = [["questions", "n", "as they stand", "with the rule", "gain", "better / worse"]]
    for name, chosen in (("all follow-ups", np.ones_like(changed)), ("changed by the rule", changed)):
        stands, ruled = recalls[chosen].T
        better, worse = int((ruled > stands).sum()), int((ruled < stands).sum())
        means = [f"{stands.mean():.3f}", f"{ruled.mean():.3f}"]
        rows.append([name, str(len(ruled)), *means, gain_text(ruled - stands), f"{better} / {worse}"])
    return f"recall@{TOP}, {order}\n\n{table(rows)}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Whether the rule for follow-up questions helps.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--turns", type=int, default=400, help="ask the first N follow-ups")
    parser.add_argument("--reranked", action="store_true", help="after the second look")
    options = parser.parse_args()
    identity = identify()
    embedder = load_embedder(identity)
    passages = load_passages(options.folder)
    places = {chunk.id: name for name, chunk in passages.items()}
    follow_ups = load_follow_ups(options.folder)[: options.turns]
    recalls = np.zeros((len(follow_ups), 2))
    with TemporaryDirectory() as folder:
        store = open_edge_store(Path(folder), Recipe(identity.id, CHUNKER, identity.dimension))
        chunks = list(passages.values())
        name, count = options.folder.name, len(chunks)
        document = Document(name, name, name, count, count, 0, "2026-01-01T00:00:00+00:00", ())
        store.add(document, chunks, embedder.embed([chunk.passage for chunk in chunks], on_progress=_tell))
        stages = Stages(embedder, store, load_reranker(BUNDLED) if options.reranked else None)
        for row, each in enumerate(follow_ups):
            before = recall(each.text, each.wanted, stages, places)
            same = each.ruled == each.text
            recalls[row] = before, before if same else recall(each.ruled, each.wanted, stages, places)
            _tell(row + 1, len(follow_ups))
        store.close()
    print(machine())
    print(report(follow_ups, recalls, f"reranked from {DEPTH}" if options.reranked else "bi-encoder"))


def _tell(done: int, total: int) -> None:
    print(f"\r{done:,} of {total:,}", end="\n" if done == total else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
