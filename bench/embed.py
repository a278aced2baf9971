"""Embedding chunks of a real filing: this project against `SentenceTransformer.encode`, and against the limit.

    python -m bench.embed [PDF] [--json] [--quick]

The same weights on both sides, loaded before timing, every round both in turn. Stock is
`SentenceTransformer(...).encode(texts)`: float32, its default batch size and threads. The limit is the model's
matrix products alone (bench/limit.py). Exits with 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import median

import numpy as np

from bench.limit import Products
from bench.rerank import chunks_of
from bench.timing import FILINGS, in_turn, machine, ratio, table
from ingest.embed import identify, load_embedder
from ingest.weights import bundled_minilm, quiet_transformers

GOAL = 5.0
GOAL_LIMIT = 1.8
CHUNKS = 200
OURS = "second-look"
STOCK = "SentenceTransformer.encode, float32"
LIMIT = "the limit: matrix products alone"


def lengths_of(texts: list[str]) -> list[int]:
    """Tokens of each text as the model reads it, at most 256."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(identify().folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return [min(256, len(encoding.ids)) for encoding in tokenizer.encode_batch(texts)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pdf", nargs="?", type=Path, default=FILINGS / "pdfs" / "3M_2018_10K.pdf")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="2 rounds instead of 5")
    options = parser.parse_args()

    from sentence_transformers import SentenceTransformer

    quiet_transformers()
    stock = SentenceTransformer(str(bundled_minilm()), device="cpu", local_files_only=True)
    embedder = load_embedder(identify())
    products = Products(first_only=False)
    texts = [chunk.passage for chunk in chunks_of(options.pdf)][:CHUNKS]
    lengths = lengths_of(texts)
    theirs, ours = stock.encode(texts, show_progress_bar=False), embedder.embed(texts)
    cosines = np.sum(theirs / np.linalg.norm(theirs, axis=1, keepdims=True) * ours, axis=1)
    seconds = in_turn(
        {
            STOCK: lambda: stock.encode(texts, show_progress_bar=False),
            OURS: lambda: embedder.embed(texts),
            LIMIT: lambda: products.run(lengths),
        },
        2 if options.quick else 5,
    )
    faster, above = ratio(seconds[STOCK], seconds[OURS]), ratio(seconds[OURS], seconds[LIMIT])
    if options.json:
        result = {
            "machine": machine(),
            "chunks": len(texts),
            "tokens": sum(lengths),
            "seconds": seconds,
            "ratio": [faster.median, faster.low, faster.high],
            "of_limit": [above.median, above.low, above.high],
            "lowest_cosine_with_float32": float(cosines.min()),
            "goals": [GOAL, GOAL_LIMIT],
        }
        print(json.dumps(result, indent=1))
    else:
        print(machine())
        rounds = len(seconds[OURS])
        print(
            f"{len(texts)} chunks of {options.pdf.name}, {sum(lengths):,} tokens, {rounds} rounds in turn\n"
        )
        rows = [["embedder", "seconds, median", "lowest", "chunks/s", "stock / it (lowest to highest)"]]
        for name, times in seconds.items():
            label = f"{OURS} ({embedder.device})" if name == OURS else name
            shown = "1" if name == STOCK else str(ratio(seconds[STOCK], times))
            middle = median(times)
            rows.append([label, f"{middle:.2f}", f"{min(times):.2f}", f"{len(texts) / middle:.0f}", shown])
        print(table(rows))
        print(f"\nof the limit: {above}; lowest cosine with the float32 vector: {cosines.min():.5f}")
        print(f"goals: {GOAL:g} x stock, at most {GOAL_LIMIT:g} x the limit")
    return 0 if faster.median >= GOAL and above.median <= GOAL_LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
