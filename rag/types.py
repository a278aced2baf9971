"""The nouns of the question side; a later stage wraps an earlier one and never changes it."""

from __future__ import annotations

from dataclasses import dataclass

from ingest.types import Chunk


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk found by the bi-encoder: its cosine with the question, and its rank from 1."""

    chunk: Chunk
    cosine: float
    rank: int


@dataclass(frozen=True, slots=True)
class ScorePart:
    """One summand of a reranker's score, under its true name."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Ranked:
    """A hit after the second look.

    `logit` is what the order rests on; `probability` is a sigmoid of it, for display only;
    `parts` add up to `logit`; `truncated` says that the reranker did not see the whole passage.
    """

    hit: Hit
    logit: float
    probability: float
    rank: int
    parts: tuple[ScorePart, ...]
    truncated: bool

    @property
    def moved(self) -> int:
        """Places won by the second look: from #37 to #2 is 35, downwards is negative."""
        return self.hit.rank - self.rank


@dataclass(frozen=True, slots=True)
class Seconds:
    """Wall time of each stage of one ranking, in seconds."""

    embed: float
    search: float
    rerank: float

    @property
    def total(self) -> float:
        """All stages together."""
        return self.embed + self.search + self.rerank


@dataclass(frozen=True, slots=True)
class Ranking:
    """One question's candidates in both orders.

    `hits` are in the bi-encoder's order. `order` holds the same candidates in the reranker's order;
    it is empty when reranking was off or failed, and `rerank_problem` then says why it failed.
    `sources` is how many chunks an answer may use. `confident` is False when even the best chunk
    scores below the reranker's threshold, and None when nothing can be said. `question_cut` says that the
    bi-encoder did not read the question to its end.
    """

    question: str
    hits: tuple[Hit, ...]
    order: tuple[Ranked, ...]
    sources: int
    seconds: Seconds
    embedder: str
    reranker: str
    rerank_problem: str
    confident: bool | None
    question_cut: bool = False

    @property
    def ranked(self) -> tuple[Ranked, ...]:
        """The chunks that the reranker chose."""
        return self.order[: self.sources]

    def chosen(self, *, reranked: bool = True) -> tuple[Chunk, ...]:
        """The chunks an answer rests on; the bi-encoder's first ones where there is no second look."""
        if reranked and self.order:
            return tuple(ranked.hit.chunk for ranked in self.ranked)
        return tuple(hit.chunk for hit in self.hits[: self.sources])


@dataclass(frozen=True, slots=True)
class Citation:
    """A number in an answer, counted from 1, and the chunk it stands for."""

    number: int
    chunk: Chunk


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer after its citations were checked; `problems` are sentences for the screen."""

    text: str
    citations: tuple[Citation, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer as it came about.

    `reranked` says whose order its sources came from; seconds are wall time from the start of the request;
    `seconds_first` is None when nothing came. `error` is the sentence of an endpoint that failed: the text
    is then what came before it.
    """

    answer: Answer
    sources: tuple[Chunk, ...]
    reranked: bool
    answerer: str
    note: str
    seconds_first: float | None
    seconds: float
    error: str
