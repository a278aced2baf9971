"""The rank movement of one question as a picture: every candidate's way from the first order to the second."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import log
from typing import Any, Literal

import altair as alt
import streamlit as st

from app_pages.parts.drawing import finish_pandas
from app_pages.parts.text import one_paragraph
from rag.movement import Fate, Movement, describe, fate, measure_movement
from rag.types import Hit, Ranked, Ranking

COLOURS: dict[Fate, str] = {"new": "#1f8ea3", "kept": "#8169d6", "fell": "#cf6a12", "other": "#7d8b92"}
"""Each at least 3 : 1 against both backgrounds of the theme."""
WIDTHS: dict[Fate, float] = {"new": 3.5, "kept": 3.5, "fell": 2, "other": 1}
DASHES: dict[Fate, list[int]] = {"new": [1, 0], "kept": [1, 0], "fell": [6, 4], "other": [1, 0]}
SHAPES: dict[Fate, str] = {"new": "circle", "kept": "circle", "fell": "cross", "other": "circle"}
INK = "currentColor"
"""The page's text colour, whatever the theme is now: the picture is SVG, and Vega's own text marks are black."""

FATES: dict[Fate, str] = {
    "new": "new source",
    "kept": "source in both orders",
    "fell": "fell out of the top {sources}",
    "other": "other candidate",
}
_LAYERS: tuple[Fate, ...] = ("other", "fell", "kept", "new")

PICKED = "candidate"
WAYS, LEFT, RIGHT, HEADINGS = "ways", "left", "right", "headings"
"""Names of the picture's data."""
STYLE = """
<style>
  #vg-tooltip-element td.value { overflow-wrap: anywhere; }
  @media (max-width: 640px) {
    #vg-tooltip-element { left: .5rem !important; max-width: calc(100vw - 1rem); }
  }
</style>
"""
"""Fixed: on a phone the text shown beside the pointer stays inside the page."""
TALLEST = 480
WIDE = "width > 520"
"""Vega's test for a picture with room for names."""
LABEL_PIXELS = 14
CROWD = 60
"""From this many candidates on, those that no order chose are drawn thinner."""
TEXT_CHARS = 200


def show_movement(ranking: Ranking, *, key: str) -> Hit | None:
    """Draw both orders of all candidates; returns the one that was clicked, once for each click.

    Draws nothing where there is no second order.
    """
    movement = measure_movement(ranking)
    if movement is None:
        return None
    round_key, picked_key = f"{key}-round", f"{key}-picked"
    chart_key = f"{key}-{st.session_state.setdefault(round_key, 0)}"

    def pick() -> None:
        """Remember what was clicked, and have the chart drawn anew: it can then be clicked again."""
        st.session_state[picked_key] = picked_rank(st.session_state[chart_key])
        st.session_state[round_key] += 1

    st.html(STYLE)
    sentence, picture = st.columns([1, 3], gap="medium")
    with sentence:
        st.markdown(_literal_hash(describe(movement)))
        st.caption("Each line is one passage: hover to read it, click to open its page.")
    with picture:
        st.vega_lite_chart(
            spec=movement_spec(ranking),
            key=chart_key,
            on_select=pick,
            selection_mode=PICKED,
            alt=_alt(movement, len(ranking.order)),
        )
    rank = st.session_state.pop(picked_key, None)
    return next((hit for hit in ranking.hits if hit.rank == rank), None)


def picked_rank(state: Any) -> int | None:
    """The bi-encoder's rank of the clicked candidate, from what Streamlit keeps of a chart."""
    rows = state.get("selection", {}).get(PICKED, [])
    return int(rows[0]["first"]) if rows and "first" in rows[0] else None


@dataclass(frozen=True, slots=True)
class _Frame:
    """What all layers of the picture share."""

    sources: int
    count: int

    @property
    def height(self) -> int:
        """In pixels, without headings and legend."""
        return min(TALLEST, 70 + 30 * self.count)

    @property
    def x(self) -> alt.Scale:
        """From left to right: the orders stand at 0 and 1, names right of them."""
        return alt.Scale(domain=[-0.16, {"expr": f"{WIDE} ? 1.6 : 1.16"}], nice=False, zero=False)

    @property
    def y(self) -> alt.Scale:
        """From the first rank to the last."""
        domain = [_depth(1), _depth(max(self.count, 2))]
        return alt.Scale(domain=domain, reverse=True, nice=False, zero=False, padding=10)

    def across(self, field: str) -> alt.X:
        """A place from left to right; the two orders stand at 0 and 1."""
        return alt.X(f"{field}:Q", scale=self.x, axis=None)

    def down(self, field: str) -> alt.Y:
        """A place from the first rank to the last."""
        return alt.Y(f"{field}:Q", scale=self.y, axis=None)

    def ways(self) -> dict[str, Any]:
        """Both ends of each candidate's line."""
        return {
            "x": self.across("left"),
            "x2": alt.X2("right:Q"),
            "y": self.down("from"),
            "y2": alt.Y2("to:Q"),
        }

    def by_fate(self, values: Sequence[Any]) -> alt.Scale:
        """A scale that gives each fate its colour or dashes."""
        return alt.Scale(domain=[name.format(sources=self.sources) for name in FATES.values()], range=values)


