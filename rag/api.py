"""The REST doors, under /api: the same library and the same `rank` and `answer` as the pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, FastAPI, File, HTTPException, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from starlette.routing import Match, Route

from ingest.errors import BadRequest, LimitReached, UserError
from ingest.types import Document
from rag.api_models import Asked, DocId, DocumentItem, Found, Health, Problem, Query, UploadItem
from rag.export import answered_data, app_version, document_data, job_data, search_data
from rag.guard import Door
from rag.pipeline import answer, rank
from rag.services import Services
from rag.types import Ranking

FILE_POLICY = "default-src 'none'; sandbox"
"""What an uploaded file may do in a browser: be looked at. No script, no form, no origin to speak for."""
REASONS = {
    400: "The request cannot be read, or its values contradict each other.",
    401: "A token is wanted and was not given, or is not known.",
    403: "The request comes from a page of another site, under a foreign host name, or to an impossible address.",
    404: "There is no such document.",
    413: "The request is larger than allowed.",
    422: "The request does not have the form described here.",
    429: "Too many requests; try again later.",
    503: "The index or a model is not available.",
}
"""Status of an answer that is a `Problem`, and what it means."""
MAX_REASON_CHARS = 1000


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, "description": REASONS[status]} for status in statuses}


def _links(doc_id: str) -> dict[str, Any]:
    """What can be done next with the document whose id stands at this place of the answer."""
    parameters = {"doc_id": f"$response.body#{doc_id}"}
    return {
        "read": {"operationId": "read_file", "parameters": parameters},
        "delete": {"operationId": "delete_document", "parameters": parameters},
    }


def _asking(request: Request) -> str:
    """The owner, as the door found out."""
    owner: str = request.state.owner
    return owner


Owner = Annotated[str, Depends(_asking)]
PDF = {"application/pdf": {"schema": {"type": "string", "format": "binary"}}}
WORDS = {"text/plain": {"schema": {"type": "string"}}}
RANGE = {
    "name": "Range",
    "in": "header",
    "description": "Read parts of the file alone: `bytes=0-1023`.",
    "schema": {"type": "string"},
}
FILE_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The PDF.", "content": PDF},
    206: {
        "description": "The ranges that were asked for.",
        "content": {**PDF, "multipart/byteranges": {"schema": {"type": "string", "format": "binary"}}},
    },
    400: {"description": "The range cannot be read.", "content": WORDS},
    416: {"description": "The range lies outside the file.", "content": WORDS},
}


def create_api(services: Callable[[], Services]) -> FastAPI:
    """The API over services that are made at the first request."""
    api = FastAPI(
        title="Second Look",
        description="Two-stage retrieval over your PDFs, with both orders of every question. Where the operator "
        "asks for a token, send it as `Authorization: Bearer TOKEN`.",
        version=app_version(),
        responses=_problems(401, 403, 413, 429, 503),
        # their pages load scripts from another host, which the content policy forbids
        docs_url=None,
        redoc_url=None,
    )

    api.add_middleware(Door, access=lambda: services().access, limits=lambda: services().limits)

    @api.exception_handler(UserError)
    def tell(_: Request, error: Exception) -> JSONResponse:
        status = 400 if isinstance(error, BadRequest) else 429 if isinstance(error, LimitReached) else 503
        return JSONResponse({"detail": str(error)}, status_code=status)

    @api.exception_handler(RequestValidationError)
    def explain(_: Request, error: Exception) -> JSONResponse:
        # FastAPI's own answer repeats the value, which JSON cannot always hold (half a surrogate pair, NaN)
        return JSONResponse({"detail": _unusable(error)}, status_code=422)

    @api.exception_handler(405)
    def name_methods(request: Request, _: Exception) -> JSONResponse:
        # the router knows the first route of a path alone
        allowed = ", ".join(_methods(api, request))
        return JSONResponse(
            {"detail": f"Only {allowed} can be used here."}, status_code=405, headers={"Allow": allowed}
        )

    @api.get("/health", operation_id="health", response_model=Health)
    def health() -> dict[str, Any]:
        """Say that the app runs, and whether its models are loaded."""
        return {"status": "ok", "models_loaded": services().warm}

    @api.get(
        "/documents",
        operation_id="list_documents",
        response_model=list[DocumentItem],
        responses={200: {"links": _links("/0/id")}},
    )
    def documents(owner: Owner) -> list[dict[str, Any]]:
        """All documents, newest first."""
        return [document_data(found) for found in services().store.documents(owner=owner)]

    @api.post(
        "/documents",
        operation_id="upload_documents",
        status_code=202,
        response_model=list[UploadItem],
        responses={**_problems(400, 422), 202: {"links": _links("/0/doc_id")}},
    )
    def upload(owner: Owner, files: Annotated[list[UploadFile], File(min_length=1)]) -> list[dict[str, Any]]:
        """Queue PDFs; each upload comes back with its state, `refused` ones with the reason."""
        queue = services().queue
        queue.check_room(len(files), owner=owner)
        return [
            job_data(queue.add(file.filename or "unnamed.pdf", file.file.read(), owner=owner))
            for file in files
        ]

    @api.get("/uploads", operation_id="list_uploads", response_model=list[UploadItem])
    def uploads(owner: Owner) -> list[dict[str, Any]]:
        """The upload queue, oldest first, with progress."""
        return [job_data(job) for job in services().queue.jobs(owner=owner)]

    @api.delete(
        "/documents/{doc_id}",
        operation_id="delete_document",
        status_code=204,
        responses=_problems(404, 422),
    )
    def delete(owner: Owner, doc_id: DocId) -> None:
        """Remove a document, its chunks and its file, for good."""
        _known(services(), doc_id, owner)
        services().forget(services().delete(doc_id, owner=owner))

    @api.get(
        "/documents/{doc_id}/file",
        operation_id="read_file",
        response_class=FileResponse,
        responses={**_problems(404, 422), **FILE_ANSWERS},
        openapi_extra={"parameters": [RANGE]},
    )
    def original(owner: Owner, doc_id: DocId, inline: bool = False) -> FileResponse:
        """The PDF as it was uploaded: to keep, or with `inline=true` to read in the browser."""
        document = _known(services(), doc_id, owner)
        path = services().originals.path(doc_id, owner=owner)
        if not path.exists():
            raise HTTPException(404, f"The file of {document.source} is gone. Upload it again.")
        return FileResponse(
            path,
            media_type="application/pdf",
            filename=document.source,
            content_disposition_type="inline" if inline else "attachment",
            headers={"Content-Security-Policy": FILE_POLICY},
        )

    @api.post("/search", operation_id="search", response_model=Found, responses=_problems(400, 422))
    def search(owner: Owner, query: Query) -> dict[str, Any]:
        """A question's candidates in both orders, with the parameters used and what to be wary of."""
        return _data(_rank(services(), query, owner), query, services(), owner)

    @api.post("/ask", operation_id="ask", response_model=Asked, responses=_problems(400, 422))
    def ask(owner: Owner, query: Query) -> dict[str, Any]:
        """A cited answer, with the candidates it was chosen from; `error` says where an LLM endpoint failed."""
        ranking = _rank(services(), query, owner)
        answered = answer(ranking, services().answerer, reranked=query.reranking)
        return {**_data(ranking, query, services(), owner), "answer": answered_data(answered)}

    return api


