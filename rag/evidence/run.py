"""One run: every question of a set in every order, with a journal from which a killed run goes on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import IO, Any

from ingest.embed import Embedder
from ingest.errors import BadRequest, StoreUnavailable
from ingest.store import LOCAL_OWNER, Store, library_fingerprint
from ingest.types import Chunk, Document
from rag.evidence.match import Wanted
from rag.evidence.questions import Question, QuestionSet, check_questions
from rag.evidence.runfile import (
    Corpus,
    Header,
    Model,
    Outcome,
    Result,
    Run,
    chunk_from,
    questions_fingerprint,
    result_data,
    result_from,
)
from rag.evidence.variants import Plan, find_candidates, make_orders
from rag.export import chunk_data

SHOWN = 10
"""How many chunks of each order are kept for the drill-down."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is; `seconds_left` is None while nothing can be said."""

    done: int
    total: int
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class Step:
    """One question's result, and the chunks that it shows."""

    result: Result
    chunks: tuple[Chunk, ...]


def corpus_of(store: Store, embedder: Embedder, *, owner: str = LOCAL_OWNER) -> Corpus:
    """What is searched: the same documents, cut and embedded alike, always have the same fingerprint."""
    documents = store.documents(owner=owner)
    chunks = sum(document.chunks for document in documents)
    return Corpus(library_fingerprint(documents, embedder.id), len(documents), chunks)


def make_header(questions: QuestionSet, corpus: Corpus, embedder: Embedder, plan: Plan) -> Header:
    """Everything that the numbers of a run depend on."""
    used = {variant.curve: variant.reranker for variant in plan.reranked}
    return Header(
        question_set=questions.name,
        questions_fingerprint=questions_fingerprint(questions.questions),
        questions=len(questions.questions),
        corpus=corpus,
        embedder=embedder.id,
        device=embedder.device,
        models=tuple(
            Model(curve, one.name, one.revision, one.device, one.cosine_weight, one.bm25_weight)
            for curve, one in used.items()
        ),
        variants=plan.variants,
        fusion=plan.fusion,
        machine=f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    )


