"""From which logit on the best passage is good enough to answer at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rag.evidence.runfile import Model, Result
from rag.pipeline import SOURCES
from rag.threshold import Threshold

KEPT = 0.95
"""The share of the questions that can be answered which a suggested threshold must let through."""
FEWEST = 10
"""So many questions of each kind a suggestion rests on, at least."""


@dataclass(frozen=True, slots=True)
class ThresholdPoint:
    """Answering only where the best logit is at least `logit`.

    `precision`: of the questions that would be answered, how many have a relevant passage among the sources.
    `recall`: of the questions that have one, how many would be answered.
    """

    logit: float
    precision: float
    recall: float
    answered: int


@dataclass(frozen=True, slots=True)
class ThresholdAdvice:
    """All points by rising logit, and the suggested one; `logit` is None where none is, and `why` says why.

    `answerable` counts the questions that have a relevant passage among the sources, `others` the rest.
    """

    variant: str
    points: tuple[ThresholdPoint, ...]
    answerable: int
    others: int
    logit: float | None
    why: str


def advise(results: Sequence[Result], variant: str, *, sources: int = SOURCES) -> ThresholdAdvice:
    """Precision and recall of "answer at all" at each logit of a variant, and the threshold to take.

    A question can be answered when a relevant passage is among the first `sources` chunks. Suggested is the
    highest threshold that lets 95 % of those questions through, if it keeps any question out at all.
    """
    outcomes = [result.outcomes[variant] for result in results if result.outcomes[variant].scores]
    best = np.array([outcome.scores[0] for outcome in outcomes])
    good = np.array([any(rank is not None and rank <= sources for rank in o.ranks) for o in outcomes], bool)
    points = tuple(
        ThresholdPoint(
            float(logit),
            precision=float(good[best >= logit].mean()),
            recall=float((best[good] >= logit).mean()) if good.any() else 0.0,
            answered=int((best >= logit).sum()),
        )
        for logit in np.unique(best)
    )
    answerable, others = int(good.sum()), int((~good).sum())
    logit, why = _choose(points, answerable, others, len(outcomes))
    return ThresholdAdvice(variant, points, answerable, others, logit, why)


def _choose(
    points: Sequence[ThresholdPoint], answerable: int, others: int, asked: int
) -> tuple[float | None, str]:
    if answerable < FEWEST or others < FEWEST:
        return None, (
            f"No threshold is suggested: {answerable} questions have a relevant passage among the sources and "
            f"{others} have not, and it takes at least {FEWEST} of each. Add questions that the documents do not "
            "answer, without a relevant passage."
        )
    best = max((point for point in points if point.recall >= KEPT), key=lambda point: point.logit)
    if best.answered == asked:
        return None, (
            f"No threshold is suggested: none keeps a wrong answer out and lets {KEPT:.0%} of the right ones "
            "through."
        )
    return best.logit, (
        f"From logit {best.logit:.2f} on {best.recall:.0%} of the questions that can be answered are, and "
        f"{best.precision:.0%} of the answers rest on a relevant passage, instead of {answerable / asked:.0%} "
        "without a threshold."
    )


def choose(advice: ThresholdAdvice, model: Model, corpus: str) -> Threshold | None:
    """The suggested threshold, bound to its reranker and library; None where none is suggested."""
    return None if advice.logit is None else Threshold(advice.logit, model.name, model.revision, corpus)
