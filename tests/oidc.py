"""A small OpenID Connect provider on loopback: two people, no passwords, real signatures."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

CLIENT = "second-look-tests"
CLIENT_SECRET = "client-secret-of-the-tests"
PEOPLE: dict[str, dict[str, object]] = {
    "ann": {"sub": "1001", "name": "Ann Ash", "email": "ann@example.org", "email_verified": True},
    "bob": {"sub": "1002", "name": "Bob *Birch*", "email": "bob@example.org", "email_verified": True},
    "eve": {"sub": "1003", "name": "Eve Elm", "email": "eve@example.com", "email_verified": True},
}


@dataclass
class Oidc:
    """The provider; `asked` are the paths of all requests, `codes` what was promised and not yet fetched."""

    asked: list[str] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.key = RSAKey.generate_key(2048, parameters={"kid": "tests"})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def issuer(self) -> str:
        """The provider's address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Oidc:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def environ(self, url: str) -> dict[str, str]:
        """What an app at an address needs to sign people in here."""
        return {
            "OIDC_ISSUER": self.issuer,
            "OIDC_CLIENT_ID": CLIENT,
            "OIDC_CLIENT_SECRET": CLIENT_SECRET,
            "SECOND_LOOK_COOKIE_SECRET": secrets.token_hex(32),
            "SECOND_LOOK_URL": url,
        }

    def describe(self) -> dict[str, Any]:
        """The discovery document."""
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "end_session_endpoint": f"{self.issuer}/logout",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
        }

    def promise(self, person: str, asked: dict[str, str]) -> str:
        """Where a person is sent back to, with a code that is good once."""
        code = secrets.token_urlsafe(16)
        self.codes[code] = {**asked, "person": person}
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def redeem(self, form: dict[str, str], client: str) -> dict[str, Any] | None:
        """The tokens for a code; None where client, code, address or PKCE verifier is not right."""
        promised = self.codes.pop(form.get("code", ""), None)
        if promised is None or client != f"{CLIENT}:{CLIENT_SECRET}":
            return None
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (
            promised["redirect_uri"] != form.get("redirect_uri")
            or promised.get("code_challenge") != challenge
        ):
            return None
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT,
            "iat": now,
            "exp": now + 600,
            "nonce": promised["nonce"],
            **PEOPLE[promised["person"]],
        }
        token = jwt.encode({"alg": "RS256", "kid": "tests"}, claims, self.key)
        return {
            "access_token": secrets.token_hex(8),
            "token_type": "Bearer",
            "expires_in": 600,
            "id_token": token,
        }


def _handler(provider: Oidc) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
            provider.asked.append(parts.path)
            match parts.path:
                case "/.well-known/openid-configuration":
                    self._json(provider.describe())
                case "/jwks":
                    self._json(KeySet([provider.key]).as_dict(private=False))
                case "/authorize" if "person" in asked:
                    self._redirect(provider.promise(asked.pop("person"), asked))
                case "/authorize":
                    links = (f'<a href="{self.path}&amp;person={name}">{name}</a>' for name in PEOPLE)
                    self._send(200, "text/html", f"<h1>Who are you?</h1>{' '.join(links)}".encode())
                case "/logout":
                    self._redirect(asked["post_logout_redirect_uri"])
                case _:
                    self._send(404, "text/plain", b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            provider.asked.append(self.path)
            basic = self.headers.get("Authorization", "").removeprefix("Basic ")
            tokens = provider.redeem(form, base64.b64decode(basic).decode())
            self._json(tokens or {"error": "invalid_grant"}, 200 if tokens else 400)

        def _json(self, data: object, status: int = 200) -> None:
            self._send(status, "application/json", json.dumps(data).encode())

        def _redirect(self, address: str) -> None:
            self.send_response(302)
            self.send_header("Location", address)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Say nothing."""

    return Handler
