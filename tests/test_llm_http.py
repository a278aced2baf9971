from __future__ import annotations

import json
import socket
import time
import traceback
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler

import pytest

from ingest.errors import AnswerFailed, BadRequest
from ingest.types import Chunk
from rag import answer
from rag.answer import INSTRUCTIONS, ChatAnswerer, make_answerer
from rag.quotes import NO_SOURCES
from rag.settings import Settings
from tests.fake_llm import FakeLlm, Reply, cut, delta, events, fail, fail_with, hang, raw, say

KEY = "sk-test-0123456789abcdef"
QUESTION = "What was the revenue?"
SOURCES = [
    Chunk("a" * 64, "report.pdf", 12, 0, 30, "Revenue was $4.5 million.", "Annual report"),
    Chunk("b" * 64, "notes.pdf", 3, 0, 30, "Costs were $4.0 million.", ""),
]


def make_settings(base_url: str, *, key: str = KEY, timeout: float = 5.0) -> Settings:
    return Settings(llm_base_url=base_url, llm_api_key=key, llm_model="small-model", llm_timeout=timeout)


@contextmanager
def asking(*replies: Reply, key: str = KEY, timeout: float = 5.0) -> Iterator[tuple[FakeLlm, ChatAnswerer]]:
    with FakeLlm(*replies) as llm:
        settings = make_settings(llm.base_url, key=key, timeout=timeout)
        with closing(ChatAnswerer(settings, pauses=(0.0, 0.0))) as answerer:
            yield llm, answerer


def ask(answerer: ChatAnswerer) -> list[str]:
    return list(answerer.stream(QUESTION, SOURCES))


def ask_in_vain(answerer: ChatAnswerer) -> tuple[list[str], str]:
    """The pieces that came before the error, and the sentence of the error."""
    pieces: list[str] = []
    with pytest.raises(AnswerFailed) as caught:
        pieces.extend(answerer.stream(QUESTION, SOURCES))
    message = str(caught.value)
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert message.endswith(".")
    assert "\n" not in message
    return pieces, message


# --- A good endpoint -------------------------------------------------------------------------------------


def test_pieces_arrive_in_order_and_while_the_answer_is_being_written() -> None:
    with asking(say("Revenue was ", "$4.5 million ", "[1].", between=0.1)) as (_, answerer):
        begin = time.monotonic()
        stream = answerer.stream(QUESTION, SOURCES)
        first = next(stream)
        seconds_to_first = time.monotonic() - begin
        rest = list(stream)
        seconds_to_last = time.monotonic() - begin
    assert [first, *rest] == ["Revenue was ", "$4.5 million ", "[1]."]
    assert seconds_to_last - seconds_to_first > 0.15


def test_the_request_asks_for_a_stream_at_temperature_0_with_instructions_sources_and_question() -> None:
    with asking() as (llm, answerer):
        ask(answerer)
    (request,) = llm.requests
    assert request.path == "/v1/chat/completions"
    assert request.body["model"] == "small-model"
    assert request.body["temperature"] == 0
    assert request.body["stream"] is True
    system, user = request.body["messages"]
    assert system == {"role": "system", "content": INSTRUCTIONS}
    assert user["role"] == "user"
    for words in ("Revenue was $4.5 million.", "Annual report", 'file="notes.pdf" page="3"', QUESTION):
        assert words in user["content"]


def test_the_key_is_in_the_authorization_header_and_nowhere_else() -> None:
    with asking() as (llm, answerer):
        ask(answerer)
    (request,) = llm.requests
    others = {name: value for name, value in request.headers.items() if name != "authorization"}
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in request.path + json.dumps(request.body) + json.dumps(others)


def test_no_request_leaves_without_sources() -> None:
    with asking() as (llm, answerer):
        assert list(answerer.stream(QUESTION, [])) == [NO_SOURCES]
    assert llm.requests == []


def test_a_local_server_needs_no_key() -> None:
    with asking(key="") as (_, answerer):
        assert "".join(ask(answerer)) == "The sources say so [1], and more of it [2]."


