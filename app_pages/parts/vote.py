"""The blind vote: which of two unlabelled answers is better, and how all votes stand."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from app_pages.parts.account import asking_owner
from app_pages.parts.turn import Look, Side, Turn
from rag.services import Services
from rag.votes import Choice, Tally, VoteLog, make_vote, sign_test

CHOSEN: dict[Choice, str] = {
    "reranked": "the reranked answer",
    "plain": "the bi-encoder's answer",
    "same": "no difference",
}


def is_blind(turn: Turn, look: Look) -> bool:
    """True while the sides of a comparison are hidden: asked blind, and neither voted on nor revealed."""
    return look.mode == "Compare" and look.blind and bool(turn.ranking.order) and not turn.seen


def blind_sides(turn: Turn) -> tuple[Side, Side]:
    """Which answer is shown as A and which as B."""
    return ("reranked", "plain") if turn.swapped else ("plain", "reranked")


def same_answers(turn: Turn) -> bool:
    """True where both answers have the same text, so that there is nothing to choose."""
    return turn.answers["plain"].answer.text == turn.answers["reranked"].answer.text


def show_ballot(turn: Turn, services: Services) -> None:
    """Ask for the vote; casting it or declining reveals the sides."""
    first, second = blind_sides(turn)
    with st.container(border=True, key="ballot"):
        st.markdown("**Which answer is better?** Names, cards and movement are shown after your vote.")
        with st.container(horizontal=True):
            choice: Choice | None = None
            if st.button("A is better", key="vote-a", type="primary"):
                choice = first
            if st.button("B is better", key="vote-b", type="primary"):
                choice = second
            if st.button("No difference", key="vote-same"):
                choice = "same"
            if st.button("Reveal without voting", key="reveal", type="tertiary"):
                turn.seen = True
                st.rerun()
    if choice:
        vote = make_vote(
            turn.id,
            turn.ranking.question,
            choice,
            first=first,
            plain=turn.answers["plain"],
            reranked=turn.answers["reranked"],
            reranker=turn.ranking.reranker,
        )
        _log(services).add(vote, owner=asking_owner(services))
        turn.vote, turn.seen = vote, True
        st.rerun()


def show_votes(turn: Turn, turns: Sequence[Turn], look: Look, services: Services) -> None:
    """The vote on this question, and how all votes stand, with the last one to take back."""
    tally = _log(services).tally(owner=asking_owner(services))
    if not turn.vote and not tally.total and not look.blind:
        return
    with st.container(border=True, key="votes"):
        if turn.vote:
            letter = {
                "reranked": "AB"[turn.vote.first != "reranked"],
                "plain": "AB"[turn.vote.first != "plain"],
            }
            choice = turn.vote.choice
            what = f"You chose {letter[choice]}, " if choice != "same" else "You saw "
            st.markdown(f":material/how_to_vote: {what}**{CHOSEN[choice]}**.")
        elif look.blind:
            st.markdown(
                "No vote on this question: its sides are known. The next question is shown blind."
                if not same_answers(turn)
                else "Both answers are the same text: there is nothing to vote on."
            )
        st.caption(tally_text(tally))
        if tally.total and st.button("Take back the last vote", icon=":material/undo:", key="undo-vote"):
            taken = _log(services).undo(owner=asking_owner(services))
            for voted in turns:
                if taken and voted.id == taken.turn:
                    voted.vote = None
            st.rerun()


def tally_text(tally: Tally) -> str:
    """All votes in words, with the sign test's interval; ties are told apart and not counted."""
    if not tally.total:
        return "No votes yet."
    ties = f"; {tally.same} saw no difference, which a sign test leaves out" if tally.same else ""
    text = f"All blind votes: reranked {tally.reranked}, bi-encoder only {tally.plain}{ties}."
    test = sign_test(tally)
    if test is None:
        return text
    verdict = (
        "no certain difference yet"
        if test.low <= 0.5 <= test.high
        else "the reranked answers are preferred"
        if test.share > 0.5
        else "the bi-encoder's answers are preferred"
    )
    return (
        f"{text} Of the {tally.decided} that chose, {test.share:.0%} chose reranked (95 % interval "
        f"{test.low:.0%} to {test.high:.0%}, sign test p = {test.p:.2g}): {verdict}."
    )


def _log(services: Services) -> VoteLog:
    return VoteLog(services.settings.data / "votes.sqlite3")
