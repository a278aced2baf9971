"""Limits: each with its message, at each door."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from streamlit.testing.v1 import AppTest

import ingest.queue
import rag.services
from ingest.embed import Embedder
from ingest.errors import AnswerFailed, BadRequest, LimitReached
from ingest.store import LOCAL_OWNER
from rag.access import token_line
from rag.api import create_api
from rag.limits import BODY_BYTES, Limits, Places, WaitingAnswerer, limited_answerer
from rag.quotes import ExtractiveAnswerer
from rag.rerank import Reranker
from rag.services import Lazy, Services, shared_services
from rag.settings import Settings
from tests.fake_llm import FakeLlm, say
from tests.fakes import a_chunk
from tests.pdfs import text_pdf

PAGES = [["The pump needs fresh oil every 500 hours of work."]]
QUESTION = "How often does the pump need oil?"
APP_PAGES = Path(__file__).resolve().parents[1] / "app_pages"
MB = 1_000_000

Make = Callable[[Settings], tuple[TestClient, Services]]


@pytest.fixture
def make(tmp_path: Path, embedder: Embedder, reranker: Reranker) -> Iterator[Make]:
    made: list[Services] = []

    def create(settings: Settings) -> tuple[TestClient, Services]:
        services = Services(replace(settings, data=tmp_path / "data"))
        services.use_models(embedder, reranker)
        made.append(services)
        return TestClient(create_api(lambda: services)), services

    yield create
    for services in made:
        services.close()


def pdf(number: int) -> bytes:
    return text_pdf([[f"Page of file number {number}."]])


# --- Requests -----------------------------------------------------------------------------------------


def test_a_user_has_so_many_requests_a_minute_and_others_have_their_own() -> None:
    limits = Limits(Settings(requests_per_minute=3))
    for _ in range(3):
        limits.request("ann")
    with pytest.raises(LimitReached, match=r"More than 3 requests in a minute: try again in .* s"):
        limits.request("ann")
    assert 1 <= limits.seconds_left("ann") <= 60
    limits.request("bob")


def test_the_api_answers_429_and_says_when_to_come_back(make: Make) -> None:
    client, _ = make(Settings(requests_per_minute=2))
    assert [client.get("/documents").status_code for _ in range(3)] == [200, 200, 429]
    answer = client.get("/documents")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert "REQUESTS_PER_MINUTE" in answer.json()["detail"]
    assert client.get("/health").status_code == 200


def test_in_a_shared_library_each_user_has_requests_of_its_own(make: Make) -> None:
    lines = f"{token_line('ann', 'a')},{token_line('bob', 'b')}"
    client, _ = make(Settings(requests_per_minute=1, shared=True, api_tokens=lines))
    ann, bob = ({"Authorization": f"Bearer {token}"} for token in "ab")
    asked = [client.get("/documents", headers=who).status_code for who in (ann, ann, bob, bob)]
    assert asked == [200, 429, 200, 429]


# --- Sizes --------------------------------------------------------------------------------------------


def test_an_upload_that_says_it_is_too_large_is_refused_before_it_is_read(make: Make) -> None:
    client, services = make(Settings(max_upload_mb=1))
    sent = []

    def body() -> Iterator[bytes]:
        sent.append(1)
        yield b"x"

    headers = {"Content-Length": str(2 * MB + 1), "Content-Type": "multipart/form-data; boundary=b"}
    answer = client.post("/documents", content=body(), headers=headers)
    assert answer.status_code == 413
    assert "2 MB" in answer.json()["detail"]
    assert "MAX_UPLOAD_MB" in answer.json()["detail"]
    assert services.queue.jobs(owner=LOCAL_OWNER) == []


def test_an_upload_that_does_not_say_its_size_is_cut_off_where_it_gets_too_large(make: Make) -> None:
    client, services = make(Settings(max_upload_mb=1))
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.pdf"\r\n\r\n%PDF-'

    def body() -> Iterator[bytes]:
        yield part
        for _ in range(30):
            yield b"x" * 100_000
        yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = client.post("/documents", content=body(), headers=headers)
    assert (answer.status_code, "MAX_UPLOAD_MB" in answer.json()["detail"]) == (413, True)
    assert services.queue.jobs(owner=LOCAL_OWNER) == []


def test_a_file_of_just_the_allowed_size_is_taken(make: Make) -> None:
    client, services = make(Settings(max_upload_mb=1))
    data = pdf(1) + b"\n" * (MB - len(pdf(1)))
    assert client.post("/documents", files={"files": ("a.pdf", data)}).status_code == 202
    (larger,) = client.post("/documents", files={"files": ("b.pdf", data + b"\n")}).json()
    assert (larger["state"], "MAX_UPLOAD_MB" in larger["message"]) == ("refused", True)
    assert [job.state for job in services.queue.jobs(owner=LOCAL_OWNER)] == ["queued", "refused"]


def test_a_question_may_not_carry_a_file(make: Make) -> None:
    client, _ = make(Settings())
    answer = client.post("/search", content=b'{"question": "' + b"x" * BODY_BYTES + b'"}')
    assert answer.status_code == 413


def test_a_question_that_is_too_long_is_refused_with_its_length(make: Make) -> None:
    client, _ = make(Settings(max_question_chars=10))
    answer = client.post("/search", json={"question": "x" * 11})
    assert answer.status_code == 400
    assert answer.json()["detail"] == "The question has 11 characters; at most 10 are allowed."
    assert client.post("/search", json={"question": "x" * 10}).status_code == 200
    with pytest.raises(BadRequest, match="1,001 characters; at most 1,000"):
        Limits(Settings(max_question_chars=1000)).question("x" * 1001)


# --- Uploads ------------------------------------------------------------------------------------------


def test_a_user_may_have_so_many_uploads_waiting_and_gets_room_when_they_are_done(make: Make) -> None:
    client, services = make(Settings(max_open_uploads=2))
    files = [("files", (f"{number}.pdf", pdf(number))) for number in range(3)]
    answer = client.post("/documents", files=files)
    assert answer.status_code == 429
    assert "of yours at most 2 may wait: upload fewer at once" in answer.json()["detail"]
    assert services.queue.jobs(owner=LOCAL_OWNER) == []  # all or none
    assert client.post("/documents", files=files[:2]).status_code == 202
    with pytest.raises(LimitReached, match="2 of your uploads wait already"):
        services.queue.add("3.pdf", pdf(3), owner=LOCAL_OWNER)
    services.queue.add("3.pdf", pdf(3), owner="ann")
    services.queue.run_pending()
    assert client.post("/documents", files=files[2:]).status_code == 202


def test_the_queue_of_all_users_has_an_end(make: Make) -> None:
    _, services = make(Settings(max_queue=2))
    services.queue.add("1.pdf", pdf(1), owner="ann")
    services.queue.add("2.pdf", pdf(2), owner="bob")
    with pytest.raises(LimitReached, match=r"The queue is full: at most 2 .*MAX_QUEUE"):
        services.queue.add("3.pdf", pdf(3), owner="cid")


def test_an_upload_that_is_one_too_many_leaves_no_file(make: Make) -> None:
    _, services = make(Settings(max_queue=1))
    services.queue.add("1.pdf", pdf(1), owner="ann")
    with pytest.raises(LimitReached):
        services.queue.add("2.pdf", pdf(2), owner="bob")
    assert len(list(services.settings.files.rglob("*.pdf"))) == 1


def test_a_list_of_refused_uploads_does_not_grow_for_ever(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest.queue, "KEPT_FINISHED", 10)
    _, services = make(Settings())
    waiting = services.queue.add("first.pdf", pdf(1), owner="ann")
    for number in range(15):
        services.queue.add(f"{number}.pdf", b"", owner="ann")
    services.queue.add("other.pdf", b"", owner="bob")
    jobs = services.queue.jobs(owner="ann")
    assert [job.source for job in jobs] == ["first.pdf", *(f"{number}.pdf" for number in range(5, 15))]
    assert jobs[0] == waiting
    assert len(services.queue.jobs(owner="bob")) == 1


# --- The pages ----------------------------------------------------------------------------------------


@pytest.fixture
def page(make: Make, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Settings], AppTest]:
    """Open a page over a library of one document."""

    def open_page(name: str, settings: Settings) -> AppTest:
        _, services = make(settings)
        services.queue.add("pump.pdf", text_pdf(PAGES), owner=LOCAL_OWNER)
        services.queue.run_pending()
        monkeypatch.setattr(rag.services, "_SHARED", Lazy(lambda: services))
        return AppTest.from_file(str(APP_PAGES / name), default_timeout=60).run()

    return open_page


def errors(page: AppTest) -> str:
    return " ".join(error.value.replace("\\", "") for error in page.error)


def test_the_ask_page_says_when_a_user_asks_too_often(page: Callable[[str, Settings], AppTest]) -> None:
    asking = page("main.py", Settings(requests_per_minute=1))
    asking.chat_input[0].set_value(QUESTION).run()
    assert errors(asking) == ""
    asking.chat_input[0].set_value("And the lake?").run()
    assert "More than 1 requests in a minute: try again in" in errors(asking)
    assert not asking.exception


def test_the_ask_page_refuses_a_long_question_whatever_the_browser_says(
    page: Callable[[str, Settings], AppTest],
) -> None:
    asking = page("main.py", Settings(max_question_chars=10))
    assert asking.chat_input[0].proto.max_chars == 10
    asking.query_params["q"] = QUESTION  # a link, which no box in the browser counts
    asking.run()
    assert "at most 10 are allowed" in errors(asking)
    assert not asking.exception


def test_the_documents_page_says_when_too_many_uploads_wait(page: Callable[[str, Settings], AppTest]) -> None:
    documents = page("documents.py", Settings(max_open_uploads=1))
    documents.file_uploader[0].set_value([(f"{n}.pdf", pdf(n), "application/pdf") for n in range(2)]).run()
    assert "of yours at most 1 may wait" in errors(documents)
    assert not documents.exception
    documents.file_uploader[0].set_value([("0.pdf", pdf(0), "application/pdf")]).run()
    assert errors(documents) == ""
    jobs = shared_services().queue.jobs(owner=LOCAL_OWNER)
    assert [(job.source, job.state) for job in jobs] == [("pump.pdf", "done"), ("0.pdf", "queued")]


# --- The LLM ------------------------------------------------------------------------------------------


def test_so_many_have_a_place_and_the_next_one_is_told_after_a_while() -> None:
    places = Places(2, 0.05)
    with (
        places.taken(),
        places.taken(),
        pytest.raises(AnswerFailed, match=r"busy: 2 texts .* within 0.05 s.*LLM_CONCURRENCY"),
        places.taken(),
    ):
        pytest.fail("there was a third place")
    with places.taken():
        pass


def test_who_waits_gets_the_place_that_becomes_free() -> None:
    places, inside, leave = Places(1, 30), threading.Event(), threading.Event()

    def hold() -> None:
        with places.taken():
            inside.set()
            leave.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(30)
    threading.Timer(0.1, leave.set).start()
    with places.taken():
        assert leave.is_set()
    holder.join()


def test_an_answer_holds_its_place_from_the_first_piece_to_the_last() -> None:
    with FakeLlm(say("One", " two [1]."), say("Three [1]."), say("Four [1].")) as llm:
        answerer = WaitingAnswerer(
            Settings(llm_base_url=llm.base_url, llm_model="tiny", llm_concurrency=1, llm_wait=0.05)
        )
        sources = [a_chunk("Words.")]
        first = answerer.stream("q", sources)
        next(first)
        with pytest.raises(AnswerFailed, match="busy"):
            list(answerer.stream("q", sources))
        with pytest.raises(AnswerFailed, match="busy"):
            answerer.complete("Do", "this", seconds=5, characters=100)
        assert "".join(first) != ""
        assert "".join(answerer.stream("q", sources)) == "Three [1]."
        left = answerer.stream("q", sources)
        next(left)
        del left  # somebody pressed Stop: the place is free again
        assert answerer.complete("Do", "this", seconds=5, characters=100) == "Four [1]."
        answerer.close()


def test_a_busy_llm_is_told_beside_the_passages(make: Make) -> None:
    with FakeLlm() as llm:
        client, services = make(
            Settings(llm_base_url=llm.base_url, llm_model="tiny", llm_concurrency=1, llm_wait=0.05)
        )
        services.queue.add("pump.pdf", text_pdf(PAGES), owner=LOCAL_OWNER)
        services.queue.run_pending()
        answerer = services.answerer
        assert isinstance(answerer, WaitingAnswerer)
        with answerer._places.taken():
            asked = client.post("/ask", json={"question": "How often does the pump need oil?"}).json()
        assert "busy" in asked["answer"]["error"]
        assert asked["hits"]
        answerer.close()


def test_quotes_need_no_place() -> None:
    assert isinstance(
        limited_answerer(Settings(), lambda _, sentences: [0.0] * len(sentences)), ExtractiveAnswerer
    )
