"""From a question to ranked sources among 50,000 chunks: `python -m bench.question [--json] [--quick]`.

The whole way of `rag.pipeline.rank` with the real models (embed, search, rerank 50 candidates) against its own
reranking alone, question by question. The library is that of bench/scale.py: real passages, vectors that are
mixtures of real ones. Exits with 1 where the goal is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

from bench.library import paragraphs, questions
from bench.scale import REAL, Growing
from bench.timing import machine, ratio, table
from ingest.chunk import CHUNKER
from ingest.embed import identify, load_embedder
from ingest.store import Recipe
from ingest.store.edge import open_edge_store
from rag.pipeline import Stages, rank
from rag.rerank import BUNDLED, load_reranker

CHUNKS = 50_000
GOAL = 1.25


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="10 questions instead of 40, 500 real passages")
    options = parser.parse_args()

    identity = identify()
    embedder, reranker = load_embedder(identity), load_reranker(BUNDLED)
    texts = list(islice(paragraphs(), 500 if options.quick else REAL))
    asked = questions(10 if options.quick else 40)
    with TemporaryDirectory() as scratch:
        store = open_edge_store(Path(scratch), Recipe(identity.id, CHUNKER, identity.dimension))
        room = np.zeros((CHUNKS, identity.dimension), np.float32)
        growing = Growing(store, texts, embedder.embed(texts), room)
        growing.grow(CHUNKS)
        stages = Stages(embedder, store, reranker)
        rank(asked[0], stages)
        whole, parts = [], []
        for question in asked:
            begun = perf_counter()
            parts.append(rank(question, stages).seconds)
            whole.append(perf_counter() - begun)
        store.close()
    alone = [part.rerank for part in parts]
    more = ratio(whole, alone)
    if options.json:
        result = {"machine": machine(), "seconds": whole, "rerank": alone, "ratio": more.median, "goal": GOAL}
        print(json.dumps(result, indent=1))
    else:
        print(machine())
        print(f"{len(asked)} questions among {CHUNKS:,} chunks, 50 candidates\n")
        rows = [["step", "p50, ms", "p95, ms"]]
        steps = {
            "embed the question": [part.embed for part in parts],
            "search": [part.search for part in parts],
            "rerank": alone,
            "all": whole,
        }
        for name, times in steps.items():
            rows.append([name, f"{1000 * median(times):.1f}", f"{1000 * np.percentile(times, 95):.1f}"])
        print(table(rows))
        print(f"\nall / reranking alone: {more}; goal: p50 at most {GOAL:g}")
    return 0 if median(whole) <= GOAL * median(alone) else 1


if __name__ == "__main__":
    sys.exit(main())
