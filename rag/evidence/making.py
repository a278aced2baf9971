"""Questions made in the background: one making at a time, watched from any page, stopped with what it has."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ingest.errors import BadRequest, UserError
from ingest.store import LOCAL_OWNER
from rag.conversation import Writer, writer_of
from rag.evidence.generate import ask_by_rule, ask_llm, sample_chunks
from rag.evidence.questions import Question, QuestionSet
from rag.evidence.sets import EvidenceStore
from rag.services import Services

CLOSING_SECONDS = 5.0
"""How long the end of the process waits for the passage that is being read."""
_BROKE = "The making broke off because of a defect in this app: the log says where."


@dataclass(frozen=True, slots=True)
class Making:
    """How a making stands: `read` of `total` passages, and how many questions are kept in its set.

    `writer` is the name of the LLM, empty where questions are made by rule and `read` and `total` stay 0;
    `problem` says why it ended early, empty where it did not.
    """

    question_set: str
    writer: str
    read: int = 0
    total: int = 0
    made: int = 0
    stopping: bool = False
    problem: str = ""


class Makings:
    """The makings of one owner; each question is kept as it comes, so that a stop loses none."""

    def __init__(self, services: Services, owner: str) -> None:
        self._services = services
        self._owner = owner
        self._kept = EvidenceStore(services.settings.data, owner=owner)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._going: Making | None = None
        self._end: Making | None = None

    @property
    def going(self) -> Making | None:
        """The making that is going on, None where there is none."""
        now = self._going
        return replace(now, stopping=self._stop.is_set()) if now else None

    def take_end(self) -> Making | None:
        """How the last making ended, to be told once: None from then on."""
        with self._lock:
            end, self._end = self._end, None
        return end

    def start(self, question_set: str, count: int) -> None:
        """Begin to add at most `count` questions to a set, by the LLM where there is one, else by rule.

        Raises BadRequest where a making is going on.
        """
        with self._lock:
            if self._going:
                raise BadRequest("Questions are being made already: wait for them, or stop.")
            writer = writer_of(self._services.answerer)
            self._stop.clear()
            self._going = Making(question_set, writer.name if writer else "")
            self._thread = threading.Thread(
                target=self._work, args=(writer, count), name="question-making", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Have it end after the passage that is being read."""
        self._stop.set()

    def close(self) -> None:
        """Stop, and wait a little for the end."""
        self.stop()
        self.wait(CLOSING_SECONDS)

    def wait(self, seconds: float | None = None) -> None:
        """Wait until nothing is being made."""
        if self._thread:
            self._thread.join(seconds)

    def _work(self, writer: Writer | None, count: int) -> None:
        problem = _BROKE
        try:
            for question in self._questions(writer, count):
                self._keep([question])
            problem = ""
        except UserError as error:
            problem = str(error)
        finally:
            self._end = replace(self._now, problem=problem, stopping=self._stop.is_set())
            self._going = None

    def _questions(self, writer: Writer | None, count: int) -> Iterator[Question]:
        store, owner = self._services.store, self._owner
        if writer is None:
            self._keep(ask_by_rule(store, count, owner=owner))
            return
        chunks = sample_chunks(store, count, owner=owner)
        self._tell(0, len(chunks))
        yield from ask_llm(chunks, writer, on_progress=self._tell, stop=self._stop.is_set)

    def _keep(self, questions: Sequence[Question]) -> None:
        """Add those that the set has not got yet."""
        fresh: list[Question] = []

        def add(there: QuestionSet) -> QuestionSet:
            ids = {one.id for one in there.questions}
            fresh[:] = [one for one in questions if one.id not in ids]
            return replace(there, questions=(*there.questions, *fresh))

        if questions:
            self._kept.change(self._now.question_set, add)
            self._going = replace(self._now, made=self._now.made + len(fresh))

    def _tell(self, read: int, total: int) -> None:
        self._going = replace(self._now, read=read, total=total)

    @property
    def _now(self) -> Making:
        if self._going is None:
            raise RuntimeError("Nothing is being made.")
        return self._going


def makings_of(services: Services, *, owner: str = LOCAL_OWNER) -> Makings:
    """The makings of an owner in this process, the same object for every page."""
    return services.background(Makings, owner)
