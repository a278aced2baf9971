"""Intervals, randomisation tests and the number of questions: by hand, and on data whose truth is known."""

from __future__ import annotations

from math import ceil

import numpy as np
import pytest

from rag.evidence.compare import Difference, Interval, compare, intervals, needed, randomisation_p


def test_the_interval_of_equal_numbers_is_a_point() -> None:
    assert intervals([np.full(7, 0.25), np.array([0.5])]) == [
        Interval(0.25, 0.25, 0.25),
        Interval(0.5, 0.5, 0.5),
    ]
    assert intervals([]) == []


def test_the_interval_of_two_questions_holds_all_that_resampling_can_give() -> None:
    assert intervals([np.array([0.0, 1.0])]) == [Interval(0.5, 0.0, 1.0)]  # means 0 and 1 in a quarter each


def test_the_interval_is_near_the_normal_one_and_the_same_every_time() -> None:
    row = np.array([0.0, 1.0] * 200)
    (interval,) = intervals([row])
    error = 1.96 * 0.5 / 400**0.5
    assert (interval.low, interval.high) == pytest.approx((0.5 - error, 0.5 + error), abs=0.005)
    assert interval.mean == 0.5
    assert intervals([row]) == [interval]


def test_rows_are_resampled_alike_so_that_a_row_has_the_same_interval_alone_and_among_others() -> None:
    random = np.random.default_rng(1)
    rows = [random.normal(size=40) for _ in range(3)]
    together = [interval.low for interval in intervals(rows)]
    assert [intervals([row])[0].low for row in rows] == pytest.approx(together)


def test_ninety_five_percent_intervals_hold_the_truth_in_about_ninety_five_of_a_hundred_samples() -> None:
    random = np.random.default_rng(2)
    # as differences of recall are: mostly 0, true mean 0.30 - 0.10
    samples = random.choice([-1.0, 0.0, 1.0], size=(200, 60), p=[0.1, 0.6, 0.3])
    held = [interval.low <= 0.2 <= interval.high for interval in intervals(list(samples))]
    assert 0.90 <= np.mean(held) <= 0.99


def test_the_randomisation_test_of_a_few_questions_tries_all_signs() -> None:
    assert randomisation_p(np.array([0.5, 0.5, 0.5])) == pytest.approx(2 / 2**3)  # +++ and ---
    assert randomisation_p(np.array([1.0] * 6)) == pytest.approx(2 / 2**6)
    # of the 16 sums of +-1 +-1 +-1 +-2 six are as far from 0 as 1 + 1 + 1 - 2 = 1 or nearer: +-1 in 3 + 1 ways
    sums = [a + b + c + d for a in (1, -1) for b in (1, -1) for c in (1, -1) for d in (2, -2)]
    expected = sum(abs(total) >= 1 for total in sums) / 16
    assert randomisation_p(np.array([1.0, 1.0, 1.0, -2.0])) == pytest.approx(expected)


def test_ties_have_no_say_in_the_randomisation_test() -> None:
    changed = np.array([1.0, 1.0, -1.0, 1.0, 1.0, 1.0])
    assert randomisation_p(np.append(changed, np.zeros(50))) == randomisation_p(changed)
    assert randomisation_p(np.zeros(5)) == randomisation_p(np.array([1.0, 0.0])) == 1


def test_the_randomisation_test_is_seldom_wrong_where_there_is_no_difference() -> None:
    random = np.random.default_rng(3)
    samples = random.choice([-1.0, 0.0, 1.0], size=(200, 30), p=[0.2, 0.6, 0.2])
    wrong = np.mean([randomisation_p(sample) <= 0.05 for sample in samples])
    assert wrong <= 0.09


def test_a_comparison_counts_questions_won_tied_and_lost() -> None:
    first, second = np.array([1.0, 0.0, 0.5, 0.5]), np.array([0.0, 0.0, 0.5, 1.0])
    (difference,) = compare([(first, second)])
    assert (difference.won, difference.tied, difference.lost, difference.questions) == (1, 2, 1, 4)
    assert difference.mean == pytest.approx((1 + 0 + 0 - 0.5) / 4)
    deviations = [1 - 0.125, -0.125, -0.125, -0.5 - 0.125]
    assert difference.deviation == pytest.approx((sum(d * d for d in deviations) / 3) ** 0.5)
    assert str(difference) == f"+0.125 [{difference.low:+.3f}, {difference.high:+.3f}]"


def seen(mean: float, deviation: float, questions: int) -> Difference:
    return Difference(mean, mean - 1, mean + 1, 0.5, deviation, questions, 0, 0)


def test_the_questions_needed_are_those_of_the_formula() -> None:
    # a large difference: ((1.96 + 0.84) x 0.5 / 0.2)^2 = 49
    assert needed(seen(0.2, 0.5, 20), 0.05) == max(49, 60)
    assert needed(seen(0.1, 0.5, 20), 0.05) == ceil((2.8 * 0.5 / 0.1) ** 2) == 196
    # none: (2 x 1.96 x 0.5 / 0.05)^2 = 39.2^2
    assert needed(seen(0.0, 0.5, 20), 0.05) == ceil(39.2**2)
    assert needed(seen(0.001, 0.5, 20), 0.05) == ceil(39.2**2)
    # no question differs: the rule of three alone
    assert needed(seen(0.0, 0.0, 20), 0.05) == 60
    assert needed(seen(0.3, 0.1, 900), 0.05) == 901


def test_so_many_questions_do_make_a_difference_certain_in_about_four_of_five_samples() -> None:
    count = needed(seen(0.2, (0.4 - 0.04) ** 0.5, 30), 0.05)
    random = np.random.default_rng(4)
    samples = random.choice([-1.0, 0.0, 1.0], size=(200, count), p=[0.1, 0.6, 0.3])
    certain = np.mean([interval.low > 0 for interval in intervals(list(samples))])
    assert 0.7 <= certain <= 0.93
