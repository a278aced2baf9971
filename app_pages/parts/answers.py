"""The answers of one question: what to know before reading them, the text, its citations, the times."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app_pages.parts.account import asking_owner, own_stages
from app_pages.parts.asking import open_source_next
from app_pages.parts.text import plain
from app_pages.parts.turn import TITLES, Side, Turn
from rag.checks import Concern, concerns
from rag.citations import link_citations, safe_markdown
from rag.services import Services
from rag.threshold import fits
from rag.types import Answered, Ranking

ICONS = {
    "off": ":material/visibility_off:",
    "failed": ":material/warning:",
    "absent": ":material/search_off:",
    "language": ":material/translate:",
    "truncated": ":material/content_cut:",
    "similar": ":material/content_copy:",
    "ties": ":material/drag_handle:",
}
LETTERS = ("A", "B")


ABOUT_RANKS = frozenset({"truncated", "similar", "ties"})
"""Concerns that speak of the reranked order's ranks, and would give the sides of a blind comparison away."""


def show_concerns(turn: Turn, sides: Sequence[Side], services: Services, *, blind: bool) -> None:
    """Whether the answer rests on a second look, and everything to know before trusting it."""
    reranked = "reranked" in sides
    if reranked and turn.ranking.order:
        badge = ":green-badge[:material/visibility: Reranked]"
        both = "Two answers from one retrieval, one of them " if len(sides) > 1 else ""
        st.caption(f"{both}{badge} by {plain(turn.ranking.reranker)}")
    found = concerns(turn.ranking, reranked=reranked, reranker_problem=own_stages(services).reranker_problem)
    for concern in found:
        if not (blind and concern.kind in ABOUT_RANKS):
            _show_concern(concern)


def _show_concern(concern: Concern) -> None:
    icon = ICONS.get(concern.kind, ":material/info:")
    text = plain(concern.text, limit=600)
    if concern.level == "warning":
        st.warning(text, icon=icon)
    else:
        st.caption(f"{icon} {text}")


def answer_places(turn: Turn, sides: Sequence[Side], *, blind: bool) -> dict[Side, DeltaGenerator]:
    """A place for each answer, side by side; blind ones are titled A and B.

    With their names, the last side comes first on the page; the style turns wide columns round.
    """
    columns = st.container(key=f"answers-{turn.number}{'-blind' if blind else ''}").columns(len(sides))
    places: dict[Side, DeltaGenerator] = {}
    for letter, side, column in zip(LETTERS, sides, columns if blind else columns[::-1], strict=False):
        with column, st.container(key=f"answer-{turn.number}-{letter if blind else side}"):
            if len(sides) > 1:
                st.markdown(f"**Answer {letter}**" if blind else f"**{TITLES[side]}**")
            places[side] = st.empty()
    return places


def show_answer(turn: Turn, side: Side, letter: str, *, linked: bool) -> None:
    """A complete answer. `linked` marks lead to the cards; the citations below open the page in any case."""
    answered = turn.answers[side]
    if answered.note:
        st.caption(plain(answered.note, limit=500))
    text = safe_markdown(answered.answer.text)
    st.markdown(link_citations(text, card_prefix(turn, side)) if linked else text)
    if side in turn.stopped:
        st.caption(
            ":orange[:material/stop_circle: Stopped: this is the text so far.]"
            if answered.answer.text
            else ":orange[:material/stop_circle: Stopped before anything was written.]"
        )
    _show_citations(turn, answered, f"{turn.id}-{letter}")
    if side not in turn.stopped:
        for problem in answered.answer.problems if answered.answer.text else ():
            st.warning(plain(problem, limit=500), icon=":material/rule:")
    if answered.error:
        st.error(plain(answered.error, limit=500), icon=":material/cloud_off:")


def _show_citations(turn: Turn, answered: Answered, key: str) -> None:
    with st.container(key=f"cites-{key}"):
        for citation in answered.answer.citations:
            chunk = citation.chunk
            st.button(
                f"\\[{citation.number}\\] {plain(chunk.source, limit=80)}, page {chunk.page}",
                key=f"cite-{key}-{citation.number}",
                type="tertiary",
                icon=":material/description:",
                help="Open the page with this passage highlighted",
                on_click=open_source_next,
                args=(turn.ranking.question, chunk),
            )


