"""Reranking 50 chunks of a real filing: sentence-transformers as it comes against this project's reranker.

    python -m bench.rerank [PDF] [--json] [--quick]

Same merged weights on both sides, loaded before timing. Stock is `CrossEncoder(...).predict(pairs)`: float32,
its default batch size, its default threads. Exits with 1 where the goal is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from bench.timing import FILINGS, in_turn, machine, ratio, table
from ingest.chunk import Chunker, place_headings, title_of
from ingest.embed import identify, load_embedder
from ingest.sandbox import Sandbox, read_document
from ingest.types import Chunk
from ingest.weights import bundled_minilm
from rag.rerank import BUNDLED, BUNDLED_FOLDER, PairScores, Reranker, Scores, load_reranker, merge_adapter
from rag.types import Hit

GOAL = 4.0
CANDIDATES = 50
SOURCES = 5


class Stock:
    """The tutorial's way, with the weights of the bundled reranker."""

    def __init__(self) -> None:
        from sentence_transformers import CrossEncoder

        self._model = CrossEncoder(str(bundled_minilm()), num_labels=1, device="cpu", local_files_only=True)
        merge_adapter(self._model.model, BUNDLED_FOLDER / "adapter.safetensors")

    def logits(self, question: str, passages: Sequence[str]) -> Scores:
        """One logit for each passage."""
        import torch

        pairs = [(question, passage) for passage in passages]
        scores: Scores = self._model.predict(
            pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False
        )
        return scores


def chunks_of(pdf: Path) -> list[Chunk]:
    with Sandbox(seconds=60, memory_mb=2000) as sandbox:
        read = read_document(sandbox, pdf, "", max_pages=5000)
    headings = place_headings([(section.page, section.title) for section in read.sections], read.pages)
    chunker = Chunker(identify().folder / "tokenizer.json")
    title = title_of(read.title, pdf.name)
    return chunker.chunks(read.pages, doc_id="bench", source=pdf.name, title=title, headings=headings)


def questions_for(pdf: Path, count: int) -> list[str]:
    """Questions about this filing first, then others: the time does not depend on what is asked."""
    lines = (pdf.parent.parent / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    items = [json.loads(line) for line in lines]
    items.sort(key=lambda item: all(evidence["file"] != pdf.name for evidence in item["evidence"]))
    return [item["question"] for item in items[:count]]


def candidates(questions: Sequence[str], chunks: Sequence[Chunk]) -> list[list[Hit]]:
    """For each question its nearest chunks by cosine, as the app would hand them on."""
    embedder = load_embedder(identify())
    cosines = embedder.embed(questions) @ embedder.embed([chunk.passage for chunk in chunks]).T
    return [
        [
            Hit(chunks[position], float(row[position]), rank)
            for rank, position in enumerate(np.argsort(-row)[:CANDIDATES], start=1)
        ]
        for row in cosines
    ]


def top(question: str, logits: Scores, hits: Sequence[Hit], reranker: Reranker) -> list[int]:
    """Positions of the sources that the app would choose by these logits."""
    pairs = PairScores(logits, (False,) * len(hits))
    passages, cosines = [hit.chunk.passage for hit in hits], [hit.cosine for hit in hits]
    scores = reranker.combine(question, passages, cosines, pairs).total
    return [int(position) for position in np.argsort(-scores, kind="stable")[:SOURCES]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pdf", nargs="?", type=Path, default=FILINGS / "pdfs" / "3M_2018_10K.pdf")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="3 questions instead of 10, 3 rounds each")
    options = parser.parse_args()

    stock, reranker = Stock(), load_reranker(BUNDLED)
    questions = questions_for(options.pdf, 3 if options.quick else 10)
    hits_of = candidates(questions, chunks_of(options.pdf))
    seconds: dict[str, list[float]] = {"stock": [], "ours": []}
    same, same_order, off = 0, 0, 0.0
    for question, hits in zip(questions, hits_of, strict=True):
        passages = [hit.chunk.passage for hit in hits]
        theirs = stock.logits(question, passages)
        ours = reranker.model.logits(question, passages).logits
        off = max(off, float(np.abs(theirs - ours).max()))
        expected, got = (top(question, logits, hits, reranker) for logits in (theirs, ours))
        same += set(expected) == set(got)
        same_order += expected == got
        runs: dict[str, Callable[[], object]] = {
            "stock": partial(stock.logits, question, passages),
            "ours": partial(reranker.model.logits, question, passages),
        }
        for name, times in in_turn(runs, 3, warm=False).items():
            seconds[name] += times
    faster = ratio(seconds["stock"], seconds["ours"])
    asked = len(questions)
    if options.json:
        result = {
            "machine": machine(),
            "seconds": seconds,
            "ratio": [faster.median, faster.low, faster.high],
            "questions": asked,
            "same_top_5": same,
            "same_order": same_order,
            "largest_logit_difference": off,
            "goal": GOAL,
        }
        print(json.dumps(result, indent=1))
    else:
        print(machine())
        print(f"{CANDIDATES} chunks of {options.pdf.name}, {asked} questions, 3 rounds each, in turn\n")
        rows = [["reranker", "seconds, median", "lowest", "times faster (lowest to highest)"]]
        labels = {"stock": "CrossEncoder.predict, float32", "ours": f"second-look ({reranker.device})"}
        for name, times in seconds.items():
            shown = str(faster) if name == "ours" else "1"
            rows.append([labels[name], f"{median(times):.3f}", f"{min(times):.3f}", shown])
        print(table(rows))
        print(f"\nsame {SOURCES} sources: {same} of {asked} questions; in the same order: {same_order}")
        print(f"largest difference of a logit: {off:.3f}")
        print(f"goal: {GOAL:g} x and the same {SOURCES} sources for every question")
    return 0 if faster.median >= GOAL and same == asked else 1


if __name__ == "__main__":
    sys.exit(main())
