"""A passage looked at closely: its sentences with scores of their own, and its words as a quotation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ingest.types import Chunk
from rag.quotes import ScoreSentences, split_sentences

STEPS = 5
"""Sentences are told apart in this many steps."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence, its score, and its step from 0 for the weakest of its passage to STEPS - 1 for the best."""

    text: str
    score: float
    step: int


def sentences(chunk: Chunk) -> list[str]:
    """The words of a passage, sentence by sentence, without the line ends of the printed page."""
    return [_joined(chunk.text[start:end]) for start, end in split_sentences(chunk.text)]


def score_passage(question: str, chunk: Chunk, score_sentences: ScoreSentences) -> tuple[Sentence, ...]:
    """Every sentence of a passage with its own score, in reading order; equal scores are all the best step.

    Each is scored under the passage's heading, as the passage itself was.
    """
    texts = sentences(chunk)
    if not texts:
        return ()
    scores = score_sentences(question, [f"{chunk.heading}\n{text}".strip() for text in texts])
    return tuple(map(Sentence, texts, map(float, scores), _steps(scores)))


def quotation(chunk: Chunk) -> str:
    """The passage in quotation marks with its file and page, on one line."""
    return f"“{_joined(chunk.text)}” ({chunk.source}, page {chunk.page})"


def _joined(text: str) -> str:
    return " ".join(text.replace("\ufffe", "").split())


def _steps(scores: Sequence[float]) -> list[int]:
    low, high = min(scores), max(scores)
    if low == high:
        return [STEPS - 1] * len(scores)
    return [min(int((score - low) / (high - low) * STEPS), STEPS - 1) for score in scores]
