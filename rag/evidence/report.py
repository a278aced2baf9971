"""What follows from a run: measures, differences, verdicts, the depth that is worth its time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ingest.errors import BadRequest
from rag.evidence.compare import Difference, Floats, Interval, compare, intervals
from rag.evidence.measures import SHOWN, judge, recall_at
from rag.evidence.questions import Question
from rag.evidence.runfile import Header, Outcome, Result, Run
from rag.evidence.threshold import ThresholdAdvice, advise
from rag.evidence.variants import BI_ENCODER, BM25, Variant
from rag.evidence.verdict import Verdict, judged, rival_sentence, sentence
from rag.pipeline import DEPTH

MEASURE = "recall@5"
"""What verdict, depth curve and headroom rest on: the app answers from 5 chunks."""
COMPARED = (MEASURE, "nDCG@10")
WORTH = 0.01
"""A gain that is worth deeper candidates: one question in a hundred."""

Values = Mapping[str, Mapping[str, Floats]]
"""Variant, measure, (questions,)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One order.

    `headroom` is the share won of what lies between the bi-encoder's recall@5 and the ceiling, None for the
    bi-encoder and where there is nothing to win. `gains` are by rival and measure.
    """

    variant: Variant
    means: Mapping[str, Interval]
    headroom: float | None
    gains: Mapping[str, Mapping[str, Difference]]


@dataclass(frozen=True, slots=True)
class Stage:
    """Milliseconds of one stage over the questions."""

    name: str
    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class Point:
    """Reranked from one depth; `ceiling` is the bi-encoder's recall there, the best any reranker could do."""

    depth: int
    quality: Interval
    gain: Difference
    ceiling: float
    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class Curve:
    """Quality and milliseconds by depth; `worth` is the depth to take, None where reranking is not worth any."""

    name: str
    points: tuple[Point, ...]
    worth: int | None
    why: str


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What can be said of one reranker at the app's depth: against the bi-encoder, and against a cheap rival."""

    curve: str
    variant: str
    verdict: Verdict
    rival: str
    against_rival: Verdict
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A run, judged. `questions` want a passage and are measured; `unanswerable` want none.

    `ceilings` are the bi-encoder's recall by depth; `ceiling` is the one that `headroom` is measured by.
    """

    header: Header
    begun: str
    finished: bool
    questions: int
    unanswerable: int
    rivals: tuple[str, ...]
    ceilings: Mapping[int, float]
    ceiling: int
    rows: tuple[Row, ...]
    stages: tuple[Stage, ...]
    curves: tuple[Curve, ...]
    conclusions: tuple[Conclusion, ...]
    thresholds: tuple[ThresholdAdvice, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Changed:
    """A question that one order does better or worse than another."""

    question: Question
    difference: float
    outcome: Outcome
    rival: Outcome


def measure(results: Sequence[Result], variants: Sequence[Variant]) -> dict[str, dict[str, Floats]]:
    """Each of SHOWN for every variant and question, (questions,)."""
    grades = [[judgement.grade for judgement in result.question.relevant] for result in results]
    return {
        variant.name: judge([result.outcomes[variant.name].ranks for result in results], grades)
        for variant in variants
    }


def make_report(run: Run) -> Report:
    """Judge a run. Raises BadRequest where no question in it has a relevant passage."""
    results = wanting(run)
    variants = run.header.variants
    values = measure(results, variants)
    curves = curves_of(variants)
    mains = {curve: main_variant(own) for curve, own in curves.items()}
    told = _told(curves)
    rivals = _rivals(variants, list(mains.values()))
    gains = _gains(values, rivals)
    ceilings = _ceilings(results, variants)
    depth = run.header.fusion.depth
    return Report(
        header=run.header,
        begun=run.begun,
        finished=run.finished,
        questions=len(results),
        unanswerable=len(run.results) - len(results),
        rivals=tuple(rivals),
        ceilings=ceilings,
        ceiling=depth,
        rows=_rows(variants, values, gains, ceilings[depth]),
        stages=_stages(run, [mains[curve] for curve in told]),
        curves=tuple(_curve(curve, curves[curve], results, values, gains, ceilings) for curve in told),
        conclusions=tuple(_conclude(curve, mains[curve], variants, values, gains) for curve in told),
        thresholds=tuple(advise(run.results, mains[curve].name) for curve in told),
        notes=run.notes,
    )


def wanting(run: Run) -> tuple[Result, ...]:
    """The results that can be measured. Raises BadRequest where there is none."""
    results = tuple(result for result in run.results if result.question.relevant)
    if not results:
        raise BadRequest(
            f"No question of {run.header.question_set!r} that was asked has a relevant passage: without one there "
            "is nothing to measure. Mark at least one."
        )
    return results


def curves_of(variants: Sequence[Variant]) -> dict[str, list[Variant]]:
    """The reranked variants by curve, each by rising depth."""
    found: dict[str, list[Variant]] = {}
    for variant in variants:
        if variant.kind == "reranked":
            found.setdefault(variant.curve, []).append(variant)
    return {curve: sorted(own, key=lambda variant: variant.depth) for curve, own in found.items()}


def _told(curves: Mapping[str, Sequence[Variant]]) -> list[str]:
    """The curves that conclusions are drawn from: those of most depths; other variants are for the tables."""
    most = max((len(own) for own in curves.values()), default=0)
    return [curve for curve, own in curves.items() if len(own) == most]


def main_variant(curve: Sequence[Variant]) -> Variant:
    """The one from the app's depth, or from the depth nearest to it."""
    return min(curve, key=lambda variant: (abs(variant.depth - DEPTH), variant.depth))


