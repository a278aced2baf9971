"""Words that follow from the interval, up to its borders."""

from __future__ import annotations

import numpy as np
import pytest

from rag.evidence.compare import Difference, compare
from rag.evidence.verdict import Verdict, judged, rival_sentence, sentence


def seen(
    low: float, high: float, *, p: float = 0.01, questions: int = 60, deviation: float = 0.3
) -> Difference:
    return Difference((low + high) / 2, low, high, p, deviation, questions, 0, 0)


@pytest.mark.parametrize(
    ("difference", "word"),
    [
        (seen(0.001, 0.3), "helps"),
        (seen(0.0, 0.3), "too few questions to say"),  # 0 is in the interval
        (seen(-0.3, -0.001), "hurts"),
        (seen(-0.3, 0.0), "too few questions to say"),
        (seen(0.001, 0.3, p=0.05), "helps"),
        (seen(0.001, 0.3, p=0.051), "too few questions to say"),  # the two tests disagree
        (seen(-0.05, 0.05, p=0.9), "no difference seen"),
        (seen(-0.05, 0.051, p=0.9), "too few questions to say"),
        (seen(-0.051, 0.05, p=0.9), "too few questions to say"),
        (seen(-0.05, 0.05, p=0.9, questions=59), "too few questions to say"),
        (seen(0.0, 0.0, p=1.0, questions=60, deviation=0), "no difference seen"),
        (seen(0.0, 0.0, p=1.0, questions=59, deviation=0), "too few questions to say"),
        (seen(0.01, 0.02), "helps"),  # small, but certain
    ],
)
def test_the_verdict_follows_from_the_interval(difference: Difference, word: str) -> None:
    assert judged(difference, "recall@5").word == word


def of(rows: list[float]) -> Verdict:
    (difference,) = compare([(np.array(rows), np.zeros(len(rows)))])
    return judged(difference, "recall@5")


def test_three_questions_all_won_are_too_few() -> None:
    verdict = of([1.0] * 3)
    assert (verdict.difference.low, verdict.word) == (1.0, "too few questions to say")
    assert verdict.needed >= 60


def test_six_questions_all_won_are_enough() -> None:
    assert of([1.0] * 6).word == "helps"  # p = 2 / 64
    assert of([1.0] * 5).word == "too few questions to say"  # p = 2 / 32


def test_planted_differences_are_told_for_what_they_are() -> None:
    assert of([1.0] * 20 + [0.0] * 75 + [-1.0] * 5).word == "helps"
    assert of([1.0] * 5 + [0.0] * 75 + [-1.0] * 20).word == "hurts"
    assert of([1.0] * 2 + [0.0] * 196 + [-1.0] * 2).word == "no difference seen"
    assert of([1.0] * 12 + [0.0] * 20 + [-1.0] * 8).word == "too few questions to say"


def test_no_p_is_said_to_be_zero() -> None:
    assert Difference(0.15, 0.05, 0.25, 0.0009, 0.3, 20, 75, 5).chance == "p < 0.001"
    assert Difference(0.15, 0.05, 0.25, 0.001, 0.3, 20, 75, 5).chance == "p = 0.001"


def test_a_verdict_is_a_sentence_with_its_numbers() -> None:
    verdict = judged(Difference(0.15, 0.05, 0.25, 0.004, 0.3, 20, 75, 5), "recall@5")
    assert sentence(verdict) == (
        "Reranking helps on these documents, compared with the bi-encoder's order "
        "(recall@5 +0.150 [+0.050, +0.250], p = 0.004; 20 won, 75 tied, 5 lost of 100 questions)."
    )


def test_too_few_questions_says_about_how_many_would_do() -> None:
    verdict = judged(seen(-0.1, 0.3, p=0.3, questions=20, deviation=0.5), "recall@5")
    assert verdict.needed == 196  # (2.8 x 0.5 / 0.1)^2
    assert sentence(verdict).endswith("About 196 questions like these would do.")
    assert sentence(verdict).startswith("Too few questions to say whether reranking helps")


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        (seen(0.01, 0.2), "The cheap sum, without any model, would not have done as well:"),
        (seen(-0.2, -0.01), "The cheap sum, without any model, does better than the reranker:"),
        (seen(-0.03, 0.03, p=0.8), "The cheap sum, without any model, would have done as well:"),
        (seen(-0.2, 0.2, p=0.8), "Too few questions to say whether the cheap sum, without any model, would"),
    ],
)
def test_a_cheap_rival_is_judged_too(difference: Difference, said: str) -> None:
    assert rival_sentence(judged(difference, "recall@5"), "sum").startswith(said)
