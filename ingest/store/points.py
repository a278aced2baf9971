"""What both stores share: the Store protocol on top of a few operations on Qdrant's points."""

from __future__ import annotations

import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.errors import IndexMismatch, StoreUnavailable
from ingest.store import (
    LOCAL_OWNER,
    Recipe,
    Stored,
    Vectors,
    chunk_from,
    chunk_payload,
    document_from,
    document_payload,
    point_id,
)
from ingest.types import Chunk, Document

BATCH = 256
"""Chunks per write: some megabytes, whatever the embedder."""
META_ID = point_id("", "recipe")
"""Id of the point that records the recipe of an index."""


@dataclass(frozen=True, slots=True)
class Point:
    """What is written to and read from Qdrant; only a chunk has `dense` (dim,) and a `passage` for BM25."""

    id: str
    payload: dict[str, Any]
    dense: npt.NDArray[np.float32] | None = None
    passage: str = ""


@dataclass(frozen=True, slots=True)
class Where:
    """A filter: each field that is set must match, and no document in `hidden` does; `ids` are of points."""

    kind: str | None = None
    owner: str | None = None
    doc_ids: Sequence[str] | None = None
    hidden: Collection[str] = ()
    ids: Sequence[str] | None = None


class PointStore(ABC):
    """The Store protocol on top of a few operations on points, which a subclass provides.

    `grace_seconds` is how long `sweep` spares what another writer has not finished.
    """

    def __init__(self, recipe: Recipe, *, grace_seconds: float) -> None:
        self._recipe = recipe
        self._grace_seconds = grace_seconds
        self._writer = uuid.uuid4().hex
        self._turns = _Turns()
        self._place = self._way_out = ""

    def add(
        self, document: Document, chunks: Sequence[Chunk], vectors: Vectors, *, owner: str = LOCAL_OWNER
    ) -> None:
        """Write a document; see Store."""
        _check_parts(document, chunks, vectors, self._recipe.dimension)
        ids = [point_id(owner, chunk.id) for chunk in chunks]
        with self._turns.holding(owner, document.id):
            before = self._chunk_ids(owner, document.id)
            if before != set(ids) or self._document(owner, document.id) is None:
                self._hide(owner, document.id)
            self._drop(before - set(ids))
            for start in range(0, len(chunks), BATCH):
                self._put(
                    [
                        Point(ids[i], chunk_payload(chunk, owner), vectors[i], chunk.passage)
                        for i, chunk in enumerate(chunks[start : start + BATCH], start)
                    ]
                )
            self._put([Point(point_id(owner, document.id), document_payload(document, owner))])
            self._flush()
        self._compact()

    def take(self, doc_id: str, *, owner: str = LOCAL_OWNER) -> Stored | None:
        """Read a whole document, chunks in reading order; see Store."""
        with self._turns.holding(owner, doc_id):
            document = self._document(owner, doc_id)
            if document is None:
                return None
            points = list(self._scan(Where("chunk", owner, [doc_id]), vectors=True))
        with self._readable():
            points.sort(key=lambda point: tuple(point.payload[name] for name in ("page", "start", "end")))
            rows = [point.dense for point in points if point.dense is not None]
            return Stored(
                document,
                tuple(chunk_from(point.payload) for point in points),
                np.stack(rows) if rows else np.empty((0, self._recipe.dimension), np.float32),
            )

    def delete(self, doc_id: str, *, owner: str = LOCAL_OWNER) -> bool:
        """Remove a document and its chunks; see Store."""
        with self._turns.holding(owner, doc_id):
            if self._document(owner, doc_id) is None:
                return False
            self._hide(owner, doc_id)
            self._erase(owner, doc_id)
            self._flush()
        return True

    def documents(self, *, owner: str = LOCAL_OWNER) -> list[Document]:
        """All documents of an owner, newest first, then by file name."""
        with self._readable():
            found = [document_from(point.payload) for point in self._scan(Where("document", owner))]
        found.sort(key=lambda document: document.source)
        found.sort(key=lambda document: document.added, reverse=True)
        return found

    def count(self, *, owner: str = LOCAL_OWNER) -> int:
        """How many chunks an owner's documents have."""
        with self._turns.reading(owner) as hidden:
            return self._size(Where("chunk", owner, hidden=hidden | self._unfinished(owner)))

    def search(
        self,
        vector: npt.NDArray[np.float32],
        limit: int,
        *,
        owner: str = LOCAL_OWNER,
        doc_ids: Sequence[str] | None = None,
    ) -> list[tuple[Chunk, float]]:
        """Find the nearest chunks, best first; see Store."""
        if vector.shape != (self._recipe.dimension,) or not np.isfinite(vector).all():
            raise ValueError(f"expected a finite vector of shape ({self._recipe.dimension},)")
        if limit < 1 or (doc_ids is not None and not doc_ids):
            return []
        with self._turns.reading(owner) as hidden:
            # No condition on `kind`: only chunks have a vector, and the condition doubles the time.
            where = Where(None, owner, doc_ids, hidden | self._unfinished(owner))
            with self._readable():
                return _best(lambda fetch: self._near(vector, fetch, where), limit)

    def search_words(
        self,
        question: str,
        limit: int,
        *,
        owner: str = LOCAL_OWNER,
        doc_ids: Sequence[str] | None = None,
        chunk_ids: Sequence[str] | None = None,
    ) -> list[tuple[Chunk, float]]:
        """Find the chunks with the highest BM25, best first; see Store."""
        if limit < 1 or any(ids is not None and not ids for ids in (doc_ids, chunk_ids)):
            return []
        points = None if chunk_ids is None else [point_id(owner, id_) for id_ in chunk_ids]
        with self._turns.reading(owner) as hidden:
            where = Where(None, owner, doc_ids, hidden | self._unfinished(owner), points)
            with self._readable():
                return _best(lambda fetch: self._near_words(question, fetch, where), limit)

    def sweep(self) -> int:
        """Remove chunks of unfinished ingests; see Store."""
        removed = 0
        for point in list(self._scan(Where("unfinished"))):
            owner, doc_id = point.payload["owner"], point.payload["doc_id"]
            if self._turns.is_held(owner, doc_id) or not self._is_abandoned(point.payload):
                continue
            with self._turns.holding(owner, doc_id):
                payload = self._get(point.id)
                if payload is not None and payload["kind"] == "unfinished":
                    removed += self._erase(owner, doc_id)
        self._compact()
        return removed

    @abstractmethod
    def close(self) -> None:
        """Flush and let go of the index."""

    def _settle(self, place: str, way_out: str) -> None:
        """Record the recipe in a new index; raise IndexMismatch where it holds another one."""
        self._place, self._way_out = place, way_out
        made = self._get(META_ID)
        if made is None:
            if self._size(Where()):
                raise IndexMismatch(
                    f"{place} was not made by Second Look, or is damaged. To go on, {way_out}."
                )
            self._index_fields()
            self._put([Point(META_ID, {"kind": "meta", **_recipe_payload(self._recipe)})])
            self._flush()
        elif any(made.get(name) != value for name, value in _recipe_payload(self._recipe).items()):
            raise IndexMismatch(_mismatch(place, made, self._recipe, way_out))

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Say what it means when a point does not hold what every point of its kind holds."""
        try:
            yield
        except (KeyError, TypeError) as error:
            raise StoreUnavailable(
                f"{self._place} is damaged: a point lacks {error}. To go on, {self._way_out}."
            ) from error

    def _hide(self, owner: str, doc_id: str) -> None:
        """Take a document out of sight before its chunks change."""
        self._turns.hide(owner, doc_id)
        payload = {
            "kind": "unfinished",
            "owner": owner,
            "doc_id": doc_id,
            "writer": self._writer,
            "since": int(time.time()),
        }
        self._put([Point(point_id(owner, doc_id), payload)])

    def _erase(self, owner: str, doc_id: str) -> int:
        """Remove the chunks of a document, then its own point; returns how many chunks."""
        ids = self._chunk_ids(owner, doc_id)
        self._drop(ids)
        self._drop({point_id(owner, doc_id)})
        return len(ids)

    def _document(self, owner: str, doc_id: str) -> Document | None:
        with self._readable():
            payload = self._get(point_id(owner, doc_id))
            return document_from(payload) if payload is not None and payload["kind"] == "document" else None

    def _chunk_ids(self, owner: str, doc_id: str) -> set[str]:
        return {point.id for point in self._scan(Where("chunk", owner, [doc_id]), payload=False)}

    def _unfinished(self, owner: str) -> set[str]:
        return {point.payload["doc_id"] for point in self._scan(Where("unfinished", owner))}

    def _is_abandoned(self, unfinished: dict[str, Any]) -> bool:
        ours = unfinished["writer"] == self._writer
        return bool(ours or time.time() - unfinished["since"] >= self._grace_seconds)

    @abstractmethod
    def _index_fields(self) -> None:
        """Make the keyword indexes of INDEXED_FIELDS."""

    @abstractmethod
    def _put(self, points: Sequence[Point]) -> None:
        """Write points, in place of those with the same id."""

    @abstractmethod
    def _drop(self, ids: Collection[str]) -> None:
        """Delete points; ids that do not exist, or no ids, are fine."""

    @abstractmethod
    def _get(self, id_: str) -> dict[str, Any] | None:
        """Payload of a point."""

    @abstractmethod
    def _scan(self, where: Where, *, payload: bool = True, vectors: bool = False) -> Iterator[Point]:
        """All matching points, page by page, with what is asked for."""

    @abstractmethod
    def _size(self, where: Where) -> int:
        """How many points match."""

    @abstractmethod
    def _near(
        self, vector: npt.NDArray[np.float32], limit: int, where: Where
    ) -> list[tuple[dict[str, Any], float]]:
        """Payload and cosine of the matching points with a dense vector, best first."""

    @abstractmethod
    def _near_words(self, question: str, limit: int, where: Where) -> list[tuple[dict[str, Any], float]]:
        """Payload and BM25 of the matching points that share a word with the question, best first."""

    def _flush(self) -> None:  # noqa: B027 - a server does it by itself
        """Make what was written survive a power cut."""

    def _compact(self) -> None:  # noqa: B027 - a server does it by itself
        """Give back the room of deleted points, and make the codes of a segment that has become large."""


class _Turns:
    """Who may touch which document now: one writer for each, and no reader that sees it half written."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: set[tuple[str, str]] = set()
        self._hidden: set[tuple[str, str]] = set()
        self._readers: set[object] = set()

    @contextmanager
    def holding(self, owner: str, doc_id: str) -> Iterator[None]:
        """Wait until nobody else holds the document, then hold it."""
        key = (owner, doc_id)
        with self._changed:
            self._changed.wait_for(lambda: key not in self._held)
            self._held.add(key)
        try:
            yield
        finally:
            with self._changed:
                self._held.discard(key)
                self._hidden.discard(key)
                self._changed.notify_all()

    def hide(self, owner: str, doc_id: str) -> None:
        """Hide a held document from new readers, and wait for those that began without knowing."""
        with self._changed:
            self._hidden.add((owner, doc_id))
            earlier = frozenset(self._readers)
            self._changed.wait_for(lambda: earlier.isdisjoint(self._readers))

    def is_held(self, owner: str, doc_id: str) -> bool:
        """Tell whether somebody works on the document."""
        with self._changed:
            return (owner, doc_id) in self._held

    @contextmanager
    def reading(self, owner: str) -> Iterator[set[str]]:
        """Read; yields the ids of the owner's documents to leave out."""
        token = object()
        with self._changed:
            self._readers.add(token)
            hidden = {doc_id for holder, doc_id in self._hidden if holder == owner}
        try:
            yield hidden
        finally:
            with self._changed:
                self._readers.discard(token)
                self._changed.notify_all()


