"""The embedded store: Qdrant Edge, Qdrant's own engine in this process.

Search is exact: no HNSW graph is ever built. The library holds Python's lock in every call: some
milliseconds for a search of 50,000 chunks, and as long as the disk takes to sync (hundredths to
tenths of a second) at the end of `add` and `delete`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import qdrant_edge as edge

from ingest.errors import IndexLocked, StoreUnavailable
from ingest.store import BM25, DENSE, INDEXED_FIELDS, Recipe
from ingest.store.points import BATCH, Point, PointStore, Where

_PAGE = 1000
_NEVER = 10**9
"""Kilobytes at which the library would build an HNSW graph."""


class EdgeStore(PointStore):
    """The Store protocol on one folder, which one process holds at a time; made by `open_edge_store`."""

    def __init__(self, shard: edge.EdgeShard, folder: Path, recipe: Recipe) -> None:
        # Nobody else can be writing: what is unfinished and not ours was left behind.
        super().__init__(recipe, grace_seconds=0)
        self._shard = shard
        self._folder = folder
        self._bm25 = edge.Bm25()
        self._settle(f"The index in {folder}", "move that folder away and ingest again")

    def close(self) -> None:
        """Flush and let go of the folder; a second call does nothing."""
        with _translated(self._folder):
            self._shard.close()

    def _index_fields(self) -> None:
        with _translated(self._folder):
            for name in INDEXED_FIELDS:
                schema = edge.KeywordIndexParams(is_tenant=name == "owner")
                self._shard.update(edge.UpdateOperation.create_field_index(name, schema))

    def _put(self, points: Sequence[Point]) -> None:
        with _translated(self._folder):
            rows = [edge.Point(point.id, self._vectors(point), point.payload) for point in points]
            self._shard.update(edge.UpdateOperation.upsert_points(rows))

    def _vectors(self, point: Point) -> dict[str, edge.NamedVector]:
        if point.dense is None:
            return {}
        return {DENSE: point.dense.tolist(), BM25: self._bm25.embed_document(point.passage)}

    def _drop(self, ids: Collection[str]) -> None:
        with _translated(self._folder):
            self._shard.update(edge.UpdateOperation.delete_points(list(ids)))

    def _get(self, id_: str) -> dict[str, Any] | None:
        with _translated(self._folder):
            found = self._shard.retrieve([id_], with_payload=True, with_vector=False)
        return found[0].payload if found else None

    def _scan(self, where: Where, *, payload: bool = True, vectors: bool = False) -> Iterator[Point]:
        offset: edge.PointId | None = None
        while True:
            with _translated(self._folder):
                records, offset = self._shard.scroll(
                    edge.ScrollRequest(
                        offset=offset,
                        limit=BATCH if vectors else _PAGE,
                        filter=_filter(where),
                        with_payload=payload,
                        with_vector=[DENSE] if vectors else False,
                    )
                )
            for record in records:
                yield Point(str(record.id), record.payload or {}, _dense(record))
            if offset is None:
                return

    def _size(self, where: Where) -> int:
        with _translated(self._folder):
            return self._shard.count(edge.CountRequest(exact=True, filter=_filter(where)))

    def _near(
        self, vector: npt.NDArray[np.float32], limit: int, where: Where
    ) -> list[tuple[dict[str, Any], float]]:
        request = edge.QueryRequest(
            limit=limit,
            query=edge.Query.Nearest(vector.tolist(), using=DENSE),
            filter=_filter(where),
            with_payload=True,
            params=edge.SearchParams(exact=True),
        )
        with _translated(self._folder):
            return [(point.payload or {}, point.score) for point in self._shard.query(request)]

    def _near_words(self, question: str, limit: int, where: Where) -> list[tuple[dict[str, Any], float]]:
        words = self._bm25.embed_query(question)
        if not words.indices:
            return []
        request = edge.QueryRequest(
            limit=limit,
            query=edge.Query.Nearest(words, using=BM25),
            filter=_filter(where),
            with_payload=True,
        )
        with _translated(self._folder):
            return [(point.payload or {}, point.score) for point in self._shard.query(request)]

    def _flush(self) -> None:
        with _translated(self._folder):
            self._shard.flush()

    def _compact(self) -> None:
        with _translated(self._folder):
            self._shard.optimize()


def open_edge_store(folder: Path, recipe: Recipe) -> EdgeStore:
    """Open the index in a folder, or make one there.

    Raises IndexLocked while another process has it open, IndexMismatch where it was made with
    another recipe, StoreUnavailable where it is damaged or the folder cannot be used.
    """
    with _translated(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # An index that is there keeps its own configuration; the recipe in it says whether it fits.
        config = None if (folder / "edge_config.json").exists() else _config(recipe)
        shard = edge.EdgeShard.load(str(folder), config)
    try:
        return EdgeStore(shard, folder, recipe)
    except BaseException:
        shard.close()
        raise


def _config(recipe: Recipe) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors={DENSE: edge.EdgeVectorParams(size=recipe.dimension, distance=edge.Distance.Cosine)},
        sparse_vectors={BM25: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        hnsw_config=edge.HnswIndexConfig(m=0, ef_construct=4, full_scan_threshold=_NEVER),
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=_NEVER, default_segment_number=1),
    )


def _filter(where: Where) -> edge.Filter:
    must: list[edge.ConditionType] = []
    for key, value in (("kind", where.kind), ("owner", where.owner)):
        if value is not None:
            must.append(edge.FieldCondition(key, match=edge.MatchValue(value)))
    if where.doc_ids is not None:
        must.append(_any_of(where.doc_ids))
    if where.ids is not None:
        must.append(edge.HasIdCondition(set(where.ids)))
    return edge.Filter(must=must, must_not=[_any_of(where.hidden)] if where.hidden else None)


def _any_of(doc_ids: Collection[str]) -> edge.FieldCondition:
    return edge.FieldCondition("doc_id", match=edge.MatchAny(list(doc_ids)))


def _dense(record: edge.Record) -> npt.NDArray[np.float32] | None:
    vector = record.vector
    return np.asarray(vector[DENSE], np.float32) if isinstance(vector, dict) and DENSE in vector else None


@contextmanager
def _translated(folder: Path) -> Iterator[None]:
    """Turn the library's errors into ours.

    It raises plain Exception, and a Rust panic on some damaged files, which is a BaseException
    that cannot be imported.
    """
    try:
        yield
    except BaseException as error:
        if type(error) is Exception or type(error).__name__ == "PanicException" or isinstance(error, OSError):
            raise _ours(error, folder) from error
        raise


def _ours(error: BaseException, folder: Path) -> IndexLocked | StoreUnavailable:
    reason = str(error)
    if "WouldBlock" in reason:
        return IndexLocked(
            f"Another process has the index in {folder} open: stop it, ask through the app that is running, "
            "or set QDRANT_URL to a Qdrant server, which many processes can share."
        )
    if "Shard is not initialized" in reason:
        return StoreUnavailable(f"The index in {folder} is closed: start the app again.")
    return StoreUnavailable(
        f"The index in {folder} cannot be used ({reason[:200]}). Check the disk's free space and the "
        "folder's permissions; if the index is damaged, move the folder away and ingest again."
    )
