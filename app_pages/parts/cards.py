"""One candidate as a card: what it says, both scores under their names, and how far it moved."""

from __future__ import annotations

import streamlit as st

from app_pages.parts.text import one_paragraph, plain
from ingest.types import Chunk
from rag.types import Hit, Ranked


def hit_card(hit: Hit, second: Ranked | None, *, anchor: str, chosen: bool) -> None:
    """A card of the bi-encoder's order; `second` tells where the reranker put it."""
    with _card(anchor, chosen=chosen):
        _title(hit.rank, hit.chunk, anchor)
        if second:
            st.markdown(_moved(second, to=True))
        _text(hit.chunk)
        st.caption(f"cosine **{hit.cosine:.3f}**" + (f" · {_scores(second)}" if second else ""))


def ranked_card(ranked: Ranked, *, anchor: str) -> None:
    """A card of the reranked order."""
    with _card(anchor, chosen=True):
        _title(ranked.rank, ranked.hit.chunk, anchor)
        st.markdown(_moved(ranked, to=False))
        _text(ranked.hit.chunk)
        st.caption(f"{_scores(ranked)} · cosine **{ranked.hit.cosine:.3f}**")
        if ranked.truncated:
            st.caption(":orange[The reranker read this passage or the question only in part.]")


def _card(anchor: str, *, chosen: bool) -> st.delta_generator.DeltaGenerator:
    return st.container(border=True, key=f"card-{'chosen-' if chosen else ''}{anchor}")


def _title(rank: int, chunk: Chunk, anchor: str) -> None:
    st.subheader(f"#{rank} · {plain(chunk.source, limit=80)}, page {chunk.page}", anchor=anchor)
    if chunk.heading:
        st.caption(f"Heading: {plain(chunk.heading)}")


def _text(chunk: Chunk) -> None:
    st.text(one_paragraph(chunk.text))


def _moved(ranked: Ranked, *, to: bool) -> str:
    where = f"reranked to #{ranked.rank}" if to else f"was #{ranked.hit.rank}"
    if ranked.moved > 0:
        return f":green-badge[:material/arrow_upward: {ranked.moved} up, {where}]"
    if ranked.moved < 0:
        return f":orange-badge[:material/arrow_downward: {-ranked.moved} down, {where}]"
    return ":gray-badge[:material/equal: same place]"


def _scores(ranked: Ranked) -> str:
    logit = f"logit **{ranked.logit:.2f}**"
    if len(ranked.parts) > 1:
        logit += " (" + " + ".join(f"{plain(part.name)} {part.value:.2f}" for part in ranked.parts) + ")"
    return f"{logit} · sigmoid **{ranked.probability:.2f}**"