def _best(
    fetch: Callable[[int], list[tuple[dict[str, Any], float]]], limit: int
) -> list[tuple[Chunk, float]]:
    """The first `limit` chunks, equal scores by chunk id; Qdrant cuts ties as it likes, so all are fetched."""
    count = limit + 1
    scored = fetch(count)
    while len(scored) >= count and scored[-1][1] >= scored[limit - 1][1]:
        count *= 4
        scored = fetch(count)
    found = [(chunk_from(payload), score) for payload, score in scored]
    found.sort(key=lambda pair: (-pair[1], pair[0].id))
    return found[:limit]


def _check_parts(document: Document, chunks: Sequence[Chunk], vectors: Vectors, dimension: int) -> None:
    if vectors.shape != (len(chunks), dimension) or not np.isfinite(vectors).all():
        raise ValueError(f"expected finite vectors of shape ({len(chunks)}, {dimension})")
    if any(chunk.doc_id != document.id for chunk in chunks):
        raise ValueError("a chunk belongs to another document")


def _recipe_payload(recipe: Recipe) -> dict[str, Any]:
    return {"embedder": recipe.embedder, "chunker": recipe.chunker, "dimension": recipe.dimension}


def _mismatch(place: str, made: dict[str, Any], recipe: Recipe, way_out: str) -> str:
    same_embedder = (made.get("embedder"), made.get("dimension")) == (recipe.embedder, recipe.dimension)
    back = "" if same_embedder else "set EMBEDDER back, or "
    return (
        f"{place} was made with embedder {made.get('embedder')} ({made.get('dimension')} numbers) and "
        f"chunker {made.get('chunker')}; this app uses embedder {recipe.embedder} "
        f"({recipe.dimension} numbers) and chunker {recipe.chunker}. To go on, {back}{way_out}."
    )
