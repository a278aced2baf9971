"""What the REST API takes and gives, as types: its OpenAPI document says no more and no less than these."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ingest.queue import State
from rag.checks import Kind
from rag.pipeline import DEPTH, MAX_DEPTH, MAX_QUESTION_CHARS, SOURCES

DOC_ID_PATTERN = "^[0-9a-f]{64}$"
MAX_DOC_IDS = 1000
"""How many documents one question may name; without any, all are asked."""

DocId = Annotated[str, Field(pattern=DOC_ID_PATTERN, description="SHA-256 of the file, in hex.")]


class _Given(BaseModel):
    """A body that the API takes: a field that is misspelled or of another type is told, not passed over."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _Answer(BaseModel):
    """A body that the API gives: these fields and no others."""

    model_config = ConfigDict(extra="forbid")


def _whole(number: object) -> object:
    """JSON does not tell 5.0 from 5."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


WHOLE = BeforeValidator(_whole)


class Query(_Given):
    """A question and how to look for its answer."""

    question: Annotated[str, Field(min_length=1, max_length=MAX_QUESTION_CHARS)]
    depth: Annotated[int, Field(ge=1, le=MAX_DEPTH, description="Candidates of the bi-encoder."), WHOLE] = (
        DEPTH
    )
    sources: Annotated[
        int, Field(ge=1, le=MAX_DEPTH, description="How many of them are kept; at most `depth`."), WHOLE
    ] = SOURCES
    reranking: bool = True
    doc_ids: Annotated[
        list[DocId] | None, Field(max_length=MAX_DOC_IDS, description="Ask these documents alone.")
    ] = None


class Problem(_Answer):
    """What went wrong, in words for people."""

    detail: str


class Health(_Answer):
    """The app runs; `models_loaded` says whether the first question will wait for the models."""

    status: Literal["ok"]
    models_loaded: bool


class DocumentItem(_Answer):
    """A document of the library; `size` in bytes, `added` in UTC."""

    id: DocId
    source: str
    title: str
    pages: int
    chunks: int
    size: int
    added: str
    warnings: list[str]


class UploadItem(_Answer):
    """An upload; `done` of `total` counts pages while reading and chunks while embedding.

    `doc_id` is null where the file was refused before it was stored.
    """

    id: int
    source: str
    doc_id: DocId | None
    size: int
    state: State
    message: str
    done: int
    total: int
    seconds_left: float | None


class ChunkItem(_Answer):
    """A passage of one page; offsets count characters of the page's text."""

    id: str
    doc_id: DocId
    source: str
    page: int
    start: int
    end: int
    heading: str
    text: str


class HitItem(_Answer):
    """A candidate as the bi-encoder found it."""

    rank: int
    cosine: float
    chunk: ChunkItem


class RankedItem(_Answer):
    """A candidate after the second look; `parts` add up to `logit`, `moved` counts places won."""

    rank: int
    logit: float
    probability: float
    parts: dict[str, float]
    moved: int
    truncated: bool
    hit: HitItem


class StageSeconds(_Answer):
    """Wall time of each stage, in seconds."""

    embed: float
    search: float
    rerank: float
    total: float


class Models(_Answer):
    """The models that ran; `reranker` is null where none did."""

    embedder: str
    reranker: str | None


class Parameters(_Answer):
    """How the question was looked for; `doc_ids` is null where all documents were asked."""

    depth: int
    sources: int
    reranking: bool
    doc_ids: list[DocId] | None


class ConcernItem(_Answer):
    """One thing to know before trusting a ranking."""

    kind: Kind
    level: Literal["info", "warning"]
    text: str


class Found(_Answer):
    """A question's candidates in both orders; `ranked` holds the sources that the reranker chose."""

    question: str
    hits: list[HitItem]
    ranked: list[RankedItem]
    seconds: StageSeconds
    models: Models
    rerank_problem: str | None
    confident: bool | None
    parameters: Parameters
    concerns: list[ConcernItem]


class CitationItem(_Answer):
    """A number in an answer's text, and the passage it stands for."""

    number: int
    chunk: ChunkItem


class AnswerSeconds(_Answer):
    """Seconds to the first piece (null when none came) and to the end."""

    first: float | None
    total: float


class AnswerItem(_Answer):
    """An answer with its checked citations; `error` is what an LLM endpoint that failed has to say."""

    text: str
    citations: list[CitationItem]
    problems: list[str]
    error: str | None
    reranked: bool
    answerer: str
    seconds: AnswerSeconds


class Asked(Found):
    """An answer, and the candidates it was chosen from."""

    answer: AnswerItem
