"""Ask: a question, its cited answer, and both orders of its candidates."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app_pages.parts.account import asking_owner
from app_pages.parts.asking import (
    ask_next,
    ask_pending,
    bring_back,
    cleared,
    conversation,
    pending_question,
)
from app_pages.parts.first import show_first_look
from app_pages.parts.links import read_link
from app_pages.parts.panel import look_panel, set_look
from app_pages.parts.samples import offer_samples, suggested_questions
from app_pages.parts.talk import show_conversation
from app_pages.parts.text import plain
from app_pages.parts.turn import Look
from ingest.errors import BadRequest, UserError
from ingest.types import Document
from rag.conversation import StandAlone
from rag.services import Services, shared_services
from rag.types import Ranking


def page() -> None:
    """Draw the page."""
    services = shared_services()
    st.title("Ask your documents", anchor=False)
    try:
        documents = services.store.documents(owner=asking_owner(services))
        if not documents:
            _invite(services)
            return
        _follow_link(documents)
        look = look_panel(documents, services)
        with _ask(look, services):
            if conversation():
                show_conversation(conversation(), look, services)
            else:
                _explain(services)
    except UserError as error:
        st.error(plain(str(error), limit=1000), icon=":material/error:")


def _invite(services: Services) -> None:
    st.info("Your library is empty. Upload some PDFs, then ask them anything.", icon=":material/upload_file:")
    st.page_link("documents.py", label="Upload documents", icon=":material/description:")
    offer_samples(services, owner=asking_owner(services))


def _explain(services: Services) -> None:
    if cleared():
        with st.container(horizontal=True, vertical_alignment="center", key="cleared"):
            st.markdown("A new topic: the conversation was cleared.", width="content")
            st.button("Undo", key="bring-back", icon=":material/undo:", on_click=bring_back)
    st.markdown(
        "Type a question above. A **bi-encoder** finds the nearest passages; a **cross-encoder** then reads "
        "your question together with each of them and keeps the best ones. You see both orders."
    )
    suggested = suggested_questions(services, owner=asking_owner(services))
    if suggested:
        ask_next(suggested, exactly=True)
        st.rerun()


def _follow_link(documents: Sequence[Document]) -> None:
    """Take over the settings and the question of the address, once for each address."""
    parameters = {name: st.query_params.get_all(name) for name in st.query_params}
    if not parameters or parameters == st.session_state.get("followed"):
        return
    st.session_state["followed"] = parameters
    try:
        link = read_link(parameters, documents)
    except BadRequest as error:
        st.session_state["link-problem"] = str(error)
        return
    if link:
        set_look(link.look)
        if link.question:
            ask_next(link.question, exactly=True)


def _ask(look: Look, services: Services) -> DeltaGenerator:
    """The question box; asks what waits, and returns the place for what is known then."""
    # inside a container, or it would stick to the bottom and keep the page scrolled past the answer
    with st.container(key="ask"):
        asked = st.chat_input("Ask a question", max_chars=services.settings.max_question_chars)
    if asked:
        ask_next(asked)
        st.session_state.pop("link-problem", None)
    problem = st.session_state.get("link-problem")
    if problem:
        st.error(plain(problem, limit=1000), icon=":material/link_off:")
    question = pending_question()
    if not question:
        return st.container()
    # one element in the place of all that stood here, which would otherwise be pushed down step by step
    place = st.empty()
    with place.container(), st.container(), st.chat_message("user", avatar=":material/person:"):
        st.text(question)

    def show_first(words: StandAlone, ranking: Ranking, number: int) -> None:
        with place.container():
            show_first_look(words, ranking, number, look, services)

    try:
        ask_pending(look, services, show_first)
    except UserError as error:
        place.empty()
        st.error(plain(str(error), limit=1000), icon=":material/error:")
    if conversation() and conversation()[-1].ranking.rerank_problem:
        place.empty()  # cards without a second score have fewer pieces, and what is left over would stay
    return place.container()


if __name__ == "__main__":
    page()
