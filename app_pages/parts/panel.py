"""Mode, scope and settings: what the next question, and the latest one, is looked at with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import streamlit as st

from app_pages.parts.account import own_stages
from app_pages.parts.links import DEPTHS, MOST_SOURCES
from app_pages.parts.text import plain
from app_pages.parts.turn import MODES, Look
from ingest.types import Document
from rag.services import Services

DEFAULT = Look()


def set_look(look: Look) -> None:
    """Set every control as a link says; before they are drawn."""
    st.session_state["mode"] = look.mode
    st.session_state["depth"] = look.depth
    st.session_state["sources"] = look.sources
    st.session_state["scope"] = list(look.doc_ids or ())


def look_panel(documents: Sequence[Document], services: Services) -> Look:
    """Draw the controls; what they say now."""
    for name, value in (("mode", DEFAULT.mode), ("depth", DEFAULT.depth), ("sources", DEFAULT.sources)):
        st.session_state.setdefault(name, value)
    gone = _forget_deleted(documents)
    with st.container(horizontal=True, vertical_alignment="bottom", key="controls"):
        mode = st.segmented_control(
            "Reranking",
            MODES,
            required=True,
            key="mode",
            persist_state="session",
            help="On: the answer rests on the chunks that the cross-encoder chose. Off: on the bi-encoder's "
            "first ones. Compare: both answers side by side, from one retrieval.",
        )
        blind = mode == "Compare" and st.toggle(
            "Blind",
            key="blind",
            persist_state="session",
            help="Both answers without their names, in an order left to chance, until you have voted. "
            "Cards and movement stay hidden so long.",
        )
        with st.popover("Settings", icon=":material/tune:", key="settings", help="Documents, depth, sources"):
            scope, depth, sources = _settings(documents, services)
    look = Look(
        mode=mode or DEFAULT.mode,
        depth=depth or DEFAULT.depth,
        sources=sources,
        doc_ids=tuple(scope) or None,
        blind=bool(blind),
    )
    _say_what_differs(look, documents, gone)
    return look


def _settings(documents: Sequence[Document], services: Services) -> tuple[list[str], int | None, int]:
    names = _names(documents)
    scope = st.multiselect(
        "Documents to ask",
        [document.id for document in documents],
        format_func=lambda doc_id: names.get(doc_id, ""),
        key="scope",
        persist_state="session",
        placeholder=f"All {len(documents)} documents",
        help="Default: all. The search itself is narrowed, so that the candidates all come from your choice.",
    )
    depth = st.segmented_control(
        "Candidates to read again",
        DEPTHS,
        required=True,
        key="depth",
        persist_state="session",
        help=f"How many passages the bi-encoder hands to the cross-encoder. Default: {DEFAULT.depth}. More take "
        "longer: the time is shown under the answer.",
    )
    sources = st.slider(
        "Sources for the answer",
        1,
        MOST_SOURCES,
        key="sources",
        persist_state="session",
        help=f"How many of the best passages the answer is written from. Default: {DEFAULT.sources}.",
    )
    st.caption(f"Defaults: all documents, {DEFAULT.depth} candidates, {DEFAULT.sources} sources.")
    _name_models(services)
    st.button("Reset to defaults", icon=":material/restart_alt:", key="reset", on_click=_reset)
    return scope, depth, sources


def _name_models(services: Services) -> None:
    if not services.warm:
        st.caption("The models are still loading; their names come with the first question.")
        return
    stages = own_stages(services)
    reranker = plain(stages.reranker.name) if stages.reranker else "none, see the note at the answer"
    st.caption(
        f"Bi-encoder: {plain(stages.embedder.name)}  \nReranker: {reranker}  \n"
        f"Answers: {plain(services.answerer.name)}"
    )


def _reset() -> None:
    set_look(Look(mode=st.session_state["mode"]))


def _forget_deleted(documents: Sequence[Document]) -> int:
    """Take documents that are no longer in the library out of the choice; how many they were."""
    known = {document.id for document in documents}
    chosen: list[str] = st.session_state.setdefault("scope", [])
    left = [doc_id for doc_id in chosen if doc_id in known]
    if len(left) != len(chosen):
        st.session_state["scope"] = left
    return len(chosen) - len(left)


def _say_what_differs(look: Look, documents: Sequence[Document], gone: int) -> None:
    parts = []
    if look.doc_ids:
        names = _names(documents)
        shown = ", ".join(plain(names[doc_id], limit=50) for doc_id in look.doc_ids[:3])
        more = f" and {len(look.doc_ids) - 3} more" if len(look.doc_ids) > 3 else ""
        parts.append(f"only {len(look.doc_ids)} of {len(documents)} documents: {shown}{more}")
    if look.depth != DEFAULT.depth:
        parts.append(f"{look.depth} candidates instead of {DEFAULT.depth}")
    if look.sources != DEFAULT.sources:
        parts.append(f"{look.sources} sources instead of {DEFAULT.sources}")
    if parts:
        st.caption(f":material/tune: {' · '.join(parts)}")
    if gone:
        what = "One chosen document is" if gone == 1 else f"{gone} chosen documents are"
        now = "" if look.doc_ids else " All documents are asked now."
        st.info(f"{what} no longer in the library.{now}", icon=":material/filter_alt_off:")


def _names(documents: Sequence[Document]) -> dict[str, str]:
    """A name for each id; where two documents share one, with the beginning of the id."""
    count = Counter(document.source for document in documents)
    return {
        document.id: document.source
        if count[document.source] == 1
        else f"{document.source} ({document.id[:6]})"
        for document in documents
    }