def movement_spec(ranking: Ranking) -> dict[str, Any]:
    """The picture in Vega-Lite. Ranks do not stand at equal distances (`_depth`).

    The rows of its data are in `datasets`.
    """
    count = len(ranking.order)
    frame = _Frame(sources=ranking.sources, count=count)
    rows = [_row(ranked, ranking.sources, crowd=count > CROWD) for ranked in ranking.order]
    rows.sort(key=lambda row: _LAYERS.index(row["fate"]))
    spec: dict[str, Any] = json.loads(_drawing(frame))
    spec["datasets"] = {
        WAYS: rows,
        LEFT: _left_labels(ranking, frame.height),
        RIGHT: _right_labels(ranking, frame.height),
        HEADINGS: [{"side": 0, "heading": "Bi-encoder"}, {"side": 1, "heading": "Reranked"}],
    }
    return spec


@lru_cache(maxsize=16)
def _drawing(frame: _Frame) -> str:
    """The picture without its data, as JSON: Altair takes longer over it than the page over all the rest."""
    finish_pandas()
    base = alt.Chart(alt.NamedData(WAYS))
    over = alt.selection_point(
        name="over", fields=["first"], on="pointerover", clear="pointerout", empty=False
    )
    picked = alt.selection_point(name=PICKED, fields=["first"], on="click", toggle=False, empty=False)
    layers = [
        _lines(base, frame, over),
        _dots(base, frame, "left", "from"),
        _dots(base, frame, "right", "to"),
        _labels(LEFT, -0.03, "right", frame),
        _labels(RIGHT, 1.03, "left", frame),
        _headings(frame),
        _catcher(base, frame).add_params(over, picked),
    ]
    chart: alt.LayerChart = alt.layer(*layers).properties(height=frame.height).configure_view(stroke=None)
    return json.dumps(chart.to_dict())


def _lines(base: alt.Chart, frame: _Frame, over: alt.Parameter) -> alt.Chart:
    legend = alt.Legend(
        title=None,
        orient="top",
        columns={"expr": f"{WIDE} ? 4 : 2"},
        labelColor=INK,
        labelLimit=170,
        labelFontSize=12,
        symbolType="stroke",
        symbolStrokeWidth=3,
        symbolSize=300,
    )
    chart: alt.Chart = base.mark_rule(strokeCap="round").encode(
        **frame.ways(),
        color=alt.Color("name:N", scale=frame.by_fate([*COLOURS.values()]), legend=legend),
        strokeDash=alt.StrokeDash("name:N", scale=frame.by_fate([*DASHES.values()]), legend=legend),
        strokeWidth=alt.condition(over, alt.value(5), alt.StrokeWidth("thickness:Q", scale=None)),
        opacity=alt.condition(over, alt.value(1), alt.Opacity("strength:Q", scale=None)),
    )
    return chart


def _dots(base: alt.Chart, frame: _Frame, side: str, end: str) -> alt.Chart:
    chart: alt.Chart = base.mark_point(filled=True, opacity=1).encode(
        x=frame.across(side),
        y=frame.down(end),
        color=alt.Color("name:N", scale=frame.by_fate([*COLOURS.values()])),
        shape=alt.Shape("shape:N", scale=None),
        size=alt.Size("dot:Q", scale=None),
    )
    return chart


def _catcher(base: alt.Chart, frame: _Frame) -> alt.Chart:
    """Wide lines that are not seen and catch the pointer: nobody hits a thin one."""
    fields = ("document", "page", "rank", "cosine", "logit", "sigmoid", "text")
    catcher = base.mark_rule(strokeCap="round", strokeWidth=11, strokeOpacity=0.001, cursor="pointer")
    chart: alt.Chart = catcher.encode(
        **frame.ways(),
        color=alt.value(INK),
        tooltip=[alt.Tooltip(f"{field}:N", title=field.capitalize()) for field in fields],
    )
    return chart


