"""The log of blind votes between two answers: on disk in the data folder, counted with a sign test."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from ingest.errors import BadRequest, StoreUnavailable
from ingest.store import LOCAL_OWNER
from rag.types import Answered

Choice = Literal["reranked", "plain", "same"]
"""Which answer was better; `same` is "no difference"."""

_SCHEMA = """
create table if not exists votes (
    id integer primary key autoincrement,
    owner text not null,
    turn text not null,
    question text not null,
    choice text not null,
    first text not null,
    answerer text not null,
    reranker text not null,
    plain_sha256 text not null,
    reranked_sha256 text not null,
    cast_at text not null,
    unique (owner, turn)
)
"""
_COLUMNS = "turn, question, choice, first, answerer, reranker, plain_sha256, reranked_sha256, cast_at"


@dataclass(frozen=True, slots=True)
class Vote:
    """One vote. `turn` names the question it was cast on, once; `first` is the side that was shown as A.

    The answers are kept as the SHA-256 of their text; `cast_at` is ISO 8601 in UTC.
    """

    turn: str
    question: str
    choice: Choice
    first: Choice
    answerer: str
    reranker: str
    plain_sha256: str
    reranked_sha256: str
    cast_at: str


@dataclass(frozen=True, slots=True)
class Tally:
    """How often each answer was better."""

    reranked: int
    plain: int
    same: int

    @property
    def decided(self) -> int:
        """Votes that chose an answer; a sign test knows no ties."""
        return self.reranked + self.plain

    @property
    def total(self) -> int:
        """All votes."""
        return self.decided + self.same


@dataclass(frozen=True, slots=True)
class SignTest:
    """Share of the decided votes for the reranked answer, its exact 95 % interval, and the two-sided p."""

    share: float
    low: float
    high: float
    p: float


def make_vote(
    turn: str,
    question: str,
    choice: Choice,
    *,
    first: Choice,
    plain: Answered,
    reranked: Answered,
    reranker: str,
) -> Vote:
    """A vote that is cast now."""
    return Vote(
        turn=turn,
        question=question,
        choice=choice,
        first=first,
        answerer=reranked.answerer,
        reranker=reranker,
        plain_sha256=_sha256(plain.answer.text),
        reranked_sha256=_sha256(reranked.answer.text),
        cast_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def sign_test(tally: Tally) -> SignTest | None:
    """Clopper and Pearson's interval and the exact binomial test against one half; None without a decision."""
    if not tally.decided:
        return None
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    test = binomtest(tally.reranked, tally.decided, 0.5)
    interval = test.proportion_ci(confidence_level=0.95, method="exact")
    return SignTest(
        tally.reranked / tally.decided, float(interval.low), float(interval.high), float(test.pvalue)
    )


class VoteLog:
    """Votes in one SQLite file; opened for each operation, so that threads and processes can share it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, vote: Vote, *, owner: str = LOCAL_OWNER) -> None:
        """Keep a vote. Raises BadRequest where this question was voted on already, StoreUnavailable."""
        values = (
            owner,
            vote.turn,
            vote.question,
            vote.choice,
            vote.first,
            vote.answerer,
            vote.reranker,
            vote.plain_sha256,
            vote.reranked_sha256,
            vote.cast_at,
        )
        with self._open() as db:
            try:
                db.execute(f"insert into votes (owner, {_COLUMNS}) values (?,?,?,?,?,?,?,?,?,?)", values)  # noqa: S608 - constants of this module
            except sqlite3.IntegrityError:
                raise BadRequest(
                    "There is a vote on this question already: ask it again to vote again."
                ) from None

    def undo(self, *, owner: str = LOCAL_OWNER) -> Vote | None:
        """Take the newest vote back; None where there is none."""
        with self._open() as db:
            row = db.execute(
                f"delete from votes where id = (select max(id) from votes where owner = ?) returning {_COLUMNS}",  # noqa: S608
                (owner,),
            ).fetchone()
        return Vote(*row) if row else None

    def votes(self, *, owner: str = LOCAL_OWNER) -> list[Vote]:
        """All votes of an owner, oldest first."""
        with self._open() as db:
            rows = db.execute(f"select {_COLUMNS} from votes where owner = ? order by id", (owner,))  # noqa: S608
            return [Vote(*row) for row in rows]

    def tally(self, *, owner: str = LOCAL_OWNER) -> Tally:
        """How the votes of an owner stand."""
        with self._open() as db:
            rows = db.execute("select choice, count(*) from votes where owner = ? group by choice", (owner,))
            counts = dict(rows.fetchall())
        return Tally(**{choice: int(counts.get(choice, 0)) for choice in get_args(Choice)})

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, isolation_level=None, timeout=10)) as db:
                # to be read on a full disk, where the files of a write-ahead log could not be made
                db.execute("pragma journal_mode=delete")
                db.execute("pragma synchronous=full")
                db.execute(_SCHEMA)
                yield db
        except (OSError, sqlite3.Error) as error:
            raise StoreUnavailable(
                f"The log of votes {self._path} cannot be used: {error}. Free some space or make the data folder "
                "writable, then vote again."
            ) from error


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()