def _unusable(error: Exception) -> str:
    """What is wrong with a request, place by place, without repeating its values."""
    if not isinstance(error, RequestValidationError):
        raise TypeError(type(error))
    found = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()]
    # a field's name can be hostile as well
    return "; ".join(found)[:MAX_REASON_CHARS].encode(errors="replace").decode()


def _methods(api: FastAPI, request: Request) -> list[str]:
    """All methods that the path of a request knows."""
    found = {
        method
        for route in api.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }
    return sorted(found)


def _rank(services: Services, query: Query, owner: str) -> Ranking:
    return rank(
        services.limits.question(query.question),
        services.stages_of(owner),
        depth=query.depth,
        sources=query.sources,
        reranking=query.reranking,
        owner=owner,
        doc_ids=query.doc_ids,
    )


def _data(ranking: Ranking, query: Query, services: Services, owner: str) -> dict[str, Any]:
    return search_data(
        ranking,
        depth=query.depth,
        reranking=query.reranking,
        doc_ids=query.doc_ids,
        reranker_problem=services.stages_of(owner).reranker_problem,
    )


def _known(services: Services, doc_id: str, owner: str) -> Document:
    for document in services.store.documents(owner=owner):
        if document.id == doc_id:
            return document
    raise HTTPException(404, f"There is no document {doc_id[:12]}...")