def _depth(rank: int) -> float:
    """How far down a rank stands: the first ones, where sources are won and lost, have room even among 200."""
    return log(rank + 5)


def _row(ranked: Ranked, sources: int, *, crowd: bool) -> dict[str, Any]:
    became = fate(ranked, sources)
    chunk = ranked.hit.chunk
    words = one_paragraph(chunk.text)
    return {
        "first": ranked.hit.rank,
        "left": 0,
        "right": 1,
        "from": _depth(ranked.hit.rank),
        "to": _depth(ranked.rank),
        "name": FATES[became].format(sources=sources),
        "fate": became,
        "thickness": WIDTHS[became],
        "strength": (0.35 if crowd else 0.6) if became == "other" else 1,
        "shape": SHAPES[became],
        "dot": (6 if crowd else 18) if became == "other" else 110,
        "document": one_paragraph(chunk.source),
        "page": str(chunk.page),
        "rank": f"#{ranked.hit.rank} → #{ranked.rank}",
        "cosine": f"{ranked.hit.cosine:.3f}",
        "logit": f"{ranked.logit:.2f}",
        "sigmoid": f"{ranked.probability:.2f}",
        "text": words if len(words) <= TEXT_CHARS else words[: TEXT_CHARS - 1].rstrip() + "…",
    }


def _left_labels(ranking: Ranking, height: int) -> list[dict[str, Any]]:
    ranks = {ranked.hit.rank for ranked in ranking.order if fate(ranked, ranking.sources) != "other"}
    ranks.add(len(ranking.order))
    return [
        {"at": place, "short": f"#{rank}", "long": f"#{rank}"}
        for rank, place in zip(sorted(ranks), _places(sorted(ranks), len(ranking.order), height), strict=True)
    ]


def _right_labels(ranking: Ranking, height: int) -> list[dict[str, Any]]:
    shown = [ranked for ranked in ranking.order if fate(ranked, ranking.sources) != "other"]
    if ranking.order[-1] not in shown:
        shown.append(ranking.order[-1])
    places = _places([ranked.rank for ranked in shown], len(ranking.order), height)
    labels = []
    for ranked, place in zip(shown, places, strict=True):
        chunk, short = ranked.hit.chunk, f"#{ranked.rank}"
        named = fate(ranked, ranking.sources) != "other"
        long = f"{short}  {_cut(one_paragraph(chunk.source))}, page {chunk.page}" if named else short
        labels.append({"at": place, "short": short, "long": long})
    return labels


def _cut(name: str, limit: int = 30) -> str:
    return name if len(name) <= limit else name[: limit - 1].rstrip() + "…"


def _places(ranks: Sequence[int], count: int, height: int) -> list[float]:
    """Where labels of ascending ranks stand: at their ranks, or a little beside them where they would touch."""
    lowest = _depth(count)
    gap = (lowest - _depth(1)) * LABEL_PIXELS / height
    places: list[float] = []
    for rank in ranks:
        places.append(max(_depth(rank), places[-1] + gap) if places else _depth(rank))
    for index in reversed(range(len(places))):
        places[index] = min(places[index], lowest)
        lowest = places[index] - gap
    return places


def _labels(data: str, x: float, align: Literal["left", "right"], frame: _Frame) -> alt.Chart:
    chart: alt.Chart = (
        alt.Chart(alt.NamedData(data))
        .mark_text(align=align, baseline="middle", fontSize=12, color=INK, tooltip=None)
        .encode(
            x=alt.XDatum(x, scale=frame.x, axis=None),
            y=frame.down("at"),
            text=alt.TextValue(alt.ExprRef(f"{WIDE} ? datum.long : datum.short")),
        )
    )
    return chart


def _headings(frame: _Frame) -> alt.Chart:
    chart: alt.Chart = (
        alt.Chart(alt.NamedData(HEADINGS))
        .mark_text(fontSize=13, fontWeight="bold", color=INK, y=-14, tooltip=None)
        .encode(x=frame.across("side"), text="heading:N")
    )
    return chart


def _literal_hash(sentence: str) -> str:
    return sentence.replace("#", "\\#")


def _alt(movement: Movement, count: int) -> str:
    return (
        f"Line chart of {count} candidates: the bi-encoder's rank on the left, the rank after reranking on the "
        f"right. {describe(movement)} The table of all candidates holds the same numbers."
    )
