"""Endpoints that misbehave: an LLM and a Qdrant server that are slow, down, wrong or cut, and come back."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from pathlib import Path

import pytest

from ingest.chunk import Chunker
from ingest.errors import AnswerFailed, StoreUnavailable
from ingest.originals import Originals
from ingest.pipeline import Tools
from ingest.queue import UploadQueue
from ingest.sandbox import Sandbox
from ingest.settle import settle
from ingest.store import Recipe
from ingest.store.server import PATIENCE_SECONDS, ServerStore, open_server_store
from ingest.types import Chunk
from ingest.weights import bundled_minilm
from rag import answer as answer_module
from rag.answer import ChatAnswerer
from rag.pipeline import answer
from rag.settings import Settings
from rag.types import Hit, Ranking, Seconds
from tests.fake_llm import FakeLlm, Reply, _send_chunk, _start_stream, cut, fail, fail_with, hang, raw, say
from tests.fakes import WordEmbedder
from tests.pdfs import text_pdf
from tests.test_store_http import FakeQdrant, Handler, cut_short, status, text
from tests.test_store_http import hang as silent

pytestmark = pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection:UserWarning")

COLLECTION = "library"
RECIPE = Recipe(WordEmbedder.id, "c", WordEmbedder.dimension)
SOURCES = (Chunk("a" * 64, "report.pdf", 12, 0, 30, "Revenue was $4.5 million.", "Annual report"),)
RANKING = Ranking(
    "What was the revenue?", (Hit(SOURCES[0], 0.9, 1),), (), 1, Seconds(0, 0, 0), "", "", "", confident=None
)
DATA = text_pdf([["apple pear plum"], ["cherry and fig"]])
OWNER = "local"


# --- LLM -------------------------------------------------------------------------------------------------


def answerer(base_url: str, *, timeout: float = 0.5, pauses: tuple[float, ...] = (0.0, 0.0)) -> ChatAnswerer:
    settings = Settings(llm_base_url=base_url, llm_api_key="k", llm_model="m", llm_timeout=timeout)
    return ChatAnswerer(settings, pauses=pauses)


MISBEHAVIOUR = [
    pytest.param(hang(), "sent nothing for 0.5 s", 1, id="silent"),
    pytest.param(fail(500), "failed .HTTP 500.*try again later", 3, id="500"),
    pytest.param(fail(503), "failed .HTTP 503.*try again later", 3, id="503"),
    pytest.param(fail(429, retry_after="0"), "takes no more requests for now", 3, id="429"),
    pytest.param(fail(429, retry_after="600"), "try again in 600 s", 1, id="429-for-long"),
    pytest.param(fail(400), "failed .HTTP 400", 1, id="400"),
    pytest.param(fail_with(502, b"<html>Bad gateway</html>", "text/html"), "HTTP 502", 3, id="html-502"),
    pytest.param(raw(b"<html>Welcome</html>", content_type="text/html"), "streams no answer", 1, id="html"),
    pytest.param(raw(b"data: {broken\n\n"), "not in the Chat Completions protocol", 1, id="invalid-json"),
    pytest.param(cut(), "ended the stream|broke off|streams no answer", 1, id="cut-at-once"),
]


@pytest.mark.parametrize(("reply", "told", "requests"), MISBEHAVIOUR)
def test_an_llm_that_misbehaves_is_asked_so_often_and_told_and_the_next_answer_is_good(
    reply: Reply, told: str, requests: int
) -> None:
    with (
        FakeLlm(*[reply] * requests, say("Revenue was $4.5 million [1].")) as llm,
        closing(answerer(llm.base_url)) as one,
    ):
        failed = answer(RANKING, one)
        assert len(llm.requests) == requests
        good = answer(RANKING, one)
    assert failed.answer.text == ""
    assert re.search(told, failed.error)
    assert (good.answer.text, good.error) == ("Revenue was $4.5 million [1].", "")


@pytest.mark.parametrize(
    "reply", [cut("Revenue was ", "$4.5"), hang("Revenue was ", "$4.5")], ids=["cut", "silent"]
)
def test_what_came_before_an_llm_broke_off_is_kept_and_said_to_be_incomplete(reply: Reply) -> None:
    with FakeLlm(reply) as llm, closing(answerer(llm.base_url)) as one:
        answered = answer(RANKING, one)
    assert answered.answer.text == "Revenue was $4.5"
    assert answered.error


def test_an_llm_that_is_down_is_told_and_answers_without_a_restart_when_it_is_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with closing(answerer(f"http://127.0.0.1:{port}/v1")) as one:
        assert "cannot be reached" in answer(RANKING, one).error
        with FakeLlm(say("Yes [1]."), port=port):
            assert answer(RANKING, one).answer.text == "Yes [1]."
        assert "cannot be reached" in answer(RANKING, one).error


def test_the_wait_that_an_llm_asks_for_is_kept() -> None:
    with FakeLlm(fail(429, retry_after="1"), say("Yes [1].")) as llm, closing(answerer(llm.base_url)) as one:
        begin = time.monotonic()
        assert answer(RANKING, one).answer.text == "Yes [1]."
        assert time.monotonic() - begin >= 1


def test_an_llm_that_sends_nothing_but_comments_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def comments(fake: FakeLlm, handler: BaseHTTPRequestHandler) -> None:
        _start_stream(handler)
        for _ in range(200):
            _send_chunk(handler, b": still there\n\n")
            fake.wait(0.05)

    monkeypatch.setattr(answer_module, "LONGEST_ANSWER_SECONDS", 0.4)
    with FakeLlm(comments) as llm, closing(answerer(llm.base_url)) as one:
        begin = time.monotonic()
        with pytest.raises(AnswerFailed, match="did not come to an end"):
            list(one.stream("What?", SOURCES))
        assert time.monotonic() - begin < 5


# --- Qdrant ----------------------------------------------------------------------------------------------


class Flaky:
    """Misbehaves so many times, then no more."""

    def __init__(self, broken: Callable[[Handler], None], times: int) -> None:
        self.broken = broken
        self.left = times
        self.seen = 0

    def __call__(self, handler: Handler) -> None:
        self.seen += 1
        self.left -= 1
        if self.left <= 0:
            handler.server.broken = None
        self.broken(handler)


@contextmanager
def serving(server: FakeQdrant) -> Iterator[FakeQdrant]:
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.stopping.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def qdrant() -> Iterator[FakeQdrant]:
    with serving(FakeQdrant()) as server:
        yield server


@pytest.fixture
def store(qdrant: FakeQdrant) -> Iterator[ServerStore]:
    with closing(
        open_server_store(qdrant.url, "", COLLECTION, RECIPE, timeout=1, pauses=(0, 0, 0))
    ) as opened:
        yield opened


PASSING = [
    pytest.param(status(500), id="500"),
    pytest.param(status(503), id="503"),
    pytest.param(status(429, **{"Retry-After": "0"}), id="429"),
    pytest.param(cut_short, id="cut"),
]


@pytest.mark.parametrize("broken", PASSING)
def test_a_request_that_fails_for_the_moment_is_sent_again(
    qdrant: FakeQdrant, store: ServerStore, broken: Callable[[Handler], None]
) -> None:
    qdrant.broken = flaky = Flaky(broken, 2)
    assert store.documents(owner=OWNER) == []
    assert flaky.seen == 2


@pytest.mark.parametrize("broken", PASSING)
def test_a_request_is_sent_four_times_at_most(
    qdrant: FakeQdrant, store: ServerStore, broken: Callable[[Handler], None]
) -> None:
    qdrant.broken = flaky = Flaky(broken, 99)
    with pytest.raises(StoreUnavailable):
        store.documents(owner=OWNER)
    assert flaky.seen == 4


@pytest.mark.parametrize(
    "broken",
    [status(400), status(401), status(404), text(b"<html>"), text(b"{}"), silent],
    ids=["400", "401", "404", "html", "empty-object", "silent"],
)
def test_what_another_try_would_not_change_is_told_at_once(
    qdrant: FakeQdrant, store: ServerStore, broken: Callable[[Handler], None]
) -> None:
    qdrant.broken = flaky = Flaky(broken, 99)
    with pytest.raises(StoreUnavailable):
        store.documents(owner=OWNER)
    assert flaky.seen == 1


def test_a_wait_longer_than_patience_is_not_waited_for(qdrant: FakeQdrant, store: ServerStore) -> None:
    qdrant.broken = Flaky(status(429, **{"Retry-After": str(int(PATIENCE_SECONDS) + 1)}), 99)
    begin = time.monotonic()
    with pytest.raises(StoreUnavailable, match="too much to do"):
        store.documents(owner=OWNER)
    assert time.monotonic() - begin < PATIENCE_SECONDS / 2


def test_the_pauses_grow_and_the_wait_that_a_server_asks_for_is_kept(qdrant: FakeQdrant) -> None:
    moments: list[float] = []

    def busy(handler: Handler) -> None:
        moments.append(time.monotonic())
        status(503)(handler) if len(moments) < 3 else status(429, **{"Retry-After": "1"})(handler)

    with closing(open_server_store(qdrant.url, "", COLLECTION, RECIPE, pauses=(0.1, 0.3, 0.3))) as opened:
        qdrant.broken = Flaky(busy, 3)
        assert opened.documents(owner=OWNER) == []
        first, second = (later - earlier for earlier, later in pairwise(moments))
        assert 0.1 <= first < 0.3 <= second
        assert time.monotonic() - moments[-1] >= 1


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(seconds=20, memory_mb=1500) as opened:
        yield opened


@pytest.fixture
def library(tmp_path: Path, store: ServerStore, sandbox: Sandbox) -> Iterator[tuple[UploadQueue, Originals]]:
    chunker = Chunker(bundled_minilm() / "tokenizer.json")
    tools = Tools(sandbox, chunker, WordEmbedder(), store, max_pages=9)
    originals = Originals(tmp_path / "files", tmp_path / "trash")
    queue = UploadQueue(
        tmp_path / "queue.sqlite3", originals, lambda: tools, store=lambda: store, max_bytes=10**6
    )
    with closing(queue):
        yield queue, originals


@pytest.mark.parametrize(
    "broken", [status(500), status(401), cut_short, text(b"<html>")], ids=["500", "401", "cut", "html"]
)
def test_an_upload_that_qdrant_does_not_take_is_kept_and_goes_in_when_it_is_back(
    qdrant: FakeQdrant,
    store: ServerStore,
    library: tuple[UploadQueue, Originals],
    broken: Callable[[Handler], None],
) -> None:
    queue, originals = library
    qdrant.broken = broken
    job = queue.add("fruit.pdf", DATA, owner=OWNER)
    queue.run_pending()
    failed = queue.job(job.id, owner=OWNER)
    assert failed.state == "failed"
    assert qdrant.url in failed.message
    assert originals.files(owner=OWNER) == {job.doc_id}
    qdrant.broken = None
    queue.retry(job.id, owner=OWNER)
    queue.run_pending()
    assert queue.job(job.id, owner=OWNER).state == "done"
    assert [document.source for document in store.documents(owner=OWNER)] == ["fruit.pdf"]


def test_a_write_whose_answer_is_lost_leaves_every_point_once(
    qdrant: FakeQdrant, store: ServerStore, library: tuple[UploadQueue, Originals]
) -> None:
    queue, _ = library
    lost: list[str] = []

    def lose(handler: Handler) -> None:
        """Do what is asked, and cut the answer of every write's first try."""
        write = json.dumps(handler.body)
        if handler.command == "PUT" and write not in lost:
            lost.append(write)
            qdrant.answer("PUT /points", handler.body)
            cut_short(handler)
        else:
            handler.behave()

    qdrant.broken = lose
    job = queue.add("fruit.pdf", DATA, owner=OWNER)
    queue.run_pending()
    qdrant.broken = None
    assert queue.job(job.id, owner=OWNER).state == "done"
    assert len(lost) == 3  # unfinished, chunks, document
    assert sorted(point["payload"]["kind"] for point in qdrant.points.values()) == [
        "chunk",
        "chunk",
        "document",
        "meta",
    ]


