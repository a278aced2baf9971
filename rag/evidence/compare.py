"""Paired differences: how large, how sure, and how many questions it takes to be sure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RESAMPLES = 9_999
"""Resamples of a bootstrap, and sign changes of a randomisation test (all of them where there are fewer)."""
SEED = 0
Z95 = 1.96
Z80 = 0.84
"""Normal quantiles: a 95 % interval, and 80 % power."""
_CELLS = 4_000_000
"""Numbers that a step of resampling holds at once: 32 MB."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over questions and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better one order is than another on the same questions.

    `low` and `high` are the 95 % bootstrap interval of the mean; `p` is of the randomisation test (two-sided);
    `deviation` is the standard deviation of the differences; won, tied and lost count questions.
    """

    mean: float
    low: float
    high: float
    p: float
    deviation: float
    won: int
    tied: int
    lost: int

    @property
    def questions(self) -> int:
        """How many questions were compared."""
        return self.won + self.tied + self.lost

    @property
    def chance(self) -> str:
        """`p` in words: none is 0."""
        return "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def intervals(rows: Sequence[Floats]) -> list[Interval]:
    """Percentile bootstrap of each row's mean; rows are (questions,) and all resampled alike.

    Each question is drawn with replacement, 9,999 times, with a fixed seed: the same numbers every time. Of one
    question, or of equal numbers, the interval is a point. The percentile interval and not the BCa interval,
    because it covers a little more often on differences that are mostly 0; of fewer than 30 questions either is
    too narrow.
    """
    from scipy.stats import bootstrap  # type: ignore[import-untyped]

    found = [Interval(float(row.mean()), float(row.mean()), float(row.mean())) for row in rows]
    varying = [number for number, row in enumerate(rows) if len(row) > 1 and np.ptp(row) > 0]
    if not varying:
        return found
    table = np.stack([rows[number] for number in varying])
    drawn = bootstrap(
        (table,),
        np.mean,
        axis=-1,
        n_resamples=RESAMPLES,
        method="percentile",
        batch=max(1, _CELLS // table.size),
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    for number, low, high in zip(varying, np.atleast_1d(drawn.low), np.atleast_1d(drawn.high), strict=True):
        found[number] = Interval(found[number].mean, float(low), float(high))
    return found


def randomisation_p(differences: Floats) -> float:
    """Two-sided p of the randomisation test: how often random signs give a sum as far from 0.

    Questions that are tied have no sign and are left out, which changes nothing but the time. Up to 13 others all
    sign changes are tried, beyond 9,999 random ones.
    """
    from scipy.stats import permutation_test

    changed = differences[differences != 0]
    if len(changed) == 0:
        return 1.0
    if len(changed) == 1:
        return 1.0  # either sign is as far from 0
    tested = permutation_test(
        (changed,),
        np.sum,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        vectorized=True,
        batch=max(1, _CELLS // len(changed)),
        rng=np.random.default_rng(SEED),
    )
    return float(tested.pvalue)


def compare(pairs: Sequence[tuple[Floats, Floats]]) -> list[Difference]:
    """How much better the first of each pair is than the second; both (questions,), the same questions."""
    rows = [first - second for first, second in pairs]
    return [
        Difference(
            interval.mean,
            interval.low,
            interval.high,
            randomisation_p(row),
            float(row.std(ddof=1)) if len(row) > 1 else 0.0,
            won=int((row > 0).sum()),
            tied=int((row == 0).sum()),
            lost=int((row < 0).sum()),
        )
        for row, interval in zip(rows, intervals(rows), strict=True)
    ]


def needed(difference: Difference, margin: float) -> int:
    """About how many questions would do, if they are like these.

    The smaller of two numbers: so many that a difference as large as the one seen would be certain in 4 of 5 sets
    of that size, ((1.96 + 0.84) x deviation / mean)^2; and so many that the interval is no wider than `margin`,
    (2 x 1.96 x deviation / margin)^2, when it must leave out either 0 or the margin. Always more than there are
    now, and at least 3 / margin (see `verdict.judged`).
    """
    options = [(2 * Z95 * difference.deviation / margin) ** 2]
    if difference.mean:
        options.append(((Z95 + Z80) * difference.deviation / difference.mean) ** 2)
    return max(math.ceil(min(options)), math.ceil(3 / margin), difference.questions + 1)