def test_name_and_note_are_those_of_an_llm() -> None:
    with asking() as (llm, answerer):
        assert (answerer.name, answerer.note) == ("small-model", "")
        made = make_answerer(make_settings(llm.base_url), lambda _, sentences: [0.0] * len(sentences))
        assert isinstance(made, ChatAnswerer)
        made.close()


def test_events_without_text_are_passed_over() -> None:
    stream = events(
        {**delta(), "choices": []},
        {**delta(), "choices": None},
        {"id": "1", "object": "ping"},
        delta(role="assistant"),
        delta(reasoning_content="Let me think."),
        delta("", reasoning="Still thinking."),
        delta("Yes [1]."),
        delta(finish="stop"),
        {**delta(), "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}},
    )
    with asking(stream) as (_, answerer):
        assert ask(answerer) == ["Yes [1]."]


@pytest.mark.parametrize(
    ("pieces", "answered"),
    [
        (["<think>", "hm [7]", "</think>", "\n\nYes", " [1]."], "Yes [1]."),
        (["\n<th", "ink>hm</thi", "nk>Yes [1]."], "Yes [1]."),
        (["<", "b> is a tag"], "<b> is a tag"),
        (["Use <think> tags"], "Use <think> tags"),
        (["<thin"], "<thin"),
    ],
)
def test_thinking_in_the_text_is_not_part_of_the_answer(pieces: list[str], answered: str) -> None:
    with asking(say(*pieces)) as (_, answerer):
        assert "".join(ask(answerer)) == answered


def test_a_refusal_is_shown_as_the_answer() -> None:
    with asking(events(delta(refusal="I cannot help with that."), delta(finish="stop"))) as (_, answerer):
        assert ask(answerer) == ["I cannot help with that."]


def test_what_follows_a_finished_answer_does_not_spoil_it() -> None:
    junk = f"data: {json.dumps(delta('Yes [1].', finish='stop'))}\n\ndata: {{oops\n\n".encode()
    with asking(raw(junk)) as (_, answerer):
        assert ask(answerer) == ["Yes [1]."]


def test_a_model_that_takes_no_temperature_is_asked_without_and_remembered() -> None:
    refusal = fail(400, "Unsupported value: 'temperature' does not support 0 with this model.")
    with asking(refusal, say("Yes [1].")) as (llm, answerer):
        assert ask(answerer) == ["Yes [1]."]
        assert ask(answerer) == ["Yes [1]."]
    assert [request.body.get("temperature") for request in llm.requests] == [0, None, None]


def test_a_stream_that_is_left_early_gives_its_connection_back() -> None:
    with asking(hang("First ")) as (_, answerer):
        stream = answerer.stream(QUESTION, SOURCES)
        assert next(stream) == "First "
        assert isinstance(stream, Generator)
        stream.close()


# --- An endpoint that refuses ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (
            fail(401, f"Incorrect API key provided: {KEY}"),
            "refused the key (HTTP 401): check OPENAI_API_KEY.",
        ),
        (fail(403), "does not let this key use the model 'small-model' (HTTP 403): check both."),
        (fail(404), "does not know the model 'small-model' (HTTP 404): check LLM_MODEL, and the path of"),
        (fail(429), "takes no more requests for now (HTTP 429): try again in a minute."),
        (fail(429, retry_after="21"), "(HTTP 429): try again in 21 s."),
        (fail(429, retry_after="inf"), "(HTTP 429): try again in 86400 s."),
        (fail(429, retry_after="nan"), "(HTTP 429): try again in a minute."),
        (fail(429, code="insufficient_quota"), "no credit left (HTTP 429): check the account."),
        (fail(500), "failed (HTTP 500: no): try again later."),
        (fail(503, retry_after="Wed, 21 Oct 2026 07:28:00 GMT"), "failed (HTTP 503: no): try again later."),
        (
            fail(400, "Context length\n is 8192."),
            "failed (HTTP 400: Context length is 8192): check LLM_MODEL",
        ),
        (fail(400, f"Bad <a href='//x'>key</a> {KEY}"), "(HTTP 400: Bad a href'//x'key/a ***): check"),
        (fail_with(502, b"<html>Bad gateway</html>", "text/html"), "failed (HTTP 502): try again later."),
        (fail_with(500, b'{"error": "out of memory"}', "application/json"), "(HTTP 500: out of memory): try"),
        (fail_with(418, b"[1]", "application/json"), "failed (HTTP 418): check LLM_MODEL"),
    ],
)
def test_each_refusal_is_one_clear_sentence(reply: Reply, told: str) -> None:
    with asking(reply) as (llm, answerer):
        pieces, message = ask_in_vain(answerer)
    assert pieces == []
    assert message.startswith(f"The LLM endpoint at {llm.host} ")
    assert told in message
    assert KEY not in message


