"""One contract for every store: Qdrant Edge, qdrant-client in memory, and a server where QDRANT_URL is set."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import qdrant_edge
from qdrant_client import QdrantClient

from ingest.errors import IndexLocked, IndexMismatch, StoreUnavailable
from ingest.store import Recipe, Store, Stored, document_payload, point_id
from ingest.store.edge import EdgeStore, open_edge_store
from ingest.store.points import BATCH, Point, PointStore, Where
from ingest.store.server import ServerStore, open_server_store
from ingest.types import Chunk, Document

pytestmark = [
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant:UserWarning"),
    pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection:UserWarning"),
]

ROOT = Path(__file__).parents[1]
RECIPE = Recipe("embedder-a", "chunker-a", 4)
EAST, NORTH, UP = np.eye(4, dtype=np.float32)[:3]
NORTH_EAST = np.array([0.6, 0.8, 0, 0], np.float32)


@dataclass(frozen=True)
class Place:
    """Somewhere a store can be opened, closed, and opened again."""

    open: Callable[[Recipe], PointStore]
    close: Callable[[PointStore], None]


@pytest.fixture(params=["edge", "memory", "server"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "edge":
        yield Place(lambda recipe: open_edge_store(tmp_path / "index", recipe), lambda store: store.close())
    elif request.param == "memory":
        client = QdrantClient(":memory:")
        yield Place(lambda recipe: ServerStore(client, "test", recipe, address="memory"), lambda _: None)
        client.close()
    else:
        yield from _server_place()


def _server_place() -> Iterator[Place]:
    url, key = os.environ.get("QDRANT_URL", ""), os.environ.get("QDRANT_API_KEY", "")
    if not url:
        pytest.skip("QDRANT_URL names no server to test against")
    collection = f"second_look_test_{uuid.uuid4().hex}"
    yield Place(lambda recipe: open_server_store(url, key, collection, recipe), lambda store: store.close())
    client = QdrantClient(url, api_key=key or None, check_compatibility=False)
    client.delete_collection(collection)
    client.close()


@pytest.fixture
def store(place: Place) -> Iterator[PointStore]:
    opened = place.open(RECIPE)
    yield opened
    place.close(opened)


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[EdgeStore]:
    opened = open_edge_store(tmp_path / "index", RECIPE)
    yield opened
    opened.close()


def make(
    name: str, vectors: Iterable[npt.NDArray[np.float32]], added: str = "2026-01-01T00:00:00Z"
) -> Stored:
    """A document with one page and one chunk for each vector."""
    rows = [*vectors]
    doc_id = hashlib.sha256(name.encode()).hexdigest()
    texts = [f"{name} passage {i}" for i in range(len(rows))]
    chunks = tuple(
        Chunk(doc_id, name, page, 0, len(text), text, heading="A title") for page, text in enumerate(texts, 1)
    )
    document = Document(doc_id, name, "A title", len(texts), len(texts), 1234, added, ("a warning",))
    return Stored(document, chunks, np.stack(rows) if rows else np.empty((0, 4), np.float32))


def put(store: Store, made: Stored, **owner: str) -> Stored:
    store.add(made.document, made.chunks, made.vectors, **owner)
    return made


def found(store: Store, vector: npt.NDArray[np.float32] = EAST, limit: int = 50, **options: Any) -> list[str]:
    return [chunk.text for chunk, _ in store.search(vector, limit, **options)]


def points(store: PointStore) -> list[tuple[str, dict[str, Any]]]:
    """Everything in the index, whatever its kind."""
    return sorted((point.id, point.payload) for point in store._scan(Where()))


def random_rows(count: int, dimension: int, seed: int = 0) -> npt.NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, dimension), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


class Chunks(list[Chunk]):
    """Chunks that call back when the store comes for its second batch."""

    def __init__(self, chunks: Sequence[Chunk], on_second_batch: Callable[[], None]) -> None:
        super().__init__(chunks)
        self.on_second_batch = on_second_batch

    def __getitem__(self, which: Any) -> Any:
        if isinstance(which, slice) and which.start:
            self.on_second_batch()
        return super().__getitem__(which)


def die() -> None:
    raise KeyboardInterrupt


def break_off(store: Store, made: Stored, **owner: str) -> None:
    """Write the first batch of a document, and no more."""
    with pytest.raises(KeyboardInterrupt):
        store.add(made.document, Chunks(made.chunks, die), made.vectors, **owner)


def test_search_returns_chunks_with_their_cosine_best_first(store: PointStore) -> None:
    made = put(store, make("a.pdf", [NORTH, NORTH_EAST, EAST]))
    hits = store.search(EAST, 2)
    assert [chunk for chunk, _ in hits] == [made.chunks[2], made.chunks[1]]
    assert [cosine for _, cosine in hits] == pytest.approx([1, 0.6])


def test_a_store_fits_the_protocol(store: PointStore) -> None:
    fits: Store = store
    assert fits.documents() == []
    assert fits.search(EAST, 50) == []


def test_the_same_document_twice_leaves_the_same_points(store: PointStore) -> None:
    made = put(store, make("a.pdf", [EAST, NORTH]))
    before = points(store)
    put(store, made)
    assert points(store) == before
    assert store.count() == 2
    assert store.documents() == [made.document]


def test_an_owner_sees_and_deletes_only_its_own(store: PointStore) -> None:
    made = make("shared.pdf", [EAST, NORTH])
    put(store, made, owner="ann")
    put(store, made, owner="bob")
    secret = put(store, make("secret.pdf", [EAST]), owner="ann")

    assert found(store, owner="bob") == ["shared.pdf passage 0", "shared.pdf passage 1"]
    assert found(store, owner="bob", doc_ids=[secret.document.id]) == []
    assert found(store) == []
    assert (store.count(owner="ann"), store.count(owner="bob"), store.count()) == (3, 2, 0)
    assert store.take(secret.document.id, owner="bob") is None
    assert not store.delete(secret.document.id, owner="bob")

    assert store.delete(made.document.id, owner="bob")
    assert store.documents(owner="bob") == []
    assert len(store.documents(owner="ann")) == 2
    assert len(found(store, owner="ann")) == 3


def test_doc_ids_narrow_the_search_before_the_limit_cuts(store: PointStore) -> None:
    put(store, make("near.pdf", [EAST, EAST, EAST]))
    far = put(store, make("far.pdf", [NORTH]))
    assert found(store, limit=1, doc_ids=[far.document.id]) == ["far.pdf passage 0"]
    assert found(store, limit=9, doc_ids=[far.document.id, "no such document"]) == ["far.pdf passage 0"]


def test_no_doc_ids_and_no_limit_find_nothing(store: PointStore) -> None:
    put(store, make("a.pdf", [EAST]))
    assert found(store, doc_ids=[]) == []
    assert found(store, limit=0) == []


def test_take_gives_the_whole_document_in_reading_order(store: PointStore) -> None:
    made = put(store, make("long.pdf", random_rows(2 * BATCH + 7, 4)))
    taken = store.take(made.document.id)
    assert taken is not None
    assert taken.document == made.document
    assert taken.chunks == made.chunks
    assert taken.vectors.dtype == np.float32
    np.testing.assert_allclose(taken.vectors, made.vectors, atol=1e-6)


def test_taken_deleted_and_added_back_gives_the_same_search(store: PointStore) -> None:
    rows = random_rows(120, 4)
    put(store, make("other.pdf", rows[:50]))
    made = put(store, make("undone.pdf", rows[50:]))
    before_points, before_hits = points(store), store.search(rows[0], 100)

    taken = store.take(made.document.id)
    assert taken is not None
    assert store.delete(made.document.id)
    assert {chunk.source for chunk, _ in store.search(rows[0], 100)} == {"other.pdf"}

    put(store, taken)
    assert points(store) == before_points
    hits = store.search(rows[0], 100)
    assert [chunk for chunk, _ in hits] == [chunk for chunk, _ in before_hits]
    assert [cosine for _, cosine in hits] == pytest.approx([cosine for _, cosine in before_hits], abs=1e-6)


def test_what_is_not_there_cannot_be_taken_or_deleted(store: PointStore) -> None:
    assert store.take("f" * 64) is None
    assert store.delete("f" * 64) is False


def test_an_unfinished_document_is_invisible_until_swept(store: PointStore) -> None:
    whole = put(store, make("whole.pdf", [EAST]))
    half = make("half.pdf", [EAST] * (BATCH + 1))
    break_off(store, half)

    assert len(points(store)) == 1 + 2 + BATCH + 1  # recipe, whole.pdf, first batch, unfinished half.pdf
    assert found(store, limit=999) == ["whole.pdf passage 0"]
    assert found(store, doc_ids=[half.document.id]) == []
    assert store.count() == 1
    assert store.documents() == [whole.document]
    assert store.take(half.document.id) is None

    assert store.sweep() == BATCH
    assert store.sweep() == 0
    assert len(points(store)) == 1 + 2
    assert found(store, limit=999) == ["whole.pdf passage 0"]


def test_an_unfinished_document_stays_invisible_after_opening_again(place: Place) -> None:
    first = place.open(RECIPE)
    break_off(first, make("half.pdf", [EAST] * (BATCH + 1)))
    place.close(first)
    second = place.open(RECIPE)
    assert found(second) == []
    assert second.count() == 0
    place.close(second)


def test_an_unfinished_document_can_be_added_again(store: PointStore) -> None:
    made = make("half.pdf", [EAST] * (BATCH + 1))
    break_off(store, made)
    put(store, made)
    assert store.sweep() == 0
    assert store.count() == BATCH + 1
    assert len(found(store, limit=999)) == BATCH + 1


def test_the_unfinished_document_of_one_owner_hides_nothing_of_another(store: PointStore) -> None:
    made = make("shared.pdf", [EAST] * (BATCH + 1))
    put(store, made, owner="ann")
    break_off(store, made, owner="bob")
    assert store.count(owner="ann") == BATCH + 1
    assert store.count(owner="bob") == 0


def test_a_document_shows_only_when_its_last_chunk_is_written(store: PointStore) -> None:
    made = make("slow.pdf", [EAST] * (BATCH + 1))
    arrived, go_on, told = threading.Event(), threading.Event(), list[bool]()

    def wait() -> None:
        arrived.set()
        told.append(go_on.wait(10))

    chunks = Chunks(made.chunks, wait)
    writer = threading.Thread(target=store.add, args=(made.document, chunks, made.vectors))
    writer.start()
    assert arrived.wait(30)
    seen = (found(store), store.documents(), store.count(), store.sweep())
    go_on.set()
    writer.join()

    assert seen == ([], [], 0, 0)
    assert told == [True]  # nothing above waited for the writer
    assert store.count() == BATCH + 1
    assert store.documents() == [made.document]


def test_a_writer_waits_for_a_search_that_began_before_it(store: PointStore) -> None:
    made = make("a.pdf", [EAST])
    writer = threading.Thread(target=put, args=(store, made))
    with store._turns.reading("local"):
        writer.start()
        writer.join(0.2)
        assert writer.is_alive()
        assert len(points(store)) == 1
    writer.join()
    assert store.documents() == [made.document]


def test_adding_other_chunks_of_a_document_leaves_no_stale_ones(store: PointStore) -> None:
    made = put(store, make("a.pdf", [EAST, NORTH, UP]))
    fewer = replace(made, document=replace(made.document, chunks=1), chunks=made.chunks[1:2])
    put(store, replace(fewer, vectors=made.vectors[1:2]))
    assert found(store) == ["a.pdf passage 1"]
    assert store.count() == 1
    assert store.documents() == [fewer.document]


def test_a_known_document_stays_visible_while_the_same_is_added_again(store: PointStore) -> None:
    made = put(store, make("a.pdf", [EAST] * (BATCH + 1)))
    seen: list[int] = []
    again = Chunks(made.chunks, lambda: seen.append(len(found(store, limit=999))))
    store.add(made.document, again, made.vectors)
    assert seen == [BATCH + 1]


@pytest.mark.parametrize(
    ("other", "named", "way_out"),
    [
        (
            Recipe("embedder-b", "chunker-a", 4),
            ["embedder-a", "embedder-b"],
            "To go on, set EMBEDDER back, or ",
        ),
        (Recipe("embedder-a", "chunker-b", 4), ["chunker-a", "chunker-b"], "second-look rebuild"),
        (
            Recipe("embedder-a", "chunker-a", 8),
            ["4 numbers", "8 numbers"],
            "To go on, set EMBEDDER back, or ",
        ),
    ],
    ids=["embedder", "chunker", "dimension"],
)
def test_another_recipe_is_refused_and_changes_nothing(
    place: Place, other: Recipe, named: list[str], way_out: str
) -> None:
    first = place.open(RECIPE)
    put(first, make("a.pdf", [EAST]))
    place.close(first)
    with pytest.raises(IndexMismatch) as caught:
        place.open(other)
    assert all(word in str(caught.value) for word in [*named, way_out])
    again = place.open(RECIPE)
    assert found(again) == ["a.pdf passage 0"]
    place.close(again)


def test_points_of_another_program_are_left_alone(place: Place) -> None:
    opened = place.open(RECIPE)
    foreign = Point(str(uuid.UUID(int=1)), {"kind": "theirs"})
    opened._put([foreign])
    opened._drop({point.id for point in opened._scan(Where(kind="meta"))})
    place.close(opened)
    with pytest.raises(IndexMismatch, match="not made by Second Look"):
        place.open(RECIPE)


def test_equal_cosines_come_in_the_order_of_their_chunk_ids_at_every_limit(store: PointStore) -> None:
    tied = [put(store, make(f"{name}.pdf", [NORTH_EAST] * 7)) for name in "abc"]
    best = put(store, make("best.pdf", [EAST]))
    put(store, make("worst.pdf", [UP]))
    ordered = sorted(chunk.id for made in tied for chunk in made.chunks)
    expected = [best.chunks[0].id, *ordered]
    for limit in range(1, 23):
        assert [chunk.id for chunk, _ in store.search(EAST, limit)] == expected[:limit]


def test_only_chunks_come_out_of_a_search(store: PointStore) -> None:
    kept = put(store, make("a.pdf", [EAST, NORTH]))
    put(store, make("empty.pdf", []))
    break_off(store, make("half.pdf", [EAST] * (BATCH + 1)))
    assert {point.payload["kind"] for point in store._scan(Where())} == {
        "meta",
        "document",
        "unfinished",
        "chunk",
    }
    assert {chunk for chunk, _ in store.search(EAST, 999)} == set(kept.chunks)


def put_texts(store: Store, name: str, texts: Sequence[str], **owner: str) -> tuple[Chunk, ...]:
    doc_id = hashlib.sha256(name.encode()).hexdigest()
    chunks = tuple(Chunk(doc_id, name, page, 0, len(text), text, "") for page, text in enumerate(texts, 1))
    document = Document(doc_id, name, name, len(texts), len(texts), 9, "2026-01-01T00:00:00Z", ())
    store.add(document, chunks, np.tile(EAST, (len(texts), 1)), **owner)
    return chunks


def test_a_search_for_words_gives_bm25_with_the_idf_of_the_whole_index(store: PointStore) -> None:
    texts = ["apple", "apple pear", "plum", "fig fig fig fig apple"]
    chunks = put_texts(store, "fruit.pdf", texts)
    hits = store.search_words("Is a pear an apple?", 9)
    model = qdrant_edge.Bm25()

    def idf(count: int) -> float:
        return log((4 - count + 0.5) / (count + 0.5) + 1)

    def weight(text: str, word: str) -> float:
        vector = model.embed_document(text)
        return dict(zip(vector.indices, vector.values, strict=True))[model.embed_query(word).indices[0]]

    expected = {
        chunks[0]: idf(3) * weight(texts[0], "apple"),
        chunks[1]: idf(3) * weight(texts[1], "apple") + idf(1) * weight(texts[1], "pear"),
        chunks[3]: idf(3) * weight(texts[3], "apple"),
    }
    assert dict(hits) == pytest.approx(expected, rel=1e-5)
    assert [chunk for chunk, _ in hits] == sorted(expected, key=lambda chunk: -expected[chunk])


def test_a_search_for_words_among_some_chunks_scores_them_as_a_search_among_all(store: PointStore) -> None:
    chunks = put_texts(store, "fruit.pdf", ["apple", "apple pear", "plum", "fig apple"])
    other = put_texts(store, "more.pdf", ["pear pear"])
    everywhere = dict(store.search_words("apple or pear", 9))
    some = [chunks[1].id, chunks[2].id, other[0].id]
    assert dict(store.search_words("apple or pear", 9, chunk_ids=some)) == pytest.approx(
        {chunk: everywhere[chunk] for chunk in (chunks[1], other[0])}, rel=1e-5
    )
    assert dict(store.search_words("apple or pear", 9, doc_ids=[other[0].doc_id])) == pytest.approx(
        {other[0]: everywhere[other[0]]}, rel=1e-5
    )
    assert store.search_words("apple", 9, chunk_ids=[]) == store.search_words("apple", 9, doc_ids=[]) == []


def test_a_search_for_words_is_cut_at_its_limit_with_ties_by_chunk_id(store: PointStore) -> None:
    tied = put_texts(store, "fruit.pdf", ["apple pear"] * 7)
    ordered = sorted(tied, key=lambda chunk: chunk.id)
    for limit in range(8):
        assert [chunk for chunk, _ in store.search_words("apple", limit)] == ordered[:limit]


@pytest.mark.parametrize("question", ["", "?", "the of and", "zebra", "\x00", "😀"])
def test_a_question_without_a_word_of_the_library_finds_nothing(store: PointStore, question: str) -> None:
    put_texts(store, "fruit.pdf", ["apple"])
    assert store.search_words(question, 5) == []


def test_a_search_for_words_sees_whole_documents_of_its_owner_alone(store: PointStore) -> None:
    put_texts(store, "secret.pdf", ["apple"], owner="ann")
    break_off(store, make("half.pdf", [EAST] * (BATCH + 1)))
    assert store.search_words("apple passage", 9) == []
    assert len(store.search_words("apple", 9, owner="ann")) == 1


def test_a_document_without_chunks_is_listed_taken_and_deleted(store: PointStore) -> None:
    made = put(store, make("empty.pdf", []))
    assert store.documents() == [made.document]
    assert store.count() == 0
    taken = store.take(made.document.id)
    assert taken is not None
    assert (taken.chunks, taken.vectors.shape) == ((), (0, 4))
    assert store.delete(made.document.id)
    assert store.documents() == []


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("año 2024, résumé.pdf", id="accents"),
        pytest.param("年報.pdf", id="chinese"),
        pytest.param("تقرير.pdf", id="arabic"),
        pytest.param("👩‍🔬🧪.pdf", id="emoji"),
        pytest.param("e\u0301.pdf", id="combining"),
        pytest.param("../../etc/passwd", id="path"),
        pytest.param("a\nb\tc\x00d.pdf", id="controls"),
        pytest.param('\'; DROP TABLE "x" --.pdf', id="quotes"),
        pytest.param("{{name}} <b>.pdf", id="markup"),
        pytest.param(" ", id="space"),
        pytest.param("", id="empty"),
        pytest.param("x" * 5000, id="long"),
    ],
)
def test_any_file_name_and_text_come_back_as_they_were(store: PointStore, name: str) -> None:
    made = put(store, make(name, [EAST]), owner=name or "nobody")
    assert store.documents(owner=name or "nobody") == [made.document]
    assert [chunk for chunk, _ in store.search(EAST, 5, owner=name or "nobody")] == list(made.chunks)


def test_documents_come_newest_first_and_in_any_number(store: PointStore) -> None:
    made = [make(f"{i:04}.pdf", [], f"2026-01-01T00:{i // 60:02}:{i % 60:02}Z").document for i in range(2100)]
    store._put([Point(point_id("local", one.id), document_payload(one, "local")) for one in made])
    assert store.documents() == made[::-1]


def test_documents_of_the_same_second_come_by_name(store: PointStore) -> None:
    for name in ("b.pdf", "c.pdf", "a.pdf"):
        put(store, make(name, []))
    assert [document.source for document in store.documents()] == ["a.pdf", "b.pdf", "c.pdf"]


def test_wrong_shapes_and_wrong_documents_are_defects(store: PointStore) -> None:
    made = make("a.pdf", [EAST, NORTH])
    with pytest.raises(ValueError, match=r"shape \(2, 4\)"):
        store.add(made.document, made.chunks, made.vectors[:1])
    with pytest.raises(ValueError, match="finite"):
        store.add(made.document, made.chunks, np.full((2, 4), np.nan, np.float32))
    with pytest.raises(ValueError, match="another document"):
        store.add(replace(made.document, id="0" * 64), made.chunks, made.vectors)
    with pytest.raises(ValueError, match=r"shape \(4,\)"):
        store.search(np.ones(5, np.float32), 5)
    assert store.documents() == []


def test_many_threads_see_every_document_whole_or_not_at_all(
    store: PointStore, request: pytest.FixtureRequest
) -> None:
    if "memory" in request.node.name:
        pytest.skip("qdrant-client's memory mode breaks when one thread writes while another searches")
    size = BATCH + 10
    put(store, make("still.pdf", [EAST] * 5))
    moving = [make(f"moving {i}.pdf", [NORTH_EAST] * size) for i in range(2)]
    done = threading.Event()
    wrong: list[object] = []

    def search() -> None:
        while not done.is_set():
            names = [chunk.source for chunk, _ in store.search(EAST, 999)]
            counts = {name: names.count(name) for name in set(names)}
            if counts.pop("still.pdf", 0) != 5 or set(counts.values()) - {size}:
                wrong.append(counts)
            if store.count() not in (5, 5 + size, 5 + 2 * size):
                wrong.append(store.count())

    def write(made: Stored) -> None:
        for _ in range(6):
            put(store, made)
            if not store.delete(made.document.id):
                wrong.append("nothing to delete")

    searchers = [threading.Thread(target=search) for _ in range(4)]
    writers = [threading.Thread(target=write, args=(made,)) for made in moving]
    for thread in (*searchers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in searchers:
        thread.join()
    assert wrong == []
    assert store.count() == 5


def test_a_server_spares_what_another_process_is_still_writing() -> None:
    client = QdrantClient(":memory:")
    here = ServerStore(client, "test", RECIPE, address="memory")
    there = ServerStore(client, "test", RECIPE, address="memory")
    later = ServerStore(client, "test", RECIPE, address="memory", grace_seconds=0)
    break_off(there, make("half.pdf", [EAST] * (BATCH + 1)))
    assert found(here) == []
    assert here.sweep() == 0
    assert later.sweep() == BATCH
    client.close()


def test_a_store_in_memory_needs_no_server() -> None:
    store = open_server_store(":memory:", "", "test", RECIPE)
    put(store, make("a.pdf", [EAST]))
    assert found(store) == ["a.pdf passage 0"]
    store.close()
    store.close()


def test_edge_is_exact_among_twenty_thousand(tmp_path: Path) -> None:
    rows = random_rows(20_000, 64)
    store = open_edge_store(tmp_path / "index", replace(RECIPE, dimension=64))
    halves = [put(store, make(f"{i}.pdf", rows[i::2])) for i in range(2)]
    for question in random_rows(20, 64, seed=1):
        assert_exact(store, question, rows)
    store.delete(halves[0].document.id)
    assert store.sweep() == 0  # gives back the room
    for question in random_rows(20, 64, seed=2):
        assert_exact(store, question, rows[1::2])
    store.close()


def assert_exact(store: Store, question: npt.NDArray[np.float32], rows: npt.NDArray[np.float32]) -> None:
    cosines = [cosine for _, cosine in store.search(question, 50)]
    np.testing.assert_allclose(cosines, np.sort(rows @ question)[:-51:-1], atol=1e-6)


def test_a_very_large_library_is_searched_by_codes_and_finds_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.store.edge.EXACT_CHUNKS", 1000)
    monkeypatch.setattr("ingest.store.edge._SEGMENT", 1000)
    recipe = replace(RECIPE, dimension=128)
    rows = random_rows(4000, 128)
    store = open_edge_store(tmp_path / "index", recipe)
    parts = [put(store, make(f"{i}.pdf", rows[i::4])) for i in range(4)]
    assert has_codes(store)
    assert share_found(store, rows) >= 0.99
    store.delete(parts[0].document.id)
    store.close()
    again = open_edge_store(tmp_path / "index", recipe)
    assert again.sweep() == 0
    assert has_codes(again)
    left = np.concatenate([rows[i::4] for i in range(1, 4)])
    assert share_found(again, left) >= 0.99
    again.close()


def has_codes(store: EdgeStore) -> bool:
    made = list(store._folder.rglob("quantized.*"))
    return bool(made) and store._shard.info().indexed_vectors_count > 0


def share_found(store: Store, rows: npt.NDArray[np.float32]) -> float:
    """Recall among the 50 nearest, and every cosine that comes back is the vectors' own."""
    shares = []
    for question in random_rows(20, 128, seed=3):
        best = np.sort(rows @ question)[:-51:-1]
        cosines = np.array([cosine for _, cosine in store.search(question, 50)])
        shares.append(np.mean(cosines >= best[-1] - 1e-6))
        assert all(np.abs(rows @ question - cosine).min() < 1e-5 for cosine in cosines)
    return float(np.mean(shares))


