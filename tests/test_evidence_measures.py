"""Measures against numbers worked out by hand, and against another library."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest
from sklearn.metrics import ndcg_score  # type: ignore[import-untyped]

from rag.evidence.measures import SHOWN, judge

SECOND = 1 / log2(3)
"""Gain of a wanted passage at rank 2."""


def test_measures_are_those_worked_out_by_hand() -> None:
    two_wanted, missed, late = (2, 6), (None,), (21,)
    values = judge([two_wanted, missed, late], [(1, 1), (1,), (1,)], [*SHOWN, "recall@50"])
    assert values["recall@1"].tolist() == [0, 0, 0]
    assert values["recall@5"].tolist() == [1 / 2, 0, 0]
    assert values["recall@10"].tolist() == [1, 0, 0]
    assert values["recall@50"].tolist() == [1, 0, 1]
    assert values["MRR@10"].tolist() == [1 / 2, 0, 0]
    assert values["nDCG@10"] == pytest.approx([(SECOND + 1 / log2(7)) / (1 + SECOND), 0, 0])


def test_a_grade_is_the_gain_of_its_passage() -> None:
    values = judge([(2, 1)], [(3, 1)])
    assert values["nDCG@10"] == pytest.approx([(1 + 3 * SECOND) / (3 + SECOND)])
    assert values["MRR@10"].tolist() == [1]


def test_wanted_passages_that_are_not_found_lower_recall_and_ndcg() -> None:
    values = judge([(1, None)], [(1, 1)])
    assert values["recall@5"].tolist() == [1 / 2]
    assert values["nDCG@10"] == pytest.approx([1 / (1 + SECOND)])


@pytest.mark.parametrize("cutoff", [1, 5, 10])
def test_the_last_rank_of_a_cutoff_counts_and_the_next_does_not(cutoff: int) -> None:
    name = f"recall@{cutoff}"
    assert judge([(cutoff,), (cutoff + 1,)], [(1,), (1,)], [name])[name].tolist() == [1, 0]


def test_questions_that_want_or_find_nothing_are_zero() -> None:
    assert judge([(), (None,)], [(), (1,)])["nDCG@10"].tolist() == [0, 0]
    assert judge([], [])["nDCG@10"].tolist() == []


def test_ndcg_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(3)
    ranks, grades, expected = [], [], []
    for _ in range(200):
        count = int(random.integers(1, 6))
        own = random.choice(np.arange(1, 31), count, replace=False)
        own_grades = random.integers(1, 4, count)
        relevance = np.zeros((1, 30))
        relevance[0, own - 1] = own_grades
        expected.append(ndcg_score(relevance, -np.arange(30.0)[None], k=10))
        ranks.append([int(rank) for rank in own])
        grades.append([int(grade) for grade in own_grades])
    assert judge(ranks, grades, ["nDCG@10"])["nDCG@10"] == pytest.approx(expected)


def test_recall_and_mrr_are_those_of_a_few_lines_of_python() -> None:
    random = np.random.default_rng(4)
    drawn = [random.choice(np.arange(1, 40), 3, replace=False) for _ in range(200)]
    ranks = [[int(rank) if random.random() < 0.7 else None for rank in own] for own in drawn]
    values = judge(ranks, [(1, 1, 1)] * 200)
    for cutoff in (1, 5, 10):
        within = [sum(rank is not None and rank <= cutoff for rank in own) / 3 for own in ranks]
        assert values[f"recall@{cutoff}"] == pytest.approx(within)
    first = [min((rank for rank in own if rank is not None), default=99) for own in ranks]
    assert values["MRR@10"] == pytest.approx([1 / rank if rank <= 10 else 0 for rank in first])
