"""The conversation on the page: the latest question with its answers and orders, the earlier ones below."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app_pages.parts.account import asking_owner
from app_pages.parts.actions import show_actions, show_new_topic, show_question, show_stop
from app_pages.parts.answers import (
    LETTERS,
    answer_places,
    show_answer,
    show_concerns,
    show_differences,
    show_status,
)
from app_pages.parts.asking import bring_up_to_date, conversation, source_to_open
from app_pages.parts.orders import show_orders
from app_pages.parts.source import open_source
from app_pages.parts.stream import follow, peek
from app_pages.parts.turn import SIDES, Look, Side, Turn
from app_pages.parts.vote import blind_sides, is_blind, same_answers, show_ballot, show_votes
from rag.samples import known_question
from rag.services import Services


def show_conversation(turns: Sequence[Turn], look: Look, services: Services) -> None:
    """The newest question first, then the earlier ones; what is still missing of an answer comes last of all."""
    latest, earlier = turns[-1], turns[:-1]
    bring_up_to_date(latest, look, services)
    blind = is_blind(latest, look)
    sides = blind_sides(latest) if blind else SIDES[look.mode]
    latest.start(sides, services)
    latest.collect()
    with st.container(key=f"latest-{latest.number}"):
        above, places, below = _show_frame(latest, sides, blind=blind)
    complete = not latest.writings
    if complete:
        _fill(latest, sides, look, services, places, below)
    if not blind:
        latest.seen = True
        # what people wait for comes first: the best passages, the first words, and then what to be wary of
        show_orders(latest, sides, meanwhile=lambda patience: _peek(latest, places, patience))
    with above:
        show_concerns(latest, sides, services, blind=blind)
    if earlier:
        st.subheader("Earlier questions", anchor=False, divider="gray")
    for turn in reversed(earlier):
        _show_earlier(turn, services)
    opened = source_to_open()
    if opened:
        open_source(services, *opened, owner=asking_owner(services))
    if not complete:
        writing = list(latest.writings.items())
        follow([each for _, each in writing], [places[side] for side, _ in writing])
        latest.collect()
        _fill(latest, sides, look, services, places, below)


def _show_frame(
    turn: Turn, sides: Sequence[Side], *, blind: bool
) -> tuple[DeltaGenerator, dict[Side, DeltaGenerator], DeltaGenerator]:
    """The latest question with room for what stands above its answers, for them, and for what stands below."""
    with st.chat_message("user", avatar=":material/person:"):
        show_question(turn, latest=True)
    with st.chat_message("assistant", avatar=":material/visibility:"):
        above = st.container(key=f"above-{turn.number}")
        places = answer_places(turn, sides, blind=blind)
        for side in turn.writings:
            places[side].caption("Writing …")
        with st.container(key=f"below-{turn.number}"):
            below = st.empty()
        if turn.writings:
            with below.container():
                show_stop(turn)
    return above, places, below


def _peek(turn: Turn, places: dict[Side, DeltaGenerator], patience: float) -> None:
    """Show what has arrived of the answers: `follow` begins when all else is drawn."""
    peek(
        list(turn.writings.values()),
        [places[side] for side in turn.writings],
        patience=patience,
    )


def _fill(
    turn: Turn,
    sides: Sequence[Side],
    look: Look,
    services: Services,
    places: dict[Side, DeltaGenerator],
    below: DeltaGenerator,
) -> None:
    """Put complete answers into their places, and below them what can be said and done now."""
    blind = is_blind(turn, look)
    if blind and same_answers(turn):
        turn.seen = True
        st.rerun()
    for letter, side in zip(LETTERS, sides, strict=False):
        with places[side].container():
            show_answer(turn, side, letter, linked=not blind)
    with below.container():
        if blind:
            show_ballot(turn, services)
            show_new_topic(turn)
        else:
            if len(sides) > 1:
                show_differences(turn)
            known = known_question(turn.ranking.question)
            if known:
                st.caption(f":material/science: {known.measured}")
            show_actions(turn)
            if len(sides) > 1:
                show_votes(turn, conversation(), look, services)
        show_status(turn, sides, services, blind=blind)


def _show_earlier(turn: Turn, services: Services) -> None:
    sides = tuple(side for side in SIDES["Compare"] if side in turn.answers)
    turn.seen = True
    with st.chat_message("user", avatar=":material/person:"):
        show_question(turn, latest=False)
    with st.chat_message("assistant", avatar=":material/visibility:"):
        show_concerns(turn, sides, services, blind=False)
        places = answer_places(turn, sides, blind=False) if sides else {}
        for letter, side in zip(LETTERS, sides, strict=False):
            with places[side].container():
                show_answer(turn, side, letter, linked=False)
        show_status(turn, sides, services, blind=False)
        details = st.expander("Both orders", key=f"details-{turn.id}", on_change="rerun")
        if details.open:
            with details:
                show_orders(turn, sides)
