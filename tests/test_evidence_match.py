"""Which chunks count for a wanted passage, and at which rank each one is found."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rag.evidence.match import Fit, Wanted, holds
from rag.evidence.questions import Judgement
from tests.fakes import a_chunk

TEXT = "the pump needs fresh oil every 500 hours of work"


@pytest.mark.parametrize(
    ("judgement", "fits"),
    [
        (Judgement("fruit.pdf"), True),
        (Judgement("d" * 64), True),
        (Judgement("other.pdf"), False),
        (Judgement("fruit.pdf", (3,)), True),
        (Judgement("fruit.pdf", (2, 3)), True),
        (Judgement("fruit.pdf", (2,)), False),
        (Judgement("other.pdf", (3,)), False),
        (Judgement("fruit.pdf", (3,), "quite other words"), True),  # the page decides
        (Judgement(quote="The pump needs fresh oil every\n500 hours."), True),
        (Judgement("fruit.pdf", quote="fresh oil"), True),
        (Judgement("fruit.pdf", quote="oil fresh"), False),
        (Judgement("other.pdf", quote="fresh oil"), False),
        (Judgement("fruit.pdf", chunk="no such id"), False),
        (Judgement("fruit.pdf", (9,), "pump needs fresh oil", "an id from before"), True),
    ],
)
def test_the_narrowest_that_is_given_decides(judgement: Judgement, fits: bool) -> None:
    chunk = a_chunk(TEXT, page=3)
    assert bool(Wanted([judgement]).fits(chunk)) is fits


def test_a_chunk_is_wanted_by_its_id() -> None:
    chunk = a_chunk(TEXT)
    assert Wanted([Judgement(chunk=chunk.id)]).fits(chunk) == (Fit(0, 0),)


@pytest.mark.parametrize(
    ("chunk", "quote", "expected"),
    [
        ("a b c d e f g h", "c d e f g", True),
        ("c d e f g", "a b c d e f g h", True),  # the chunk is a part of a longer quote
        ("a b c d e f g h", "e f g h i j k l", False),  # 0 of 4 runs of five words
        ("a b c d e f g h", "d e f g h i j", False),  # 1 of 3
        ("a b c d e f g h", "c d e f g h i j", True),  # 2 of 4
        ("a b c d", "b c", True),
        ("a b c d", "b d", False),
        ("a", "a b", False),  # a word of a quote is not the quote
        ("", "a", False),
        ("a", "", False),
    ],
)
def test_half_of_the_runs_of_five_words_are_enough(chunk: str, quote: str, expected: bool) -> None:
    assert holds(chunk.split(), quote.split()) is expected


@pytest.mark.parametrize(
    ("pages", "wanted", "expected"),
    [
        ([9, 1, 9], [(1,)], [2]),
        ([1, 1, 2], [(1,), (2,)], [1, 3]),
        ([3, 2], [(1,), (2,)], [None, 2]),
        ([2], [(1, 2)], [1]),  # the page after the one that is named
        ([2, 3, 2], [(1, 2), (2, 3)], [3, 1]),  # each chunk for one page, first for the one it is named for
        ([], [(1,)], [None]),
    ],
)
def test_a_wanted_passage_is_found_once_by_the_first_chunk_that_can_stand_for_it(
    pages: Sequence[int], wanted: Sequence[tuple[int, ...]], expected: list[int | None]
) -> None:
    looked_for = Wanted([Judgement("fruit.pdf", own) for own in wanted])
    chunks = [a_chunk("word", page=page, start=start) for start, page in enumerate(pages)]
    assert looked_for.ranks([looked_for.fits(chunk) for chunk in chunks]) == tuple(expected)
