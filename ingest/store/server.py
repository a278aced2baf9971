"""The shared store: a Qdrant server or cluster, through qdrant-client over HTTP.

What a second reader, in another process, can see: never a chunk of a document whose point was
written as unfinished before that reader asked for the unfinished ones. Should a write begin between
the two requests of one search (milliseconds), that search may see some of its chunks. Within a
process even that cannot happen. `sweep` spares what another process began within the last hour.

Importing this module takes a second: import it only where QDRANT_URL is set.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import numpy as np
import numpy.typing as npt
import qdrant_edge
import tenacity
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from ingest.errors import StoreUnavailable
from ingest.store import BM25, DENSE, INDEXED_FIELDS, Recipe
from ingest.store.points import BATCH, Point, PointStore, Where

_PAGE = 1000
_EXACT_UP_TO = 100_000
"""Chunks of one owner up to which the server searches all of them; beyond, it may use its HNSW graph."""
_GRACE_SECONDS = 3600.0
PAUSES = (0.25, 1.0, 3.0)
"""Seconds before each further try of a request that failed for the moment."""
PATIENCE_SECONDS = 8.0
"""After this time no request is tried again, nor where the server asks to wait longer."""
T = TypeVar("T")
_BAD_URL = "QDRANT_URL must look like http://localhost:6333 or https://qdrant.example.com:6333."


class ServerStore(PointStore):
    """The Store protocol on one collection of a server; made by `open_server_store`."""

    def __init__(
        self,
        client: QdrantClient,
        collection: str,
        recipe: Recipe,
        *,
        address: str,
        grace_seconds: float = _GRACE_SECONDS,
        pauses: Sequence[float] = PAUSES,
        kept: int = 0,
    ) -> None:
        super().__init__(recipe, grace_seconds=grace_seconds)
        self._client = client
        self._collection = collection
        self._address = address
        self._retrying = _retrying(pauses)
        # The values are those of the server's own "qdrant/bm25" model with its default options.
        self._bm25 = qdrant_edge.Bm25()
        self._create_if_missing(kept)
        self._settle(
            f"Collection {collection} at {address}",
            "set QDRANT_COLLECTION to a new name and run `second-look rebuild`",
        )

    def close(self) -> None:
        """Close the connections; a second call does nothing."""
        self._client.close()

    def _create_if_missing(self, kept: int) -> None:
        if self._call(lambda: self._client.collection_exists(self._collection)):
            return
        if kept:
            raise StoreUnavailable(
                f"Qdrant at {self._address} has no collection {self._collection}, but documents are kept here "
                f"({kept:,}): correct QDRANT_URL or QDRANT_COLLECTION, or run `second-look rebuild`, which makes "
                "the collection anew from the kept files."
            )
        self._call(self._create)

    def _create(self) -> None:
        size = self._recipe.dimension
        try:
            self._client.create_collection(
                self._collection,
                vectors_config={DENSE: models.VectorParams(size=size, distance=models.Distance.COSINE)},
                sparse_vectors_config={BM25: models.SparseVectorParams(modifier=models.Modifier.IDF)},
                # In kilobytes of vectors, https://qdrant.tech/documentation/concepts/indexing/
                hnsw_config=models.HnswConfigDiff(full_scan_threshold=_EXACT_UP_TO * size * 4 // 1024),
            )
        except UnexpectedResponse as error:
            if error.status_code != httpx.codes.CONFLICT:  # another process, or an earlier try, was faster
                raise

    def _index_fields(self) -> None:
        for name in INDEXED_FIELDS:
            schema = models.KeywordIndexParams(
                type=models.KeywordIndexType.KEYWORD, is_tenant=name == "owner"
            )
            self._call(
                self._client.create_payload_index, self._collection, name, field_schema=schema, wait=True
            )

    def _put(self, points: Sequence[Point]) -> None:
        rows = [
            models.PointStruct(id=point.id, vector=self._vectors(point), payload=point.payload)
            for point in points
        ]
        self._call(self._client.upsert, self._collection, points=rows, wait=True)

    def _vectors(self, point: Point) -> dict[str, models.Vector]:
        if point.dense is None:
            return {}
        terms = self._bm25.embed_document(point.passage)
        sparse = models.SparseVector(indices=terms.indices, values=terms.values)
        return {DENSE: point.dense.tolist(), BM25: sparse}

    def _drop(self, ids: Collection[str]) -> None:
        if ids:
            selector = models.PointIdsList(points=list(ids))
            self._call(self._client.delete, self._collection, points_selector=selector, wait=True)

    def _get(self, id_: str) -> dict[str, Any] | None:
        found = self._call(self._client.retrieve, self._collection, [id_], with_payload=True)
        return found[0].payload if found else None

    def _scan(self, where: Where, *, payload: bool = True, vectors: bool = False) -> Iterator[Point]:
        offset: Any = None
        while True:
            records, offset = self._call(
                self._client.scroll,
                self._collection,
                scroll_filter=_filter(where),
                offset=offset,
                limit=BATCH if vectors else _PAGE,
                with_payload=payload,
                with_vectors=[DENSE] if vectors else False,
            )
            for record in records:
                yield Point(str(record.id), record.payload or {}, _dense(record))
            if offset is None:
                return

    def _size(self, where: Where) -> int:
        counted = self._call(self._client.count, self._collection, count_filter=_filter(where), exact=True)
        return counted.count

    def _near(
        self, vector: npt.NDArray[np.float32], limit: int, where: Where
    ) -> list[tuple[dict[str, Any], float]]:
        answer = self._call(
            self._client.query_points,
            self._collection,
            query=vector.tolist(),
            using=DENSE,
            query_filter=_filter(where),
            limit=limit,
            with_payload=True,
        )
        return [(point.payload or {}, point.score) for point in answer.points]

    def _near_words(self, question: str, limit: int, where: Where) -> list[tuple[dict[str, Any], float]]:
        words = self._bm25.embed_query(question)
        if not words.indices:
            return []
        answer = self._call(
            self._client.query_points,
            self._collection,
            query=models.SparseVector(indices=words.indices, values=words.values),
            using=BM25,
            query_filter=_filter(where),
            limit=limit,
            with_payload=True,
        )
        return [(point.payload or {}, point.score) for point in answer.points]

    def _call(self, request: Callable[..., T], *values: Any, **options: Any) -> T:
        """One request, tried again where that can help: all of them can be sent twice without harm."""
        with _translated(self._address, self._collection):
            return self._retrying(request, *values, **options)


def open_server_store(
    url: str,
    api_key: str,
    collection: str,
    recipe: Recipe,
    *,
    timeout: float = 10.0,
    pauses: Sequence[float] = PAUSES,
    kept: int = 0,
) -> ServerStore:
    """Open a collection of a Qdrant server, or make it there.

    `url` is like http://host:6333, or ":memory:" for tests; an empty `api_key` means none;
    `timeout` is in seconds for each request, rounded up; `pauses` are the seconds before each further try of one
    that failed for the moment. With documents `kept`, a missing collection is not made anew in silence. Raises
    StoreUnavailable where the server cannot be used, IndexMismatch where the collection was made with another
    recipe.
    """
    if url == ":memory:":
        return ServerStore(QdrantClient(url), collection, recipe, address=url)
    address = _address(url)
    if not api_key.isascii() or not api_key.isprintable():
        raise StoreUnavailable("QDRANT_API_KEY has a character that no API key has: copy it again.")
    client = QdrantClient(
        address,
        api_key=api_key or None,
        timeout=math.ceil(timeout),
        check_compatibility=False,  # it asks in a thread and warns; a server too old says so by itself
    )
    try:
        return ServerStore(client, collection, recipe, address=address, pauses=pauses, kept=kept)
    except BaseException:
        client.close()
        raise


def _address(url: str) -> str:
    """Check the URL and complete it with Qdrant's port; what it returns can be shown."""
    try:
        parts = urlsplit(url)
        port = "" if parts.port else ":6333"
    except ValueError:
        raise StoreUnavailable(_BAD_URL) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise StoreUnavailable(_BAD_URL)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise StoreUnavailable("QDRANT_URL must hold no key or password: set QDRANT_API_KEY instead.")
    return f"{parts.scheme}://{parts.netloc}{port}{parts.path.rstrip('/')}"


