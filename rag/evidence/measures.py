"""Measures of an order, by ir-measures; none of our own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ranks = Sequence[int | None]
"""The rank from 1 at which each wanted item of a question is found, None where it is not."""

SHOWN = ("recall@1", "recall@5", "recall@10", "MRR@10", "nDCG@10")


def recall_at(depth: int) -> str:
    """Name of recall at a depth."""
    return f"recall@{depth}"


def judge(
    ranks: Sequence[Ranks], grades: Sequence[Sequence[int]], measures: Sequence[str] = SHOWN
) -> dict[str, Floats]:
    """Each measure for every question, (questions,).

    `ranks` and `grades` have one entry for each wanted item of each question. Ranks at which no item is found are
    filled with passages that are not relevant. Questions that want nothing get 0.
    """
    from ir_measures import Qrel, ScoredDoc, iter_calc

    parsed = {_parse(name): name for name in measures}
    deepest = max((measure["cutoff"] for measure in parsed), default=0)
    qrels = [
        Qrel(str(row), f"item {item}", grade)
        for row, own in enumerate(grades)
        for item, grade in enumerate(own)
    ]
    run = [
        ScoredDoc(str(row), passage, -rank)
        for row, own in enumerate(ranks)
        for rank, passage in enumerate(_order(own, deepest), start=1)
    ]
    values = {name: np.zeros(len(ranks)) for name in measures}
    if qrels and run:
        for metric in iter_calc(list(parsed), qrels, run):
            values[parsed[metric.measure]][int(metric.query_id)] = metric.value
    return values


def _order(ranks: Ranks, deepest: int) -> list[str]:
    """The passages of an order down to its last wanted one."""
    found = {rank: f"item {item}" for item, rank in enumerate(ranks) if rank is not None and rank <= deepest}
    return [found.get(rank, f"rank {rank}") for rank in range(1, max(found, default=0) + 1)]


def _parse(name: str) -> Any:
    import ir_measures

    kind, cutoff = name.split("@")
    known = {"recall": ir_measures.R, "MRR": ir_measures.RR, "nDCG": ir_measures.nDCG}
    return known[kind] @ int(cutoff)
