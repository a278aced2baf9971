"""One candidate as a card: what it says, both scores under their names, and how far it moved.

What can be done with a card is drawn afterwards (`Foot`): people wait for what it says.
"""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from app_pages.parts.text import one_paragraph, plain
from ingest.types import Chunk
from rag.types import Hit, Ranked, ScorePart

MINUS = "\u2212"
NO_BREAK = "\u00a0"
NEW_LINE = "  \n"
"""A line break of Markdown: a piece of text for each line would take the browser longer to draw."""

OnOpen = Callable[[Chunk], None]
"""What a card does when its page is asked for."""
Judge = Callable[[Chunk, str], None]
"""Draws the row in which a passage is marked as right or wrong; the text is the key of its buttons."""
Foot = Callable[[OnOpen, Judge | None], None]
"""Draws what can be done with a card, into the room that it has for that."""


def hit_card(hit: Hit, second: Ranked | None, *, anchor: str, chosen: bool) -> Foot:
    """A card of the bi-encoder's order; `second` tells where the reranker put it."""
    with _card(anchor, chosen=chosen):
        _title(hit.rank, hit.chunk, anchor, moved=_moved(second, to=True) if second else "")
        _text(hit.chunk)
        st.caption(_scores(second) if second else _cosine(hit))
        return _foot(hit.chunk, anchor)


def ranked_card(ranked: Ranked, *, anchor: str) -> Foot:
    """A card of the reranked order."""
    with _card(anchor, chosen=True):
        _title(ranked.rank, ranked.hit.chunk, anchor, moved=_moved(ranked, to=False))
        _text(ranked.hit.chunk)
        cut = ":orange[The reranker read this passage or the question only in part.]"
        st.caption(_scores(ranked) + (NEW_LINE + cut if ranked.truncated else ""))
        return _foot(ranked.hit.chunk, anchor)


def first_card(hit: Hit, *, anchor: str, summed: bool) -> None:
    """A card of the bi-encoder's order while the second look is being taken.

    It has the pieces, and so the height, that `hit_card` has afterwards; `summed` says that the reranker's score
    will be a sum, which is shown on a line of its own.
    """
    with _card(f"first-{hit.rank}", chosen=False):
        _title(hit.rank, hit.chunk, anchor, moved=":gray-badge[:material/hourglass_top: first look]")
        _text(hit.chunk)
        st.caption(_cosine(hit) + (NEW_LINE + NO_BREAK if summed else ""))
        st.container(key=f"foot-first-{hit.rank}").caption(NO_BREAK)


def waiting_card(rank: int) -> None:
    """A card of the reranked order that is still to come."""
    with _card(f"waiting-{rank}", chosen=False):
        st.caption(f"\\#{rank} after the second look")


def _card(anchor: str, *, chosen: bool) -> st.delta_generator.DeltaGenerator:
    return st.container(border=True, key=f"card-{'chosen-' if chosen else ''}{anchor}")


def _title(rank: int, chunk: Chunk, anchor: str, *, moved: str) -> None:
    st.subheader(f"#{rank} · {plain(chunk.source, limit=80)}, page {chunk.page}", anchor=anchor)
    heading = f"Heading: {plain(chunk.heading)}" if chunk.heading else ""
    if moved or heading:
        st.caption(f"{moved} {heading}".strip())


def _text(chunk: Chunk) -> None:
    st.text(one_paragraph(chunk.text))


def _moved(ranked: Ranked, *, to: bool) -> str:
    where = f"reranked to #{ranked.rank}" if to else f"was #{ranked.hit.rank}"
    if ranked.moved > 0:
        return f":green-badge[:material/arrow_upward: {ranked.moved} up, {where}]"
    if ranked.moved < 0:
        return f":orange-badge[:material/arrow_downward: {-ranked.moved} down, {where}]"
    return ":gray-badge[:material/equal: same place]"


def _cosine(hit: Hit) -> str:
    return f"cosine **{hit.cosine:.3f}**"


def _scores(ranked: Ranked) -> str:
    """Both scores, and on a line of its own the sum that the logit is."""
    scores = f"logit **{ranked.logit:.2f}** · sigmoid **{ranked.probability:.2f}** · {_cosine(ranked.hit)}"
    if len(ranked.parts) < 2:
        return scores
    first, *rest = (_summand(part) for part in ranked.parts)
    # the sign of the first one is part of its number
    first = first.removeprefix(f"+{NO_BREAK}").replace(f"{MINUS}{NO_BREAK}", MINUS)
    return f"{scores}{NEW_LINE}logit = {' '.join([first, *rest])}"


def _summand(part: ScorePart) -> str:
    """A signed number and its name; a line breaks between summands, not inside one."""
    sign = MINUS if part.value < 0 else "+"
    return f"{sign} {abs(part.value):.2f} ({plain(part.name)})".replace(" ", NO_BREAK)


def _foot(chunk: Chunk, anchor: str) -> Foot:
    place = st.container(horizontal=True, vertical_alignment="center", key=f"foot-{anchor}")

    def fill(on_open: OnOpen, judge: Judge | None) -> None:
        with place:
            label, icon = "Open page", ":material/find_in_page:"
            if st.button(label, icon=icon, type="tertiary", key=f"open-{anchor}"):
                on_open(chunk)
            if judge:
                judge(chunk, anchor)

    return fill
