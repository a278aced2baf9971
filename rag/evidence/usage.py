"""What ordinary use tells without any label: how often a cited source would have been missed."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from ingest.errors import StoreUnavailable
from rag.types import Answered, Ranking

_WRITING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Used:
    """One answered question: how many passages its answer cites, and how many of them only reranking brought in.

    Neither the question nor the answer is kept. `at` is ISO 8601 in UTC.
    """

    at: str
    reranker: str
    cited: int
    missed: int


@dataclass(frozen=True, slots=True)
class Signal:
    """In how many of the questions a cited passage would have been missed, with its exact 95 % interval."""

    questions: int
    missed: int
    share: float
    low: float
    high: float


def used(ranking: Ranking, answered: Answered) -> Used | None:
    """What to keep of an answer; None where it says nothing: not reranked, or nothing cited.

    A cited passage would have been missed where it is not among the bi-encoder's first ones, of which an answer
    without reranking would have been written.
    """
    if not answered.reranked or not answered.answer.citations:
        return None
    first = {chunk.id for chunk in ranking.chosen(reranked=False)}
    cited = {citation.chunk.id for citation in answered.answer.citations}
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return Used(at, ranking.reranker, len(cited), len(cited - first))


def signal(log: Sequence[Used], reranker: str) -> Signal | None:
    """Share of the questions with a passage that only reranking brought in; None where none was asked."""
    own = [one for one in log if one.reranker == reranker]
    if not own:
        return None
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    missed = sum(one.missed > 0 for one in own)
    interval = binomtest(missed, len(own)).proportion_ci(confidence_level=0.95, method="exact")
    return Signal(len(own), missed, missed / len(own), float(interval.low), float(interval.high))


class UsageLog:
    """A file with a line for each answered question."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "usage.jsonl"

    def add(self, one: Used) -> None:
        """Write a line. Raises StoreUnavailable."""
        try:
            with _WRITING:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                with self._file.open("ab") as file:
                    file.write(json.dumps(asdict(one)).encode() + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise StoreUnavailable(
                f"{self._file} cannot be written: {error.strerror}. Free some space or make the folder writable."
            ) from error

    def read(self) -> list[Used]:
        """All lines, the oldest first; a line that a crash cut is left out."""
        if not self._file.exists():
            return []
        lines = self._file.read_bytes().split(b"\n")
        found = []
        for line in lines:
            try:
                found.append(Used(**json.loads(line)))
            except (ValueError, TypeError):
                continue
        return found
