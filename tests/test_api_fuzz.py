"""The whole API against its own OpenAPI document: thousands of requests that fit it, and that do not.

Real services over a real index and a real parser; only the models are fakes. Every run makes the same requests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from schemathesis import Case, Response
from schemathesis.core.result import Ok
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount

from ingest.embed import Identity
from ingest.weights import bundled_minilm
from rag.api import create_api
from rag.guard import Guard
from rag.services import Services
from rag.settings import Settings
from tests.fakes import WORDS, WordEmbedder, length_reranker
from tests.pdfs import text_pdf

CASES = 2000
PER_OPERATION = 300
SEQUENCES = 40
STEPS = 12
EXHAUSTIVE = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=PER_OPERATION,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
MADE: Counter[str] = Counter()
SERVICES: list[Services] = []
"""The services of this module, once they are made: the API is described before."""

schemathesis.openapi.format(
    "binary",
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(lambda words: text_pdf([[" ".join(words)]]))
    | st.binary(max_size=200),
)
SCHEMA = schemathesis.openapi.from_asgi(
    "/openapi.json",
    create_api(lambda: SERVICES[-1]),
    config=schemathesis.Config.from_path(Path(__file__).with_name("schemathesis.toml")),
)


@pytest.fixture(scope="module", autouse=True)
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Services over two documents, without limits that the number of requests would reach."""
    many = 10**6
    services = Services(
        Settings(
            data=tmp_path_factory.mktemp("fuzz"),
            requests_per_minute=many,
            max_open_uploads=many,
            max_queue=many,
        )
    )
    embedder = WordEmbedder()
    services._identity.put(Identity(bundled_minilm(), embedder.name, embedder.id, embedder.dimension))
    services.use_models(embedder, length_reranker(threshold=0.5))
    for word in WORDS[:2]:
        services.queue.add(f"{word}.pdf", text_pdf([[f"{word} and more"]]), owner="local")
    services.queue.run_pending()
    SERVICES.append(services)
    yield services
    SERVICES.remove(services)
    services.close()


@pytest.fixture
def client(library: Services) -> TestClient:
    return TestClient(create_api(lambda: library))


@SCHEMA.parametrize()
@EXHAUSTIVE
def test_every_answer_is_a_documented_one(case: Case[Any]) -> None:
    MADE[case.operation.label] += 1
    case.call_and_validate()


class Visitor(SCHEMA.as_state_machine()):  # type: ignore[misc]
    """Uploads, lists, reads and deletes, with the ids that the API gave."""

    def after_call(self, response: Response, case: Case[Any]) -> None:
        MADE[f"{case.operation.label} in a sequence"] += 1
        SERVICES[-1].queue.run_pending()


def test_requests_that_follow_from_each_other_meet_only_documented_answers() -> None:
    Visitor.run(settings=settings(EXHAUSTIVE, max_examples=SEQUENCES, stateful_step_count=STEPS))


def test_thousands_of_requests_were_made() -> None:
    operations = {found.ok().label for found in SCHEMA.get_all_operations() if isinstance(found, Ok)}
    if not operations <= set(MADE):
        pytest.skip("not all tests of this module ran")
    assert MADE.total() >= CASES


@pytest.mark.parametrize(
    "body",
    [
        b'{"question": "\\ud800"}',
        b'{"\\ud800": 1, "question": "pump"}',
        b'{"question": "pump", "depth": NaN}',
        b'{"question": "pump", "depth": Infinity}',
        b'{"question": "pump", "depth": ' + b"9" * 5000 + b"}",
        b'{"question": "pump", "doc_ids": ' + b"[" * 100_000,
        b'{"question": "pump", "doc_ids": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"question": "\xff"}',
        b'"question"',
        b"",
        b"\x00",
    ],
)
@pytest.mark.parametrize("path", ["/search", "/ask"])
def test_bodies_that_no_schema_makes_are_told_in_words(client: TestClient, path: str, body: bytes) -> None:
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert isinstance(answer.json()["detail"], str)


def test_what_is_wrong_is_told_without_repeating_it(client: TestClient) -> None:
    answer = client.post("/search", json={"question": ["a secret"], "sauces": 2})
    assert answer.status_code == 422
    assert answer.json()["detail"] == (
        "body.question: Input should be a valid string; body.sauces: Extra inputs are not permitted"
    )


@pytest.mark.parametrize("depth", [5, 5.0])
def test_a_whole_number_may_be_written_with_a_point(client: TestClient, depth: float) -> None:
    answer = client.post("/search", json={"question": "apple", "depth": depth})
    assert answer.json()["parameters"]["depth"] == 5


@pytest.mark.parametrize(
    ("asked", "status"),
    [("bytes=0-3", 206), ("bytes=0-3,6-9", 206), ("bytes=9999999-", 416), ("bits=1", 400)],
)
def test_every_answer_to_a_range_is_a_documented_one(
    client: TestClient, library: Services, asked: str, status: int
) -> None:
    doc_id = library.queue.add("fig.pdf", text_pdf([["fig"]]), owner="local").doc_id
    library.queue.run_pending()
    answer = client.get(f"/documents/{doc_id}/file", headers={"Range": asked})
    documented = client.get("/openapi.json").json()["paths"]["/documents/{doc_id}/file"]["get"]["responses"]
    assert answer.status_code == status
    assert answer.headers["content-type"].split(";")[0] in documented[str(status)]["content"]


def test_a_method_that_does_not_fit_is_told_which_ones_do(client: TestClient) -> None:
    answer = client.put("/documents")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
    assert answer.json() == {"detail": "Only GET, POST can be used here."}


def test_an_address_with_control_characters_is_told_as_any_other_problem(library: Services) -> None:
    routes = [Mount("/api", create_api(lambda: library))]
    guarded = TestClient(Starlette(routes=routes, middleware=[Middleware(Guard, access=library.access)]))
    answer = guarded.delete("/api/documents/%0A")
    assert (answer.status_code, answer.json()) == (403, {"detail": "An address has no control characters."})
    assert guarded.delete(f"/api/documents/{'0' * 64}").status_code == 404
