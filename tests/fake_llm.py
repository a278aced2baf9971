"""A local server that speaks the Chat Completions protocol, well or badly, as a test wants it.

with FakeLlm(say("Revenue rose ", "by 5 % [1].")) as llm:
    ...  # OPENAI_BASE_URL=llm.base_url
assert llm.requests[0].body["temperature"] == 0
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent; header names in lower case."""

    path: str
    headers: dict[str, str]
    body: Json


class FakeLlm:
    """Listens on 127.0.0.1 while the `with` block runs; each request gets the next reply, the last one stays."""

    def __init__(self, *replies: Reply, port: int = 0) -> None:
        self.requests: list[Request] = []
        self._replies = list(replies) or [say("The sources say so [1], ", "and more of it [2].")]
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = False  # so that closing the server waits for its threads
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def base_url(self) -> str:
        """What OPENAI_BASE_URL has to be."""
        return f"http://{self.host}/v1"

    @property
    def host(self) -> str:
        """Address and port."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def wait(self, seconds: float) -> None:
        """Sleep, but no longer than the server lives."""
        self._stopped.wait(seconds)

    def _next(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
            return self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 5

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                headers = {name.lower(): value for name, value in self.headers.items()}
                self.close_connection = True
                with suppress(ConnectionError):  # the client went away
                    fake._next(Request(self.path, headers, body))(fake, self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Keep the test output clean."""

        return Handler


Reply = Callable[[FakeLlm, BaseHTTPRequestHandler], None]


def say(*pieces: str, finish: str | None = "stop", before: float = 0.0, between: float = 0.0) -> Reply:
    """A good answer, one event a piece; `before` and `between` are pauses in seconds."""
    return events(
        *map(delta, pieces), *([delta(finish=finish)] if finish else []), before=before, between=between
    )


def delta(content: str | None = None, *, finish: str | None = None, **more: object) -> Json:
    """One event of a stream."""
    change = {"content": content, **more} if content is not None or more else {}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "fake",
        "choices": [{"index": 0, "delta": change, "finish_reason": finish}],
    }


def events(*payloads: object, before: float = 0.0, between: float = 0.0, done: bool = True) -> Reply:
    """A stream of these payloads as server-sent events."""

    def reply(fake: FakeLlm, handler: BaseHTTPRequestHandler) -> None:
        _start_stream(handler)
        fake.wait(before)
        for payload in payloads:
            _send_chunk(handler, f"data: {json.dumps(payload)}\n\n".encode())
            fake.wait(between)
        if done:
            _send_chunk(handler, b"data: [DONE]\n\n")
        _send_chunk(handler, b"")

    return reply


def raw(data: bytes, *, content_type: str = "text/event-stream") -> Reply:
    """Bytes of any kind with status 200."""

    def reply(fake: FakeLlm, handler: BaseHTTPRequestHandler) -> None:
        _start_stream(handler, content_type)
        _send_chunk(handler, data)
        _send_chunk(handler, b"")

    return reply


def cut(*pieces: str) -> Reply:
    """A connection that drops in the middle of an answer."""

    def reply(fake: FakeLlm, handler: BaseHTTPRequestHandler) -> None:
        _start_stream(handler)
        for piece in pieces:
            _send_chunk(handler, f"data: {json.dumps(delta(piece))}\n\n".encode())
        handler.wfile.write(b"ff\r\ndata: {")

    return reply


def hang(*pieces: str) -> Reply:
    """An answer that stops after these pieces, with the connection held open."""

    def reply(fake: FakeLlm, handler: BaseHTTPRequestHandler) -> None:
        if pieces:
            _start_stream(handler)
        for piece in pieces:
            _send_chunk(handler, f"data: {json.dumps(delta(piece))}\n\n".encode())
        fake.wait(30)

    return reply


def fail(status: int, message: str = "no", *, code: str | None = None, **headers: str) -> Reply:
    """An error as OpenAI words it; `headers` with _ for -."""
    error = {"message": message, "type": "some_error", "param": None, "code": code}
    return fail_with(status, json.dumps({"error": error}).encode(), "application/json", **headers)


def fail_with(status: int, body: bytes, content_type: str, **headers: str) -> Reply:
    """An error with a body of any kind."""

    def reply(fake: FakeLlm, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        lengths = {"content-type": content_type, "content-length": str(len(body)), "connection": "close"}
        for name, value in {**lengths, **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return reply


def _start_stream(handler: BaseHTTPRequestHandler, content_type: str = "text/event-stream") -> None:
    handler.send_response(200)
    handler.send_header("content-type", content_type)
    handler.send_header("transfer-encoding", "chunked")
    handler.send_header("connection", "close")
    handler.end_headers()


def _send_chunk(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    handler.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    handler.wfile.flush()
