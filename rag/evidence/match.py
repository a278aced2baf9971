"""Which chunks are the passages that a question wants, and at which rank an order finds each of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ingest.types import Chunk
from rag.evidence.questions import Judgement

RUN_OF_WORDS = 5
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Fit:
    """A chunk counts for the wanted item of this number; of several, for the one with the lowest `place`."""

    place: int
    item: int


class Wanted:
    """The relevant judgements of one question, made ready to be looked for."""

    def __init__(self, relevant: Sequence[Judgement]) -> None:
        self._relevant = relevant
        self._quotes = [_words(judgement.quote) for judgement in relevant]

    def __len__(self) -> int:
        return len(self._relevant)

    def fits(self, chunk: Chunk) -> tuple[Fit, ...]:
        """The wanted items that a chunk may stand for."""
        words: list[str] | None = None
        fits = []
        for item, (judgement, quote) in enumerate(zip(self._relevant, self._quotes, strict=True)):
            if judgement.document and judgement.document not in (chunk.source, chunk.doc_id):
                continue
            if words is None and quote:
                words = _words(chunk.text)
            place = _place(judgement, chunk, quote, words or [])
            if place is not None:
                fits.append(Fit(place, item))
        return tuple(fits)

    def ranks(self, chunks: Sequence[tuple[Fit, ...]]) -> tuple[int | None, ...]:
        """The rank from 1 at which an order finds each item, None where it does not.

        `chunks` holds what `fits` gives for each chunk, in order. An item is found once, by the first chunk that
        can stand for it, and a chunk stands for one item at most.
        """
        found: list[int | None] = [None] * len(self)
        for rank, fits in enumerate(chunks, start=1):
            left = [(fit.place, fit.item) for fit in fits if found[fit.item] is None]
            if left:
                found[min(left)[1]] = rank
        return tuple(found)


def _place(judgement: Judgement, chunk: Chunk, quote: list[str], words: list[str]) -> int | None:
    if judgement.chunk:
        return 0 if judgement.chunk == chunk.id or (quote and holds(words, quote)) else None
    if judgement.pages:
        return judgement.pages.index(chunk.page) if chunk.page in judgement.pages else None
    return 0 if not quote or holds(words, quote) else None


def holds(words: Sequence[str], quote: Sequence[str]) -> bool:
    """True when the shorter of two texts is in the other: at least half of its runs of five words.

    So a quote counts that two chunks share, the larger part of it, and small differences between two readings of
    a PDF (a hyphen, a ligature) do no harm. A quote of fewer words must be there whole.
    """
    if not quote:
        return False
    size = min(RUN_OF_WORDS, len(quote))
    mine, theirs = _runs(words, size), _runs(quote, size)
    fewer = min(len(mine), len(theirs))
    return fewer > 0 and 2 * len(mine & theirs) >= fewer


def _runs(words: Sequence[str], size: int) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + size]) for start in range(len(words) - size + 1)}


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
