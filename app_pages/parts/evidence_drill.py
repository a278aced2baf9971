"""Drill-down: the questions that an order won and lost, each with both orders and the right passage marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import streamlit as st

from app_pages.parts.asking import open_source_next
from app_pages.parts.evidence_report import Shown
from app_pages.parts.evidence_words import signed
from app_pages.parts.text import one_paragraph, plain
from ingest.types import Chunk
from rag.evidence.match import Wanted
from rag.evidence.questions import Judgement, question_id
from rag.evidence.report import Changed, changed
from rag.evidence.runfile import Outcome
from rag.evidence.variants import BI_ENCODER

Which = Literal["lost", "won"]
PAGE_ROWS = 20
SHOWN_ROWS = 5
TEXT_CHARS = 260


def show_drill(shown: Shown) -> None:
    """Choose two orders, then open any question that one of them does better."""
    st.subheader("Question by question", anchor=False)
    names = [variant.name for variant in shown.run.header.variants]
    main = shown.report.conclusions[0].variant
    with st.container(horizontal=True, vertical_alignment="bottom", key="drill-controls"):
        order = st.selectbox(
            "Order", [name for name in names if name != BI_ENCODER], index=names.index(main) - 1
        )
        rival = st.selectbox("against", [name for name in names if name != order])
        found = changed(shown.run, order, rival)
        piles: dict[Which, list[Changed]] = {
            "lost": [one for one in found if one.difference < 0],
            "won": [one for one in reversed(found) if one.difference > 0],
        }
        which: Which = st.segmented_control(
            "Show",
            ("lost", "won"),
            required=True,
            default="lost" if piles["lost"] else "won",
            format_func=lambda one: f"{len(piles[one])} {one}",
            key=f"drill-which-{shown.id}",
        )
    if not piles[which]:
        st.caption(f"No question was {which}.")
        return
    page = _page_of(len(piles[which]), f"{shown.id}-{which}-{order}-{rival}")
    for change in piles[which][page : page + PAGE_ROWS]:
        _show_question(change, shown, order, rival)


def _page_of(count: int, key: str) -> int:
    if count <= PAGE_ROWS:
        return 0
    pages = -(-count // PAGE_ROWS)
    number = st.number_input(f"Page of {pages}", 1, pages, key=f"drill-page-{key}", width=160)
    return (int(number) - 1) * PAGE_ROWS


def _show_question(change: Changed, shown: Shown, order: str, rival: str) -> None:
    question = change.question
    label = f"{plain(question.text, limit=160)} ({signed(change.difference)})"
    details = st.expander(label, key=f"drill-{shown.id}-{order}-{rival}-{question.id}", on_change="rerun")
    if not details.open:
        return
    with details:
        _show_wanted(question.relevant, question.answer)
        left, right = st.columns(2)
        wanted = Wanted(question.relevant)
        for column, name, outcome in ((left, rival, change.rival), (right, order, change.outcome)):
            with column:
                _show_order(name, outcome, shown, wanted, question.text)


def _show_wanted(relevant: Sequence[Judgement], answer: str) -> None:
    for judgement in relevant:
        parts = [judgement.document]
        if judgement.pages:
            parts.append(f"page {', '.join(map(str, judgement.pages))}")
        st.text(f"Right passage: {one_paragraph(' · '.join(filter(None, parts)))}")
        if judgement.quote:
            st.text(_cut(f"“{one_paragraph(judgement.quote)}”"))
    if answer:
        st.text(f"Answer: {one_paragraph(answer)}")


def _show_order(name: str, outcome: Outcome, shown: Shown, wanted: Wanted, question: str) -> None:
    st.markdown(f"**{plain(name)}**")
    st.caption(ranks_text(outcome))
    right = {rank for rank in outcome.ranks if rank is not None}
    for rank, (id_, score) in enumerate(zip(outcome.shown, outcome.scores, strict=True), start=1):
        if rank > SHOWN_ROWS and rank not in right:
            continue
        chunk = shown.run.chunks[id_]
        # another chunk of the same passage fits as well, but the passage is found once
        _show_chunk(
            chunk,
            rank,
            score,
            right=rank in right,
            fits=bool(wanted.fits(chunk)),
            question=question,
            key=name,
        )


def ranks_text(outcome: Outcome) -> str:
    """Where an order has the right passages, as a sentence."""
    found = sorted(rank for rank in outcome.ranks if rank is not None)
    missing = len(outcome.ranks) - len(found)
    parts = []
    if found:
        places = ", ".join(f"\\#{rank}" for rank in found)
        parts.append(f"right {'passage' if len(outcome.ranks) == 1 else 'passages'} at {places}")
    if missing:
        parts.append("not found" if not found else f"{missing} not found")
    return " · ".join(parts)


def _show_chunk(
    chunk: Chunk, rank: int, score: float, *, right: bool, fits: bool, question: str, key: str
) -> None:
    where = f"**\\#{rank}** · {plain(chunk.source, limit=80)}, page {chunk.page} · {score:.2f}"
    if right:
        where += " :green-badge[:material/check: right passage]"
    elif fits:
        where += " :gray-badge[part of the same passage]"
    with st.container(
        border=True,
        key=f"card-{'chosen-' if right else ''}drill-{key}-{rank}-{chunk.id}-{question_id(question)}",
    ):
        st.markdown(where)
        st.text(_cut(one_paragraph(chunk.text)))
        st.button(
            "Open page",
            icon=":material/find_in_page:",
            type="tertiary",
            key=f"drill-open-{key}-{rank}-{chunk.id}-{question_id(question)}",
            on_click=open_source_next,
            args=(question, chunk),
        )


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_CHARS else text[: TEXT_CHARS - 1].rstrip() + "…"
