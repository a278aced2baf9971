from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.web.server.starlette.starlette_app_utils import create_signed_value

from rag.access import LOOPBACK, Access, read_access
from rag.guard import Guard
from rag.settings import Settings


async def inner(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


async def strict(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"content-security-policy", b"default-src 'none'; sandbox")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def remembering(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [
        (b"set-cookie", b"a=1; HttpOnly"),
        (b"set-cookie", b"b=2; Secure"),
        (b"content-type", b"text/html"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


OPEN = read_access(Settings())
LOGIN = read_access(
    Settings(
        url="https://look.example.org",
        oidc_issuer="https://login.example.org",
        oidc_client_id="look",
        oidc_client_secret="s3cret",
        cookie_secret="c" * 32,
    )
)


def request(
    path: str = "/", *, app: ASGIApp = inner, access: Access = OPEN, kind: str = "http", **headers: str
) -> tuple[int, dict[str, str]]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    scope: dict[str, Any] = {
        "type": kind,
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(Guard(app, access=access, hosts=LOOPBACK | {"look.example.org"})(scope, receive, send))
    if kind == "websocket":
        return sent[0].get("code", 0), {}
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


def test_a_page_of_another_site_gets_no_connection_to_a_page_of_ours() -> None:
    local = "127.0.0.1:8501"
    assert request(kind="websocket", host=local, origin="http://evil.example")[0] == 1008
    assert request(kind="websocket", host=local, origin="http://127.0.0.1:9999")[0] == 1008
    assert request(kind="websocket", host=local, origin=f"http://{local}")[0] != 1008
    assert request(kind="websocket", host=local)[0] != 1008


def test_files_are_taken_from_those_who_are_signed_in_alone() -> None:
    path, host = "/_stcore/upload_file/session/file", "look.example.org"
    claims = {
        "iss": "https://login.example.org",
        "sub": "1",
        "is_logged_in": True,
        "origin": f"https://{host}",
    }
    value = create_signed_value("c" * 32, "_streamlit_user", json.dumps(claims)).decode()
    assert request(path, access=LOGIN, host=host)[0] == 403
    assert request(path, access=LOGIN, host=host, cookie="_streamlit_user=forged")[0] == 403
    assert request(path, access=LOGIN, host=host, cookie=f"a=1; _streamlit_user={value}")[0] == 200
    assert request("/", access=LOGIN, host=host)[0] == 200
    assert request(path, host="127.0.0.1:8501")[0] == 200


def test_behind_https_cookies_are_never_sent_over_http() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    scope: dict[str, Any] = {"type": "http", "path": "/", "headers": [(b"host", b"look.example.org")]}
    asyncio.run(Guard(remembering, access=LOGIN)(scope, receive, send))
    cookies = [value for name, value in sent[0]["headers"] if name == b"set-cookie"]
    assert cookies == [b"a=1; HttpOnly; Secure", b"b=2; Secure"]
    assert (b"content-type", b"text/html") in sent[0]["headers"]
