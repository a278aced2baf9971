"""The embedded store: Qdrant Edge, Qdrant's own engine in this process.

Search is exact: no HNSW graph is ever built. The library holds Python's lock in every call: some
milliseconds for a search of 50,000 chunks, and as long as the disk takes to sync (hundredths to
tenths of a second) at the end of `add` and `delete`.
"""

from __future__ import annotations

import fcntl
import logging
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import qdrant_edge as edge

from ingest.errors import IndexLocked, StoreUnavailable
from ingest.files import sync_folder
from ingest.store import BM25, DENSE, INDEXED_FIELDS, Recipe
from ingest.store.points import BATCH, Point, PointStore, Where

log = logging.getLogger(__name__)

RESERVE = 64_000_000
"""Bytes that stay free on the disk. The library writes into mapped files, and on a full disk such a write ends the
process instead of raising an error."""
LAST_RESERVE = 16_000_000
"""Bytes without which nothing is written at all; above it documents can still be deleted."""
ROOM_TO_COMPACT = 4_000_000_000
"""Bytes that are enough to copy segments, without looking how large they are."""
_REBUILD = (
    "stop the app and run `second-look rebuild`, which makes the index anew from the files that are kept"
)
_FOR_THE_DISK = ("No space left", "Permission denied", "Read-only", "not permitted", "Too many open files")
"""Words of the system in an error that no rebuild would help against."""
_PAGE = 1000
_NEVER = 10**9
"""Kilobytes of vectors in one segment above which the library would build an HNSW graph."""
EXACT_CHUNKS = 100_000
"""Up to this many chunks search compares the vectors themselves; above, codes of 4 bits first."""
_OVERSAMPLING = 3.0
"""So many times the chunks wanted are compared exactly after the codes have found them."""
_SEGMENT = 20_000
"""Chunks after which a segment is closed and its codes are made, which takes tenths of a second."""
_SEGMENTS = 512
"""Segments that the library leaves alone; more of them it would merge, in one long step."""


class EdgeStore(PointStore):
    """The Store protocol on one folder, which one process holds at a time; made by `open_edge_store`."""

    def __init__(self, shard: edge.EdgeShard, folder: Path, recipe: Recipe, lock: IO[bytes]) -> None:
        # Nobody else can be writing: what is unfinished and not ours was left behind.
        super().__init__(recipe, grace_seconds=0)
        self._shard = shard
        self._folder = folder
        self._lock = lock
        self._bm25 = edge.Bm25()
        self._settle(f"The index in {folder}", _REBUILD)

    def close(self) -> None:
        """Flush and let go of the folder; a second call does nothing."""
        with _translated(self._folder):
            self._shard.close()
        self._lock.close()

    def check(self) -> None:
        """Look whether all documents are whole. Raises StoreUnavailable where the index lost something.

        Finds what is missing, not what was changed: the library keeps no sums of its files.
        """
        with self._readable():
            documents = {
                (point.payload["owner"], point.payload["doc_id"]): int(point.payload["chunks"])
                for point in self._scan(Where("document"))
            }
        unfinished = {point.payload["doc_id"] for point in self._scan(Where("unfinished"))}
        chunks = self._size(Where("chunk", hidden=unfinished))
        promised = sum(count for (_, doc_id), count in documents.items() if doc_id not in unfinished)
        with _translated(self._folder):
            dense = edge.Filter(must=[edge.HasVectorCondition(DENSE)])
            with_vector = self._shard.count(edge.CountRequest(exact=True, filter=dense))
        if chunks != promised or with_vector != self._size(Where("chunk")) or not self._finds_itself():
            raise StoreUnavailable(
                f"{self._place} is damaged: its documents should have {promised:,} passages, and {chunks:,} can "
                f"be read. To go on, {_REBUILD}."
            )

    def _finds_itself(self) -> bool:
        """Whether a search for a chunk's own vector finds something as near."""
        first = next(self._scan(Where("chunk"), vectors=True), None)
        if first is None:
            return True
        if first.dense is None or not first.dense.any():
            return False
        found = self._near(first.dense, 1, Where())
        return bool(found) and found[0][1] > 0.99

    def _index_fields(self) -> None:
        with _translated(self._folder):
            for name in INDEXED_FIELDS:
                schema = edge.KeywordIndexParams(is_tenant=name == "owner")
                self._shard.update(edge.UpdateOperation.create_field_index(name, schema))

    def _put(self, points: Sequence[Point]) -> None:
        chunks = [point for point in points if point.dense is not None]
        if chunks:
            size = sum(16 * self._recipe.dimension + 4 * len(point.passage) + 4096 for point in chunks)
            _check_room(self._folder, RESERVE + size)
        else:
            _check_room(self._folder, LAST_RESERVE)
        with _translated(self._folder):
            rows = [edge.Point(point.id, self._vectors(point), point.payload) for point in points]
            self._shard.update(edge.UpdateOperation.upsert_points(rows))

    def _vectors(self, point: Point) -> dict[str, edge.NamedVector]:
        if point.dense is None:
            return {}
        return {DENSE: point.dense.tolist(), BM25: self._bm25.embed_document(point.passage)}

    def _drop(self, ids: Collection[str]) -> None:
        _check_room(self._folder, LAST_RESERVE)
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
            params=self._how(),
        )
        with _translated(self._folder):
            return [(point.payload or {}, point.score) for point in self._shard.query(request)]

    def _how(self) -> edge.SearchParams:
        """Exactly, or among very many chunks by their codes with the best compared exactly."""
        with _translated(self._folder):
            exact = self._shard.info().points_count <= EXACT_CHUNKS
        quantization = edge.QuantizationSearchParams(ignore=exact, rescore=True, oversampling=_OVERSAMPLING)
        return edge.SearchParams(exact=exact, quantization=quantization)

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
        free = _free(self._folder)
        if free < ROOM_TO_COMPACT and free < _used(self._folder) + RESERVE:
            log.warning("The disk of %s is too full to give back the room of deleted passages.", self._folder)
            return
        with _translated(self._folder):
            self._shard.optimize()


