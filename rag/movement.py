"""How much the second look changed the order of one question's candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rag.types import Ranked, Ranking

Fate = Literal["new", "kept", "fell", "other"]
"""What became of a candidate: `new` and `kept` are sources, `new` ones were none in the first order, `fell`
were sources in the first order alone."""


@dataclass(frozen=True, slots=True)
class Movement:
    """Two orders of the same candidates, compared.

    `sources` is how many an answer uses, `overlap` how many of them both orders choose, `best_from` the
    bi-encoder's rank of the best one. `kendall` is tau over all candidates: 1 for the same order, -1 for the
    reverse; None for fewer than two.
    """

    sources: int
    overlap: int
    same_order: bool
    best_from: int
    kendall: float | None

    @property
    def changed(self) -> int:
        """Sources that the bi-encoder alone would not have chosen."""
        return self.sources - self.overlap


def measure_movement(ranking: Ranking) -> Movement | None:
    """Compare both orders; None where there is no second one."""
    if not ranking.order:
        return None
    chosen = [ranked.hit.rank for ranked in ranking.ranked]
    return Movement(
        sources=len(chosen),
        overlap=sum(rank <= ranking.sources for rank in chosen),
        same_order=chosen == list(range(1, len(chosen) + 1)),
        best_from=chosen[0],
        kendall=_kendall([ranked.hit.rank for ranked in ranking.order]),
    )


def fate(ranked: Ranked, sources: int) -> Fate:
    """What became of a candidate when `sources` of them are chosen."""
    if ranked.rank <= sources:
        return "kept" if ranked.hit.rank <= sources else "new"
    return "fell" if ranked.hit.rank <= sources else "other"


def describe(movement: Movement) -> str:
    """The movement in two sentences, without anything from outside in them."""
    where = (
        "the best one stayed at #1"
        if movement.best_from == 1
        else f"the best one came from #{movement.best_from}"
    )
    figures = [f"overlap {movement.overlap} of {movement.sources}"]
    if movement.kendall is not None:
        # a tau of -0.001 is "0.00", not "-0.00"
        figures.insert(0, f"Kendall tau {round(movement.kendall, 2) + 0.0:.2f}")
    return f"{_change(movement)}{'.' if movement.same_order else f'; {where}.'} {_sentence(figures)}"


def _change(movement: Movement) -> str:
    if movement.changed:
        return "Reranking changed " + (
            "the only source"
            if movement.sources == 1
            else f"{movement.changed} of the {movement.sources} sources"
        )
    if movement.sources == 1:
        return "Reranking kept the only source"
    order = "their order" if movement.same_order else "changed their order"
    return f"Reranking kept the {movement.sources} sources and {order}"


def _sentence(figures: list[str]) -> str:
    text = ", ".join(figures)
    return f"{text[0].upper()}{text[1:]}."


def _kendall(ranks: list[int]) -> float | None:
    if len(ranks) < 2:
        return None
    from scipy.stats import kendalltau  # type: ignore[import-untyped]

    return float(kendalltau(range(len(ranks)), ranks).statistic)
