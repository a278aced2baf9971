"""What the server store says over HTTP: every request fits Qdrant's OpenAPI document, every failure is told."""

from __future__ import annotations

import json
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from ingest.errors import IndexMismatch, StoreUnavailable
from ingest.store import Recipe
from ingest.store.points import BATCH
from ingest.store.server import ServerStore, open_server_store
from ingest.types import Chunk, Document

pytestmark = pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection:UserWarning")

OPENAPI = Path(__file__).parents[2] / "shared/qdrant/openapi.json"
COLLECTION = "library"
HOME = f"/collections/{COLLECTION}"
KEY = "s3cret-k3y"
RECIPE = Recipe("embedder-a", "chunker-a", 4)
EAST = np.eye(4, dtype=np.float32)[0]


@dataclass(frozen=True)
class Exchange:
    """One request and what was answered."""

    method: str
    path: str
    query: dict[str, list[str]]
    key: str | None
    body: Any
    answer: Any


class FakeQdrant(ThreadingHTTPServer):
    """The part of a Qdrant server that the store uses, on a dict of points; or something broken."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.exchanges: list[Exchange] = []
        self.points: dict[str, Any] = {}
        self.exists = False
        self.broken: Callable[[Handler], None] | None = None
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, request: str, body: Any) -> Any:
        result: Any = {"operation_id": 1, "status": "completed"}
        match request:
            case "GET /exists":
                result = {"exists": self.exists}
            case "PUT ":
                self.exists = result = True
            case "PUT /index":
                pass
            case "PUT /points":
                self.points |= {point["id"]: point for point in body["points"]}
            case "POST /points/delete":
                self.points = {id_: one for id_, one in self.points.items() if id_ not in body["points"]}
            case "POST /points":
                result = [self.points[id_] for id_ in body["ids"] if id_ in self.points]
            case "POST /points/count":
                result = {"count": len(self.matching(body["filter"]))}
            case "POST /points/scroll":
                result = self.page(self.matching(body["filter"]), body)
            case "POST /points/query":
                result = self.nearest(self.matching(body["filter"]), body)
            case _:
                raise NotImplementedError(request)
        return result

    def matching(self, condition: Any) -> list[Any]:
        return [
            point
            for point in self.points.values()
            if all(fits(point, one) for one in condition.get("must", []))
            and not any(fits(point, one) for one in condition.get("must_not", []))
        ]

    def page(self, found: list[Any], body: Any) -> Any:
        ids = [point["id"] for point in found]
        start = ids.index(body["offset"]) if "offset" in body else 0
        end = start + body["limit"]
        return {"points": found[start:end], "next_page_offset": ids[end] if end < len(ids) else None}

    def nearest(self, found: list[Any], body: Any) -> Any:
        name, vector = body["using"], body["query"]["nearest"]
        scored = [
            {**point, "version": 0, "score": similarity(point["vector"][name], vector)}
            for point in found
            if name in point["vector"]
        ]
        return {"points": sorted(scored, key=lambda point: -point["score"])[: body["limit"]]}


def similarity(stored: Any, asked: Any) -> float:
    """Dot product of two dense or two sparse vectors."""
    if isinstance(asked, list):
        return float(np.dot(stored, asked))
    weights = dict(zip(stored["indices"], stored["values"], strict=True))
    pairs = zip(asked["indices"], asked["values"], strict=True)
    return float(sum(weights.get(word, 0.0) * value for word, value in pairs))


def fits(point: Any, condition: Any) -> bool:
    if "has_id" in condition:
        return point["id"] in condition["has_id"]
    match, value = condition["match"], point["payload"].get(condition["key"])
    return value in match["any"] if "any" in match else value == match["value"]


class Handler(BaseHTTPRequestHandler):
    server: FakeQdrant
    body: Any = None

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = json.loads(self.rfile.read(length)) if length else None
        if self.server.broken:
            self.server.broken(self)
        else:
            self.behave()

    def behave(self) -> None:
        """Answer as Qdrant does."""
        url, body = urlsplit(self.path), self.body
        result = self.server.answer(f"{self.command} {url.path.removeprefix(HOME)}", body)
        answer = {"result": result, "status": "ok", "time": 0.001}
        key = self.headers.get("api-key")
        self.server.exchanges.append(Exchange(self.command, url.path, parse_qs(url.query), key, body, answer))
        self.reply(200, json.dumps(answer).encode())

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = handle_any  # noqa: N815

    def reply(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def qdrant() -> Iterator[FakeQdrant]:
    with FakeQdrant() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.stopping.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def store(qdrant: FakeQdrant) -> Iterator[ServerStore]:
    opened = open_server_store(qdrant.url, KEY, COLLECTION, RECIPE, timeout=1, pauses=())
    yield opened
    opened.close()


def use_everything(store: ServerStore) -> None:
    """Call every method so that every kind of request is sent."""
    document = Document("d" * 64, "a.pdf", "A", 1, BATCH + 1, 9, "2026-01-01T00:00:00Z", ())
    chunks = [Chunk(document.id, "a.pdf", 1, i, i + 5, "hello world", "A title") for i in range(BATCH + 1)]
    vectors = np.tile(EAST, (len(chunks), 1))
    store.add(document, chunks, vectors)
    store.add(document, chunks[1:], vectors[1:])  # deletes a stale chunk
    store.add(document, chunks, vectors)
    assert store.documents() == [document]
    assert store.count() == BATCH + 1
    assert len(store.search(EAST, 5)) == 5
    assert len(store.search(EAST, 5, doc_ids=[document.id, "another"])) == 5
    assert len(store.search_words("hello", 5)) == 5
    assert len(store.search_words("hello", 5, doc_ids=[document.id], chunk_ids=[chunks[3].id])) == 1
    taken = store.take(document.id)
    assert taken is not None
    assert sorted(taken.chunks, key=lambda chunk: chunk.start) == chunks
    with pytest.raises(ZeroDivisionError):
        store.add(document, BreaksOff(chunks[:1] * (BATCH + 1)), vectors)
    assert store.search(EAST, 5) == []  # with the unfinished document hidden in the filter
    store.sweep()
    store.add(document, chunks, vectors)
    assert store.delete(document.id)
    assert not store.delete(document.id)


class BreaksOff(list[Chunk]):
    """Chunks whose second batch cannot be read."""

    def __getitem__(self, which: Any) -> Any:
        if isinstance(which, slice) and which.start:
            raise ZeroDivisionError
        return super().__getitem__(which)


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    if not OPENAPI.exists():
        pytest.skip(f"Qdrant's OpenAPI document is not at {OPENAPI}")
    document: dict[str, Any] = closed(json.loads(OPENAPI.read_text()))
    return document


def closed(node: Any) -> Any:
    """OpenAPI 3.0 to JSON Schema: null only where it is allowed, and no unknown properties."""
    if isinstance(node, list):
        return [closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    inner = {key: closed(value) for key, value in node.items() if key != "nullable"}
    if isinstance(inner.get("properties"), dict) and inner.get("type") == "object":
        inner.setdefault("additionalProperties", False)
    if node.get("nullable") is not True:
        return inner
    return {"anyOf": [inner, {"type": "null"}]} if inner else {"type": "null"}


def errors(openapi: dict[str, Any], schema: dict[str, Any], value: Any) -> list[str]:
    """What is wrong with a value; references in the schema point into `components`."""
    validator = Draft202012Validator({**schema, "components": openapi["components"]})
    return [error.message[:300] for error in validator.iter_errors(value)]


def operation(openapi: dict[str, Any], exchange: Exchange) -> dict[str, Any]:
    path = exchange.path.replace(COLLECTION, "{collection_name}")
    found: dict[str, Any] = openapi["paths"][path][exchange.method.lower()]
    return found


def test_every_request_and_every_fake_answer_fits_the_openapi_document(
    qdrant: FakeQdrant, store: ServerStore, openapi: dict[str, Any]
) -> None:
    use_everything(store)
    for exchange in qdrant.exchanges:
        expected = operation(openapi, exchange)
        assert set(exchange.query) <= {parameter["name"] for parameter in expected["parameters"]}
        if "requestBody" in expected:
            schema = expected["requestBody"]["content"]["application/json"]["schema"]
            assert errors(openapi, schema, exchange.body) == [], exchange
        else:
            assert exchange.body is None
        answer = expected["responses"]["200"]["content"]["application/json"]["schema"]
        assert errors(openapi, answer, exchange.answer) == [], exchange


def test_the_check_would_find_a_wrong_request(openapi: dict[str, Any]) -> None:
    query = {"$ref": "#/components/schemas/QueryRequest"}
    assert errors(openapi, query, {"query": [1.0], "limit": 5}) == []
    assert errors(openapi, query, {"query": [1.0], "limit": "five"})
    assert errors(openapi, query, {"query": [1.0], "limits": 5})
    assert errors(openapi, query, {"filter": {"must": [{"key": "owner", "match": {"values": "x"}}]}})


def test_every_kind_of_request_was_sent_with_the_key_and_writes_wait(
    qdrant: FakeQdrant, store: ServerStore
) -> None:
    use_everything(store)
    sent = {f"{one.method} {one.path.removeprefix(HOME)}" for one in qdrant.exchanges}
    assert sent == {
        "GET /exists",
        "PUT ",
        "PUT /index",
        "PUT /points",
        "POST /points",
        "POST /points/count",
        "POST /points/delete",
        "POST /points/query",
        "POST /points/scroll",
    }
    assert {one.key for one in qdrant.exchanges} == {KEY}
    for one in qdrant.exchanges:
        if one.path.endswith(("/index", "/points/delete")) or (one.method, one.path) == (
            "PUT",
            f"{HOME}/points",
        ):
            assert one.query["wait"] == ["true"]


def test_the_collection_is_made_for_cosine_idf_and_exact_search(
    qdrant: FakeQdrant, store: ServerStore
) -> None:
    (made,) = [one.body for one in qdrant.exchanges if (one.method, one.path) == ("PUT", HOME)]
    assert made["vectors"] == {"dense": {"size": 4, "distance": "Cosine"}}
    assert made["sparse_vectors"] == {"bm25": {"modifier": "idf"}}
    assert made["hnsw_config"] == {"full_scan_threshold": 100_000 * 4 * 4 // 1024}
    indexed = {
        one.body["field_name"]: one.body["field_schema"]
        for one in qdrant.exchanges
        if one.path.endswith("/index")
    }
    assert indexed == {
        "kind": {"type": "keyword", "is_tenant": False},
        "owner": {"type": "keyword", "is_tenant": True},
        "doc_id": {"type": "keyword", "is_tenant": False},
    }


def test_owner_and_documents_are_filtered_by_the_server(qdrant: FakeQdrant, store: ServerStore) -> None:
    store.search(EAST, 5, owner="ann", doc_ids=["one", "two"])
    (sent,) = [one.body["filter"] for one in qdrant.exchanges if one.path.endswith("/query")]
    assert sent == {
        "must": [
            {"key": "owner", "match": {"value": "ann"}},
            {"key": "doc_id", "match": {"any": ["one", "two"]}},
        ]
    }


def test_a_collection_that_is_there_is_not_made_again(qdrant: FakeQdrant, store: ServerStore) -> None:
    before = len(qdrant.exchanges)
    open_server_store(qdrant.url, KEY, COLLECTION, RECIPE).close()
    assert {one.method for one in qdrant.exchanges[before:]} == {"GET", "POST"}


def test_a_process_that_made_the_collection_first_is_no_error(qdrant: FakeQdrant) -> None:
    def conflict(handler: Handler) -> None:
        if handler.command == "PUT":
            qdrant.broken = None
            handler.reply(409, b'{"status": {"error": "Collection `library` already exists!"}, "time": 0}')
        else:
            handler.reply(200, b'{"result": {"exists": false}, "status": "ok", "time": 0}')

    qdrant.broken = conflict
    store = open_server_store(qdrant.url, "", COLLECTION, RECIPE)
    assert store.documents() == []
    store.close()


def test_another_recipe_names_the_collection_and_the_setting(qdrant: FakeQdrant, store: ServerStore) -> None:
    with pytest.raises(IndexMismatch, match=r"library.*QDRANT_COLLECTION"):
        open_server_store(qdrant.url, KEY, COLLECTION, Recipe("embedder-b", "chunker-a", 4))


def status(code: int, **headers: str) -> Callable[[Handler], None]:
    return lambda handler: handler.reply(code, b'{"status": {"error": "told by the server"}}', **headers)


def text(content: bytes) -> Callable[[Handler], None]:
    return lambda handler: handler.reply(200, content)


def hang(handler: Handler) -> None:
    handler.server.stopping.wait(10)
    handler.close_connection = True


def no_http(handler: Handler) -> None:
    handler.wfile.write(b"220 mail ready\r\n")
    handler.close_connection = True


def cut_short(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"result"')
    handler.close_connection = True


FAILURES = [
    pytest.param(status(401), "refused the API key.*QDRANT_API_KEY", id="401"),
    pytest.param(status(403), "refused the API key.*QDRANT_API_KEY", id="403"),
    pytest.param(status(404), "no collection library.*start the app again", id="404"),
    pytest.param(status(429), "too much to do", id="429"),
    pytest.param(status(429, **{"Retry-After": "3"}), "too much to do", id="429-retry-after"),
    pytest.param(status(500), r"an error \(500\).*its log", id="500"),
    pytest.param(status(503), r"an error \(503\).*its log", id="503"),
    pytest.param(status(302, Location="http://127.0.0.1:1/"), r"an error \(302\)", id="302"),
    pytest.param(hang, "in time.*try again", id="hang"),
    pytest.param(cut_short, "cannot be reached", id="cut-short"),
    pytest.param(no_http, "cannot be reached", id="no-http"),
    pytest.param(text(b"<html>Welcome to nginx!</html>"), "not Qdrant.*QDRANT_URL", id="html"),
    pytest.param(text(b""), "not Qdrant.*QDRANT_URL", id="nothing"),
    pytest.param(text(b"\xff\xfe\x00"), "not Qdrant.*QDRANT_URL", id="bytes"),
    pytest.param(text(b"{}"), "not Qdrant.*QDRANT_URL", id="empty-object"),
    pytest.param(text(b"[]"), "not Qdrant.*QDRANT_URL", id="list"),
    pytest.param(text(b'{"result": null}'), "not Qdrant.*QDRANT_URL", id="null"),
    pytest.param(text(b'{"result": 7}'), "not Qdrant.*QDRANT_URL", id="number"),
]


@pytest.mark.parametrize(("broken", "told"), FAILURES)
def test_a_failure_while_opening_is_told_without_the_key(
    qdrant: FakeQdrant, broken: Callable[[Handler], None], told: str
) -> None:
    qdrant.broken = broken
    with pytest.raises(StoreUnavailable, match=told) as caught:
        open_server_store(qdrant.url, KEY, COLLECTION, RECIPE, timeout=0.5, pauses=())
    assert_tells_where_and_no_secret(caught.value, qdrant.url)


@pytest.mark.parametrize(("broken", "told"), FAILURES)
def test_a_failure_in_use_is_told_without_the_key(
    qdrant: FakeQdrant, store: ServerStore, broken: Callable[[Handler], None], told: str
) -> None:
    qdrant.broken = broken
    with pytest.raises(StoreUnavailable, match=told) as caught:
        store.search(EAST, 5)
    assert_tells_where_and_no_secret(caught.value, qdrant.url)
    qdrant.broken = None
    assert store.search(EAST, 5) == []


def assert_tells_where_and_no_secret(error: StoreUnavailable, url: str) -> None:
    assert url in str(error)
    assert KEY not in "".join(traceback.format_exception(error))
    assert "\n" not in str(error)


def test_a_refused_connection_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
    with pytest.raises(
        StoreUnavailable, match=r"cannot be reached: start it, or correct QDRANT_URL"
    ) as caught:
        open_server_store(f"http://127.0.0.1:{port}", KEY, COLLECTION, RECIPE, pauses=())
    assert_tells_where_and_no_secret(caught.value, f"http://127.0.0.1:{port}")


def test_a_closed_store_says_something_clear(qdrant: FakeQdrant) -> None:
    store = open_server_store(qdrant.url, "", COLLECTION, RECIPE)
    store.close()
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.documents()


@pytest.mark.parametrize(
    "url",
    ["", "qdrant", "localhost:6333", "ftp://qdrant:6333", "http://", "http://qdrant:99999", "http://[::1"],
)
def test_a_url_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(StoreUnavailable, match="QDRANT_URL must look like"):
        open_server_store(url, "", COLLECTION, RECIPE)


@pytest.mark.parametrize(
    "url", [f"http://user:{KEY}@qdrant:6333", f"http://{KEY}@qdrant", f"http://qdrant?api_key={KEY}"]
)
def test_a_secret_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(StoreUnavailable, match="QDRANT_API_KEY") as caught:
        open_server_store(url, "", COLLECTION, RECIPE)
    assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("key", [f"{KEY}\n", f"{KEY}\r\nX-Other: 1", f"{KEY}é", f"{KEY}\x00"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(StoreUnavailable, match="QDRANT_API_KEY") as caught:
        open_server_store("http://127.0.0.1:1", key, COLLECTION, RECIPE)
    assert KEY not in "".join(traceback.format_exception(caught.value))
