"""Who is asking: owners, tokens, cookies, and what may start without a login."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from hmac import compare_digest
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from streamlit.web.server.starlette.starlette_app_utils import create_signed_value
from typer.testing import CliRunner

import rag.access
from ingest.embed import Embedder
from ingest.errors import BadRequest
from ingest.store import LOCAL_OWNER
from rag.access import (
    Access,
    Token,
    check_address,
    check_reach,
    hash_token,
    is_loopback,
    make_token,
    parse_tokens,
    read_access,
    token_line,
    user_name,
)
from rag.api import create_api
from rag.cli import app as cli
from rag.rerank import Reranker
from rag.services import Services
from rag.settings import Settings
from tests.pdfs import text_pdf

ISSUER = "https://login.example.org"
COOKIE_SECRET = "c" * 32
LOGIN = Settings(
    url="https://look.example.org",
    oidc_issuer=ISSUER,
    oidc_client_id="look",
    oidc_client_secret="s3cret",
    cookie_secret=COOKIE_SECRET,
)
ANN: dict[str, object] = {"iss": ISSUER, "sub": "1001", "is_logged_in": True, "email": "ann@example.org"}


def cookie(
    claims: dict[str, object], *, secret: str = COOKIE_SECRET, origin: str = LOGIN.url
) -> dict[str, str]:
    """The cookie that Streamlit sets when a provider has signed somebody in."""
    value = json.dumps({**claims, "origin": origin})
    return {"_streamlit_user": create_signed_value(secret, "_streamlit_user", value).decode()}


# --- Owners --------------------------------------------------------------------------------------------


def test_without_a_login_everybody_on_this_machine_is_the_local_user() -> None:
    access = read_access(Settings())
    assert access.api_open
    assert access.user_of_claims({}) == LOCAL_OWNER
    assert access.user_of_cookies({}) == LOCAL_OWNER


def test_a_user_follows_from_issuer_and_subject_alone() -> None:
    access = read_access(LOGIN)
    owner = access.user_of_claims(ANN)
    assert owner == user_name(ISSUER, "1001")
    assert access.user_of_claims({**ANN, "email": "other@example.org", "name": "Other"}) == owner
    assert access.user_of_claims({**ANN, "sub": "1002"}) != owner
    assert access.user_of_claims({**ANN, "iss": "https://other.example.org"}) != owner
    # nothing moves between the two: a boundary that could be shifted would make two people one
    assert user_name("ab", "c") != user_name("a", "bc")


def test_a_user_is_a_plain_name_that_says_nothing_about_the_person() -> None:
    name = user_name(ISSUER, "ann@example.org")
    assert name.startswith("user-")
    assert len(name) <= 40
    assert "ann" not in name
    assert token_line(name, "t") == f"{name}:{hash_token('t')}"


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {**ANN, "is_logged_in": False},
        {**ANN, "is_logged_in": "yes"},
        {**ANN, "sub": ""},
        {**ANN, "sub": 7},
        {**ANN, "sub": None},
        {**ANN, "iss": ""},
        {key: value for key, value in ANN.items() if key != "iss"},
    ],
)
def test_with_a_login_whoever_is_not_signed_in_is_nobody(claims: dict[str, object]) -> None:
    assert read_access(LOGIN).user_of_claims(claims) is None


def test_a_shared_library_is_the_local_one_and_users_stay_apart_in_it() -> None:
    access = read_access(replace(LOGIN, shared=True, api_tokens=f"user-1:{hash_token('t')}"))
    users = [access.user_of_claims(ANN), access.user_of_token("t")]
    assert users == [user_name(ISSUER, "1001"), "user-1"]
    assert {access.owner_of(user) for user in users if user} == {LOCAL_OWNER}
    assert access.user_of_claims({}) is None
    assert access.user_of_token("other") is None
    assert read_access(LOGIN).owner_of("user-1") == "user-1"


@pytest.mark.parametrize(
    ("claims", "admitted"),
    [
        ({"email": "ann@example.org", "email_verified": True}, True),
        ({"email": "ANN@example.org", "email_verified": "true"}, True),
        ({"email": "bob@example.com", "email_verified": True}, True),
        ({"email": "ann@example.org", "email_verified": False}, False),
        ({"email": "ann@example.org"}, False),
        ({"email": "eve@example.org", "email_verified": True}, False),
        ({"email": "bob@sub.example.com", "email_verified": True}, False),
        ({"email": "bob@notexample.com", "email_verified": True}, False),
        ({"email": "bob@example.com.evil.org", "email_verified": True}, False),
        ({"email_verified": True}, False),
    ],
)
def test_only_verified_addresses_of_the_list_come_in(claims: dict[str, object], admitted: bool) -> None:
    access = read_access(replace(LOGIN, users="ann@example.org, @example.com"))
    person = {"iss": ISSUER, "sub": "1", "is_logged_in": True, **claims}
    assert (access.user_of_claims(person) is not None) is admitted


# --- Cookies -------------------------------------------------------------------------------------------


def test_the_cookie_of_a_login_says_who_it_is() -> None:
    assert read_access(LOGIN).user_of_cookies(cookie(ANN)) == user_name(ISSUER, "1001")


def test_a_cookie_in_pieces_is_put_together() -> None:
    value = json.dumps({**ANN, "origin": LOGIN.url})
    pieces = {"_streamlit_user": "chunks-2", "_streamlit_user_1": value[:40], "_streamlit_user_2": value[40:]}
    signed = {name: create_signed_value(COOKIE_SECRET, name, part).decode() for name, part in pieces.items()}
    access = read_access(LOGIN)
    assert access.user_of_cookies(signed) == user_name(ISSUER, "1001")
    assert access.user_of_cookies({**signed, "_streamlit_user_2": signed["_streamlit_user_1"]}) is None


@pytest.mark.parametrize(
    "cookies",
    [
        {},
        {"_streamlit_user": ""},
        {"_streamlit_user": "forged"},
        {"_streamlit_user": "\xff\u2028"},
        {"_streamlit_user": json.dumps(ANN)},
        cookie(ANN, secret="another secret of 32 characters!!"),
        cookie(ANN, secret=""),
        cookie(ANN, origin="https://evil.example.org"),
        {"_streamlit_user": cookie(ANN)["_streamlit_user"] + "x"},
        # signed under another name: a token is not a login
        {"_streamlit_user": create_signed_value(COOKIE_SECRET, "_streamlit_user_tokens", "{}").decode()},
    ],
)
def test_a_forged_cookie_is_nobodys(cookies: dict[str, str]) -> None:
    assert read_access(LOGIN).user_of_cookies(cookies) is None


# --- Tokens --------------------------------------------------------------------------------------------


def test_a_token_opens_the_documents_of_its_user_and_no_others() -> None:
    first, second = make_token(), make_token()
    lines = f"ann:{hash_token(first)}, bob:{hash_token(second)}"
    access = read_access(Settings(api_tokens=lines))
    assert not access.api_open
    assert (access.user_of_token(first), access.user_of_token(second)) == ("ann", "bob")
    for other in ("", first[:-1], first + "x", hash_token(first), "ann", lines, "\ud800"):
        assert access.user_of_token(other) is None


def test_a_token_is_compared_with_every_known_one_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[str, str]] = []

    def compare(known: str, given: str) -> bool:
        compared.append((known, given))
        return compare_digest(known, given)

    monkeypatch.setattr(rag.access, "compare_digest", compare)
    tokens = tuple(Token(name, hash_token(name)) for name in ("first", "middle", "last"))
    access = Access(None, tokens, shared=False, pages_open=True, url="")
    for given in ("first", "middle", "last", "unknown", ""):
        compared.clear()
        access.user_of_token(given)
        assert compared == [(token.sha256, hash_token(given)) for token in tokens]


def test_tokens_come_from_the_environment_and_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# of the build server\nci:{hash_token('a')}\n\nbackup:{hash_token('b')}  # nightly\n")
    access = read_access(Settings(api_tokens=f"ann:{hash_token('c')}", api_tokens_file=str(file)))
    assert [access.user_of_token(token) for token in "abc"] == ["ci", "backup", "ann"]


@pytest.mark.parametrize(
    "text", ["sl_plain-token", "ann:sl_plain-token", f"Ann:{'a' * 64}", f"a/b:{'a' * 64}", "x:"]
)
def test_an_entry_that_is_no_hash_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(BadRequest, match="Entry 2 of SOMEWHERE") as told:
        parse_tokens(f"ann:{'0' * 64}\n{text}", "SOMEWHERE")
    assert "plain-token" not in str(told.value)


def test_a_token_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"SECOND_LOOK_API_TOKENS_FILE .*missing"):
        read_access(Settings(api_tokens_file=str(tmp_path / "missing")))


def test_the_token_command_prints_a_token_and_the_line_that_lets_it_in() -> None:
    token, line = (made := CliRunner().invoke(cli, ["token", "user-1"])).stdout.split()
    assert made.exit_code == 0
    assert line == f"user-1:{hash_token(token)}"
    assert read_access(Settings(api_tokens=line)).user_of_token(token) == "user-1"
    again, _ = CliRunner().invoke(cli, ["token", "user-1"]).stdout.split()
    assert again != token
    assert isinstance(CliRunner().invoke(cli, ["token", "ann@example.org"]).exception, BadRequest)


# --- What may start ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "starts"),
    [
        (Settings(), True),
        (Settings(host="localhost"), True),
        (Settings(host="127.0.0.5"), True),
        (Settings(host="::1"), True),
        (Settings(host="0.0.0.0"), False),
        (Settings(host="::"), False),
        (Settings(host="192.168.1.5"), False),
        (Settings(host="look.example.org"), False),
        (Settings(host="0.0.0.0", open_to_everyone=True), True),
        (Settings(host="0.0.0.0", api_tokens=f"ann:{'0' * 64}"), True),
        (replace(LOGIN, host="0.0.0.0"), True),
    ],
)
def test_what_others_can_reach_starts_only_with_a_login_tokens_or_a_clear_word(
    settings: Settings, starts: bool
) -> None:
    access = read_access(settings)
    if starts:
        check_reach(settings, access)
    else:
        with pytest.raises(BadRequest, match="SECOND_LOOK_OPEN_TO_EVERYONE=yes"):
            check_reach(settings, access)
        assert access.user_of_claims({}) is None


def test_with_tokens_alone_the_pages_are_closed_to_others() -> None:
    access = read_access(Settings(host="0.0.0.0", api_tokens=f"ann:{hash_token('t')}"))
    assert access.user_of_claims({}) is None
    assert access.user_of_token("t") == "ann"


def test_the_start_says_who_can_reach_it() -> None:
    everyone = Settings(host="0.0.0.0", open_to_everyone=True)
    tokens = Settings(api_tokens=f"ann:{'0' * 64}")
    assert read_access(Settings()).reach("127.0.0.1") == "this machine only"
    assert "ANYONE" in read_access(everyone).reach("0.0.0.0")
    assert "everybody whom login.example.org signs in" in read_access(LOGIN).reach("0.0.0.0")
    assert "SECOND_LOOK_USERS" in read_access(replace(LOGIN, users="@example.org")).reach("0.0.0.0")
    assert read_access(tokens).reach("127.0.0.1") == "this machine only; the API with one of 1 tokens"


def test_a_server_that_listens_elsewhere_than_the_settings_say_does_not_start() -> None:
    check_address(Settings(), "127.0.0.1")
    check_address(Settings(host="0.0.0.0"), "127.0.0.1")
    check_address(Settings(host="0.0.0.0"), "0.0.0.0")
    for address in ("0.0.0.0", None, "192.168.1.5"):
        with pytest.raises(BadRequest, match="SECOND_LOOK_HOST"):
            check_address(Settings(), address)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "10.0.0.1", "127.0.0.1.evil.org", "localhost.evil.org", "2130706433"]
)
def test_nothing_but_loopback_passes_for_it(host: str) -> None:
    assert not is_loopback(host)


def test_the_command_refuses_with_one_sentence(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("second-look")), "serve"]
    environ = {**os.environ, "SECOND_LOOK_HOST": "0.0.0.0", "SECOND_LOOK_DATA": str(tmp_path)}
    done = subprocess.run(command, check=False, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "SECOND_LOOK_OPEN_TO_EVERYONE=yes" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"oidc_client_id": ""}, "OIDC_CLIENT_ID"),
        ({"oidc_client_secret": ""}, "OIDC_CLIENT_SECRET"),
        ({"cookie_secret": ""}, "SECOND_LOOK_COOKIE_SECRET"),
        ({"cookie_secret": "short"}, "at least 32 characters"),
        ({"url": ""}, "SECOND_LOOK_URL"),
        ({"url": "look.example.org"}, "SECOND_LOOK_URL must be an address"),
        ({"url": "https://look.example.org/path"}, "SECOND_LOOK_URL must be an address"),
        ({"url": "http://look.example.org"}, "https"),
        ({"oidc_issuer": "http://login.example.org"}, "OIDC_ISSUER must begin with https"),
        ({"oidc_issuer": "https://user:pw@login.example.org"}, "OIDC_ISSUER must be an address"),
        ({"oidc_issuer": "http://[::1"}, "OIDC_ISSUER must be an address"),
        ({"users": "ann"}, "SECOND_LOOK_USERS"),
        ({"oidc_issuer": "", "oidc_client_id": "", "oidc_client_secret": "", "users": "@x.org"}, "no login"),
    ],
)
def test_half_a_login_is_refused_by_name(change: dict[str, str], named: str) -> None:
    with pytest.raises(BadRequest, match=named):
        read_access(replace(LOGIN, **change))  # type: ignore[arg-type]


def test_addresses_are_those_that_browsers_send() -> None:
    login = read_access(replace(LOGIN, url="https://Look.Example.org:443/")).login
    assert login is not None
    assert login.url == "https://look.example.org"
    assert login.streamlit_secrets["auth"]["redirect_uri"] == "https://look.example.org/oauth2callback"


# --- The API ------------------------------------------------------------------------------------------

TOKENS = {"ann": make_token(), "bob": make_token()}
PUMP = [["The pump needs fresh oil every 500 hours of work."], ["It weighs 20 kilograms."]]
LAKE = [["The lake is deep and cold in winter."], ["Fish live in the lake near the old mill."]]


@pytest.fixture
def two(tmp_path: Path, embedder: Embedder, reranker: Reranker) -> Iterator[tuple[TestClient, Services]]:
    lines = ",".join(token_line(name, token) for name, token in TOKENS.items())
    services = Services(replace(LOGIN, data=tmp_path / "data", host="0.0.0.0", api_tokens=lines))
    services.use_models(embedder, reranker)
    with TestClient(create_api(lambda: services), base_url=LOGIN.url) as client:
        yield client, services
    services.close()


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[name]}"}


def put(two: tuple[TestClient, Services], name: str, pages: list[list[str]]) -> str:
    client, services = two
    (job,) = client.post(
        "/documents", files={"files": (f"{name}.pdf", text_pdf(pages))}, headers=bearer(name)
    ).json()
    services.queue.run_pending()
    return str(job["doc_id"])


DOORS = [
    ("GET", "/documents"),
    ("POST", "/documents"),
    ("GET", "/uploads"),
    ("DELETE", f"/documents/{'0' * 64}"),
    ("GET", f"/documents/{'0' * 64}/file"),
    ("POST", "/search"),
    ("POST", "/ask"),
    ("GET", "/unknown"),
]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer sl_wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {TOKENS['ann']}"},
        {"Authorization": TOKENS["ann"]},
        {"X-Token": TOKENS["ann"]},
    ],
)
def test_every_door_wants_a_token(two: tuple[TestClient, Services], headers: dict[str, str]) -> None:
    for method, path in DOORS:
        answer = two[0].request(method, path, headers=headers)
        assert (path, answer.status_code) == (path, 401)
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="Second Look"'
        assert "token" in answer.json()["detail"]


def test_health_and_description_need_no_token(two: tuple[TestClient, Services]) -> None:
    assert two[0].get("/health").status_code == 200
    assert two[0].get("/openapi.json").status_code == 200


def test_the_documents_of_others_are_not_reachable(two: tuple[TestClient, Services]) -> None:
    client, _ = two
    pump, lake = put(two, "ann", PUMP), put(two, "bob", LAKE)
    assert [one["id"] for one in client.get("/documents", headers=bearer("ann")).json()] == [pump]
    assert [one["source"] for one in client.get("/uploads", headers=bearer("ann")).json()] == ["ann.pdf"]
    assert client.get(f"/documents/{pump}/file", headers=bearer("ann")).status_code == 200
    assert client.get(f"/documents/{lake}/file", headers=bearer("ann")).status_code == 404
    assert client.delete(f"/documents/{lake}", headers=bearer("ann")).status_code == 404
    for path in ("/search", "/ask"):
        for doc_ids in (None, [lake], [pump, lake]):
            query = {"question": "How cold is the lake in winter?", "doc_ids": doc_ids}
            found = client.post(path, json=query, headers=bearer("ann")).json()
            assert {hit["chunk"]["doc_id"] for hit in found["hits"]} <= {pump}
            assert "lake" not in json.dumps(found["hits"])
    assert [one["id"] for one in client.get("/documents", headers=bearer("bob")).json()] == [lake]


def test_the_same_file_of_two_users_is_two_documents(two: tuple[TestClient, Services]) -> None:
    client, services = two
    pump = put(two, "ann", PUMP)
    assert put(two, "bob", PUMP) == pump
    assert client.delete(f"/documents/{pump}", headers=bearer("bob")).status_code == 204
    assert client.get(f"/documents/{pump}/file", headers=bearer("ann")).status_code == 200
    assert len(services.store.documents(owner="ann")) == 1


def test_a_signed_in_browser_gets_its_files_and_nothing_else(two: tuple[TestClient, Services]) -> None:
    client, services = two
    owner = user_name(ISSUER, "1001")
    services.queue.add("own.pdf", text_pdf(PUMP), owner=owner)
    services.queue.run_pending()
    (document,) = services.store.documents(owner=owner)
    lake = put(two, "bob", LAKE)

    def visit(method: str, path: str, cookies: dict[str, str]) -> int:
        line = "; ".join(f"{name}={value}" for name, value in cookies.items())
        return client.request(method, path, headers={"Cookie": line}).status_code

    mine = cookie(ANN)
    assert visit("GET", f"/documents/{document.id}/file", mine) == 200
    assert visit("GET", f"/documents/{lake}/file", mine) == 404
    assert visit("GET", f"/documents/{document.id}/file", cookie(ANN, secret="x" * 32)) == 401
    assert visit("GET", f"/documents/{document.id}/file", cookie({**ANN, "sub": "1002"})) == 404
    # a link on another site can send the cookie with GET; nothing but the file is read, and nothing changed, by it
    assert visit("DELETE", f"/documents/{document.id}", mine) == 401
    assert visit("GET", "/documents", mine) == 401
    assert visit("POST", "/search", mine) == 401


def test_with_tokens_but_no_login_this_machines_pages_still_get_their_files(
    tmp_path: Path, embedder: Embedder, reranker: Reranker
) -> None:
    services = Services(Settings(data=tmp_path, api_tokens=token_line("local", TOKENS["ann"])))
    services.use_models(embedder, reranker)
    services.queue.add("pump.pdf", text_pdf(PUMP), owner=LOCAL_OWNER)
    services.queue.run_pending()
    (document,) = services.store.documents()
    with TestClient(create_api(lambda: services)) as client:
        assert client.get(f"/documents/{document.id}/file").status_code == 200
        assert client.get("/documents").status_code == 401
        wrong = client.get(f"/documents/{document.id}/file", headers={"Authorization": "Bearer sl_wrong"})
        assert wrong.status_code == 401
    services.close()
