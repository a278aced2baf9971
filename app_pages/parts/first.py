"""The first look: the bi-encoder's order, shown while the second look is still being taken.

What is drawn here stands where the complete question will stand, piece by piece, and is replaced piece by piece:
Streamlit keeps what is the same and removes nothing, so that no place may hold fewer pieces then than now.
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from app_pages.parts.account import own_stages
from app_pages.parts.actions import show_words
from app_pages.parts.cards import first_card, waiting_card
from app_pages.parts.orders import picture_key
from app_pages.parts.text import plain
from app_pages.parts.turn import SIDES, TITLES, Look, Side
from rag.conversation import StandAlone
from rag.services import Services
from rag.types import Hit, Ranking

LISTED = 5
"""So many passages are named in the answer's place."""
BLANK = "\u00a0"


def show_first_look(words: StandAlone, ranking: Ranking, number: int, look: Look, services: Services) -> None:
    """Draw the order so far of the question with this number in its conversation.

    Nothing where no second look can follow, and of a blind comparison only that it is being taken: whoever knows
    the first order knows which answer rests on it.
    """
    reranker = own_stages(services).reranker
    if not reranker or not ranking.hits:
        return
    blind = look.mode == "Compare" and look.blind
    with st.container(key="latest-first"):
        with st.chat_message("user", avatar=":material/person:"):
            show_words(words)
            if words.changed:
                st.container(key="words-first").caption(BLANK)
        with st.chat_message("assistant", avatar=":material/visibility:"):
            st.container(key="above-first").caption(
                f":gray-badge[:material/hourglass_top: First look] Reading {_passages(len(ranking.hits))} again …"
            )
            if not blind:
                _show_places(SIDES[look.mode], ranking.hits[:LISTED])
                st.container(key="below-first").caption(BLANK)
    if not blind:
        _show_orders(ranking, number, summed=bool(reranker.cosine_weight or reranker.bm25_weight))


def _show_orders(ranking: Ranking, number: int, *, summed: bool) -> None:
    """The first order's cards, and room for the picture and the second order's."""
    st.container(key=picture_key(len(ranking.hits), "first")).caption(BLANK)
    with st.container(key="orders-first"):
        second, first = st.columns(2)
    with second:
        st.subheader("Reranked order", anchor=False)
        for rank in range(1, min(ranking.sources, len(ranking.hits)) + 1):
            waiting_card(rank)
    with first:
        st.subheader("Bi-encoder order", anchor=False)
        for hit in ranking.hits[: ranking.sources]:
            first_card(hit, anchor=f"q{number}-plain-{hit.rank}", summed=summed)


def _show_places(sides: Sequence[Side], hits: Sequence[Hit]) -> None:
    """The answers' places: in the one whose text comes first on the page, what was found so far."""
    columns = st.container(key="answers-first").columns(len(sides))
    for place, (side, column) in enumerate(zip(reversed(sides), columns, strict=True)):
        with column, st.container(key=f"answer-first-{side}"):
            if len(sides) > 1:
                st.markdown(f"**{TITLES[side]}**")
            with st.container():
                st.caption(_nearest(hits) if place == len(sides) - 1 else BLANK)


def _nearest(hits: Sequence[Hit]) -> str:
    lines = [f"{hit.rank}. {plain(hit.chunk.source, limit=60)}, page {hit.chunk.page}" for hit in hits]
    return "Nearest so far:\n\n" + "\n".join(lines)


def _passages(count: int) -> str:
    return "the passage" if count == 1 else f"all {count} passages"