def card_prefix(turn: Turn, side: Side) -> str:
    """What the anchors of a side's cards begin with; without a second look both sides share one list."""
    shown: Side = side if turn.ranking.order else "plain"
    return f"q{turn.number}-{shown}-"


def show_status(turn: Turn, sides: Sequence[Side], services: Services, *, blind: bool) -> None:
    """Models, what was searched, and the time of each stage."""
    ranking, stages = turn.ranking, own_stages(services)
    seconds = ranking.seconds
    parts = [
        _searched(turn),
        f"{plain(ranking.embedder)} ({stages.embedder.device}) embedding {_ms(seconds.embed)}",
        f"search {_ms(seconds.search)}",
    ]
    if "reranked" in sides and ranking.order and stages.reranker:
        parts.append(f"{plain(ranking.reranker)} ({stages.reranker.device}) reranking {_ms(seconds.rerank)}")
    for side in sides if not blind else ():
        answered = turn.answers[side]
        name = plain(answered.answerer) + (f", {TITLES[side].lower()}" if len(sides) > 1 else "")
        first = f"first token {_ms(answered.seconds_first)}, " if answered.seconds_first else ""
        before = seconds.total if side == "reranked" else seconds.embed + seconds.search
        parts.append(f"{name}: {first}total {_ms(before + answered.seconds)}")
    chosen = _threshold_note(services)
    if chosen and "reranked" in sides:
        parts.append(chosen)
    st.caption(" · ".join(parts))


def _threshold_note(services: Services) -> str:
    """For the status of an answer: what became of a chosen threshold; empty where nobody has chosen one."""
    threshold, reranker = services.threshold(owner=asking_owner(services)), own_stages(services).reranker
    if threshold is None:
        return ""
    if reranker and fits(threshold, reranker, services.library_fingerprint(owner=asking_owner(services))):
        return f"doubted below logit {threshold.logit:.2f}, as chosen under Evidence"
    return "the threshold chosen under Evidence is not applied: library or reranker changed since"


def _searched(turn: Turn) -> str:
    chosen = turn.look.doc_ids
    where = (
        "all documents" if not chosen else "1 document" if len(chosen) == 1 else f"{len(chosen)} documents"
    )
    return f"{len(turn.ranking.hits)} candidates from {where}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


# --- Two answers compared --------------------------------------------------------------------------------


def differences(ranking: Ranking, plain_answer: Answered, reranked_answer: Answered) -> list[str]:
    """What the citations of two answers tell about the second look, as sentences of plain text."""
    first = {citation.chunk.id: citation.chunk for citation in plain_answer.answer.citations}
    second = {citation.chunk.id: citation.chunk for citation in reranked_answer.answer.citations}
    ranks = {hit.chunk.id: hit.rank for hit in ranking.hits}
    lines = []
    if second:
        outside = sum(ranks[chunk_id] > ranking.sources for chunk_id in second)
        were = "was" if outside == 1 else "were"
        lines.append(
            f"{outside} of {len(second)} citations of the reranked answer {were} outside the bi-encoder's top "
            f"{ranking.sources}."
        )
    for title, own, other in (("reranked", second, first), ("bi-encoder's", first, second)):
        alone = [
            f"{chunk.source}, page {chunk.page} (bi-encoder #{ranks[chunk_id]})"
            for chunk_id, chunk in own.items()
            if chunk_id not in other
        ]
        if alone:
            lines.append(f"Only the {title} answer cites {'; '.join(alone)}.")
    if (first or second) and first.keys() == second.keys():
        lines.append("Both answers cite the same passages.")
    return lines


def show_differences(turn: Turn) -> None:
    """Draw what the two answers of a comparison do not share."""
    lines = differences(turn.ranking, turn.answers["plain"], turn.answers["reranked"])
    if lines:
        st.markdown("\n".join(f"- {plain(line, limit=600)}" for line in lines))
