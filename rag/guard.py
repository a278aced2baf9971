"""What every answer of the web server carries, and which requests it does not answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ingest.errors import LimitReached
from rag.access import Access
from rag.limits import Limits

# Streamlit's front end compiles chart code and styles at run time: it needs inline scripts and eval. What
# matters for hostile documents stands: nothing is loaded from, or sent to, another host.
POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "frame-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    ]
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "SAMEORIGIN",
}


UPLOADS = "/_stcore/upload_file/"
"""Streamlit's door for files, which takes them from anybody who has a page open, the sign-in page too."""
WITHOUT_TOKEN = ("/health", "/openapi.json")
"""Paths of the API that say nothing about anybody's documents."""
FILE = re.compile(r"/documents/[^/]+/file")


class Guard:
    """ASGI middleware: security headers on everything, and no door for other web sites.

    With `hosts` only requests to these host names are answered, so that a foreign name that resolves to this
    machine reaches nothing. A request to the API, or a page's connection, that comes from a page of another
    origin is refused. With a login, only those who are signed in can send files.
    """

    def __init__(self, app: ASGIApp, *, access: Access, hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._access = access
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on one request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        reason = self._refusal(scope)
        if reason and scope["type"] == "http":
            await JSONResponse({"detail": reason}, status_code=403)(scope, receive, send)
            return
        if reason:
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)  # an answer may be stricter about itself
                if self._secure:
                    message["headers"] = [_with_secure(*header) for header in message["headers"]]
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> str:
        headers = Headers(scope=scope)
        host = _host(f"//{headers.get('host', '')}")
        if self._hosts and host not in self._hosts:
            return "This app answers only under its own address."
        origin = headers.get("origin")
        asked = scope["type"] == "websocket" or scope["path"].startswith("/api/")
        if origin and asked and urlsplit(origin).netloc != headers.get("host"):
            return "Pages of other sites are not answered here."
        if scope["path"].startswith("/api/") and not scope["path"].isprintable():
            # the router would not know such a path for one of the API, whose answers are JSON
            return "An address has no control characters."
        guarded = self._access.login and scope["path"].startswith(UPLOADS)
        if guarded and self._access.user_of_cookies(_cookies(headers)) is None:
            return "Sign in first."
        return ""

    @property
    def _secure(self) -> bool:
        """Whether cookies are for https alone."""
        return self._access.login is not None and self._access.login.url.startswith("https:")


class Door:
    """ASGI middleware of the API: who asks, how often, and how much is sent, before anything of it is read.

    The owner is in `request.state.owner` afterwards. A file can also be fetched by a browser that is signed in, or
    that may open the pages: the pages link to it.
    """

    def __init__(self, app: ASGIApp, *, access: Callable[[], Access], limits: Callable[[], Limits]) -> None:
        self._app = app
        self._access = access
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on one request."""
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http" or path in WITHOUT_TOKEN:
            await self._app(scope, receive, send)
            return
        headers, access, limits = Headers(scope=scope), self._access(), self._limits()
        user = _user(access, headers, browser=scope["method"] == "GET" and bool(FILE.fullmatch(path)))
        most = limits.body_bytes(upload=path == "/documents")
        if user is None:
            await _unknown()(scope, receive, send)
            return
        refusal = _refusal(user, limits, headers, most)
        if refusal:
            await refusal(scope, receive, send)
            return
        state = {**scope.get("state", {}), "owner": access.owner_of(user)}
        await self._app({**scope, "state": state}, _counted(receive, most), send)


def _user(access: Access, headers: Headers, *, browser: bool) -> str | None:
    kind, _, token = headers.get("authorization", "").partition(" ")
    if access.api_open:
        return access.user_of_claims({})
    if kind.lower() == "bearer":
        return access.user_of_token(token.strip())
    return access.user_of_cookies(_cookies(headers)) if browser else None


def _unknown() -> JSONResponse:
    return JSONResponse(
        {"detail": "The API wants a token: send `Authorization: Bearer TOKEN` with one that is valid here."},
        status_code=401,
        headers={"WWW-Authenticate": 'Bearer realm="Second Look"'},
    )


def _refusal(user: str, limits: Limits, headers: Headers, most: int) -> JSONResponse | None:
    try:
        limits.request(user)
    except LimitReached as error:
        wait = {"Retry-After": str(limits.seconds_left(user))}
        return JSONResponse({"detail": str(error)}, status_code=429, headers=wait)
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        return JSONResponse({"detail": _too_large(most)}, status_code=413, headers={"Connection": "close"})
    return None


def _counted(receive: Receive, most: int) -> Receive:
    """Receive that breaks off a body that is larger than it said, or did not say."""
    came = 0

    async def receive_some() -> Message:
        nonlocal came
        message = await receive()
        came += len(message.get("body", b""))
        if came > most:
            raise HTTPException(413, _too_large(most))
        return message

    return receive_some


def _too_large(most: int) -> str:
    return (
        f"The request is larger than the {most / 1e6:.0f} MB allowed here: send fewer or smaller files at once. "
        "The operator can raise MAX_UPLOAD_MB."
    )


def _cookies(headers: Headers) -> dict[str, str]:
    return {name: value for line in headers.getlist("cookie") for name, value in cookie_parser(line).items()}


def _with_secure(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    return (
        (name, value + b"; Secure")
        if name == b"set-cookie" and b"; secure" not in value.lower()
        else (name, value)
    )


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""
