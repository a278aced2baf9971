"""Marks from the Ask page: "this is the right passage" and "not this", kept with the question."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from app_pages.parts.account import asking_owner
from app_pages.parts.cards import Judge
from app_pages.parts.text import plain
from ingest.errors import BadRequest, UserError
from ingest.types import Chunk
from rag.evidence.questions import Judgement, QuestionSet
from rag.evidence.sets import EvidenceStore
from rag.services import shared_services

ASKING_SET = "From asking"
_PROBLEM = "judge-problem"


def judge_of(question: str) -> Judge:
    """What draws the marks of a question's cards, as they are kept now."""
    marks = _marks(question)
    return lambda chunk, key: _judge_buttons(question, chunk, marks.get(chunk.id), key=key)


def _judge_buttons(question: str, chunk: Chunk, grade: int | None, *, key: str) -> None:
    """One small row: mark a passage as right or wrong for a question; once more takes the mark back."""
    with st.container(horizontal=True, gap="small", vertical_alignment="center", key=f"judge-{key}"):
        for own, label, icon in (
            (1, "Right passage" if grade == 1 else "This is the right passage", ":material/check_circle:"),
            (0, "Marked as wrong" if grade == 0 else "Not this", ":material/cancel:"),
        ):
            st.button(
                label,
                icon=icon,
                key=f"judge-{own}-{key}",
                type="secondary" if grade == own else "tertiary",
                help="Kept with the question in the set “From asking” on the Evidence page. Again: take it back.",
                on_click=_mark,
                args=(question, chunk, None if grade == own else own),
            )
    problem = st.session_state.get(_PROBLEM)
    if problem and problem[0] == chunk.id:
        st.error(problem[1], icon=":material/error:")


def judgement_of(chunk: Chunk, grade: int) -> Judgement:
    """A chunk as a judged passage: by its id, and by its words, so that it is found again when cut anew."""
    return Judgement(chunk.source, quote=" ".join(chunk.text.split()), chunk=chunk.id, grade=grade)


def _marks(question: str) -> dict[str, int]:
    """Grade by chunk id of what was marked for a question."""
    try:
        marked = _kept().questions(ASKING_SET)
    except BadRequest:  # nothing was marked yet
        return {}
    text = question.strip()
    found = next((one for one in marked.questions if one.text == text), None)
    return {one.chunk: one.grade for one in found.judgements} if found else {}


def _mark(question: str, chunk: Chunk, grade: int | None) -> None:
    """Keep a mark, or with None take it back; what goes wrong is said at the card."""
    st.session_state.pop(_PROBLEM, None)
    try:
        if grade is None:
            _kept().change(ASKING_SET, lambda there: without_mark(there, question, chunk.id))
        else:
            _kept().mark(ASKING_SET, question, judgement_of(chunk, grade))
    except UserError as error:
        st.session_state[_PROBLEM] = (chunk.id, plain(str(error), limit=400))


def without_mark(there: QuestionSet, question: str, chunk_id: str) -> QuestionSet:
    """The set without a mark; a question without any other goes with it."""
    text, left = question.strip(), []
    for one in there.questions:
        if one.text == text:
            judgements = tuple(mark for mark in one.judgements if mark.chunk != chunk_id)
            if not judgements:
                continue
            left.append(replace(one, judgements=judgements))
        else:
            left.append(one)
    return QuestionSet(there.name, tuple(left))


def _kept() -> EvidenceStore:
    services = shared_services()
    return EvidenceStore(services.settings.data, owner=asking_owner(services))