def test_an_endpoint_that_wants_a_key_says_which_variable_to_set() -> None:
    with asking(fail(401), key="") as (_, answerer):
        assert "wants a key (HTTP 401): set OPENAI_API_KEY." in ask_in_vain(answerer)[1]


@pytest.mark.parametrize("reply", [fail(429), fail(500), fail(503, retry_after="0.01"), fail(408), fail(409)])
def test_a_refusal_for_the_moment_is_tried_three_times(reply: Reply) -> None:
    with asking(reply) as (llm, answerer):
        ask_in_vain(answerer)
        assert len(llm.requests) == 3
    with asking(reply, reply, say("Yes [1].")) as (llm, answerer):
        assert ask(answerer) == ["Yes [1]."]
        assert len(llm.requests) == 3


@pytest.mark.parametrize(
    "reply",
    [
        fail(401),
        fail(403),
        fail(404),
        fail(400),
        fail(429, retry_after="60"),
        fail(429, code="insufficient_quota"),
    ],
)
def test_a_refusal_that_will_not_pass_soon_is_told_at_once(reply: Reply) -> None:
    with asking(reply) as (llm, answerer):
        ask_in_vain(answerer)
    assert len(llm.requests) == 1


def test_the_answerer_recovers_without_a_restart() -> None:
    with asking(fail(401), cut("Rev"), raw(b"data: {\n\n"), say("Yes [1].")) as (_, answerer):
        for _attempt in range(3):
            ask_in_vain(answerer)
        assert ask(answerer) == ["Yes [1]."]


# --- An endpoint that is not there, hangs or breaks off --------------------------------------------------


def test_nobody_listening_is_told_with_host_and_port_only() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    settings = make_settings(f"http://user:secret-word@127.0.0.1:{port}/v1?api_key=other-secret")
    with closing(ChatAnswerer(settings, pauses=(0.0, 0.0))) as answerer:
        pieces, message = ask_in_vain(answerer)
    assert pieces == []
    assert message == (
        f"The LLM endpoint at 127.0.0.1:{port} cannot be reached: check that it runs and that "
        "OPENAI_BASE_URL is right."
    )


@pytest.mark.parametrize(
    "url", ["localhost:11434/v1", "ftp://host/v1", "http://", "http://host:port/v1", "/v1"]
)
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(BadRequest, match="OPENAI_BASE_URL must be an address like"):
        ChatAnswerer(make_settings(url))


def test_silence_before_the_answer_is_a_time_out_and_not_tried_again() -> None:
    with asking(hang(), timeout=0.2) as (llm, answerer):
        assert ask_in_vain(answerer) == (
            [],
            f"The LLM endpoint at {llm.host} sent nothing for 0.2 s: ask again, take a faster model, or raise "
            "LLM_TIMEOUT.",
        )
    assert len(llm.requests) == 1


def test_silence_in_the_middle_keeps_the_text_so_far() -> None:
    with asking(hang("Revenue ", "was "), timeout=0.2) as (_, answerer):
        pieces, message = ask_in_vain(answerer)
    assert pieces == ["Revenue ", "was "]
    assert "sent nothing for 0.2 s" in message


def test_a_slow_first_token_within_the_time_out_is_waited_for() -> None:
    with asking(say("Yes [1].", before=0.4), timeout=2.0) as (_, answerer):
        assert ask(answerer) == ["Yes [1]."]


