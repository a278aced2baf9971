"""The sample library at run time: where its PDFs are, which of them are loaded, and questions to try on it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from ingest.queue import Job
from rag.pipeline import SOURCES
from rag.services import Deleted, Services

log = logging.getLogger(__name__)

FOLDER = Path(__file__).resolve().parents[1] / "samples"
SUGGESTED = 6
SHOWN_CHARS = 90
"""Suggested questions are at most this long, so that they fit on a button."""

NOWHERE = 1000
"""Stands for the rank of what is not among the candidates; farther down than any of them."""

Kind = Literal["helps", "same", "hurts"]
SAYS: dict[Kind, str] = {
    "helps": "reranking helps here",
    "same": "reranking changes nothing that matters here",
    "hurts": "reranking hurts here",
}


@dataclass(frozen=True, slots=True)
class SampleFile:
    """One PDF of the sample library; `id` is the SHA-256 of its bytes, as in the index."""

    id: str
    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Evidence:
    """Words that answer a question, and where they stand; pages count from 1."""

    source: str
    page: int
    words: str


@dataclass(frozen=True, slots=True)
class SampleQuestion:
    """A question with its answer, and what reranking did to the first right chunk when it was measured.

    `before` is its rank by the bi-encoder, `after` its rank by the reranker; None: not among the candidates.
    `flagged` says that it was taken for one that the documents do not answer.
    """

    id: str
    text: str
    answer: str
    evidence: tuple[Evidence, ...]
    kind: Kind
    before: int | None
    after: int | None
    flagged: bool

    @property
    def measured(self) -> str:
        """The measurement as a sentence."""
        ranks = f"first right passage {_rank(self.before)} before, {_rank(self.after)} after"
        return f"Measured on the sample library: {SAYS[self.kind]} ({ranks})."


def sample_files() -> tuple[SampleFile, ...]:
    """The PDFs by name; none, and a line in the log, where this installation has no samples."""
    return _files(FOLDER)


def sample_questions() -> tuple[SampleQuestion, ...]:
    """All labelled questions; none where this installation has no samples."""
    return _questions(FOLDER)


def known_question(text: str) -> SampleQuestion | None:
    """The labelled question with this text."""
    wanted = " ".join(text.split()).lower()
    return next((question for question in sample_questions() if question.text.lower() == wanted), None)


def loaded_samples(services: Services, *, owner: str) -> tuple[SampleFile, ...]:
    """Those sample PDFs that are in the owner's library. Raises StoreUnavailable."""
    there = {document.id for document in services.store.documents(owner=owner)}
    return tuple(file for file in sample_files() if file.id in there)


def sample_jobs(services: Services, *, owner: str) -> tuple[Job, ...]:
    """The uploads of sample PDFs that are on the queue's list, finished ones too."""
    ids = {file.id for file in sample_files()}
    return tuple(job for job in services.queue.jobs(owner=owner) if job.doc_id in ids)


def load_samples(services: Services, *, owner: str) -> int:
    """Queue every sample PDF that is not in the library, all of them or none; returns how many.

    Raises StoreUnavailable, LimitReached.
    """
    loaded = set(loaded_samples(services, owner=owner))
    missing = [file for file in sample_files() if file not in loaded]
    services.queue.check_room(len(missing), owner=owner)
    for file in missing:
        services.queue.add(file.name, file.path.read_bytes(), owner=owner)
    return len(missing)


def tidy_uploads(services: Services, *, owner: str) -> None:
    """Take the samples that arrived off the list of uploads; what went wrong stays on it."""
    for job in sample_jobs(services, owner=owner):
        if job.state in ("done", "unchanged"):
            services.queue.dismiss(job.id, owner=owner)


def remove_samples(services: Services, *, owner: str) -> list[Deleted]:
    """Delete the sample PDFs from the library, and their finished uploads from the list.

    `Services.undo` brings each of them back. Raises StoreUnavailable.
    """
    for job in sample_jobs(services, owner=owner):
        if not job.open:
            services.queue.dismiss(job.id, owner=owner)
    return [services.delete(file.id, owner=owner) for file in loaded_samples(services, owner=owner)]


def suggestions(loaded: Sequence[SampleFile], *, count: int = SUGGESTED) -> tuple[SampleQuestion, ...]:
    """Questions to try whose evidence is loaded: of each kind as many, those that show it best, helped ones first.

    Each document is asked about once as long as there are others. Flagged ones are left out: a wrong "probably not
    in your documents" is nothing to begin with.
    """
    there = {file.name for file in loaded}
    fit = [
        question
        for question in sample_questions()
        if not question.flagged
        and len(question.text) <= SHOWN_CHARS
        and {item.source for item in question.evidence} <= there
    ]
    piles = {kind: _best_first(fit, kind) for kind in get_args(Kind)}
    chosen: list[SampleQuestion] = []
    while len(chosen) < count and any(piles.values()):
        for pile in piles.values():
            if pile and len(chosen) < count:
                asked = {question.evidence[0].source for question in chosen}
                fresh = [question for question in pile if question.evidence[0].source not in asked]
                chosen.append((fresh or pile)[0])
                pile.remove(chosen[-1])
    kinds = get_args(Kind)
    return tuple(sorted(chosen, key=lambda question: kinds.index(question.kind)))


def _best_first(questions: Sequence[SampleQuestion], kind: Kind) -> list[SampleQuestion]:
    """Those first whose right passage entered or left the sources, and by how far it moved.

    Where nothing changes, those first that both orders found at once.
    """

    def weight(question: SampleQuestion) -> tuple[int, ...]:
        before, after = question.before or NOWHERE, question.after or NOWHERE
        if kind == "same":
            return (before + after,)
        crossed = (before <= SOURCES) != (after <= SOURCES)
        return (not crossed, min(before, after), -abs(before - after))

    return sorted((question for question in questions if question.kind == kind), key=weight)


@lru_cache(maxsize=4)
def _files(folder: Path) -> tuple[SampleFile, ...]:
    paths = sorted((folder / "pdfs").glob("*.pdf"))
    if not paths:
        log.warning("There is no sample library in %s, so none is offered.", folder)
    return tuple(SampleFile(hashlib.sha256(path.read_bytes()).hexdigest(), path.name, path) for path in paths)


@lru_cache(maxsize=4)
def _questions(folder: Path) -> tuple[SampleQuestion, ...]:
    path = folder / "questions.jsonl"
    if not path.is_file():
        log.warning("There are no sample questions at %s, so none are suggested.", path)
        return ()
    return tuple(_question(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines())


def _question(row: dict[str, Any]) -> SampleQuestion:
    before, after = row["ranks"]
    evidence = tuple(Evidence(item["doc"], item["page"], item["text"]) for item in row["evidence"])
    return SampleQuestion(
        row["id"], row["text"], row["answer"], evidence, row["kind"], before, after, row["flagged"]
    )


def _rank(rank: int | None) -> str:
    return f"#{rank}" if rank else "not among the candidates"