def run(
    questions: QuestionSet,
    embedder: Embedder,
    store: Store,
    plan: Plan,
    *,
    owner: str = LOCAL_OWNER,
    journals: Path | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Run:
    """Ask every question once and judge every order of what comes back.

    With a folder for `journals` each result is on the disk before the next question is asked: a run that was
    killed or stopped goes on where it was when the same one is started again. `stop` is asked before each
    question; a run that was stopped comes back unfinished. `end_journal` removes the journal of one that is kept.
    Raises BadRequest where there is nothing to ask or to search, RerankFailed, StoreUnavailable.
    """
    check_questions(questions.questions)
    documents = store.documents(owner=owner)
    if not questions.questions:
        raise BadRequest(f"The question set {questions.name!r} is empty: add questions to it.")
    if not documents:
        raise BadRequest("The library is empty: add the documents that the questions are about.")
    header = make_header(questions, corpus_of(store, embedder, owner=owner), embedder, plan)
    with _Journal(journals, header) as journal:
        asked = list(questions.questions)
        begun, before = monotonic(), len(journal.steps)
        for question in asked:
            done = len(journal.steps)
            on_progress(Progress(done, len(asked), _left(begun, done - before, len(asked) - done)))
            if question.id in journal.steps:
                continue
            if stop():
                break
            journal.add(_ask(question, embedder, store, plan, owner))
        on_progress(Progress(len(journal.steps), len(asked), 0.0))
        steps = [journal.steps[question.id] for question in asked if question.id in journal.steps]
    notes = [missing_note(questions.questions, documents)]
    if corpus_of(store, embedder, owner=owner) != header.corpus:
        notes.append("The library changed during the run: ask again, these numbers mix two libraries.")
    return Run(
        header,
        journal.begun,
        tuple(step.result for step in steps),
        {chunk.id: chunk for step in steps for chunk in step.chunks},
        tuple(filter(None, notes)),
    )


def missing_note(questions: Sequence[Question], documents: Sequence[Document]) -> str:
    """A sentence on relevant passages whose document or page is not in the library; empty where all are."""
    pages = {name: document.pages for document in documents for name in (document.source, document.id)}
    missing = {
        judgement.document
        for question in questions
        for judgement in question.relevant
        if judgement.document and min(judgement.pages, default=1) > pages.get(judgement.document, 0)
    }
    if not missing:
        return ""
    named = ", ".join(sorted(missing)[:5]) + (", ..." if len(missing) > 5 else "")
    return (
        f"Relevant passages are in documents, or on pages, that the library does not have ({named}): "
        "no order can find them, and they count as missed."
    )


def end_journal(journals: Path, header: Header) -> None:
    """Forget the journal of a run, because it is kept or no longer wanted; no error where there is none."""
    _journal_file(journals, header).unlink(missing_ok=True)


def unfinished(journals: Path, header: Header) -> int:
    """How many questions a stopped or killed run of this header has asked already."""
    with _Journal(journals, header, reading=True) as journal:
        return len(journal.steps)


def _left(begun: float, done: int, left: int) -> float | None:
    return (monotonic() - begun) / done * left if done else None


def _ask(question: Question, embedder: Embedder, store: Store, plan: Plan, owner: str) -> Step:
    candidates = find_candidates(question.text, embedder, store, plan, owner=owner)
    wanted = Wanted(question.relevant)
    fits: dict[str, Any] = {}
    ids: dict[int, str] = {}
    shown: dict[str, Chunk] = {}
    outcomes = {}
    for order in make_orders(candidates, plan):
        for chunk in order.chunks:
            if id(chunk) not in ids:
                ids[id(chunk)] = chunk.id
                fits.setdefault(ids[id(chunk)], wanted.fits(chunk))
        keys = [ids[id(chunk)] for chunk in order.chunks]
        ranks = wanted.ranks([fits[key] for key in keys])
        kept = [*range(min(SHOWN, len(keys))), *(rank - 1 for rank in ranks if rank is not None)]
        shown |= {keys[position]: order.chunks[position] for position in kept}
        outcomes[order.variant.name] = Outcome(ranks, tuple(keys[:SHOWN]), order.scores[:SHOWN])
    return Step(Result(question, outcomes, candidates.timing), tuple(shown.values()))


def _journal_file(folder: Path, header: Header) -> Path:
    return folder / f"{header.key}.jsonl"


class _Journal:
    """Results by question id; each is written and synced before the next question. Without a folder, in memory.

    Of a journal that was cut in the middle of a line, the whole lines count.
    """

    def __init__(self, folder: Path | None, header: Header, *, reading: bool = False) -> None:
        self.steps: dict[str, Step] = {}
        self.begun = datetime.now(UTC).isoformat(timespec="seconds")
        self._file: IO[bytes] | None = None
        if folder is None:
            return
        self._path = path = _journal_file(folder, header)
        try:
            length = self._read(path) if path.exists() else 0
            if reading:
                return
            folder.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
            self._file.truncate(length)
            if not length:
                self._write({"begun": self.begun, "header": asdict(header)})
        except OSError as error:
            self._close()
            raise _unwritable(path, error) from error

    def __enter__(self) -> _Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._file:
            with suppress(OSError):  # on a full disk it tries again to write what was told to be lost
                self._file.close()

    def add(self, step: Step) -> None:
        """Keep one question's result."""
        self.steps[step.result.question.id] = step
        try:
            self._write({**result_data(step.result), "chunks": [chunk_data(chunk) for chunk in step.chunks]})
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def _write(self, data: Mapping[str, Any]) -> None:
        if self._file:
            self._file.write(json.dumps(data).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def _read(self, path: Path) -> int:
        """Take in the whole lines; returns how many bytes they are."""
        length = 0
        with path.open("rb") as file:
            for number, line in enumerate(file):
                data = _whole(line)
                if data is None:
                    break
                if number == 0:
                    self.begun = data["begun"]
                else:
                    step = Step(result_from(data), tuple(map(chunk_from, data["chunks"])))
                    self.steps[step.result.question.id] = step
                length += len(line)
        return length


def _whole(line: bytes) -> dict[str, Any] | None:
    """The object on a line of a journal, or None where the line was cut by a crash."""
    if not line.endswith(b"\n"):
        return None
    try:
        data: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return data


def _unwritable(path: Path, error: OSError) -> StoreUnavailable:
    return StoreUnavailable(
        f"The results so far cannot be kept in {path}: {error.strerror}. Free some space or make the folder "
        "writable, and start the run again: it goes on where it is."
    )
