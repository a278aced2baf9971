"""What every door calls: the page, the command line and the API all rank and answer through here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

from ingest.embed import Embedder
from ingest.errors import AnswerFailed, BadRequest, RerankFailed
from ingest.store import LOCAL_OWNER, Store
from rag.answer import Answerer
from rag.citations import check
from rag.rerank import Reranker, rerank
from rag.retrieve import retrieve
from rag.settings import LONGEST_QUESTION
from rag.types import Answered, Hit, Ranked, Ranking, Seconds

DEPTH = 50
SOURCES = 5
MAX_DEPTH = 500
MAX_QUESTION_CHARS = LONGEST_QUESTION


@dataclass(frozen=True, slots=True)
class Stages:
    """The loaded parts that a question runs through.

    `reranker` is None when it could not be loaded; `reranker_problem` then says why.
    """

    embedder: Embedder
    store: Store
    reranker: Reranker | None
    reranker_problem: str = ""


def rank(
    question: str,
    stages: Stages,
    *,
    depth: int = DEPTH,
    sources: int = SOURCES,
    reranking: bool = True,
    owner: str = LOCAL_OWNER,
    doc_ids: Sequence[str] | None = None,
    on_first: Callable[[Ranking], None] = lambda _: None,
) -> Ranking:
    """Find `depth` candidates by cosine, read them all again with the cross-encoder, choose `sources`.

    `on_first` is called with the bi-encoder's order before the second look, which takes most of the time.

    A reranker that is missing or breaks does not lose the question: `rerank_problem` says what happened and
    the bi-encoder's order stands. Raises BadRequest for a question or numbers that cannot be used, and
    StoreUnavailable.
    """
    question = checked(question, depth, sources)
    begun = perf_counter()
    vector = stages.embedder.embed([question])[0]
    embedded = perf_counter()
    hits = retrieve(vector, stages.store, depth=depth, owner=owner, doc_ids=doc_ids)
    searched = perf_counter()
    first = Ranking(
        question=question,
        hits=hits,
        order=(),
        sources=sources,
        seconds=Seconds(embed=embedded - begun, search=searched - embedded, rerank=0.0),
        embedder=stages.embedder.name,
        reranker="",
        rerank_problem="",
        confident=None,
        question_cut=not stages.embedder.reads_whole(question),
    )
    if not reranking:
        return first
    on_first(first)
    return look_again(first, stages)


def look_again(ranking: Ranking, stages: Stages) -> Ranking:
    """Rerank the candidates of a question that was asked without reranking; the retrieval stays the same."""
    begun = perf_counter()
    order, problem = _second_look(ranking.question, ranking.hits, stages)
    return replace(
        ranking,
        order=order,
        seconds=replace(ranking.seconds, rerank=perf_counter() - begun),
        reranker=stages.reranker.name if stages.reranker else "",
        rerank_problem=problem,
        confident=_confident(order, stages.reranker),
    )


def answer(
    ranking: Ranking,
    answerer: Answerer,
    *,
    reranked: bool = True,
    on_text: Callable[[str], None] = lambda _: None,
) -> Answered:
    """Answer from the chunks that the reranker chose, or, without it, from the bi-encoder's first ones.

    `on_text` is called with all text so far whenever some arrives; an endpoint that fails is told in `error`.
    """
    sources = ranking.chosen(reranked=reranked)
    begun = perf_counter()
    first: float | None = None
    text, error = "", ""
    try:
        for piece in answerer.stream(ranking.question, sources):
            first = first or perf_counter() - begun
            text += piece
            on_text(text)
    except AnswerFailed as failure:
        error = str(failure)
    return Answered(
        answer=check(text, sources),
        sources=sources,
        reranked=reranked and bool(ranking.order),
        answerer=answerer.name,
        note=answerer.note,
        seconds_first=first,
        seconds=perf_counter() - begun,
        error=error,
    )


def checked(question: str, depth: int, sources: int) -> str:
    """The question without outer white space. Raises BadRequest, saying what to change."""
    question = question.strip()
    if not question:
        raise BadRequest("The question is empty: type what you want to know.")
    if len(question) > MAX_QUESTION_CHARS:
        raise BadRequest(
            f"The question has {len(question)} characters; at most {MAX_QUESTION_CHARS} are read. Shorten it."
        )
    if not 1 <= depth <= MAX_DEPTH:
        raise BadRequest(f"The candidate depth must be from 1 to {MAX_DEPTH}, not {depth}.")
    if not 1 <= sources <= depth:
        raise BadRequest(f"The number of sources must be from 1 to the depth ({depth}), not {sources}.")
    return question


def _second_look(question: str, hits: Sequence[Hit], stages: Stages) -> tuple[tuple[Ranked, ...], str]:
    if stages.reranker is None:
        return (), stages.reranker_problem
    try:
        return rerank(question, hits, stages.reranker), ""
    except RerankFailed as failure:
        return (), str(failure)


def _confident(order: Sequence[Ranked], reranker: Reranker | None) -> bool | None:
    if not order or reranker is None or reranker.calibration.threshold is None:
        return None
    return order[0].probability >= reranker.calibration.threshold
