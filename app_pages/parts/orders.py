"""Both orders of one question: the movement between them, the cards side by side, all candidates."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial

import streamlit as st

from app_pages.parts.answers import card_prefix
from app_pages.parts.asking import open_source_next
from app_pages.parts.cards import Foot, hit_card, ranked_card
from app_pages.parts.judge import judge_of
from app_pages.parts.text import one_paragraph
from app_pages.parts.turn import Side, Turn
from rag.types import Ranking

TALL = 14
"""From this many candidates on, the picture of the movement has its full height."""
PATIENCE = 0.3
"""Seconds that the picture waits for the first words of an answer, which are read first."""
COLD_PATIENCE = 3.0
"""The same where the picture's library is still to be imported, which alone takes seconds."""


def show_orders(
    turn: Turn, sides: Sequence[Side], *, meanwhile: Callable[[float], None] = lambda _: None
) -> None:
    """The movement picture, the two orders as cards, and the table of all candidates.

    `meanwhile` is called between the pieces, for what must not wait until all are drawn, with the seconds that it
    may wait itself.
    """
    ranking = turn.ranking
    if not ranking.hits:
        st.info("No passage was found.", icon=":material/search_off:")
        return
    reranked = "reranked" in sides and bool(ranking.order)
    # filled last: the cards do not wait for it, and the style keeps its place free
    picture = st.container(key=picture_key(len(ranking.order), str(turn.number))) if reranked else None
    feet: list[Foot] = []
    with st.container(key=f"orders-{turn.number}"):
        if reranked:
            # the style turns wide columns round: the bi-encoder's on the left
            second, first = st.columns(2)
            with second:
                feet += _show_ranked(turn)
            meanwhile(0.0)
        else:
            first = st.container()
        with first:
            feet += _show_hits(turn, reranked=reranked)
    meanwhile(PATIENCE if "altair" in sys.modules else COLD_PATIENCE)
    everything = st.expander(f"All {len(ranking.hits)} candidates", key=f"table-{turn.id}", on_change="rerun")
    if everything.open:
        with everything:
            _show_table(ranking, reranked=reranked)
    if picture:
        # Altair takes a third of a second to be imported: not before the first page
        from app_pages.parts.movement import show_movement

        with picture:
            clicked = show_movement(ranking, key=f"movement-{turn.id}")
        if clicked:
            open_source_next(ranking.question, clicked.chunk)
    judge = judge_of(ranking.question)
    for fill in feet:
        fill(partial(open_source_next, ranking.question), judge)
    meanwhile(0.0)


def picture_key(candidates: int, which: str) -> str:
    """The key of the movement's container: the style keeps as much room free as so many candidates take."""
    return f"picture-{'tall' if candidates >= TALL else 'low'}-{which}"


def _show_hits(turn: Turn, *, reranked: bool) -> list[Foot]:
    ranking = turn.ranking
    second = {ranked.hit.rank: ranked for ranked in ranking.order} if reranked else {}
    st.subheader("Bi-encoder order", anchor=False)
    return [
        hit_card(
            hit,
            second.get(hit.rank),
            anchor=f"{card_prefix(turn, 'plain')}{hit.rank}",
            chosen=not reranked or (hit.rank in second and second[hit.rank].rank <= ranking.sources),
        )
        for hit in ranking.hits[: ranking.sources]
    ]


def _show_ranked(turn: Turn) -> list[Foot]:
    st.subheader("Reranked order", anchor=False)
    return [
        ranked_card(ranked, anchor=f"{card_prefix(turn, 'reranked')}{ranked.rank}")
        for ranked in turn.ranking.ranked
    ]


def _show_table(ranking: Ranking, *, reranked: bool) -> None:
    second = {ranked.hit.rank: ranked for ranked in ranking.order} if reranked else {}
    rows = []
    for hit in ranking.hits:
        ranked = second.get(hit.rank)
        row: dict[str, object] = {"bi-encoder rank": hit.rank}
        if ranked:
            row |= {"reranked": ranked.rank, "moved": ranked.moved}
        row |= {"document": hit.chunk.source, "page": hit.chunk.page, "cosine": round(hit.cosine, 3)}
        if ranked:
            row |= {"logit": round(ranked.logit, 2), "sigmoid": round(ranked.probability, 3)}
        rows.append(row | {"text": one_paragraph(hit.chunk.text)})
    st.dataframe(rows, hide_index=True, width="stretch")
