"""Who is asking, and whose documents that person sees: login, API tokens, and what is open without them.

A user is a short name that follows from who signed in and with whom: a hash of issuer and subject, never a name or
an e-mail address, which can change hands. Without a login everybody who can reach the app is the user `local`.
The owner, in the Qdrant filter, in folder names and in the queue, is the user; where the library is shared, it is
`local` for all. Requests are counted by user.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from hmac import compare_digest
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ingest.errors import BadRequest
from ingest.store import LOCAL_OWNER
from rag.settings import VARIABLES, Settings

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
SHORTEST_COOKIE_SECRET = 32
CALLBACK = "/oauth2callback"
"""Where the provider sends people back to; Streamlit's address for it."""

_USER = re.compile(r"[a-z0-9-]{1,40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LOGIN = ("oidc_issuer", "oidc_client_id", "oidc_client_secret", "cookie_secret", "url")
_HOW_TO_MAKE = 'python -c "import secrets; print(secrets.token_hex(32))"'


@dataclass(frozen=True, slots=True)
class Login:
    """An OpenID Connect provider, and who of its users may come in: all of them where `users` is empty.

    `url` is the app's own address. `users` holds e-mail addresses and, beginning with @, whole domains.
    """

    url: str
    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    cookie_secret: str = field(repr=False)
    users: tuple[str, ...] = ()

    @property
    def streamlit_secrets(self) -> dict[str, Any]:
        """What `st.login` wants to know, as `st.App` takes it."""
        return {
            "auth": {
                "redirect_uri": self.url + CALLBACK,
                "cookie_secret": self.cookie_secret,
                "client_id": self.client_id,
                "client_secret": self.client_secret,
                "server_metadata_url": f"{self.issuer}/.well-known/openid-configuration",
            }
        }

    def admits(self, claims: Mapping[str, object]) -> bool:
        """Whether these claims are of somebody who may come in; an address that is not verified does not count."""
        if not self.users:
            return True
        email = str(claims.get("email", "")).lower()
        verified = claims.get("email_verified") in (True, "true")
        return verified and any(
            email == user or (user[0] == "@" and email.endswith(user)) for user in self.users
        )


@dataclass(frozen=True, slots=True)
class Token:
    """An API token as it is kept: whose it is, and its SHA-256 in hex."""

    user: str
    sha256: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Access:
    """Who may come in, and as whom.

    `pages_open`: there is no login, and only this machine reaches the app or the operator wants it open. `url` is
    the app's own address, "" where nobody said it.
    """

    login: Login | None
    tokens: tuple[Token, ...]
    shared: bool
    pages_open: bool
    url: str

    @property
    def api_open(self) -> bool:
        """True where the API asks for no token."""
        return self.pages_open and not self.tokens

    def user_of_token(self, token: str) -> str | None:
        """The user behind an API token; None for one that is not known. Takes as long for any token."""
        sha256 = hash_token(token)
        found = None
        for known in self.tokens:
            if compare_digest(known.sha256, sha256):
                found = known.user
        return found

    def user_of_claims(self, claims: Mapping[str, object]) -> str | None:
        """The user behind what a provider says of a browser's user; None where that is nobody who may come in."""
        if self.login is None:
            return LOCAL_OWNER if self.pages_open else None
        issuer, subject = claims.get("iss"), claims.get("sub")
        if claims.get("is_logged_in") is not True or not self.login.admits(claims):
            return None
        if not (isinstance(issuer, str) and isinstance(subject, str) and issuer and subject):
            return None
        return user_name(issuer, subject)

    def user_of_cookies(self, cookies: Mapping[str, str]) -> str | None:
        """The user behind the cookies of a browser, as `user_of_claims`; a forged or old one is nobody's."""
        return self.user_of_claims(_signed_claims(cookies, self.login) if self.login else {})

    def owner_of(self, user: str) -> str:
        """Whose documents a user sees: the user's own, or all users' where the library is shared."""
        return LOCAL_OWNER if self.shared else user

    def reach(self, address: str) -> str:
        """Who can reach the app, for the line that is printed at its start."""
        doors = []
        if self.login:
            who = "those of SECOND_LOOK_USERS" if self.login.users else "everybody"
            doors.append(f"{who} whom {urlsplit(self.login.issuer).netloc} signs in")
        elif self.pages_open:
            doors.append(
                "this machine only"
                if is_loopback(address)
                else "ANYONE who reaches this address, without a login"
            )
        if self.tokens:
            doors.append(f"the API with one of {len(self.tokens)} tokens")
        return "; ".join(doors)


def read_access(settings: Settings) -> Access:
    """Who may come in, by the settings; nobody, where nothing is said about it. Raises BadRequest."""
    login = _read_login(settings)
    tokens = parse_tokens(settings.api_tokens, VARIABLES["api_tokens"])
    if settings.api_tokens_file:
        tokens += _read_token_file(Path(settings.api_tokens_file))
    url = _address("url", settings.url, secure=False) if settings.url else ""
    pages_open = login is None and (is_loopback(settings.host) or settings.open_to_everyone)
    return Access(login, tokens, settings.shared, pages_open, url)


def check_reach(settings: Settings, access: Access) -> None:
    """Raise BadRequest where the app would listen to other machines and nobody has said who may come in."""
    if not (access.login or access.tokens or access.pages_open):
        raise BadRequest(
            f"SECOND_LOOK_HOST={settings.host} lets other machines in, and there is no login: whoever reaches "
            "this address could read and delete all documents. Set up a login (OIDC_ISSUER, see the README), or "
            "API tokens (`second-look token`), or say SECOND_LOOK_OPEN_TO_EVERYONE=yes if you want just that."
        )


def check_address(settings: Settings, address: str | None) -> None:
    """Raise BadRequest where the server listens elsewhere than the settings say, so that more can reach it."""
    if address != settings.host and not (address and is_loopback(address)):
        raise BadRequest(
            f"The server was told to listen on {address or 'all addresses'}, while SECOND_LOOK_HOST is "
            f"{settings.host}. Set SECOND_LOOK_HOST instead, so that the app knows who can reach it."
        )


def is_loopback(host: str) -> bool:
    """True for a name or address that only this machine can reach."""
    try:
        return host in LOOPBACK or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


# --- Users and tokens ----------------------------------------------------------------------------------


def user_name(issuer: str, subject: str) -> str:
    """The user for a person whom an issuer knows as `subject`: 128 bits of a hash, the same at each login."""
    return f"user-{hashlib.sha256(json.dumps([issuer, subject]).encode()).hexdigest()[:32]}"


def make_token() -> str:
    """A new API token with 256 random bits; so many cannot be guessed, and a plain hash keeps them safe."""
    return f"sl_{secrets.token_urlsafe(32)}"


def hash_token(token: str) -> str:
    """The SHA-256 of a token in hex: what is kept of it."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def token_line(user: str, token: str) -> str:
    """A token as it stands in the settings. Raises BadRequest for a user that cannot be one."""
    if not _USER.fullmatch(user):
        raise BadRequest(
            f"A user is {LOCAL_OWNER!r} or the id that the app shows under Account: up to 40 of a-z, 0-9 and -."
        )
    return f"{user}:{hash_token(token)}"


def parse_tokens(text: str, where: str) -> tuple[Token, ...]:
    """Tokens from USER:SHA256 entries between commas or white space; # begins a comment. Raises BadRequest."""
    entries = re.split(r"[,\s]+", re.sub(r"#.*", "", text).strip(", \n"))
    tokens = []
    for number, entry in enumerate(filter(None, entries), start=1):
        user, _, sha256 = entry.partition(":")
        if not (_USER.fullmatch(user) and _SHA256.fullmatch(sha256)):
            # not quoted: it may be a token
            raise BadRequest(
                f"Entry {number} of {where} is not USER:SHA256, as `second-look token USER` prints it."
            )
        tokens.append(Token(user, sha256))
    return tuple(tokens)


def _read_token_file(path: Path) -> tuple[Token, ...]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"SECOND_LOOK_API_TOKENS_FILE {path} cannot be read: {error}.") from error
    return parse_tokens(text, str(path))


