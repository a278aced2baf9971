"""Stand-ins whose output can be worked out by hand; for unit tests only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ingest.embed import Vectors, unit_rows
from ingest.types import Chunk
from rag.rerank import Calibration, PairScores, Reranker

WORDS = ("apple", "pear", "plum", "cherry", "fig", "quince")


class WordEmbedder:
    """Counts the WORDS in a text; one dimension a word, and one for everything else."""

    name = "word counts"
    id = "word-counts@1"
    dimension = len(WORDS) + 1
    device = "cpu, float32"

    def embed(
        self, texts: Sequence[str], *, on_progress: Callable[[int, int], None] | None = None
    ) -> Vectors:
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                vectors[row, WORDS.index(word) if word in WORDS else -1] += 1
            if on_progress:
                on_progress(row + 1, len(texts))
        return unit_rows(vectors)

    def reads_whole(self, text: str) -> bool:
        return len(text.split()) <= 100


class LengthModel:
    """A cross-encoder that likes long passages: the logit is the passage's number of words."""

    device = "cpu, float32"

    def logits(self, question: str, passages: Sequence[str]) -> PairScores:
        counts = np.array([len(passage.split()) for passage in passages], np.float32)
        return PairScores(counts, tuple(False for _ in passages))


class BrokenModel:
    """A cross-encoder that breaks on every question."""

    device = "cpu, float32"

    def logits(self, question: str, passages: Sequence[str]) -> PairScores:
        raise RuntimeError("out of memory")


def length_reranker(
    *, cosine_weight: float = 0.0, bm25_weight: float = 0.0, threshold: float | None = None
) -> Reranker:
    return Reranker(
        "word lengths", LengthModel(), cosine_weight, Calibration(threshold=threshold), bm25_weight
    )


def a_chunk(text: str, *, doc_id: str = "d" * 64, page: int = 1, start: int = 0, heading: str = "") -> Chunk:
    return Chunk(doc_id, "fruit.pdf", page, start, start + len(text), text, heading)