def changed(run: Run, variant: str, rival: str = BI_ENCODER, measure_: str = MEASURE) -> tuple[Changed, ...]:
    """The questions that a variant wins and loses against a rival: the largest losses first, wins last."""
    results = wanting(run)
    chosen = [one for one in run.header.variants if one.name in (variant, rival)]
    values = measure(results, chosen)
    differences = values[variant][measure_] - values[rival][measure_]
    found = [
        Changed(result.question, float(difference), result.outcomes[variant], result.outcomes[rival])
        for result, difference in zip(results, differences, strict=True)
        if difference
    ]
    return tuple(sorted(found, key=lambda change: change.difference))


def headroom(recall: float, before: float, ceiling: float) -> float | None:
    """Share won of what lies between the bi-encoder's recall@5 and the ceiling; None where nothing does."""
    return (recall - before) / (ceiling - before) if ceiling > before else None


def _rivals(variants: Sequence[Variant], mains: Sequence[Variant]) -> list[str]:
    """The bi-encoder, the two without a model, and the first reranker where there are more than one."""
    names = [variant.name for variant in variants if variant.kind in ("bi-encoder", "fused")]
    return [*names, mains[0].name] if len(mains) > 1 else names


def _gains(values: Values, rivals: Sequence[str]) -> dict[str, dict[str, dict[str, Difference]]]:
    keys = [
        (name, rival, measure_)
        for name in values
        for rival in rivals
        if rival != name
        for measure_ in COMPARED
    ]
    found: dict[str, dict[str, dict[str, Difference]]] = {name: {} for name in values}
    pairs = [(values[name][measure_], values[rival][measure_]) for name, rival, measure_ in keys]
    for (name, rival, measure_), difference in zip(keys, compare(pairs), strict=True):
        found[name].setdefault(rival, {})[measure_] = difference
    return found


def _ceilings(results: Sequence[Result], variants: Sequence[Variant]) -> dict[int, float]:
    depths = sorted({variant.depth for variant in variants} | {5})
    grades = [[judgement.grade for judgement in result.question.relevant] for result in results]
    ranks = [result.outcomes[BI_ENCODER].ranks for result in results]
    values = judge(ranks, grades, [recall_at(depth) for depth in depths])
    return {depth: float(values[recall_at(depth)].mean()) for depth in depths}


def _rows(
    variants: Sequence[Variant],
    values: Values,
    gains: Mapping[str, Mapping[str, Mapping[str, Difference]]],
    ceiling: float,
) -> tuple[Row, ...]:
    cells = [(variant.name, measure_) for variant in variants for measure_ in SHOWN]
    means = dict(zip(cells, intervals([values[name][one] for name, one in cells]), strict=True))
    before = means[BI_ENCODER, MEASURE].mean
    return tuple(
        Row(
            variant,
            {measure_: means[variant.name, measure_] for measure_ in SHOWN},
            None
            if variant.name == BI_ENCODER
            else headroom(means[variant.name, MEASURE].mean, before, ceiling),
            gains[variant.name],
        )
        for variant in variants
    )


