"""The report of one run: the verdict in words, the orders side by side, the depth that is worth its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import streamlit as st

from app_pages.parts.evidence_charts import depth_chart, gains_chart
from app_pages.parts.evidence_words import (
    COLOURS,
    ICONS,
    MEANING,
    count,
    headline,
    milliseconds,
    signed,
)
from app_pages.parts.text import plain
from rag.evidence.measures import SHOWN
from rag.evidence.report import MEASURE, Conclusion, Curve, Report, Row, make_report
from rag.evidence.runfile import Result, Run
from rag.evidence.sets import EvidenceStore
from rag.evidence.variants import BI_ENCODER, Variant

KEPT_REPORTS = 8


@dataclass(frozen=True, slots=True)
class Shown:
    """A run on the screen, and what follows from it."""

    id: str
    run: Run
    report: Report


def load_shown(kept: EvidenceStore, id_: str, asked: int) -> Shown:
    """The run with its report, judged once. Raises BadRequest where it cannot be."""
    return _load(str(kept.journals), id_, asked, kept)


@st.cache_resource(max_entries=KEPT_REPORTS, show_spinner="Judging the run …")
def _load(folder: str, id_: str, asked: int, _kept: EvidenceStore) -> Shown:  # noqa: ARG001 - the cache's key
    run = _kept.run(id_)
    return Shown(id_, run, make_report(run))


def show_report(shown: Shown, *, changed: Sequence[str]) -> None:
    """Verdict, picture, tables, depth; `changed` says what is not as it was when the run was made."""
    report = shown.report
    for note in (*changed, *report.notes):
        st.warning(plain(note, limit=600), icon=":material/warning:")
    if not report.finished:
        st.warning(
            f"Stopped early: {len(shown.run.results):,} of {report.header.questions:,} questions were asked. What "
            "follows is about those.",
            icon=":material/pause_circle:",
        )
    first, *others = report.conclusions
    _show_verdict(first, report)
    for other in others:
        st.text(" ".join(other.sentences))
    st.caption(_about(report))
    _show_gains(report)
    _show_table(shown)
    for number, curve in enumerate(report.curves):
        with st.container(key=f"evidence-depth-{number}"):
            _show_depth(curve, report, several=len(report.curves) > 1)


def _show_verdict(conclusion: Conclusion, report: Report) -> None:
    verdict = conclusion.verdict
    seen = verdict.difference
    rows = {row.variant.name: row for row in report.rows}
    before, after = rows[BI_ENCODER].means[MEASURE].mean, rows[conclusion.variant].means[MEASURE].mean
    with st.container(border=True, key=f"verdict-{COLOURS[verdict.word]}"):
        st.header(f":{COLOURS[verdict.word]}[{ICONS[verdict.word]}] {headline(verdict)}", anchor=False)
        st.markdown(
            f"**{after:.0%}** of the right passages are among the first 5, from which an answer is written; "
            f"without reranking it is **{before:.0%}**. The difference is **{signed(seen.mean)}**; its 95 % "
            f"interval goes from {signed(seen.low)} to {signed(seen.high)}. Of "
            f"{count(seen.questions, 'question')} reranking won **{seen.won}**, tied {seen.tied}, lost "
            f"**{seen.lost}**."
        )
        st.markdown(rival_words(conclusion))
        ceiling = report.ceilings[report.ceiling]
        won = rows[conclusion.variant].headroom
        if won is not None:
            st.markdown(
                f"No reranker could get above **{ceiling:.0%}**: the other right passages are not among the "
                f"{report.ceiling} candidates. Of what lies between {before:.0%} and that ceiling, this one won "
                f"**{won:.0%}**."
            )
        st.caption(
            f"{MEASURE}: {MEANING[MEASURE][0].lower()}{MEANING[MEASURE][1:]} Measured with "
            f"{plain(conclusion.variant)}; randomisation test {seen.chance} (a small p is hardly chance)."
        )


def rival_words(conclusion: Conclusion) -> str:
    """Whether the cheap rival would have done as well, in words."""
    verdict, rival = conclusion.against_rival, plain(conclusion.rival)
    seen = verdict.difference
    numbers = f"{signed(seen.mean)} [{signed(seen.low)}, {signed(seen.high)}]"
    match verdict.word:
        case "helps":
            said = f"The cheap way, {rival} without any model, would **not** have done as well"
        case "hurts":
            said = f"The cheap way, {rival} without any model, does **better** than the reranker"
        case "no difference seen":
            said = f"The cheap way, {rival} without any model, would have done **as well**"
        case _:
            said = (
                f"Whether the cheap way, {rival} without any model, would have done as well is **not certain** "
                f"(about {verdict.needed:,} questions would tell)"
            )
    return f"{said}: reranking against it is {numbers}."


def _about(report: Report) -> str:
    header = report.header
    models = ", ".join(plain(model.name) for model in header.models)
    unanswerable = (
        f" and {report.unanswerable:,} that the documents do not answer" if report.unanswerable else ""
    )
    return (
        f"Set {plain(header.question_set)}: {count(report.questions, 'question')}{unanswerable} · "
        f"{count(header.corpus.documents, 'document')}, {header.corpus.chunks:,} chunks · bi-encoder "
        f"{plain(header.embedder)} · reranker {models} ({plain(header.device)}) · {when(report.begun)}"
    )


def when(stamp: str) -> str:
    """ISO 8601 as people read it, in local time."""
    return datetime.fromisoformat(stamp).astimezone().strftime("%Y-%m-%d %H:%M")


def _show_gains(report: Report) -> None:
    gains = [
        (row.variant.name, row.gains[BI_ENCODER][MEASURE]) for row in report.rows if BI_ENCODER in row.gains
    ]
    st.subheader("Every order against the bi-encoder's", anchor=False)
    st.altair_chart(
        gains_chart(gains),
        alt="Gain of each order over the bi-encoder's, with 95 % intervals: "
        + "; ".join(f"{name} {gain}" for name, gain in gains),
    )
    st.caption(
        "A line is the 95 % interval. Where it does not cross 0, the difference is hardly chance. "
        "Point at a line for its numbers."
    )


def _show_table(shown: Shown) -> None:
    rows = [_table_row(row, shown.run) for row in shown.report.rows]
    config = st.column_config
    number = "%.3f"
    st.dataframe(
        rows,
        hide_index=True,
        height="content",
        placeholder="",
        column_config={
            "order": config.TextColumn("Order", pinned=True, width="medium"),
            **{
                measure: config.NumberColumn(measure, format=number, help=meaning, width="small")
                for measure, meaning in MEANING.items()
            },
            "interval": config.TextColumn(f"95 % interval of {MEASURE}"),
            "gain": config.TextColumn(
                "Against the bi-encoder", help=f"Difference in {MEASURE} and its interval"
            ),
            "won": config.NumberColumn(
                "Won", help="Questions with more right passages among the first 5", width="small"
            ),
            "tied": config.NumberColumn("Tied", width="small"),
            "lost": config.NumberColumn("Lost", width="small"),
            "headroom": config.NumberColumn(
                "Headroom won",
                format="%.0f %%",
                help="Of what lies between the bi-encoder and the ceiling, the best that any reranker could do",
            ),
            "p50": config.NumberColumn(
                "ms p50", format="%.0f", help="Half of the questions took at most this"
            ),
            "p95": config.NumberColumn("ms p95", format="%.0f", help="95 of 100 questions took at most this"),
        },
        alt="Table of all orders with their measures",
    )
    with st.expander("What the columns say, and milliseconds by stage"):
        st.markdown("\n".join(f"- **{measure}**: {meaning}" for measure, meaning in MEANING.items()))
        st.dataframe(
            [
                {"stage": stage.name, "p50 ms": round(stage.p50, 1), "p95 ms": round(stage.p95, 1)}
                for stage in shown.report.stages
            ],
            hide_index=True,
        )


def _table_row(row: Row, run: Run) -> dict[str, Any]:
    mean = row.means[MEASURE]
    cells: dict[str, Any] = {
        "order": row.variant.name,
        MEASURE: mean.mean,
        "interval": f"{mean.low:.3f} to {mean.high:.3f}",
        "gain": "",
        "won": None,
        "tied": None,
        "lost": None,
        "headroom": None if row.headroom is None else 100 * row.headroom,
    }
    gain = row.gains.get(BI_ENCODER, {}).get(MEASURE)
    if gain:
        cells |= {
            "gain": f"{signed(gain.mean)} [{signed(gain.low)}, {signed(gain.high)}]",
            "won": gain.won,
            "tied": gain.tied,
            "lost": gain.lost,
        }
    p50, p95 = np.percentile([1000 * spent(result, row.variant) for result in run.results], [50, 95])
    others = {measure: row.means[measure].mean for measure in SHOWN if measure != MEASURE}
    return cells | {"p50": float(p50), "p95": float(p95)} | others


def spent(result: Result, variant: Variant) -> float:
    """Seconds that one question takes in an order, from its words to the ordered passages."""
    timing = result.timing
    if variant.kind == "BM25":
        return timing.words
    near = timing.embed + timing.search
    if variant.kind == "fused":
        return near + timing.words
    return near + (timing.rerank[variant.curve][variant.depth] if variant.kind == "reranked" else 0.0)


def _show_depth(curve: Curve, report: Report, *, several: bool) -> None:
    before = next(row for row in report.rows if row.variant.name == BI_ENCODER).means[MEASURE].mean
    name = f": {plain(curve.name)}" if several else ""
    st.subheader(f"How many candidates are worth reading again{name}", anchor=False)
    if curve.worth:
        point = next(point for point in curve.points if point.depth == curve.worth)
        st.markdown(f"**{curve.worth} candidates**, {milliseconds(point.p50)} a question on this machine.")
    st.markdown(curve.why)  # measures and numbers alone
    left, right = st.columns(2)
    with left:
        st.altair_chart(depth_chart(curve, before, by="depth"), alt=_depth_alt(curve))
    with right:
        st.altair_chart(depth_chart(curve, before, by="ms"), alt=_depth_alt(curve))
    st.caption(
        "Solid: recall@5 after reranking, with its 95 % interval. Dotted above: the ceiling, all right passages "
        "that are among the candidates. Dashed: without reranking. The ring marks the depth that is worth it: the "
        "smallest within 0.01 of the best."
    )


def _depth_alt(curve: Curve) -> str:
    points = "; ".join(
        f"{point.depth} candidates {point.quality}, {point.p50:.0f} ms" for point in curve.points
    )
    return f"{MEASURE} by candidate depth: {points}"
