"""Documents, rankings and answers as plain JSON data: what the API, `--json` and exports print."""

from __future__ import annotations

from typing import Any

from ingest.queue import Job
from ingest.types import Chunk, Document
from rag.types import Answered, Hit, Ranked, Ranking


def chunk_data(chunk: Chunk) -> dict[str, Any]:
    """A chunk; offsets count characters of the page's text."""
    return {
        "id": chunk.id,
        "doc_id": chunk.doc_id,
        "source": chunk.source,
        "page": chunk.page,
        "start": chunk.start,
        "end": chunk.end,
        "heading": chunk.heading,
        "text": chunk.text,
    }


def hit_data(hit: Hit) -> dict[str, Any]:
    """A hit of the bi-encoder."""
    return {"rank": hit.rank, "cosine": hit.cosine, "chunk": chunk_data(hit.chunk)}


def ranked_data(ranked: Ranked) -> dict[str, Any]:
    """A candidate after the second look, with the hit it was."""
    return {
        "rank": ranked.rank,
        "logit": ranked.logit,
        "probability": ranked.probability,
        "parts": {part.name: part.value for part in ranked.parts},
        "moved": ranked.moved,
        "truncated": ranked.truncated,
        "hit": hit_data(ranked.hit),
    }


def ranking_data(ranking: Ranking) -> dict[str, Any]:
    """A question's candidates in both orders, with seconds per stage and the models that ran."""
    return {
        "question": ranking.question,
        "hits": [hit_data(hit) for hit in ranking.hits],
        "ranked": [ranked_data(ranked) for ranked in ranking.ranked],
        "seconds": {
            "embed": ranking.seconds.embed,
            "search": ranking.seconds.search,
            "rerank": ranking.seconds.rerank,
            "total": ranking.seconds.total,
        },
        "models": {"embedder": ranking.embedder, "reranker": ranking.reranker or None},
        "rerank_problem": ranking.rerank_problem or None,
        "confident": ranking.confident,
    }


def answered_data(answered: Answered) -> dict[str, Any]:
    """An answer, its checked citations, and what went wrong with it."""
    return {
        "text": answered.answer.text,
        "citations": [
            {"number": citation.number, "chunk": chunk_data(citation.chunk)}
            for citation in answered.answer.citations
        ],
        "problems": list(answered.answer.problems),
        "error": answered.error or None,
        "reranked": answered.reranked,
        "answerer": answered.answerer,
        "seconds": {"first": answered.seconds_first, "total": answered.seconds},
    }


def document_data(document: Document) -> dict[str, Any]:
    """A document of the library; `size` in bytes, `added` in UTC."""
    return {
        "id": document.id,
        "source": document.source,
        "title": document.title,
        "pages": document.pages,
        "chunks": document.chunks,
        "size": document.size,
        "added": document.added,
        "warnings": list(document.warnings),
    }


def job_data(job: Job) -> dict[str, Any]:
    """An upload; `done` of `total` counts pages while reading and chunks while embedding."""
    return {
        "id": job.id,
        "source": job.source,
        "doc_id": job.doc_id or None,
        "size": job.size,
        "state": job.state,
        "message": job.message,
        "done": job.done,
        "total": job.total,
        "seconds_left": job.seconds_left,
    }
