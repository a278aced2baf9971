"""The log of blind votes: durable, once a question, taken back, and counted with a sign test."""

from __future__ import annotations

import hashlib
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from app_pages.parts.vote import tally_text
from ingest.errors import BadRequest, StoreUnavailable
from rag.types import Answer, Answered
from rag.votes import Choice, Tally, Vote, VoteLog, make_vote, sign_test


def answered(text: str) -> Answered:
    return Answered(Answer(text, (), ()), (), True, "tiny", "", None, 0.1, "")


def a_vote(turn: str, choice: Choice = "reranked") -> Vote:
    return make_vote(
        turn,
        "Which grade?",
        choice,
        first="plain",
        plain=answered("46"),
        reranked=answered("68"),
        reranker="word lengths",
    )


def test_a_vote_is_on_disk_with_all_that_it_was_cast_on(tmp_path: Path) -> None:
    VoteLog(tmp_path / "data" / "votes.sqlite3").add(a_vote("one"))
    (kept,) = VoteLog(tmp_path / "data" / "votes.sqlite3").votes()
    assert kept == replace(a_vote("one"), cast_at=kept.cast_at)
    assert kept.plain_sha256 == hashlib.sha256(b"46").hexdigest()
    assert kept.reranked_sha256 == hashlib.sha256(b"68").hexdigest()
    assert kept.cast_at.endswith("+00:00")


def test_nothing_lies_beside_the_log_when_nobody_writes(tmp_path: Path) -> None:
    path = tmp_path / "votes.sqlite3"
    with closing(sqlite3.connect(path)) as db:
        db.execute("pragma journal_mode=wal")  # as earlier versions made it
    VoteLog(path).add(a_vote("one"))
    assert [file.name for file in tmp_path.iterdir()] == ["votes.sqlite3"]
    assert [vote.turn for vote in VoteLog(path).votes()] == ["one"]


def test_a_question_is_voted_on_once(tmp_path: Path) -> None:
    log = VoteLog(tmp_path / "votes.sqlite3")
    log.add(a_vote("one"))
    with pytest.raises(BadRequest, match="already"):
        log.add(a_vote("one", "plain"))
    assert log.tally() == Tally(reranked=1, plain=0, same=0)


def test_the_tally_counts_each_choice_and_each_owner_apart(tmp_path: Path) -> None:
    log = VoteLog(tmp_path / "votes.sqlite3")
    choices: tuple[Choice, ...] = ("reranked", "same", "reranked", "plain")
    for number, choice in enumerate(choices):
        log.add(a_vote(str(number), choice))
    log.add(a_vote("0", "plain"), owner="another")
    assert log.tally() == Tally(reranked=2, plain=1, same=1)
    assert log.tally(owner="another") == Tally(reranked=0, plain=1, same=0)


def test_the_last_vote_can_be_taken_back_and_no_other_owners(tmp_path: Path) -> None:
    log = VoteLog(tmp_path / "votes.sqlite3")
    log.add(a_vote("one"))
    log.add(a_vote("two", "plain"))
    log.add(a_vote("three"), owner="another")
    taken = log.undo()
    assert taken is not None
    assert taken.turn == "two"
    assert log.tally() == Tally(reranked=1, plain=0, same=0)
    assert log.undo() is not None
    assert log.undo() is None
    assert log.tally(owner="another").total == 1


def test_many_threads_vote_at_once_and_none_is_lost(tmp_path: Path) -> None:
    log = VoteLog(tmp_path / "votes.sqlite3")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: log.add(a_vote(str(number))), range(40)))
    assert log.tally() == Tally(reranked=40, plain=0, same=0)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreUnavailable, match=r"votes\.sqlite3"):
        VoteLog(tmp_path / "file" / "votes.sqlite3").tally()


def test_the_sign_test_leaves_ties_out_and_is_exact() -> None:
    # 5 of 5: the interval's lower end is the p with p**5 = 0.025, and the two-sided p is 2 * 0.5**5
    test = sign_test(Tally(reranked=5, plain=0, same=7))
    assert test is not None
    assert (test.share, test.high) == (1, 1)
    assert test.low == pytest.approx(0.025 ** (1 / 5))
    assert test.p == pytest.approx(2 * 0.5**5)


def test_without_a_decision_there_is_no_sign_test() -> None:
    assert sign_test(Tally(reranked=0, plain=0, same=3)) is None


@pytest.mark.parametrize(
    ("tally", "parts"),
    [
        (Tally(0, 0, 0), ("No votes yet",)),
        (Tally(0, 0, 2), ("2 saw no difference",)),
        (
            Tally(7, 3, 2),
            ("Of the 10 that chose, 70% chose reranked", "35% to 93%", "no certain difference yet"),
        ),
        (Tally(12, 1, 0), ("the reranked answers are preferred",)),
        (Tally(1, 12, 0), ("the bi-encoder's answers are preferred",)),
    ],
)
def test_the_tally_is_put_into_words(tally: Tally, parts: tuple[str, ...]) -> None:
    for part in parts:
        assert part in tally_text(tally)