def test_a_server_that_is_down_is_told_and_used_without_a_restart_when_it_is_back() -> None:
    first = FakeQdrant()
    port = first.server_port
    with serving(first):
        store = open_server_store(first.url, "", COLLECTION, RECIPE, timeout=1, pauses=(0, 0))
        points = first.points
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        store.documents(owner=OWNER)
    second = FakeQdrant(port)
    second.points, second.exists = points, True
    with serving(second), closing(store):
        assert store.documents(owner=OWNER) == []


def test_a_collection_that_is_gone_is_not_made_anew_where_documents_are_kept(qdrant: FakeQdrant) -> None:
    with pytest.raises(StoreUnavailable, match=r"no collection library.*3.*second-look rebuild"):
        open_server_store(qdrant.url, "", COLLECTION, RECIPE, kept=3)
    assert not qdrant.exists


def test_files_of_just_now_are_left_to_the_processes_that_share_a_server(
    store: ServerStore, library: tuple[UploadQueue, Originals]
) -> None:
    queue, originals = library
    originals.save(DATA, owner=OWNER, source="fruit.pdf")
    settle(queue, originals, store, shared=True)
    assert queue.jobs(owner=OWNER) == []
    settle(queue, originals, store)
    assert [job.source for job in queue.jobs(owner=OWNER)] == ["fruit.pdf"]