# --- Login ---------------------------------------------------------------------------------------------


def _read_login(settings: Settings) -> Login | None:
    if not (settings.oidc_issuer or settings.oidc_client_id or settings.oidc_client_secret):
        if settings.users:
            raise BadRequest(
                "SECOND_LOOK_USERS says who may come in, but there is no login: set OIDC_ISSUER."
            )
        return None
    missing = [VARIABLES[name] for name in _LOGIN if not getattr(settings, name)]
    if missing:
        raise BadRequest(f"A login also needs {' and '.join(missing)}.")
    if len(settings.cookie_secret) < SHORTEST_COOKIE_SECRET:
        raise BadRequest(
            f"SECOND_LOOK_COOKIE_SECRET must have at least {SHORTEST_COOKIE_SECRET} characters. "
            f"Make one: {_HOW_TO_MAKE}"
        )
    users = tuple(user.lower() for user in re.split(r"[,\s]+", settings.users) if user)
    if not all(re.fullmatch(r"[^@]*@[^@]+", user) for user in users):
        raise BadRequest(
            "SECOND_LOOK_USERS takes e-mail addresses and domains like @example.org, with commas."
        )
    return Login(
        _address("url", settings.url),
        _address("oidc_issuer", settings.oidc_issuer, path=True),
        settings.oidc_client_id,
        settings.oidc_client_secret,
        settings.cookie_secret,
        users,
    )


def _address(name: str, value: str, *, path: bool = False, secure: bool = True) -> str:
    """An address as browsers write it, without a slash at its end; `secure`: nobody on the way can read along."""
    variable = VARIABLES[name]
    try:
        parts = urlsplit(value.rstrip("/"))
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    extra = parts.query or parts.username or (parts.path and not path)
    if parts.scheme not in ("https", "http") or not host or extra:
        raise BadRequest(f"{variable} must be an address like https://example.org and nothing more.")
    if secure and parts.scheme == "http" and not is_loopback(host):
        raise BadRequest(f"{variable} must begin with https://: over http others could take a login over.")
    usual = {"http": 80, "https": 443}[parts.scheme]
    name_and_port = (f"[{host}]" if ":" in host else host) + (f":{port}" if port not in (None, usual) else "")
    return f"{parts.scheme}://{name_and_port}{parts.path}"


def _signed_claims(cookies: Mapping[str, str], login: Login) -> Mapping[str, object]:
    """What the provider said of the user, from the cookie that Streamlit signed at the login; {} without one."""
    from streamlit.auth_util import get_cookie_with_chunks
    from streamlit.web.server.starlette.starlette_app_utils import decode_signed_value
    from streamlit.web.server.starlette.starlette_server_config import USER_COOKIE_NAME

    def read(name: str) -> bytes | None:
        value = cookies.get(name, "")
        return decode_signed_value(login.cookie_secret, name, value) if value.isascii() else None

    raw = get_cookie_with_chunks(read, USER_COOKIE_NAME)
    try:
        claims = json.loads(raw or "{}")
    except ValueError:  # pieces of two logins
        return {}
    return claims if isinstance(claims, dict) and claims.get("origin") == login.url else {}
