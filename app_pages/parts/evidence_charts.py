"""The pictures of the Evidence page: gains with their intervals, depth, milliseconds, threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from app_pages.parts.drawing import finish_pandas
from app_pages.parts.text import one_paragraph
from rag.evidence.compare import Difference
from rag.evidence.report import MEASURE, Curve
from rag.evidence.threshold import ThresholdAdvice
from rag.evidence.variants import BI_ENCODER

INK = "currentColor"
"""The page's text colour, whatever the theme is now: pictures are SVG, and Vega's own text marks are black."""
TEAL, ORANGE, VIOLET, GREY = "#1f8ea3", "#cf6a12", "#8169d6", "#7d8b92"
"""Each at least 3 : 1 against both backgrounds of the theme."""
SAYS = {"better": TEAL, "worse": ORANGE, "not certain": GREY}
SHAPES = {"better": "circle", "worse": "cross", "not certain": "square"}
ROW = 44
AROUND = 130
"""Pixels that legend, axis and title take of a picture's height."""


def certain(difference: Difference) -> str:
    """What the interval says: better, worse, or not certain."""
    if difference.p <= 0.05 and difference.low > 0:
        return "better"
    return "worse" if difference.p <= 0.05 and difference.high < 0 else "not certain"


def gains_chart(gains: Sequence[tuple[str, Difference]]) -> alt.LayerChart:
    """Each order's gain as a point with its interval, its name above it; 0 is the bi-encoder's order."""
    finish_pandas()
    rows = [
        {
            "row": number,
            "order": _cut(one_paragraph(name)),
            "gain": gain.mean,
            "low": gain.low,
            "high": gain.high,
            "says": certain(gain),
            "interval": f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]",
            "questions": f"{gain.won} won, {gain.tied} tied, {gain.lost} lost",
        }
        for number, (name, gain) in enumerate(gains)
    ]
    low = min([0.0, *(gain.low for _, gain in gains)])
    high = max([0.0, *(gain.high for _, gain in gains)])
    room = max(high - low, 0.02) * 0.06
    x = alt.Scale(domain=[low - room, high + room], nice=False)
    y = alt.Y("row:Q", axis=None, scale=alt.Scale(domain=[-0.75, len(rows) - 0.5], reverse=True, nice=False))
    base = alt.Chart(alt.InlineData(values=rows))
    colour = alt.Color(
        "says:N",
        scale=alt.Scale(domain=[*SAYS], range=[*SAYS.values()]),
        legend=_legend(),
    )
    across = alt.X("low:Q", scale=x, axis=_axis(f"{MEASURE}: difference from the bi-encoder's order"))
    shown = [
        alt.Tooltip("order:N", title="Order"),
        alt.Tooltip("interval:N", title="Difference, 95 % interval"),
        alt.Tooltip("questions:N", title="Questions"),
    ]
    layers = [
        alt.Chart(alt.InlineData(values=[{"zero": 0}]))
        .mark_rule(color=INK, strokeDash=[2, 3], opacity=0.7)
        .encode(x=alt.X("zero:Q", scale=x)),
        base.mark_rule(strokeWidth=3, strokeCap="round").encode(
            x=across, x2="high:Q", y=y, color=colour, tooltip=shown
        ),
        base.mark_point(filled=True, size=130, opacity=1).encode(
            x=alt.X("gain:Q", scale=x),
            y=y,
            color=colour,
            shape=alt.Shape("says:N", scale=alt.Scale(domain=[*SHAPES], range=[*SHAPES.values()])),
            tooltip=shown,
        ),
        base.mark_text(align="left", baseline="bottom", dy=-7, fontSize=12, color=INK).encode(
            x=alt.value(4), y=y, text="order:N"
        ),
    ]
    return _finish(alt.layer(*layers), ROW * len(rows) + AROUND)