def _filter(where: Where) -> models.Filter:
    must: list[models.Condition] = []
    for key, value in (("kind", where.kind), ("owner", where.owner)):
        if value is not None:
            must.append(models.FieldCondition(key=key, match=models.MatchValue(value=value)))
    if where.doc_ids is not None:
        must.append(_any_of(where.doc_ids))
    if where.ids is not None:
        must.append(models.HasIdCondition(has_id=list(where.ids)))
    return models.Filter(must=must, must_not=[_any_of(where.hidden)] if where.hidden else None)


def _any_of(doc_ids: Collection[str]) -> models.FieldCondition:
    return models.FieldCondition(key="doc_id", match=models.MatchAny(any=list(doc_ids)))


def _dense(record: models.Record) -> npt.NDArray[np.float32] | None:
    vector = record.vector
    return np.asarray(vector[DENSE], np.float32) if isinstance(vector, dict) and DENSE in vector else None


def _retrying(pauses: Sequence[float]) -> tenacity.Retrying:
    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after_s if isinstance(error, ResourceExhaustedResponse) else 0
        return max(float(asked), pauses[min(state.attempt_number, len(pauses)) - 1] if pauses else 0.0)

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(_passes),
        wait=wait,
        stop=tenacity.stop_any(
            tenacity.stop_after_attempt(len(pauses) + 1), tenacity.stop_before_delay(PATIENCE_SECONDS)
        ),
        reraise=True,
    )