def open_edge_store(folder: Path, recipe: Recipe, *, kept: int = 0) -> EdgeStore:
    """Open the index in a folder, or make one there.

    `kept` is how many documents there must be: with any, an index that is gone is not made anew in silence.
    Raises IndexLocked while another process has it open, IndexMismatch where it was made with
    another recipe, StoreUnavailable where it is damaged or the folder cannot be used.
    """
    lock = _lock(folder)
    try:
        with _translated(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            _check_room(folder, LAST_RESERVE)
            if _is_absent(folder):
                _expect_none(kept, folder)
                _make(folder, recipe, lock)
            # An index that is there keeps its own configuration; the recipe in it says whether it fits.
            config = None if (folder / "edge_config.json").exists() else _config(recipe)
            shard = edge.EdgeShard.load(str(folder), config)
        try:
            store = EdgeStore(shard, folder, recipe, lock)
            store.check()
            return store
        except BaseException:
            shard.close()
            raise
    except BaseException:
        lock.close()
        raise


def move_aside(folder: Path) -> Path | None:
    """Rename the folder of an index, which is never deleted; returns its new place, None where there is none.

    Raises IndexLocked while a process has it open, StoreUnavailable.
    """
    with closing(_lock(folder)), _translated(folder):
        if _is_absent(folder):
            return None
        stamp = datetime.now(UTC).strftime("%Y-%m-%d-%H%M%S")
        names = (f"{folder.name}.broken-{stamp}{more}" for more in ("", *(f"-{n}" for n in range(2, 1000))))
        aside = next(path for path in map(folder.with_name, names) if not path.exists())
        folder.rename(aside)
        sync_folder(folder.parent)
        return aside


def _make(folder: Path, recipe: Recipe, lock: IO[bytes]) -> None:
    """Make an empty index beside its place and put it there at once: a kill leaves none, or a whole one."""
    beside = folder.with_name(f"{folder.name}.new")
    if beside.exists():
        shutil.rmtree(beside)
    beside.mkdir()
    shard = edge.EdgeShard.load(str(beside), _config(recipe))
    try:
        EdgeStore(shard, beside, recipe, lock)
    finally:
        shard.close()
    beside.rename(folder)
    sync_folder(folder.parent)


def _lock(folder: Path) -> IO[bytes]:
    """One process for each index, also while it is damaged or being made; the lock ends with the process."""
    with _translated(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        file = folder.with_name(f"{folder.name}.lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise _locked(folder) from error
    return file


def _is_absent(folder: Path) -> bool:
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def _expect_none(kept: int, folder: Path) -> None:
    if kept:
        documents = "1 document is" if kept == 1 else f"{kept:,} documents are"
        raise StoreUnavailable(f"The index in {folder} is gone or empty, but {documents} kept: {_REBUILD}.")


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder if folder.exists() else folder.parent).free


def _used(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def _check_room(folder: Path, needed: int) -> None:
    free = _free(folder)
    if free < needed:
        raise StoreUnavailable(
            f"The disk of {folder} is full: {free / 1e6:.0f} MB are free, {needed / 1e6:.0f} MB are needed. Free "
            "some space, then try again."
        )


def _config(recipe: Recipe) -> edge.EdgeConfig:
    codes = edge.TurboQuantQuantizationConfig(bits=edge.TurboQuantBitSize.Bits4, always_ram=True)
    vectors = edge.EdgeVectorParams(
        size=recipe.dimension, distance=edge.Distance.Cosine, on_disk=True, quantization_config=codes
    )
    kilobytes = _SEGMENT * recipe.dimension * 4 // 1024
    return edge.EdgeConfig(
        vectors={DENSE: vectors},
        sparse_vectors={BM25: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        on_disk_payload=True,
        hnsw_config=edge.HnswIndexConfig(m=0, ef_construct=4, full_scan_threshold=_NEVER),
        optimizers=edge.EdgeOptimizersConfig(
            indexing_threshold=kilobytes, default_segment_number=_SEGMENTS, max_segment_size=4 * kilobytes
        ),
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
        return _locked(folder)
    if "Shard is not initialized" in reason:
        return StoreUnavailable(f"The index in {folder} is closed: start the app again.")
    if any(words in reason for words in _FOR_THE_DISK) or isinstance(error, OSError):
        return StoreUnavailable(
            f"The index in {folder} cannot be used ({reason[:200]}). Free some space or make the folder writable, "
            "then try again."
        )
    return StoreUnavailable(
        f"The index in {folder} cannot be used ({reason[:200]}). Check the disk; if the index is damaged, "
        f"{_REBUILD}."
    )


def _locked(folder: Path) -> IndexLocked:
    return IndexLocked(
        f"Another process has the index in {folder} open: stop it, ask through the app that is running, "
        "or set QDRANT_URL to a Qdrant server, which many processes can share."
    )
