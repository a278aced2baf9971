from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from ingest.errors import StoreUnavailable
from rag.api import create_api
from rag.services import Services
from tests.pdfs import text_pdf

PAGES = [["The pump needs fresh oil every 500 hours of work."], ["The lake is deep and cold in winter."]]
QUESTION = "How often does the pump need oil?"


@pytest.fixture
def client(services: Services) -> Iterator[TestClient]:
    with TestClient(create_api(lambda: services), raise_server_exceptions=True) as client:
        yield client


def upload(client: TestClient, services: Services) -> str:
    answer = client.post("/documents", files={"files": ("pump.pdf", text_pdf(PAGES), "application/pdf")})
    assert answer.status_code == 202
    services.queue.run_pending()
    return str(answer.json()[0]["doc_id"])


def test_an_upload_is_queued_indexed_listed_and_downloaded(client: TestClient, services: Services) -> None:
    doc_id = upload(client, services)
    assert [job["state"] for job in client.get("/uploads").json()] == ["done"]
    assert [document["id"] for document in client.get("/documents").json()] == [doc_id]
    original = client.get(f"/documents/{doc_id}/file")
    assert original.headers["content-type"] == "application/pdf"
    assert original.content == text_pdf(PAGES)


def test_a_refused_upload_says_why(client: TestClient) -> None:
    (job,) = client.post("/documents", files={"files": ("a.pdf", b"hello")}).json()
    assert job["state"] == "refused"
    assert "not a PDF" in job["message"]


def test_search_and_ask_answer_as_the_page_does(client: TestClient, services: Services) -> None:
    upload(client, services)
    found = client.post("/search", json={"question": QUESTION}).json()
    assert found["ranked"][0]["hit"]["chunk"]["page"] == 1
    assert found["parameters"] == {"depth": 50, "sources": 5, "reranking": True, "doc_ids": None}
    assert found["concerns"] == []
    asked = client.post("/ask", json={"question": QUESTION, "reranking": False}).json()
    assert asked["parameters"]["reranking"] is False
    assert asked["concerns"] == [
        {"kind": "off", "level": "info", "text": "Reranking is off: this is the bi-encoder's order."}
    ]
    assert asked["ranked"] == []
    assert "every 500 hours" in asked["answer"]["text"]
    assert asked["answer"]["citations"][0]["number"] == 1


def test_a_search_among_chosen_documents_says_so_and_warns(client: TestClient, services: Services) -> None:
    doc_id = upload(client, services)
    query = {"question": "Wie oft muss das Öl der Pumpe gewechselt werden?", "doc_ids": [doc_id]}
    found = client.post("/search", json=query).json()
    assert found["parameters"]["doc_ids"] == [doc_id]
    assert "language" in [concern["kind"] for concern in found["concerns"]]
    nothing = client.post("/search", json={"question": QUESTION, "doc_ids": ["0" * 64]}).json()
    assert (nothing["hits"], nothing["concerns"]) == ([], [])


def test_deleting_is_final_and_the_unknown_is_404(client: TestClient, services: Services) -> None:
    doc_id = upload(client, services)
    assert client.delete(f"/documents/{doc_id}").status_code == 204
    assert client.get("/documents").json() == []
    assert client.delete(f"/documents/{doc_id}").status_code == 404
    assert client.get(f"/documents/{doc_id}/file").status_code == 404
    assert client.delete("/documents/..%2Fsecret").status_code in (404, 422)


@pytest.mark.parametrize(
    "query", [{}, {"question": ""}, {"question": "x" * 2001}, {"question": "q", "depth": 0}, {"question": 1}]
)
def test_unusable_queries_are_422(client: TestClient, query: dict[str, object]) -> None:
    assert client.post("/search", json=query).status_code == 422


def test_numbers_that_contradict_each_other_are_400_with_a_sentence(client: TestClient) -> None:
    answer = client.post("/search", json={"question": "q", "depth": 2, "sources": 3})
    assert (answer.status_code, "sources" in answer.json()["detail"]) == (400, True)


def test_an_index_that_is_away_is_503_with_a_sentence(client: TestClient, services: Services) -> None:
    class Down:
        def documents(self, **_: object) -> None:
            raise StoreUnavailable("Qdrant does not answer.")

        def close(self) -> None:
            pass

    services._store.put(Down())  # type: ignore[arg-type]
    answer = client.get("/documents")
    assert (answer.status_code, answer.json()) == (503, {"detail": "Qdrant does not answer."})


def test_health_says_whether_the_models_are_loaded(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok", "models_loaded": True}
