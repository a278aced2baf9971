from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rag.guard import LOOPBACK, Guard


async def inner(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


async def strict(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"content-security-policy", b"default-src 'none'; sandbox")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


def request(path: str = "/", *, app: ASGIApp = inner, **headers: str) -> tuple[int, dict[str, str]]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    scope: dict[str, Any] = {
        "type": "http",
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(Guard(app, hosts=LOOPBACK)(scope, receive, send))
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


def test_every_answer_carries_the_security_headers() -> None:
    status, headers = request(host="127.0.0.1:8501")
    assert status == 200
    assert "img-src 'self' data: blob:" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "SAMEORIGIN"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8501", "", "127.0.0.1.evil.example", "[::1"])
def test_a_foreign_host_name_reaches_nothing(host: str) -> None:
    assert request(host=host)[0] == 403


@pytest.mark.parametrize("host", ["127.0.0.1:8501", "localhost", "[::1]:8501"])
def test_this_machines_own_names_are_answered(host: str) -> None:
    assert request(host=host)[0] == 200


def test_the_api_does_not_answer_pages_of_other_sites() -> None:
    assert request("/api/search", host="127.0.0.1:8501", origin="http://evil.example")[0] == 403
    assert request("/api/search", host="127.0.0.1:8501", origin="null")[0] == 403
    assert request("/api/search", host="127.0.0.1:8501", origin="http://127.0.0.1:8501")[0] == 200
    assert request("/api/search", host="127.0.0.1:8501")[0] == 200


def test_an_answer_that_is_stricter_about_itself_stays_so() -> None:
    _, headers = request("/api/documents/1/file", app=strict, host="127.0.0.1:8501")
    assert headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert headers["x-content-type-options"] == "nosniff"
