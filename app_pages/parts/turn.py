"""A question of this session with all that was made for it."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal
from uuid import uuid4

from app_pages.parts.account import asking_owner
from app_pages.parts.evidence_usage import note_use
from app_pages.parts.stream import OnText, Stop, Stoppable, Writing
from ingest.errors import StoreUnavailable
from rag.conversation import StandAlone
from rag.export import Provenance, QuestionRecord
from rag.pipeline import DEPTH, SOURCES, answer
from rag.services import Services
from rag.types import Answered, Ranking
from rag.votes import Vote

log = logging.getLogger(__name__)

Mode = Literal["On", "Off", "Compare"]
Side = Literal["reranked", "plain"]
MODES: tuple[Mode, ...] = ("On", "Off", "Compare")
SIDES: dict[Mode, tuple[Side, ...]] = {
    "On": ("reranked",),
    "Off": ("plain",),
    "Compare": ("plain", "reranked"),
}
TITLES: dict[Side, str] = {"plain": "Bi-encoder only", "reranked": "Reranked"}


@dataclass(frozen=True, slots=True)
class Look:
    """How questions are looked at now; `doc_ids` is None where all documents are asked."""

    mode: Mode = "On"
    depth: int = DEPTH
    sources: int = SOURCES
    doc_ids: tuple[str, ...] | None = None
    blind: bool = False


@dataclass
class Turn:
    """One question of this session.

    `look` is what `ranking` was made with. `swapped` says that a blind comparison shows the reranked answer as
    A; `seen` that this question was shown with its labels, so that no vote on it would be blind.
    """

    number: int
    words: StandAlone
    ranking: Ranking
    look: Look
    provenance: Provenance
    id: str = field(default_factory=lambda: uuid4().hex)
    answers: dict[Side, Answered] = field(default_factory=dict)
    writings: dict[Side, Writing] = field(default_factory=dict)
    stopped: set[Side] = field(default_factory=set)
    swapped: bool = field(default_factory=lambda: bool(secrets.randbits(1)))
    seen: bool = False
    vote: Vote | None = None

    def start(self, sides: Sequence[Side], services: Services) -> None:
        """Begin to write the answers that are missing."""
        owner = asking_owner(services)  # known to the page alone, not to the threads
        for side in sides:
            if side not in self.answers and side not in self.writings:
                self.writings[side] = Writing(
                    partial(_write, self.ranking, services, owner=owner, reranked=side == "reranked")
                )

    def collect(self) -> None:
        """Take the answers that are complete or were told to stop."""
        for side, writing in list(self.writings.items()):
            if writing.done or writing.stopped:
                del self.writings[side]
                self.answers[side] = writing.result()
                if writing.stopped:
                    self.stopped.add(side)

    def stop(self) -> None:
        """End what is being written and keep the text so far."""
        for writing in self.writings.values():
            writing.stop()
        self.collect()

    def drop_answers(self) -> None:
        """Forget the answers, so that they are written anew."""
        self.stop()
        self.answers.clear()
        self.stopped.clear()

    def record(self) -> QuestionRecord:
        """This question as it is exported."""
        answers = tuple(self.answers.values())
        return QuestionRecord(
            self.words.asked,
            self.ranking,
            answers,
            self.look.depth,
            self.look.doc_ids,
            self.look.mode,
            self.provenance,
        )


def _write(
    ranking: Ranking, services: Services, on_text: OnText, stop: Stop, *, owner: str, reranked: bool
) -> Answered:
    answered = answer(ranking, Stoppable(services.answerer, stop), reranked=reranked, on_text=on_text)
    if not stop.is_set():
        try:
            note_use(services, ranking, answered, owner=owner)
        except StoreUnavailable as error:  # an answer is worth more than its place in the statistics
            log.warning("%s", error)
    return answered
