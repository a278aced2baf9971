"""How much the order changed: the numbers worked out by hand, and the picture's data."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from app_pages.parts.movement import COLOURS, movement_spec, picked_rank
from rag.movement import describe, fate, measure_movement
from rag.types import Hit, Ranked, Ranking, ScorePart, Seconds
from tests.fakes import a_chunk

BACKGROUNDS = ("#ffffff", "#10181b")
LINES, RIGHT_LABELS = 0, 4
"""Layers of the picture."""
HOSTILE = "<img src=x onerror=alert(1)> ![x](http://evil.example/x.png) \u202e$x$"


def a_ranking(order: Sequence[int], *, sources: int = 5, text: str = "Some words.") -> Ranking:
    """Candidates 1 to n of the bi-encoder, brought into this order by the reranker."""
    hits = tuple(
        Hit(a_chunk(f"{text} {n}", page=n), 1 - n / 100, n) for n in range(1, max(order, default=3) + 1)
    )
    ranked = tuple(
        Ranked(hits[first - 1], -rank, 0.5, rank, (ScorePart("logit", -rank),), False)
        for rank, first in enumerate(order, start=1)
    )
    return Ranking("q", hits, ranked, sources, Seconds(0, 0, 0), "e", "r", "", None)


def rows_of(spec: dict[str, Any], layer: int) -> list[dict[str, Any]]:
    name = spec["layer"][layer].get("data", spec.get("data"))["name"]
    rows: list[dict[str, Any]] = spec["datasets"][name]
    return rows


def said(order: Sequence[int], *, sources: int = 5) -> str:
    movement = measure_movement(a_ranking(order, sources=sources))
    assert movement
    return describe(movement)


def test_what_changed_is_counted_against_the_bi_encoders_first_ones() -> None:
    movement = measure_movement(a_ranking([7, 1, 2, 6, 8, 3, 4, 5]))
    assert movement
    assert (movement.sources, movement.overlap, movement.changed, movement.best_from) == (5, 2, 3, 7)
    assert not movement.same_order


def test_kendalls_tau_is_concordant_less_discordant_pairs_of_all() -> None:
    # of the 6 pairs of 2 1 3 4 one is turned round
    movement = measure_movement(a_ranking([2, 1, 3, 4]))
    assert movement
    assert movement.kendall == pytest.approx((5 - 1) / 6)


@pytest.mark.parametrize(
    ("order", "sources", "sentence"),
    [
        (
            [7, 1, 2, 6, 8, 3, 4, 5],
            5,
            # 6 + 0 + 0 + 3 + 3 pairs are turned round
            f"Reranking changed 3 of the 5 sources; the best one came from #7. "
            f"Kendall tau {(28 - 2 * 12) / 28:.2f}, overlap 2 of 5.",
        ),
        (
            [1, 3, 2],
            2,
            "Reranking changed 1 of the 2 sources; the best one stayed at #1. Kendall tau 0.33, overlap 1 of 2.",
        ),
        (
            [2, 1, 3],
            2,
            "Reranking kept the 2 sources and changed their order; the best one came from #2. "
            "Kendall tau 0.33, overlap 2 of 2.",
        ),
        ([1, 2, 3], 2, "Reranking kept the 2 sources and their order. Kendall tau 1.00, overlap 2 of 2."),
        (
            [2, 1],
            1,
            "Reranking changed the only source; the best one came from #2. Kendall tau -1.00, overlap 0 of 1.",
        ),
        ([1], 5, "Reranking kept the only source. Overlap 1 of 1."),
    ],
)
def test_the_sentence_says_what_changed(order: list[int], sources: int, sentence: str) -> None:
    assert said(order, sources=sources) == sentence


def test_without_a_second_order_there_is_nothing_to_compare() -> None:
    assert measure_movement(a_ranking([])) is None


def test_each_candidate_has_one_fate() -> None:
    ranking = a_ranking([4, 1, 2, 3], sources=2)
    assert [fate(ranked, 2) for ranked in ranking.order] == ["new", "kept", "fell", "other"]


@pytest.mark.parametrize("count", [1, 3, 50, 200])
def test_the_picture_holds_every_candidate_once_and_the_chosen_ones_are_drawn_last(count: int) -> None:
    spec = movement_spec(a_ranking([*range(count, 0, -1)]))
    rows = rows_of(spec, LINES)
    assert sorted(row["first"] for row in rows) == list(range(1, count + 1))
    assert rows[-1]["fate"] in ("new", "kept")
    assert sum(row["thickness"] > 3 for row in rows) == min(5, count)


def test_pictures_of_one_shape_keep_their_own_rows() -> None:
    one = movement_spec(a_ranking([2, 1, 3], text="Oil."))
    other = movement_spec(a_ranking([3, 2, 1], text="Water."))
    assert {row["text"][:3] for row in rows_of(one, LINES)} == {"Oil"}
    assert {row["text"][:5] for row in rows_of(other, LINES)} == {"Water"}


DRAWN_WHILE_ANOTHER_SESSION_IMPORTS_PANDAS = """
import sys, threading
from importlib.abc import MetaPathFinder
from app_pages.parts.movement import _Frame, _drawing

