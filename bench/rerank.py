"""Reranking 50 chunks of a real filing: this project against what people would use instead, and against the limit.

    pip install -r bench/requirements.txt -c requirements.lock     (for the rivals beside sentence-transformers)
    python -m bench.rerank [PDF] [--json] [--quick]

The same merged weights on all sides, loaded before timing, every round all of them in turn. Stock is
`CrossEncoder(...).predict(pairs)`: float32, its default batch size and threads. LangChain, FlashRank and fastembed
come with their defaults, the last two with the weights as an ONNX file made here. The limit is the model's matrix
products alone (bench/limit.py). A rival that is not installed is told. Exits with 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from bench.limit import Products
from bench.rivals import Rival, Stock, merged, rivals
from bench.timing import FILINGS, in_turn, machine, ratio, table
from ingest.chunk import Chunker, place_headings, title_of
from ingest.embed import identify, load_embedder
from ingest.sandbox import Sandbox, read_document
from ingest.types import Chunk
from rag.rerank import BUNDLED, PairScores, Reranker, Scores, load_reranker
from rag.types import Hit

GOAL = 6.0
GOAL_LIMIT = 1.6
CANDIDATES = 50
SOURCES = 5
OURS = "second-look"
STOCK = "CrossEncoder.predict, float32"
LIMIT = "the limit: matrix products alone"


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


def lengths_of(question: str, passages: Sequence[str]) -> list[int]:
    """Tokens of each pair as the model reads it."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(identify().folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return [len(tokenizer.encode(question, passage).ids) for passage in passages]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pdf", nargs="?", type=Path, default=FILINGS / "pdfs" / "3M_2018_10K.pdf")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="3 questions instead of 5, without the rivals")
    options = parser.parse_args()

    model, reranker = merged(), load_reranker(BUNDLED)
    products = Products(first_only=True)
    stock = Stock(model)
    with TemporaryDirectory() as scratch:
        others: dict[str, Rival] = {}
        missing: dict[str, str] = {}
        if not options.quick:
            others, missing = rivals(model, Path(scratch))
        questions = questions_for(options.pdf, 3 if options.quick else 5)
        hits_of = candidates(questions, chunks_of(options.pdf))
        seconds: defaultdict[str, list[float]] = defaultdict(list)
        same, off, rates = dict.fromkeys([OURS, *others], 0), 0.0, []
        for question, hits in zip(questions, hits_of, strict=True):
            passages = [hit.chunk.passage for hit in hits]
            theirs, ours = stock.logits(question, passages), reranker.model.logits(question, passages).logits
            off = max(off, float(np.abs(theirs - ours).max()))
            same[OURS] += set(top(question, theirs, hits, reranker)) == set(
                top(question, ours, hits, reranker)
            )
            best = set(np.argsort(-theirs, kind="stable")[:SOURCES])
            for name, other in others.items():
                scores = other.logits(question, passages)
                same[name] += set(np.argsort(-scores, kind="stable")[:SOURCES]) == best
            lengths = lengths_of(question, passages)
            runs: dict[str, Callable[[], object]] = {
                STOCK: partial(stock.logits, question, passages),
                **{name: partial(other.logits, question, passages) for name, other in others.items()},
                OURS: partial(reranker.model.logits, question, passages),
                LIMIT: partial(products.run, lengths),
            }
            for name, times in in_turn(runs, 3, warm=False).items():
                seconds[name] += times
            rates.append(products.flops(lengths) / 1e9)
    faster, above = ratio(seconds[STOCK], seconds[OURS]), ratio(seconds[OURS], seconds[LIMIT])
    if options.json:
        result = {
            "machine": machine(),
            "seconds": seconds,
            "ratio": [faster.median, faster.low, faster.high],
            "of_limit": [above.median, above.low, above.high],
            "gigaflops": median(rates),
            "questions": len(questions),
            "same_top_5": same,
            "largest_logit_difference": off,
            "not_installed": missing,
            "goals": [GOAL, GOAL_LIMIT],
        }
        print(json.dumps(result, indent=1))
    else:
        print(machine())
        print(
            f"{CANDIDATES} chunks of {options.pdf.name}, {len(questions)} questions, 3 rounds each, in turn\n"
        )
        rows = [["reranker", "seconds, median", "lowest", "stock / it (lowest to highest)", "same 5"]]
        for name, times in seconds.items():
            shown = "1" if name == STOCK else str(ratio(seconds[STOCK], times))
            alike = f"{same[name]} of {len(questions)}" if name in same else ""
            label = f"{OURS} ({reranker.device})" if name == OURS else name
            rows.append([label, f"{median(times):.3f}", f"{min(times):.3f}", shown, alike])
        print(table(rows))
        for name, reason in missing.items():
            print(f"{name}: not installed ({reason})")
        rate = median(rates) / median(seconds[LIMIT])
        print(
            f"\nof the limit: {above}, {median(rates):.0f} billion operations at {rate:.0f} billion a second"
        )
        print(f"largest difference of a logit from float32: {off:.3f}")
        print(f"goals: {GOAL:g} x stock, at most {GOAL_LIMIT:g} x the limit, the same {SOURCES} sources")
    return 0 if faster.median >= GOAL and above.median <= GOAL_LIMIT and same[OURS] == len(questions) else 1


if __name__ == "__main__":
    sys.exit(main())
