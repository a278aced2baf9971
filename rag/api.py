"""The REST doors, under /api: the same library and the same `rank` and `answer` as the pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI, File, HTTPException, Request, UploadFile
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, Field

from ingest.errors import BadRequest, UserError
from ingest.store import LOCAL_OWNER
from ingest.types import Document
from rag.export import answered_data, app_version, document_data, job_data, search_data
from rag.pipeline import DEPTH, MAX_DEPTH, MAX_QUESTION_CHARS, SOURCES, answer, rank
from rag.services import Services
from rag.types import Ranking

FILE_POLICY = "default-src 'none'; sandbox"
"""What an uploaded file may do in a browser: be looked at. No script, no form, no origin to speak for."""
DOC_ID = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Query(BaseModel):
    """A question and how to look for its answer."""

    question: Annotated[str, Field(min_length=1, max_length=MAX_QUESTION_CHARS)]
    depth: Annotated[int, Field(ge=1, le=MAX_DEPTH)] = DEPTH
    sources: Annotated[int, Field(ge=1, le=MAX_DEPTH)] = SOURCES
    reranking: bool = True
    doc_ids: list[DOC_ID] | None = None


class Problem(BaseModel):
    """What went wrong, in one sentence."""

    detail: str


PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The request cannot be used."},
    503: {"model": Problem, "description": "The index or a model is not available."},
}


def create_api(services: Callable[[], Services]) -> FastAPI:
    """The API over services that are made at the first request."""
    api = FastAPI(
        title="Second Look",
        description="Two-stage retrieval over your PDFs, with both orders of every question.",
        version=app_version(),
        responses=PROBLEMS,
        # their pages load scripts from another host, which the content policy forbids
        docs_url=None,
        redoc_url=None,
    )

    @api.exception_handler(UserError)
    def tell(_: Request, error: Exception) -> JSONResponse:
        status = 400 if isinstance(error, BadRequest) else 503
        return JSONResponse({"detail": str(error)}, status_code=status)

    @api.get("/health")
    def health() -> dict[str, Any]:
        """Say that the app runs, and whether its models are loaded."""
        return {"status": "ok", "models_loaded": services().warm}

    @api.get("/documents")
    def documents() -> list[dict[str, Any]]:
        """All documents, newest first."""
        return [document_data(found) for found in services().store.documents(owner=LOCAL_OWNER)]

    @api.post("/documents", status_code=202)
    def upload(files: Annotated[list[UploadFile], File()]) -> list[dict[str, Any]]:
        """Queue PDFs; each upload comes back with its state, `refused` ones with the reason."""
        queue = services().queue
        return [
            job_data(queue.add(file.filename or "unnamed.pdf", file.file.read(), owner=LOCAL_OWNER))
            for file in files
        ]

    @api.get("/uploads")
    def uploads() -> list[dict[str, Any]]:
        """The upload queue, oldest first, with progress."""
        return [job_data(job) for job in services().queue.jobs(owner=LOCAL_OWNER)]

    @api.delete("/documents/{doc_id}", status_code=204, responses={404: {"model": Problem}})
    def delete(doc_id: DOC_ID) -> None:
        """Remove a document, its chunks and its file, for good."""
        _known(services(), doc_id)
        services().forget(services().delete(doc_id, owner=LOCAL_OWNER))

    @api.get("/documents/{doc_id}/file", response_class=FileResponse, responses={404: {"model": Problem}})
    def original(doc_id: DOC_ID, inline: bool = False) -> FileResponse:
        """The PDF as it was uploaded: to keep, or with `inline=true` to read in the browser."""
        document = _known(services(), doc_id)
        path = services().originals.path(doc_id, owner=LOCAL_OWNER)
        if not path.exists():
            raise HTTPException(404, f"The file of {document.source} is gone. Upload it again.")
        return FileResponse(
            path,
            media_type="application/pdf",
            filename=document.source,
            content_disposition_type="inline" if inline else "attachment",
            headers={"Content-Security-Policy": FILE_POLICY},
        )

    @api.post("/search")
    def search(query: Query) -> dict[str, Any]:
        """A question's candidates in both orders, with the parameters used and what to be wary of."""
        return _data(_rank(services(), query), query, services())

    @api.post("/ask")
    def ask(query: Query) -> dict[str, Any]:
        """A cited answer, with the candidates it was chosen from; `error` says where an LLM endpoint failed."""
        ranking = _rank(services(), query)
        answered = answer(ranking, services().answerer, reranked=query.reranking)
        return {**_data(ranking, query, services()), "answer": answered_data(answered)}

    return api


def _rank(services: Services, query: Query) -> Ranking:
    return rank(
        query.question,
        services.stages,
        depth=query.depth,
        sources=query.sources,
        reranking=query.reranking,
        owner=LOCAL_OWNER,
        doc_ids=query.doc_ids,
    )


def _data(ranking: Ranking, query: Query, services: Services) -> dict[str, Any]:
    return search_data(
        ranking,
        depth=query.depth,
        reranking=query.reranking,
        doc_ids=query.doc_ids,
        reranker_problem=services.stages.reranker_problem,
    )


def _known(services: Services, doc_id: str) -> Document:
    for document in services.store.documents(owner=LOCAL_OWNER):
        if document.id == doc_id:
            return document
    raise HTTPException(404, f"There is no document {doc_id[:12]}...")
