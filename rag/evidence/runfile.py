"""A run as data: what was asked of what, and at which rank every order found what it should."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ingest.errors import BadRequest
from ingest.types import Chunk
from rag.evidence.questions import Judgement, Question
from rag.evidence.variants import Fusion, Timing, Variant
from rag.export import chunk_data

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Corpus:
    """What was searched; the same documents, cut and embedded alike, have the same fingerprint."""

    fingerprint: str
    documents: int
    chunks: int


@dataclass(frozen=True, slots=True)
class Model:
    """A reranker that ran, under the name of its curve; `revision` is the SHA-256 of its weights."""

    curve: str
    name: str
    revision: str
    device: str
    cosine_weight: float
    bm25_weight: float


@dataclass(frozen=True, slots=True)
class Header:
    """Everything that the numbers of a run depend on, and the machine that its times depend on."""

    question_set: str
    questions_fingerprint: str
    questions: int
    corpus: Corpus
    embedder: str
    device: str
    models: tuple[Model, ...]
    variants: tuple[Variant, ...]
    fusion: Fusion
    machine: str

    @property
    def key(self) -> str:
        """The same for two runs that must give the same numbers."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one order did for one question.

    `ranks` has the rank of each relevant passage, None where the order does not hold it. `shown` are the ids of
    the first chunks and `scores` their scores, the best first.
    """

    ranks: tuple[int | None, ...]
    shown: tuple[str, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """One question and its outcome by variant."""

    question: Question
    outcomes: Mapping[str, Outcome]
    timing: Timing


@dataclass(frozen=True, slots=True)
class Run:
    """A run, whole or stopped early; `chunks` are those that any outcome shows or finds, by id.

    `begun` is ISO 8601 in UTC. `notes` are sentences for people: what may be wrong with the numbers.
    """

    header: Header
    begun: str
    results: tuple[Result, ...]
    chunks: Mapping[str, Chunk]
    notes: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """True when every question was asked."""
        return len(self.results) == self.header.questions


def questions_fingerprint(questions: Iterable[Question]) -> str:
    """The same for the same questions with the same judgements, in any order."""
    rows = sorted(json.dumps(question_data(question)) for question in questions)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def question_data(question: Question) -> dict[str, Any]:
    """A question as JSON data; what is not given is left out."""
    data: dict[str, Any] = {"id": question.id, "question": question.text}
    if question.answer:
        data["answer"] = question.answer
    data["relevant"] = [judgement_data(judgement) for judgement in question.judgements]
    return data


def judgement_data(judgement: Judgement) -> dict[str, Any]:
    """A judgement as JSON data; what is not given is left out."""
    data: dict[str, Any] = {}
    for name in ("document", "quote", "chunk"):
        if getattr(judgement, name):
            data[name] = getattr(judgement, name)
    if len(judgement.pages) == 1:
        data["page"] = judgement.pages[0]
    elif judgement.pages:
        data["pages"] = list(judgement.pages)
    if judgement.grade != 1:
        data["grade"] = judgement.grade
    return data


def question_from(data: Mapping[str, Any]) -> Question:
    """Inverse of `question_data`."""
    judgements = tuple(map(judgement_from, data["relevant"]))
    return Question(data["id"], data["question"], judgements, data.get("answer", ""))


def judgement_from(data: Mapping[str, Any]) -> Judgement:
    """Inverse of `judgement_data`."""
    pages = tuple(data["pages"]) if "pages" in data else (data["page"],) if "page" in data else ()
    return Judgement(
        document=data.get("document", ""),
        pages=pages,
        quote=data.get("quote", ""),
        chunk=data.get("chunk", ""),
        grade=data.get("grade", 1),
    )


def header_from(data: Mapping[str, Any]) -> Header:
    """Inverse of `asdict`."""
    return Header(
        question_set=data["question_set"],
        questions_fingerprint=data["questions_fingerprint"],
        questions=data["questions"],
        corpus=Corpus(**data["corpus"]),
        embedder=data["embedder"],
        device=data["device"],
        models=tuple(Model(**one) for one in data["models"]),
        variants=tuple(Variant(**one) for one in data["variants"]),
        fusion=Fusion(**data["fusion"]),
        machine=data["machine"],
    )


def result_data(result: Result) -> dict[str, Any]:
    """One question's result as JSON data."""
    timing = result.timing
    return {
        **question_data(result.question),
        "outcomes": {
            name: {"ranks": list(one.ranks), "shown": list(one.shown), "scores": list(one.scores)}
            for name, one in result.outcomes.items()
        },
        "seconds": {
            "embed": timing.embed,
            "search": timing.search,
            "words": timing.words,
            "rerank": {
                curve: {str(depth): seconds for depth, seconds in by_depth.items()}
                for curve, by_depth in timing.rerank.items()
            },
        },
    }


def result_from(data: Mapping[str, Any]) -> Result:
    """Inverse of `result_data`."""
    seconds = data["seconds"]
    rerank = {
        curve: {int(depth): spent for depth, spent in by_depth.items()}
        for curve, by_depth in seconds["rerank"].items()
    }
    return Result(
        question_from(data),
        {
            name: Outcome(tuple(one["ranks"]), tuple(one["shown"]), tuple(one["scores"]))
            for name, one in data["outcomes"].items()
        },
        Timing(seconds["embed"], seconds["search"], seconds["words"], rerank),
    )


def chunk_from(data: Mapping[str, Any]) -> Chunk:
    """Inverse of `chunk_data`."""
    return Chunk(
        data["doc_id"],
        data["source"],
        data["page"],
        data["start"],
        data["end"],
        data["text"],
        data["heading"],
    )


def run_data(run: Run) -> dict[str, Any]:
    """A run as JSON data."""
    return {
        "format": FORMAT,
        "begun": run.begun,
        "header": asdict(run.header),
        "notes": list(run.notes),
        "results": [result_data(result) for result in run.results],
        "chunks": [chunk_data(chunk) for chunk in run.chunks.values()],
    }


def run_from(data: Any, file: str) -> Run:
    """Inverse of `run_data`. Raises BadRequest, naming the file, for data that is no run."""
    try:
        if data["format"] != FORMAT:
            raise BadRequest(
                f"{file} is a run of format {str(data['format'])[:20]!r}; this version reads format {FORMAT}. "
                "Run the question set again."
            )
        chunks = [chunk_from(one) for one in data["chunks"]]
        return Run(
            header_from(data["header"]),
            data["begun"],
            tuple(map(result_from, data["results"])),
            {chunk.id: chunk for chunk in chunks},
            tuple(data["notes"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise BadRequest(
            f"{file} is not a run of `second-look eval` ({type(error).__name__}): give a file that --out wrote."
        ) from error


def read_run(text: str, file: str) -> Run:
    """A run from its file's text. Raises BadRequest, naming the file."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise BadRequest(f"{file} is not JSON ({error}): give a file that --out wrote.") from error
    return run_from(data, file)


def run_text(run: Run) -> str:
    """A run as the text of its file."""
    return json.dumps(run_data(run), ensure_ascii=False) + "\n"