def _stages(run: Run, mains: Sequence[Variant]) -> tuple[Stage, ...]:
    timings = [result.timing for result in run.results]
    stages = [
        _stage("embed the question", [timing.embed for timing in timings]),
        _stage("search by cosine", [timing.search for timing in timings]),
        _stage(f"search by {BM25}", [timing.words for timing in timings]),
    ]
    for main in mains:
        seconds = [timing.rerank[main.curve][main.depth] for timing in timings]
        stages.append(_stage(f"rerank {main.depth} ({main.curve})", seconds))
    return tuple(stages)


def _stage(name: str, seconds: Sequence[float]) -> Stage:
    p50, p95 = np.percentile(np.array(seconds) * 1000, [50, 95])
    return Stage(name, float(p50), float(p95))


def _curve(
    name: str,
    variants: Sequence[Variant],
    results: Sequence[Result],
    values: Values,
    gains: Mapping[str, Mapping[str, Mapping[str, Difference]]],
    ceilings: Mapping[int, float],
) -> Curve:
    qualities = intervals([values[variant.name][MEASURE] for variant in variants])
    points = []
    for variant, quality in zip(variants, qualities, strict=True):
        stage = _stage("", [result.timing.rerank[name][variant.depth] for result in results])
        gain = gains[variant.name][BI_ENCODER][MEASURE]
        points.append(Point(variant.depth, quality, gain, ceilings[variant.depth], stage.p50, stage.p95))
    worth, why = _worth(points)
    return Curve(name, tuple(points), worth, why)


def _worth(points: Sequence[Point]) -> tuple[int | None, str]:
    """The smallest depth whose quality is within WORTH of the best, where any depth helps."""
    best = max(points, key=lambda point: (point.quality.mean, -point.depth))
    verdict = judged(best.gain, MEASURE)
    if verdict.word == "too few questions to say":
        return None, (
            f"Too few questions to say which depth is worth its time: from {best.depth}, where reranking does "
            f"best, {MEASURE} is {best.gain} over the bi-encoder's order. About {verdict.needed:,} would do."
        )
    if verdict.word != "helps":
        return None, (
            f"No depth is worth its time: even from {best.depth}, where it does best, reranking is not better "
            f"than the bi-encoder's order ({MEASURE} {best.gain})."
        )
    chosen = next(point for point in points if point.quality.mean >= best.quality.mean - WORTH)
    why = f"From {chosen.depth}: {MEASURE} {chosen.quality.mean:.3f} in {chosen.p50:.0f} ms"
    if chosen is not best:
        why += f", within {WORTH:g} of the best ({best.quality.mean:.3f} from {best.depth}, in {best.p50:.0f} ms)"
    else:
        why += ", the best of all depths"
    shallower = [point for point in points if point.depth < chosen.depth]
    if shallower:
        before = shallower[-1]
        why += f"; from {before.depth} it is {before.quality.mean:.3f} in {before.p50:.0f} ms"
    return chosen.depth, why + "."


def _conclude(
    curve: str,
    main: Variant,
    variants: Sequence[Variant],
    values: Values,
    gains: Mapping[str, Mapping[str, Mapping[str, Difference]]],
) -> Conclusion:
    fused = [variant.name for variant in variants if variant.kind == "fused"]
    # the better of the two on these very questions: that errs on the rival's side
    rival = max(fused, key=lambda name: float(values[name][MEASURE].mean()))
    verdict = judged(gains[main.name][BI_ENCODER][MEASURE], MEASURE)
    against = judged(gains[main.name][rival][MEASURE], MEASURE)
    sentences = (sentence(verdict, of=_named(main, curve)), rival_sentence(against, rival))
    return Conclusion(curve, main.name, verdict, rival, against, sentences)


def _named(main: Variant, curve: str) -> str:
    return f"Reranking with {curve} from {main.depth} candidates"