def depth_chart(curve: Curve, before: float, *, by: str) -> alt.LayerChart:
    """Quality against the depth, or (`by` = "ms") against milliseconds; the depth worth it has a ring."""
    finish_pandas()
    rows: list[dict[str, Any]] = [
        {
            "depth": point.depth,
            "ms": point.p50,
            "quality": point.quality.mean,
            "low": point.quality.low,
            "high": point.quality.high,
            "ceiling": point.ceiling,
            "label": f"{point.depth}",
            "worth": point.depth == curve.worth,
            "interval": str(point.quality),
            "time": f"p50 {point.p50:.0f} ms, p95 {point.p95:.0f} ms",
        }
        for point in curve.points
    ]
    low = min([before, *(row["low"] for row in rows)])
    high = max([before, *(row["high"] for row in rows), *(row["ceiling"] for row in rows)])
    room = max(high - low, 0.05) * 0.12
    y = alt.Scale(domain=[max(0.0, low - room), min(1.02, high + room)], nice=False)
    ends = [row[by] for row in rows]
    x = (
        alt.Scale(type="log", domain=[min(ends) * 0.85, max(ends) * 1.18], nice=False)
        if min(ends) > 0
        else alt.Scale()
    )
    title = "candidates read again" if by == "depth" else "milliseconds to read them (p50)"
    axis = _axis(title, values=ends if by == "depth" else None)
    base = alt.Chart(alt.InlineData(values=rows))
    across = alt.X(f"{by}:Q", scale=x, axis=axis)
    down = alt.Y("quality:Q", scale=y, axis=_axis(MEASURE))
    shown = [
        alt.Tooltip("label:N", title="Candidates"),
        alt.Tooltip("interval:N", title=f"{MEASURE}, 95 % interval"),
        alt.Tooltip("ceiling:Q", title="Ceiling", format=".3f"),
        alt.Tooltip("time:N", title="Reranking"),
    ]
    layers = [
        alt.Chart(alt.InlineData(values=[{"before": before, "name": BI_ENCODER}]))
        .mark_rule(color=GREY, strokeDash=[6, 4], strokeWidth=2)
        .encode(y=alt.Y("before:Q", scale=y)),
        alt.Chart(alt.InlineData(values=[{"before": before, "name": "without reranking"}]))
        .mark_text(align="right", baseline="top", dy=4, dx=-2, color=INK, fontSize=11)
        .encode(x=alt.value("width"), y=alt.Y("before:Q", scale=y), text="name:N"),
        base.mark_line(color=VIOLET, strokeDash=[2, 3], strokeWidth=2).encode(
            x=across, y=alt.Y("ceiling:Q", scale=y)
        ),
        base.mark_rule(color=TEAL, strokeWidth=2).encode(
            x=across, y=alt.Y("low:Q", scale=y), y2="high:Q", tooltip=shown
        ),
        base.mark_line(color=TEAL, strokeWidth=2.5).encode(x=across, y=down),
        base.mark_point(filled=True, color=TEAL, size=90, opacity=1).encode(x=across, y=down, tooltip=shown),
    ]
    if curve.worth:  # a layer without a mark would be a picture without words for who cannot see it
        layers.append(
            base.transform_filter("datum.worth")
            .mark_point(filled=False, color=ORANGE, size=420, strokeWidth=3)
            .encode(x=across, y=down)
        )
    if by == "ms":
        layers.append(
            base.mark_text(align="left", baseline="top", dx=7, dy=6, color=INK, fontSize=11).encode(
                x=across, y=down, text="label:N"
            )
        )
    return _finish(alt.layer(*layers), 230 + AROUND)


def threshold_chart(advice: ThresholdAdvice) -> alt.LayerChart:
    """Precision and recall of answering at all, by the least logit that the best passage must have."""
    finish_pandas()
    rows = [
        {"logit": point.logit, "value": value, "what": what}
        for point in advice.points
        for what, value in (("precision", point.precision), ("recall", point.recall))
    ]
    domain, colours = ["precision", "recall"], [TEAL, VIOLET]
    layers = [
        alt.Chart(alt.InlineData(values=rows))
        .mark_line(strokeWidth=2.5, interpolate="step-before")
        .encode(
            x=alt.X("logit:Q", axis=_axis("least logit of the best passage"), scale=alt.Scale(zero=False)),
            y=alt.Y("value:Q", axis=_axis("share", format="%"), scale=alt.Scale(domain=[0, 1.02])),
            color=alt.Color("what:N", scale=alt.Scale(domain=domain, range=colours), legend=_legend()),
            strokeDash=alt.StrokeDash("what:N", scale=alt.Scale(domain=domain, range=[[1, 0], [6, 3]])),
            tooltip=[
                alt.Tooltip("logit:Q", format=".2f", title="Logit"),
                alt.Tooltip("what:N", title="Of"),
                alt.Tooltip("value:Q", format=".0%", title="Share"),
            ],
        )
    ]
    if advice.logit is not None:
        mark = alt.Chart(
            alt.InlineData(values=[{"at": advice.logit, "name": f"suggested {advice.logit:.2f}"}])
        )
        layers += [
            mark.mark_rule(color=ORANGE, strokeWidth=2.5).encode(x="at:Q"),
            mark.mark_text(align="left", dx=5, dy=-5, baseline="bottom", color=INK, fontSize=12).encode(
                x="at:Q", y=alt.value("height"), text="name:N"
            ),
        ]
    return _finish(alt.layer(*layers), 210 + AROUND)


def _axis(title: str, **more: Any) -> alt.Axis:
    return alt.Axis(
        title=title,
        labelColor=INK,
        titleColor=INK,
        titleFontWeight="normal",
        titleLimit=330,
        grid=True,
        gridOpacity=0.25,
        **{key: value for key, value in more.items() if value is not None},
    )


def _legend() -> alt.Legend:
    return alt.Legend(
        title=None,
        orient="top",
        labelColor=INK,
    )


def _finish(chart: Any, height: int) -> alt.LayerChart:
    finished: alt.LayerChart = chart.properties(height=height).configure_view(stroke=None)
    return finished


def _cut(name: str, limit: int = 44) -> str:
    return name if len(name) <= limit else name[: limit - 1].rstrip() + "…"
