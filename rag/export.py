"""Documents, rankings and answers as plain JSON data, and conversations as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ingest.queue import Job
from ingest.store import LOCAL_OWNER, library_fingerprint
from ingest.types import Chunk, Document
from rag.checks import Concern, concerns
from rag.citations import safe_markdown
from rag.pipeline import Stages
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


QUESTION_FORMAT = "second-look/question"
QUESTION_VERSION = 1
"""Counted up when a reader of the old form could not read the new one."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a question ran on.

    `corpus` is the fingerprint of the documents in scope, `documents` their number; `embedder` and `reranker`
    are revisions of the weights, empty where none is known.
    """

    corpus: str
    documents: int
    embedder: str
    embedder_device: str
    reranker: str
    reranker_device: str


@dataclass(frozen=True, slots=True)
class QuestionRecord:
    """One question of a conversation, as it was asked and as it came out.

    `asked` is what was typed, `ranking.question` what was searched for. `doc_ids` is None where all documents
    were asked. `mode` is On, Off or Compare. `provenance` is None where nobody noted it.
    """

    asked: str
    ranking: Ranking
    answers: tuple[Answered, ...]
    depth: int
    doc_ids: tuple[str, ...] | None
    mode: str
    provenance: Provenance | None = None

    @property
    def reranked(self) -> bool:
        """True unless reranking was switched off."""
        return self.mode.lower() != "off"


def provenance(
    stages: Stages, *, owner: str = LOCAL_OWNER, doc_ids: Sequence[str] | None = None
) -> Provenance:
    """What a question runs on at this moment; note it when the question is asked. Raises StoreUnavailable."""
    documents = stages.store.documents(owner=owner)
    scope = [document for document in documents if doc_ids is None or document.id in doc_ids]
    return Provenance(
        corpus=library_fingerprint(scope, stages.embedder.id),
        documents=len(scope),
        embedder=stages.embedder.id,
        embedder_device=stages.embedder.device,
        reranker=stages.reranker.revision if stages.reranker else "",
        reranker_device=stages.reranker.device if stages.reranker else "",
    )


def app_version() -> str:
    """The version of this app, as it is installed."""
    from importlib.metadata import version

    return version("second-look")


def concerns_data(found: Iterable[Concern]) -> list[dict[str, Any]]:
    """Concerns, the gravest first."""
    return [{"kind": concern.kind, "level": concern.level, "text": concern.text} for concern in found]


def parameters_data(
    *, depth: int, sources: int, reranking: bool, doc_ids: Sequence[str] | None
) -> dict[str, Any]:
    """How a question was looked for; `doc_ids` is null where all documents were asked."""
    return {
        "depth": depth,
        "sources": sources,
        "reranking": reranking,
        "doc_ids": None if doc_ids is None else list(doc_ids),
    }


def search_data(
    ranking: Ranking,
    *,
    depth: int,
    reranking: bool,
    doc_ids: Sequence[str] | None,
    reranker_problem: str = "",
) -> dict[str, Any]:
    """A ranking with its parameters and concerns: what the API and `--json` give."""
    found = concerns(ranking, reranked=reranking, reranker_problem=reranker_problem)
    return {
        **ranking_data(ranking),
        "parameters": parameters_data(
            depth=depth, sources=ranking.sources, reranking=reranking, doc_ids=doc_ids
        ),
        "concerns": concerns_data(found),
    }


def question_data(record: QuestionRecord) -> dict[str, Any]:
    """A question with all that is needed to study it or to run it again; `second-look replay` reads it."""
    ranking, made = record.ranking, record.provenance
    parameters = parameters_data(
        depth=record.depth, sources=ranking.sources, reranking=record.reranked, doc_ids=record.doc_ids
    )
    return {
        "format": QUESTION_FORMAT,
        "version": QUESTION_VERSION,
        "app_version": app_version(),
        "asked": record.asked,
        "question": ranking.question,
        "parameters": {**parameters, "mode": record.mode},
        "models": {
            "embedder": _model_data(
                ranking.embedder, made.embedder if made else "", made.embedder_device if made else ""
            ),
            "reranker": _model_data(
                ranking.reranker, made.reranker if made else "", made.reranker_device if made else ""
            )
            if ranking.reranker
            else None,
        },
        "corpus": {"fingerprint": made.corpus, "documents": made.documents} if made else None,
        "candidates": candidates_data(ranking, reranked=record.reranked),
        "rerank_problem": ranking.rerank_problem or None,
        "confident": ranking.confident,
        "seconds": ranking_data(ranking)["seconds"],
        "concerns": concerns_data(concerns(ranking, reranked=record.reranked)),
        "answers": [answered_data(answered) for answered in record.answers],
    }


def candidates_data(ranking: Ranking, *, reranked: bool) -> list[dict[str, Any]]:
    """Every candidate once, in the bi-encoder's order, with both ranks and both scores.

    What only the reranker knows is null where it did not run. `chosen` says whether an answer may use it.
    """
    second = {ranked.hit.rank: ranked for ranked in ranking.order}
    chosen = {chunk.id for chunk in ranking.chosen(reranked=reranked)}
    return [_candidate_data(hit, second.get(hit.rank), hit.chunk.id in chosen) for hit in ranking.hits]


def _candidate_data(hit: Hit, ranked: Ranked | None, chosen: bool) -> dict[str, Any]:
    return {
        "rank": hit.rank,
        "cosine": hit.cosine,
        "reranked_rank": ranked.rank if ranked else None,
        "logit": ranked.logit if ranked else None,
        "probability": ranked.probability if ranked else None,
        "parts": {part.name: part.value for part in ranked.parts} if ranked else None,
        "moved": ranked.moved if ranked else None,
        "truncated": ranked.truncated if ranked else None,
        "chosen": chosen,
        "chunk": chunk_data(hit.chunk),
    }


def _model_data(name: str, revision: str, device: str) -> dict[str, Any]:
    return {"name": name, "revision": revision or None, "device": device or None}


def conversation_markdown(records: Sequence[QuestionRecord]) -> str:
    """Questions, answers, citations and warnings, the oldest first, as harmless Markdown.

    Text from outside brings no link, image, HTML or heading into it, whatever a viewer of CommonMark allows.
    """
    parts = ["# Second Look: a conversation", f"Exported by Second Look {app_version()}."]
    for number, record in enumerate(records, start=1):
        parts += _turn(number, record)
    return "\n\n".join(parts) + "\n"


def _turn(number: int, record: QuestionRecord) -> Iterator[str]:
    ranking = record.ranking
    yield f"## Question {number}"
    yield f"> {_literal(record.asked)}"
    if ranking.question != record.asked.strip():
        yield f"Searched for: {_literal(ranking.question)}"
    for concern in concerns(ranking, reranked=record.reranked):
        label = "Warning" if concern.level == "warning" else "Note"
        yield f"**{label}:** {_literal(concern.text)}"
    for answered in record.answers:
        yield from _answer(answered)
    yield f"*{_literal(_how(record))}*"


def _answer(answered: Answered) -> Iterator[str]:
    order = "reranked sources" if answered.reranked else "sources in the bi-encoder's order"
    yield f"### Answer from {order}"
    if answered.note:
        yield f"*{_literal(answered.note)}*"
    yield _hardened(safe_markdown(answered.answer.text)) or "No answer."
    citations = [
        f"- \\[{citation.number}\\] {_literal(citation.chunk.source)}, page {citation.chunk.page}"
        for citation in answered.answer.citations
    ]
    if citations:
        yield "\n".join(["Sources cited:", "", *citations])
    problems = answered.answer.problems if answered.answer.text else ()
    for problem in (*problems, answered.error):
        if problem:
            yield f"**Warning:** {_literal(problem)}"


def _how(record: QuestionRecord) -> str:
    ranking = record.ranking
    models = " and ".join(filter(None, (ranking.embedder, ranking.reranker)))
    scope = "all documents" if record.doc_ids is None else f"{len(record.doc_ids)} chosen documents"
    return (
        f"{models}, {len(ranking.hits)} candidates from {scope}, {ranking.sources} sources, "
        f"{ranking.seconds.total:.1f} s"
    )


def _literal(text: str) -> str:
    """Text on one line that shows letter for letter."""
    line = " ".join(text.split())
    return _hardened(safe_markdown(re.sub(r"[!-/:-@\[-`{-~]", r"\\\g<0>", line)))


def _hardened(markdown: str) -> str:
    """Safe Markdown for viewers that do not know the escapes of CommonMark, or that run templates in braces."""

    def harden(match: re.Match[str]) -> str:
        return _ENTITIES.get(match[0], match[0])

    return _CODE_OR_SPECIAL.sub(harden, markdown)


_CODE_OR_SPECIAL = re.compile(r"\\[\s\S]|(?P<ticks>`+)[\s\S]*?(?<!`)(?P=ticks)(?!`)|[{}]")
_ENTITIES = {"\\<": "&lt;", "\\>": "&gt;", "\\&": "&amp;", "{": "&#123;", "}": "&#125;"}