def test_an_error_whose_text_never_comes_is_told() -> None:
    def half_an_error(fake: FakeLlm, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(401)
        handler.send_header("content-length", "1000")
        handler.end_headers()
        fake.wait(30)

    with asking(half_an_error, timeout=0.2) as (_, answerer):
        pieces, message = ask_in_vain(answerer)
    assert pieces == []
    assert message.endswith("failed and broke off telling why: try again later.")


@pytest.mark.parametrize("reply", [cut("Revenue ", "was "), say("Revenue ", "was ", finish=None)])
def test_a_stream_cut_in_the_middle_keeps_the_text_so_far(reply: Reply) -> None:
    with asking(reply) as (llm, answerer):
        pieces, message = ask_in_vain(answerer)
    assert pieces == ["Revenue ", "was "]
    assert message.startswith(f"The LLM endpoint at {llm.host} ")
    assert message.endswith("in the middle of the answer: what is shown is incomplete; ask again.")


@pytest.mark.parametrize(
    "data",
    [
        b"data: {oops\n\n",
        b"data: \xff\xfe\n\n",
        b"data: 17\n\n",
        b'data: "text"\n\n',
        b"data: [1]\n\n",
        b"data: null\n\n",
    ],
)
def test_a_malformed_stream_is_told_after_the_text_so_far(data: bytes) -> None:
    good = f"data: {json.dumps(delta('Revenue '))}\n\n".encode()
    with asking(raw(good + data)) as (_, answerer):
        pieces, message = ask_in_vain(answerer)
    assert pieces == ["Revenue "]
    assert "incomplete" in message


@pytest.mark.parametrize(
    "payload", [{"choices": "text"}, {"choices": [None]}, {"choices": [{"delta": {"content": 5}}]}]
)
def test_events_of_another_shape_are_no_answer(payload: object) -> None:
    with asking(events(payload)) as (_, answerer):
        pieces, message = ask_in_vain(answerer)
    assert pieces == []
    assert "incomplete" in message


@pytest.mark.parametrize(
    "body", [b"", b"<html>Welcome</html>", b'{"object": "chat.completion", "choices": []}']
)
def test_an_endpoint_that_does_not_stream_is_told_to_have_the_wrong_path(body: bytes) -> None:
    with asking(raw(body, content_type="text/html")) as (llm, answerer):
        assert ask_in_vain(answerer) == (
            [],
            f"The LLM endpoint at {llm.host} streams no answer: check LLM_MODEL, and the path of "
            "OPENAI_BASE_URL, which often ends in /v1.",
        )


def test_an_error_in_the_middle_of_the_stream_is_told_without_the_key() -> None:
    error = {"error": {"message": f"Engine died, key {KEY}", "type": "server_error"}}
    with asking(events(delta("Revenue "), error)) as (_, answerer):
        pieces, message = ask_in_vain(answerer)
    assert pieces == ["Revenue "]
    assert "reported an error: Engine died, key ***: ask again." in message


@pytest.mark.parametrize(
    ("finish", "told"),
    [
        ("length", "reached its length limit: the answer is cut off."),
        ("content_filter", "cut the answer off."),
    ],
)
def test_an_answer_that_was_stopped_is_told_after_its_pieces(finish: str, told: str) -> None:
    with asking(say("Revenue ", "was ", finish=finish)) as (_, answerer):
        pieces, message = ask_in_vain(answerer)
    assert pieces == ["Revenue ", "was "]
    assert told in message


@pytest.mark.parametrize("pieces", [[], [""], [" \n"], ["<think>hm</think>"]])
def test_an_empty_answer_is_told(pieces: list[str]) -> None:
    with asking(say(*pieces)) as (_, answerer):
        assert "gave an empty answer" in ask_in_vain(answerer)[1]


def test_an_answer_without_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "LONGEST_ANSWER_CHARACTERS", 1000)
    with asking(say(*["ha " * 20] * 100)) as (_, answerer):
        pieces, message = ask_in_vain(answerer)
    assert 1000 < len("".join(pieces)) <= 1060
    assert "did not come to an end" in message


def test_neither_settings_nor_answerer_show_the_key() -> None:
    with asking() as (_, answerer):
        assert KEY not in repr(answerer) + str(vars(answerer)["_settings"])