def _passes(error: BaseException) -> bool:
    """Whether another try may help. Not after a time-out: whoever asked has waited long enough."""
    if isinstance(error, UnexpectedResponse):
        code = error.status_code or 0
        return code == httpx.codes.TOO_MANY_REQUESTS or code >= httpx.codes.INTERNAL_SERVER_ERROR
    if isinstance(error, ResponseHandlingException):
        return isinstance(error.source, httpx.TransportError) and not isinstance(
            error.source, httpx.TimeoutException
        )
    return isinstance(error, ResourceExhaustedResponse)


@contextmanager
def _translated(address: str, collection: str) -> Iterator[None]:
    """Turn the client's errors into StoreUnavailable; none of them holds the key."""
    try:
        yield
    except UnexpectedResponse as error:
        raise StoreUnavailable(_refusal(error, address, collection)) from error
    except (ApiException, QdrantException) as error:
        raise StoreUnavailable(_silence(error, address)) from error
    except (json.JSONDecodeError, UnicodeDecodeError, AssertionError) as error:
        raise StoreUnavailable(_nonsense(address)) from error


def _refusal(error: UnexpectedResponse, address: str, collection: str) -> str:
    code = error.status_code or 0
    if code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return (
            f"Qdrant at {address} refused the API key ({code}): set QDRANT_API_KEY to one that may "
            f"write to collection {collection}."
        )
    if code == httpx.codes.NOT_FOUND:
        return (
            f"Qdrant at {address} has no collection {collection} (404): correct QDRANT_URL, or start the "
            "app again to make the collection anew."
        )
    if code == httpx.codes.TOO_MANY_REQUESTS:
        return _busy(address)
    return f"Qdrant at {address} answered with an error ({code}): look at its log, then try again."


def _silence(error: Exception, address: str) -> str:
    source = error.source if isinstance(error, ResponseHandlingException) else error
    if isinstance(source, httpx.TimeoutException):
        return f"Qdrant at {address} did not answer in time: try again, and if it stays so look at its load."
    if isinstance(source, httpx.HTTPError):
        return (
            f"Qdrant at {address} cannot be reached: start it, or correct QDRANT_URL; without QDRANT_URL "
            "the app keeps an index of its own."
        )
    if isinstance(source, RuntimeError):
        return f"The connection to Qdrant at {address} is closed: start the app again."
    if isinstance(source, QdrantException):
        return _busy(address)
    return _nonsense(address)


def _busy(address: str) -> str:
    return f"Qdrant at {address} has too much to do: try again in a minute."


def _nonsense(address: str) -> str:
    return (
        f"What answers at {address} is not Qdrant, or a version this app cannot talk to: correct QDRANT_URL."
    )
