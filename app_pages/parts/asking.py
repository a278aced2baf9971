"""The conversation of this session: asking, asking again, beginning a new topic."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import streamlit as st

from app_pages.parts.account import asking_owner, asking_user, own_stages
from app_pages.parts.turn import Look, Turn
from ingest.errors import UserError
from ingest.types import Chunk
from rag.conversation import Exchange, StandAlone, stand_alone, writer_of
from rag.export import provenance
from rag.pipeline import checked, look_again, rank
from rag.services import Services
from rag.types import Ranking

OnFirst = Callable[[StandAlone, Ranking, int], None]
"""Is told of a question's words, its first order, and its number in the conversation."""

_TURNS, _WISH, _CLEARED, _OPENED = "turns", "wish", "cleared", "opened"


@dataclass(frozen=True, slots=True)
class _Wish:
    """A question that waits to be asked; `exactly` these words, perhaps in the place of the latest one."""

    question: str
    exactly: bool
    instead: bool


def conversation() -> list[Turn]:
    """The questions of this session, oldest first."""
    turns: list[Turn] = st.session_state.setdefault(_TURNS, [])
    return turns


def ask_next(question: str, *, exactly: bool = False, instead: bool = False) -> None:
    """Have a question asked when the page comes to `ask_pending`, in this run or, if it is cut short, the next.

    `exactly` looks for these very words; `instead` puts it in the place of the latest question.
    """
    st.session_state[_WISH] = _Wish(question, exactly, instead)


def pending_question() -> str:
    """The question that waits to be asked, as typed; "" where there is none."""
    wish: _Wish | None = st.session_state.get(_WISH)
    return wish.question if wish else ""


def ask_pending(look: Look, services: Services, on_first: OnFirst) -> None:
    """Ask the question that waits, if there is one, telling of its first order as soon as that is known.

    Raises BadRequest, LimitReached, StoreUnavailable: it then waits no more.
    """
    wish: _Wish | None = st.session_state.get(_WISH)
    if wish is None:
        return
    turns = conversation()
    for turn in turns:
        turn.stop()
    replaced = turns[-1] if wish.instead and turns else None
    before = turns[:-1] if replaced else turns[:]
    number = replaced.number if replaced else len(turns) + 1
    try:
        services.limits.request(asking_user(services))
        services.limits.question(wish.question)
        words = _put_into_words(wish, replaced, before, look, services)
        turn = _make_turn(number, words, look, services, on_first)
    except UserError:
        del st.session_state[_WISH]
        raise
    turns[:] = [*before, turn]
    del st.session_state[_WISH]
    st.session_state.pop(_CLEARED, None)


def _put_into_words(
    wish: _Wish, replaced: Turn | None, before: list[Turn], look: Look, services: Services
) -> StandAlone:
    question = checked(wish.question, look.depth, look.sources)
    if wish.exactly:
        asked = replaced.words.asked if replaced else question
        return StandAlone(asked, question, "as asked" if asked == question else "edited")
    if not before:
        return StandAlone(question, question, "as asked")
    writer = writer_of(services.answerer)
    with st.spinner("Putting the question into words that stand alone …", show_time=True):
        return stand_alone(question, [_exchange(turn) for turn in before], writer)


def _exchange(turn: Turn) -> Exchange:
    answered = turn.answers.get("reranked") or turn.answers.get("plain")
    return Exchange(turn.ranking.question, answered.answer.text if answered else "")


def _make_turn(number: int, words: StandAlone, look: Look, services: Services, on_first: OnFirst) -> Turn:
    ranking = _rank(words.question, look, services, on_first=lambda ranking: on_first(words, ranking, number))
    made = provenance(own_stages(services), owner=asking_owner(services), doc_ids=look.doc_ids)
    return Turn(number, words, ranking, look, made)


def _rank(
    question: str, look: Look, services: Services, *, on_first: Callable[[Ranking], None] | None = None
) -> Ranking:
    wait = "Searching and reranking" if services.warm else "Loading the models (only at the first question)"
    # a first look on the page says itself what is waited for
    told = on_first is not None and services.warm
    with nullcontext() if told else st.spinner(f"{wait} …", show_time=True):
        return rank(
            question,
            own_stages(services),
            depth=look.depth,
            sources=look.sources,
            reranking=look.mode != "Off",
            owner=asking_owner(services),
            doc_ids=look.doc_ids,
            on_first=on_first or (lambda _: None),
        )


def bring_up_to_date(turn: Turn, look: Look, services: Services) -> None:
    """Look at a question as the settings are now: search again only where depth or scope changed."""
    if (turn.look.depth, turn.look.doc_ids) != (look.depth, look.doc_ids):
        ranking = _rank(turn.ranking.question, look, services)
        turn.provenance = provenance(own_stages(services), owner=asking_owner(services), doc_ids=look.doc_ids)
        turn.drop_answers()
        turn.ranking = ranking
    elif turn.ranking.sources != look.sources:
        turn.drop_answers()
        turn.ranking = replace(turn.ranking, sources=look.sources)
    if look.mode != "Off" and not turn.ranking.order and not turn.ranking.rerank_problem:
        with st.spinner("Reranking …", show_time=True):
            turn.ranking = look_again(turn.ranking, own_stages(services))
    turn.look = look


# --- A new topic -----------------------------------------------------------------------------------------


def begin_new_topic() -> None:
    """Clear the conversation; until the next question it can be brought back."""
    turns = conversation()
    for turn in turns:
        turn.stop()
    st.session_state[_CLEARED] = list(turns)
    turns.clear()


def cleared() -> list[Turn]:
    """The conversation that was cleared last and can still be brought back."""
    taken: list[Turn] = st.session_state.get(_CLEARED, [])
    return taken


def bring_back() -> None:
    """Undo the clearing."""
    conversation()[:] = st.session_state.pop(_CLEARED, [])


# --- Sources that are opened -----------------------------------------------------------------------------


def open_source_next(question: str, chunk: Chunk) -> None:
    """Have the page of a chunk opened at the end of this run: only one dialog can be open at a time."""
    st.session_state[_OPENED] = (question, chunk)


def source_to_open() -> tuple[str, Chunk] | None:
    """The question and the chunk whose page is to be opened now, given once."""
    opened: tuple[str, Chunk] | None = st.session_state.pop(_OPENED, None)
    return opened