def test_a_second_process_is_refused_and_told_what_to_do(edge: EdgeStore, tmp_path: Path) -> None:
    told = run_python(
        """
        from ingest.errors import IndexLocked
        try:
            open_edge_store(folder, recipe)
        except IndexLocked as error:
            print(error)
        """,
        tmp_path / "index",
    ).communicate(timeout=60)[0]
    assert "Another process" in told
    assert str(tmp_path / "index") in told
    assert "QDRANT_URL" in told
    assert edge.documents() == []


def test_the_same_process_cannot_open_a_folder_twice(edge: EdgeStore, tmp_path: Path) -> None:
    with pytest.raises(IndexLocked):
        open_edge_store(tmp_path / "index", RECIPE)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.2])
def test_a_killed_process_leaves_documents_whole_or_absent(tmp_path: Path, seconds: float) -> None:
    process = run_python(
        """
        from tests.test_store import BATCH, EAST, make, put
        store = open_edge_store(folder, recipe)
        for i in range(10_000):
            put(store, make(f"{i}.pdf", [EAST] * (BATCH + 5)))
            print(i, flush=True)
            if i % 3 == 2:
                store.delete(make(f"{i - 1}.pdf", [EAST]).document.id)
        """,
        tmp_path / "index",
    )
    assert process.stdout is not None
    for _ in range(4):
        process.stdout.readline()
    time.sleep(seconds)
    process.kill()
    written = 4 + len(process.communicate()[0].split())

    start = time.perf_counter()
    store = open_edge_store(tmp_path / "index", RECIPE)
    assert time.perf_counter() - start < 10
    names = {document.source for document in store.documents()}
    size = BATCH + 5
    assert names >= {f"{i}.pdf" for i in range(written - 1) if i % 3 != 1}
    assert store.count() == size * len(names)
    sources = [chunk.source for chunk, _ in store.search(EAST, 99_999)]
    assert {name: sources.count(name) for name in set(sources)} == dict.fromkeys(names, size)
    store.sweep()
    assert len(points(store)) == 1 + (1 + size) * len(names)
    store.close()


def run_python(code: str, folder: Path) -> subprocess.Popen[str]:
    start = f"""
from pathlib import Path
from ingest.store import Recipe
from ingest.store.edge import open_edge_store
folder, recipe = Path({str(folder)!r}), {RECIPE!r}
"""
    return subprocess.Popen(
        [sys.executable, "-c", start + textwrap.dedent(code)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("damaged", ["segment.json", "edge_config.json", "status.dat"])
def test_a_damaged_folder_is_named(tmp_path: Path, damaged: str) -> None:
    folder = tmp_path / "index"
    store = open_edge_store(folder, RECIPE)
    put(store, make("a.pdf", [EAST] * 20))
    store.close()
    for path in folder.rglob(damaged):
        path.write_bytes(b"")
    with pytest.raises(StoreUnavailable, match="second-look rebuild") as caught:
        open_edge_store(folder, RECIPE)
    assert str(folder) in str(caught.value)


def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "index").write_text("not a folder")
    with pytest.raises(StoreUnavailable, match="index"):
        open_edge_store(tmp_path / "index", RECIPE)


def test_a_closed_index_says_so_and_can_be_closed_again(tmp_path: Path) -> None:
    store = open_edge_store(tmp_path / "index", RECIPE)
    store.close()
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.documents()
