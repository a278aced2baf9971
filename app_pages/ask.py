"""Ask: a question, its cited answer, and both orders of its candidates."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import streamlit as st

from app_pages.parts.cards import hit_card, ranked_card
from app_pages.parts.stream import stream
from app_pages.parts.text import one_paragraph, plain
from ingest.errors import UserError
from ingest.store import LOCAL_OWNER
from rag.citations import link_citations, safe_markdown
from rag.pipeline import MAX_QUESTION_CHARS, answer, look_again, rank
from rag.services import Services, shared_services
from rag.types import Answered, Ranking

Mode = Literal["On", "Off", "Compare"]
Side = Literal["reranked", "plain"]
MODES: tuple[Mode, ...] = ("On", "Off", "Compare")
SIDES: dict[Mode, tuple[Side, ...]] = {
    "On": ("reranked",),
    "Off": ("plain",),
    "Compare": ("plain", "reranked"),
}
TITLES: dict[Side, str] = {"plain": "Bi-encoder only", "reranked": "Reranked"}


@dataclass
class Turn:
    """One question of this session, its ranking, and the answers that were asked for."""

    number: int
    question: str
    ranking: Ranking
    answers: dict[Side, Answered] = field(default_factory=dict)


def page() -> None:
    """Draw the page."""
    services = shared_services()
    turns: list[Turn] = st.session_state.setdefault("turns", [])
    mode = _controls()
    try:
        if not services.store.count(owner=LOCAL_OWNER):
            _invite()
            return
        # inside a container, or it would stick to the bottom and keep the page scrolled past the answer
        asked = st.container().chat_input("Ask a question", max_chars=MAX_QUESTION_CHARS)
        if asked:
            turns.append(Turn(len(turns) + 1, asked, _rank(asked, services, reranking=mode != "Off")))
        if not turns:
            _explain()
            return
        _show_latest(turns[-1], mode, services)
        if turns[:-1]:
            st.subheader("Earlier questions", anchor=False, divider="gray")
        for turn in reversed(turns[:-1]):
            _show_turn(turn, tuple(turn.answers), services)
    except UserError as error:
        st.error(plain(str(error), limit=1000), icon=":material/error:")


def _controls() -> Mode:
    st.title("Ask your documents", anchor=False)
    return st.segmented_control(
        "Reranking",
        MODES,
        default="On",
        required=True,
        key="mode",
        help="On: the answer rests on the chunks that the cross-encoder chose. Off: on the bi-encoder's first "
        "ones. Compare: both answers side by side, from one retrieval.",
    )


def _invite() -> None:
    st.info("Your library is empty. Upload some PDFs, then ask them anything.", icon=":material/upload_file:")
    st.page_link("documents.py", label="Upload documents", icon=":material/description:")


def _explain() -> None:
    st.markdown(
        "Type a question above. A **bi-encoder** finds the 50 nearest passages; a **cross-encoder** then reads "
        "your question together with each of them and keeps the best 5. You see both orders."
    )


def _rank(question: str, services: Services, *, reranking: bool) -> Ranking:
    wait = "Searching and reranking" if services.warm else "Loading the models (only at the first question)"
    with st.spinner(f"{wait} …", show_time=True):
        return rank(question, services.stages, reranking=reranking, owner=LOCAL_OWNER)


def _show_latest(turn: Turn, mode: Mode, services: Services) -> None:
    """The newest question, in the mode that is switched on now; what that mode still lacks is made."""
    if mode != "Off" and not turn.ranking.order and not turn.ranking.rerank_problem:
        with st.spinner("Reranking …", show_time=True):
            turn.ranking = look_again(turn.ranking, services.stages)
    _show_turn(turn, SIDES[mode], services)


def _show_turn(turn: Turn, sides: tuple[Side, ...], services: Services) -> None:
    with st.chat_message("user", avatar=":material/person:"):
        st.text(turn.question)
    with st.chat_message("assistant", avatar=":material/visibility:"):
        _show_warnings(turn.ranking, sides, services.stages.reranker_problem)
        _show_answers(turn, sides, services)
        _show_status(turn, sides, services)
    latest = turn is st.session_state["turns"][-1]
    if latest:
        _show_orders(turn, sides)
    else:
        with st.expander("Both orders"):
            _show_orders(turn, sides)


def _show_warnings(ranking: Ranking, sides: tuple[Side, ...], problem: str) -> None:
    if "reranked" not in sides:
        st.caption(":material/visibility_off: Reranking is off: this is the bi-encoder's order.")
        if problem:
            st.caption(
                f"Quotes are chosen by cosine, because there is no reranker. {plain(problem, limit=500)}"
            )
    elif ranking.rerank_problem:
        st.warning(
            "Not reranked, the answer rests on the bi-encoder's order. "
            f"{plain(ranking.rerank_problem, limit=500)}",
            icon=":material/warning:",
        )
    if ranking.confident is False and "reranked" in sides:
        best = ranking.order[0].probability
        st.warning(
            f"Probably not in your documents: even the best passage scores only {best:.2f}.",
            icon=":material/search_off:",
        )


def _show_answers(turn: Turn, sides: tuple[Side, ...], services: Services) -> None:
    columns = st.columns(len(sides)) if len(sides) > 1 else [st.container()]
    places = {}
    for side, column in zip(sides, columns, strict=True):
        with column, st.container(key=f"answer-{turn.number}-{side}"):
            if len(sides) > 1:
                st.markdown(f"**{TITLES[side]}**")
            places[side] = st.empty()
    missing = [side for side in sides if side not in turn.answers]
    if missing:
        for side in missing:
            places[side].caption("Writing …")
        writes = [partial(_write, turn.ranking, services, side == "reranked") for side in missing]
        done = stream(writes, [places[side] for side in missing])
        turn.answers.update(zip(missing, done, strict=True))
    for side in sides:
        with places[side].container():
            _show_answer(turn.answers[side], prefix=_prefix(turn, side))


def _write(ranking: Ranking, services: Services, reranked: bool, on_text: object) -> Answered:
    return answer(ranking, services.answerer, reranked=reranked, on_text=on_text)  # type: ignore[arg-type]


def _show_answer(answered: Answered, *, prefix: str) -> None:
    if answered.note:
        st.caption(plain(answered.note, limit=500))
    st.markdown(link_citations(safe_markdown(answered.answer.text), prefix))
    with st.container(key=f"cites-{prefix}"):
        for citation in answered.answer.citations:
            chunk = citation.chunk
            label = f"\\[{citation.number}\\] {plain(chunk.source, limit=80)}, page {chunk.page}"
            st.caption(f"[{label}](#{prefix}{citation.number})")
    for problem in answered.answer.problems if answered.answer.text else ():
        st.warning(plain(problem, limit=500), icon=":material/rule:")
    if answered.error:
        st.error(plain(answered.error, limit=500), icon=":material/cloud_off:")


def _show_status(turn: Turn, sides: tuple[Side, ...], services: Services) -> None:
    ranking, stages = turn.ranking, services.stages
    seconds = ranking.seconds
    parts = [
        f"{plain(ranking.embedder)} ({stages.embedder.device}) embedding {_ms(seconds.embed)}",
        f"search {_ms(seconds.search)}",
    ]
    if "reranked" in sides and ranking.order and stages.reranker:
        parts.append(f"{plain(ranking.reranker)} ({stages.reranker.device}) reranking {_ms(seconds.rerank)}")
    for side in sides:
        answered = turn.answers[side]
        name = plain(answered.answerer) + (f", {TITLES[side].lower()}" if len(sides) > 1 else "")
        first = f"first token {_ms(answered.seconds_first)}, " if answered.seconds_first else ""
        before = seconds.total if side == "reranked" else seconds.embed + seconds.search
        parts.append(f"{name}: {first}total {_ms(before + answered.seconds)}")
    st.caption(" · ".join(parts))


def _show_orders(turn: Turn, sides: tuple[Side, ...]) -> None:
    ranking = turn.ranking
    if not ranking.hits:
        st.info("No passage was found.")
        return
    reranked = "reranked" in sides and bool(ranking.order)
    second = {ranked.hit.rank: ranked for ranked in ranking.order} if reranked else {}
    left, right = st.columns(2) if reranked else (st.container(), None)
    with left:
        st.subheader("Bi-encoder order", anchor=False)
        for hit in ranking.hits[: ranking.sources]:
            ranked = second.get(hit.rank)
            kept = not reranked or (ranked is not None and ranked.rank <= ranking.sources)
            hit_card(hit, ranked, anchor=f"{_prefix(turn, 'plain')}{hit.rank}", chosen=kept)
    if right:
        with right:
            st.subheader("Reranked order", anchor=False)
            for ranked in ranking.ranked:
                ranked_card(ranked, anchor=f"{_prefix(turn, 'reranked')}{ranked.rank}")
    with st.expander(f"All {len(ranking.hits)} candidates"):
        _show_table(ranking, reranked=reranked)


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


def _prefix(turn: Turn, side: Side) -> str:
    # without a second look both sides show the one list of cards
    shown: Side = side if turn.ranking.order else "plain"
    return f"q{turn.number}-{shown}-"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


if __name__ == "__main__":
    page()
