"""Words that follow from the numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rag.evidence.compare import Difference, needed

Word = Literal["helps", "hurts", "no difference seen", "too few questions to say"]
MARGIN = 0.05
"""A difference that matters: 5 questions in 100."""
SURE = 0.05


@dataclass(frozen=True, slots=True)
class Verdict:
    """What can be said of a difference; `needed` is about how many questions would do, 0 if there are enough."""

    word: Word
    needed: int
    measure: str
    difference: Difference


def judged(difference: Difference, measure: str, *, margin: float = MARGIN) -> Verdict:
    """The verdict on a difference.

    - helps, hurts: the 95 % interval leaves out 0, and the randomisation test agrees (p at most 0.05). Of a few
      questions the interval alone is too sure of itself; the test is not.
    - no difference seen: the interval lies within the margin on both sides, and there are at least 3 / margin
      questions (the rule of three: what happens in none of n questions happens in fewer than 3 of n, 95 % sure).
    - too few questions to say: everything else.
    """
    certain = difference.p <= SURE
    word: Word = "too few questions to say"
    if certain and difference.low > 0:
        word = "helps"
    elif certain and difference.high < 0:
        word = "hurts"
    elif (
        difference.low >= -margin and difference.high <= margin and difference.questions >= round(3 / margin)
    ):
        word = "no difference seen"
    more = needed(difference, margin) if word == "too few questions to say" else 0
    return Verdict(word, more, measure, difference)


def sentence(verdict: Verdict, *, of: str = "Reranking", over: str = "the bi-encoder's order") -> str:
    """The verdict in words."""
    seen = verdict.difference
    numbers = (
        f"{verdict.measure} {seen}, {seen.chance}; "
        f"{seen.won} won, {seen.tied} tied, {seen.lost} lost of {seen.questions} questions"
    )
    match verdict.word:
        case "helps":
            return f"{of} helps on these documents, compared with {over} ({numbers})."
        case "hurts":
            return f"{of} hurts on these documents, compared with {over} ({numbers})."
        case "no difference seen":
            return f"{of} makes no difference that could be seen, compared with {over} ({numbers})."
        case _:
            return (
                f"Too few questions to say whether {of[0].lower()}{of[1:]} helps, compared with {over} "
                f"({numbers}). About {verdict.needed:,} questions like these would do."
            )


def rival_sentence(verdict: Verdict, rival: str) -> str:
    """Whether a cheap rival would have done as well; `verdict` is on the reranked order against it."""
    seen = verdict.difference
    match verdict.word:
        case "helps":
            said = f"The cheap {rival}, without any model, would not have done as well"
        case "hurts":
            said = f"The cheap {rival}, without any model, does better than the reranker"
        case "no difference seen":
            said = f"The cheap {rival}, without any model, would have done as well"
        case _:
            said = (
                f"Too few questions to say whether the cheap {rival}, without any model, would have done as well "
                f"(about {verdict.needed:,} would do)"
            )
    return f"{said}: reranking against it {verdict.measure} {seen}, {seen.chance}."
