"""What can be done with the latest question: stop, write again, edit, link, export."""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import urlsplit, urlunsplit

import streamlit as st

from app_pages.parts.asking import ask_next, begin_new_topic, conversation
from app_pages.parts.links import query
from app_pages.parts.text import plain
from app_pages.parts.turn import Turn
from rag.conversation import RULE, StandAlone
from rag.export import conversation_markdown, question_data
from rag.pipeline import MAX_QUESTION_CHARS


def show_question(turn: Turn, *, latest: bool) -> None:
    """The question as typed, what was searched for instead, and of the latest one why."""
    show_words(turn.words)
    if latest:
        _explain_words(turn)


def show_words(words: StandAlone) -> None:
    """The question as typed, and what was searched for instead."""
    st.text(words.asked)
    if words.changed:
        st.markdown(f"Searched for: **{plain(words.question, limit=MAX_QUESTION_CHARS)}**")


def _explain_words(turn: Turn) -> None:
    words = turn.words
    why = {
        "as asked": "",
        "edited": "In your own words.",
        "llm": "Put into words that stand alone by the LLM.",
        "rule": f"By rule: {RULE}.",
    }[words.how]
    if words.problem:
        problem = plain(words.problem, limit=300)
        why = f"The LLM could not put it into words: {problem} {why or 'It stands as typed.'}"
    if not words.changed and not why:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="words"):
        if why:
            st.caption(why, width="content")
        if words.changed:
            st.button(
                "Search as typed",
                key=f"as-typed-{turn.id}",
                type="tertiary",
                icon=":material/undo:",
                help="Ask again with the words that you typed",
                on_click=ask_next,
                args=(words.asked,),
                kwargs={"exactly": True, "instead": True},
            )


def show_stop(turn: Turn) -> None:
    """The button that ends what is being written."""
    with st.container(horizontal=True, key="actions-stop"):
        st.button(
            "Stop",
            key=f"stop-{turn.id}",
            icon=":material/stop_circle:",
            shortcut="Esc",
            help="Stop writing and keep the text so far",
            on_click=turn.stop,
        )


def show_actions(turn: Turn) -> None:
    """One quiet row below the answer."""
    with st.container(horizontal=True, key="actions"):
        st.button(
            "Regenerate",
            key=f"regenerate-{turn.id}",
            type="tertiary",
            icon=":material/refresh:",
            help="Write the answer again, from the same passages",
            on_click=turn.drop_answers,
        )
        with st.popover(
            "Edit question",
            key=f"edit-{turn.id}",
            type="tertiary",
            icon=":material/edit:",
            help="Change what is searched for, and ask again",
        ):
            _edit(turn)
        link = st.popover(
            "Link",
            key=f"link-{turn.id}",
            type="tertiary",
            icon=":material/link:",
            help="An address that asks this question again with these settings",
        )
        with link, st.container(key="address"):
            st.caption("Opens this question with its settings, on this library. Copy it:")
            st.code(_address(turn), language=None, wrap_lines=True)
        _exports(turn, conversation())
        show_new_topic(turn)


def show_new_topic(turn: Turn) -> None:
    """The button that clears the conversation."""
    st.button(
        "New topic",
        key=f"new-topic-{turn.id}",
        type="tertiary",
        icon=":material/add_comment:",
        help="Clear the conversation, so that the next question does not lean on it; it can be undone",
        on_click=begin_new_topic,
    )


def _edit(turn: Turn) -> None:
    with st.form(f"edit-form-{turn.id}", border=False):
        edited = st.text_area(
            "Search for",
            value=turn.words.question,
            max_chars=MAX_QUESTION_CHARS,
            key=f"edited-{turn.id}",
            help="Asked exactly like this, in the place of the question above",
        )
        if st.form_submit_button("Ask again", type="primary", icon=":material/search:") and edited.strip():
            ask_next(edited, exactly=True, instead=True)
            st.rerun()


def _address(turn: Turn) -> str:
    parts = urlsplit(st.context.url or "")
    return urlunsplit((parts.scheme, parts.netloc, parts.path or "/", "", "")) + query(
        turn.ranking.question, turn.look
    )


def _exports(turn: Turn, turns: Sequence[Turn]) -> None:
    st.download_button(
        "Question as JSON",
        lambda: json.dumps(question_data(turn.record()), ensure_ascii=False, indent=2),
        file_name=f"question-{turn.number}.json",
        mime="application/json",
        key=f"json-{turn.id}",
        type="tertiary",
        icon=":material/download:",
        help="All candidates, both scores, models, settings and times; `second-look replay` runs it again",
        on_click="ignore",
    )
    records = [each.record() for each in turns]
    st.download_button(
        "Conversation as Markdown",
        lambda: conversation_markdown(records),
        file_name="conversation.md",
        mime="text/markdown",
        key=f"markdown-{turn.id}",
        type="tertiary",
        icon=":material/download:",
        help="All questions of this conversation with their answers and sources",
        on_click="ignore",
    )