begun, drawn = threading.Event(), threading.Event()

class Pause(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "pandas.core" and not begun.is_set():
            begun.set()
            drawn.wait(1)  # a picture that waits for pandas is not drawn within it
        return None

sys.meta_path.insert(0, Pause())
other = threading.Thread(target=__import__, args=("pandas",))
other.start()
begun.wait()
assert not hasattr(sys.modules["pandas"], "Timestamp")
try:
    _drawing(_Frame(sources=5, count=50))
finally:
    drawn.set()
    other.join()
"""


def test_a_picture_is_drawn_while_another_session_imports_pandas() -> None:
    run = subprocess.run(
        [sys.executable, "-c", DRAWN_WHILE_ANOTHER_SESSION_IMPORTS_PANDAS],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr


def test_labels_do_not_touch_even_where_many_sources_stand_close_together() -> None:
    spec = movement_spec(a_ranking([*range(200, 0, -1)], sources=10))
    right = rows_of(spec, RIGHT_LABELS)
    places = [label["at"] for label in right]
    first, last = spec["layer"][0]["encoding"]["y"]["scale"]["domain"]
    pixels = [(place - first) / (last - first) * spec["height"] for place in places]
    assert [label["short"] for label in right][:10] == [f"#{n}" for n in range(1, 11)]
    assert min(after - before for before, after in pairwise(pixels)) > 12


def test_hostile_text_is_data_of_the_picture_and_never_part_of_an_expression() -> None:
    ranking = a_ranking([2, 1], text=HOSTILE)
    spec = movement_spec(ranking)
    text = HOSTILE.replace("\u202e", "")
    assert rows_of(spec, LINES)[0]["text"].startswith(text)
    assert "evil.example" in str(spec.pop("datasets"))
    assert "evil.example" not in str(spec)


def test_a_click_is_read_from_streamlits_selection() -> None:
    assert picked_rank({"selection": {"candidate": [{"first": 37}]}}) == 37
    assert picked_rank({"selection": {"candidate": []}}) is None
    assert picked_rank({}) is None


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_every_colour_stands_out_from_both_backgrounds(background: str) -> None:
    for colour in COLOURS.values():
        assert contrast(colour, background) >= 3


def contrast(one: str, other: str) -> float:
    """WCAG 2: https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


SCRIPT = """
import streamlit as st

from app_pages.parts.movement import show_movement

# workers of the sandbox, started by tests after this one, import the main script
if __name__ == "__main__":
    hit = show_movement(st.session_state["ranking"], key="m")
    st.text(f"clicked {hit.rank if hit else None}")
"""


def test_a_page_shows_sentence_and_picture_with_a_description() -> None:
    page = AppTest.from_string(SCRIPT, default_timeout=60)
    page.session_state["ranking"] = a_ranking([7, 1, 2, 6, 8, 3, 4, 5])
    page.run()
    assert not page.exception
    assert page.markdown[0].value.startswith(
        "Reranking changed 3 of the 5 sources; the best one came from \\#7."
    )
    (chart,) = page.get("vega_lite_chart")
    assert "8 candidates" in chart.proto.alt
    assert "Kendall tau" in chart.proto.alt


def test_a_click_is_handed_out_once() -> None:
    page = AppTest.from_string(SCRIPT, default_timeout=60)
    page.session_state["ranking"] = a_ranking([2, 1, 3])
    page.session_state["m-picked"] = 2
    page.run()
    assert page.text[0].value == "clicked 2"
    assert page.run().text[0].value == "clicked None"


def test_without_a_second_order_nothing_is_drawn() -> None:
    page = AppTest.from_string(SCRIPT, default_timeout=60)
    page.session_state["ranking"] = a_ranking([])
    page.run()
    assert not page.exception
    assert not page.get("vega_lite_chart")
    assert [text.value for text in page.text] == ["clicked None"]
