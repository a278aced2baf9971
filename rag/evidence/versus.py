"""Two runs of the same questions side by side: what another model, library or setting changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ingest.errors import BadRequest
from rag.evidence.compare import Difference, compare
from rag.evidence.report import COMPARED, MEASURE, measure
from rag.evidence.runfile import Header, Result, Run
from rag.evidence.verdict import Verdict, judged


@dataclass(frozen=True, slots=True)
class RunComparison:
    """How much better the second run is than the first.

    `changed` are sentences on what is not the same in the two runs. `questions` are in both, with the same
    relevant passages; `left_out` are not. `gains` are by variant and measure, of variants that both runs have.
    """

    changed: tuple[str, ...]
    questions: int
    left_out: int
    gains: Mapping[str, Mapping[str, Difference]]
    verdicts: Mapping[str, Verdict]


def compare_runs(first: Run, second: Run) -> RunComparison:
    """Compare what both runs asked. Raises BadRequest where they share no question or no variant."""
    pairs = _same_questions(first, second)
    if not pairs:
        raise BadRequest(
            "The two runs have no question with the same relevant passages in common: ask the same set."
        )
    names = {variant.name for variant in first.header.variants}
    variants = [variant for variant in second.header.variants if variant.name in names]
    if not variants:
        raise BadRequest("The two runs have no order in common: run both with the same depths.")
    before = measure([one for one, _ in pairs], variants)
    after = measure([two for _, two in pairs], variants)
    keys = [(variant.name, measure_) for variant in variants for measure_ in COMPARED]
    differences = compare([(after[name][one], before[name][one]) for name, one in keys])
    gains: dict[str, dict[str, Difference]] = {}
    for (name, measure_), difference in zip(keys, differences, strict=True):
        gains.setdefault(name, {})[measure_] = difference
    asked = {result.question.id for result in (*first.results, *second.results) if result.question.relevant}
    return RunComparison(
        _changes(first.header, second.header),
        len(pairs),
        len(asked) - len(pairs),
        gains,
        {name: judged(gain[MEASURE], MEASURE) for name, gain in gains.items()},
    )


def _same_questions(first: Run, second: Run) -> list[tuple[Result, Result]]:
    others = {result.question.id: result for result in second.results}
    return [
        (result, others[result.question.id])
        for result in first.results
        if result.question.relevant
        and result.question.id in others
        and others[result.question.id].question.text == result.question.text
        and others[result.question.id].question.relevant == result.question.relevant
    ]


def _changes(first: Header, second: Header) -> tuple[str, ...]:
    told: Sequence[tuple[str, str, str]] = (
        ("Question set", first.question_set, second.question_set),
        ("Library", _corpus(first), _corpus(second)),
        ("Bi-encoder", f"{first.embedder} ({first.device})", f"{second.embedder} ({second.device})"),
        ("Reranker", _models(first), _models(second)),
        ("Machine", first.machine, second.machine),
    )
    return tuple(f"{what}: {before}; now {after}." for what, before, after in told if before != after)


def _corpus(header: Header) -> str:
    corpus = header.corpus
    return f"{corpus.documents:,} documents, {corpus.chunks:,} chunks ({corpus.fingerprint[:12]})"


def _models(header: Header) -> str:
    return ", ".join(
        f"{model.name} {model.revision[:12]} ({model.device}, {model.cosine_weight:g} x cosine, "
        f"{model.bm25_weight:g} x BM25)"
        for model in header.models
    )
