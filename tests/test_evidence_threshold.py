"""From which logit on to answer at all: precision and recall by hand; a threshold belongs to one model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rag.evidence.questions import Question
from rag.evidence.runfile import Model, Outcome, Result
from rag.evidence.threshold import advise, choose
from rag.evidence.variants import Timing
from rag.threshold import Threshold, apply_threshold
from tests.fakes import length_reranker

MODEL = Model("word lengths", "word lengths", "abc", "cpu", 0.0, 0.0)


def result(number: int, logit: float, rank: int | None) -> Result:
    outcome = Outcome((rank,) if rank else (), ("chunk",), (logit, logit - 1))
    return Result(Question(f"q{number}", "?", ()), {"reranked": outcome}, Timing(0, 0, 0, {}))


def results(good: list[float], bad: list[float]) -> list[Result]:
    both = [(logit, 1) for logit in good] + [(logit, None) for logit in bad]
    return [result(number, logit, rank) for number, (logit, rank) in enumerate(both)]


def test_precision_and_recall_at_each_logit_are_counted() -> None:
    advice = advise(results([1.0, 3.0, 3.0], [0.0, 2.0]), "reranked")
    assert [(p.logit, p.precision, p.recall, p.answered) for p in advice.points] == [
        (0, 3 / 5, 1, 5),
        (1, 3 / 4, 1, 4),
        (2, 2 / 3, pytest.approx(2 / 3), 3),
        (3, 1, pytest.approx(2 / 3), 2),
    ]
    assert (advice.answerable, advice.others) == (3, 2)


def test_a_passage_below_the_sources_cannot_be_answered_from() -> None:
    advice = advise([result(1, 5.0, 5), result(2, 5.0, 6)], "reranked")
    assert (advice.answerable, advice.others) == (1, 1)


def test_the_highest_threshold_that_keeps_nineteen_of_twenty_is_suggested() -> None:
    advice = advise(results([float(n) for n in range(20)], [-1.0] * 10 + [0.5] * 5), "reranked")
    assert advice.logit == 1  # 0 is the twentieth; 0.5 is kept out with it
    assert advice.why == (
        "From logit 1.00 on 95% of the questions that can be answered are, and 100% of the answers rest on a "
        "relevant passage, instead of 57% without a threshold."
    )


@pytest.mark.parametrize(
    ("good", "bad", "why"),
    [
        ([1.0] * 9, [0.0] * 50, "9 questions have a relevant passage among the sources and 50 have not"),
        ([1.0] * 50, [0.0] * 9, "it takes at least 10 of each"),
        ([1.0] * 20, [2.0] * 20, "none keeps a wrong answer out"),
        ([], [], "it takes at least 10 of each"),
    ],
)
def test_no_threshold_is_suggested_where_none_is_any_good(
    good: list[float], bad: list[float], why: str
) -> None:
    advice = advise(results(good, bad), "reranked")
    assert advice.logit is None
    assert why in advice.why
    assert choose(advice, MODEL, "corpus") is None


def test_a_chosen_threshold_is_a_probability_of_its_own_model_on_its_own_library() -> None:
    advice = advise(results([float(n) for n in range(20)], [-1.0] * 10), "reranked")
    reranker = replace(length_reranker(threshold=0.9), revision="abc")
    chosen = choose(advice, MODEL, "corpus")
    assert chosen == Threshold(1.0, "word lengths", "abc", "corpus")
    applied = apply_threshold(reranker, chosen, "corpus").calibration
    assert applied.threshold == reranker.calibration.probability(1.0)
    other_weights = replace(reranker, revision="xyz")
    assert apply_threshold(other_weights, chosen, "corpus") == other_weights
    assert apply_threshold(replace(reranker, name="other"), chosen, "corpus").calibration.threshold == 0.9
    assert apply_threshold(reranker, chosen, "another library") == reranker
    assert apply_threshold(reranker, None, "corpus") == reranker
