"""Secrets that were planted everywhere they are configured come out nowhere."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from streamlit.testing.v1 import AppTest
from typer.testing import CliRunner

import rag.services
from ingest.embed import Embedder
from ingest.errors import BadRequest, UserError
from ingest.store import LOCAL_OWNER, Recipe
from rag.access import hash_token, make_token, read_access
from rag.answer import make_answerer
from rag.api import create_api
from rag.cli import app as cli
from rag.export import QuestionRecord, conversation_markdown, provenance, question_data
from rag.pipeline import answer, rank
from rag.rerank import Reranker
from rag.services import Lazy, Services, open_store
from rag.settings import VARIABLES, Settings, read_settings
from tests.fake_llm import FakeLlm, fail
from tests.pdfs import text_pdf

PAGES = [["The pump needs fresh oil every 500 hours of work."]]
QUESTION = "How often does the pump need oil?"
ASK_PAGE = Path(__file__).resolve().parents[1] / "app_pages" / "main.py"

TOKEN = make_token()
SECRETS = {
    "OPENAI_API_KEY": "sk-planted-llm-key",
    "QDRANT_API_KEY": "planted-qdrant-key",
    "OIDC_CLIENT_SECRET": "planted-client-secret",
    "SECOND_LOOK_COOKIE_SECRET": "planted-cookie-secret-of-32-letters",
    "SECOND_LOOK_API_TOKENS": f"local:{hash_token(TOKEN)}",
    "QDRANT_URL": "http://planted-user:planted-password@127.0.0.1:1",
    "OPENAI_BASE_URL": "http://planted-user:planted-password@127.0.0.1:1/v1",
}
PLANTED = (
    *(SECRETS[name] for name in list(SECRETS)[:4]),
    TOKEN,
    hash_token(TOKEN),
    "planted-password",
)
LOGIN = {
    "SECOND_LOOK_URL": "https://look.example.org",
    "OIDC_ISSUER": "https://login.example.org",
    "OIDC_CLIENT_ID": "look",
}


def found(*texts: object) -> list[str]:
    """Which of the planted secrets stand in texts."""
    return [secret for secret in PLANTED for text in texts if secret in str(text)]


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a test here does, no secret is in the log afterwards."""
    caplog.set_level(logging.DEBUG)
    yield
    assert found(caplog.text) == []


@pytest.fixture
def llm() -> Iterator[FakeLlm]:
    """An endpoint that refuses every request and repeats the key that it was sent."""
    key = SECRETS["OPENAI_API_KEY"]
    with FakeLlm(fail(401, message=f"Incorrect API key provided: {key}", code="invalid_api_key")) as made:
        yield made


@pytest.fixture
def planted(tmp_path: Path, llm: FakeLlm, embedder: Embedder, reranker: Reranker) -> Iterator[Services]:
    """Services with every secret set; the index is the embedded one, so that there is something to ask."""
    settings = read_settings({**SECRETS, **LOGIN, "LLM_MODEL": "tiny", "SECOND_LOOK_DATA": str(tmp_path)})
    made = Services(replace(settings, qdrant_url="", llm_base_url=llm.base_url))
    made.use_models(embedder, reranker)
    made.queue.add("pump.pdf", text_pdf(PAGES), owner=LOCAL_OWNER)
    made.queue.run_pending()
    yield made
    made.close()


def test_no_secret_is_in_a_repr(planted: Services) -> None:
    settings = read_settings({**SECRETS, **LOGIN})
    access = read_access(settings)
    assert found(repr(settings), str(settings), repr(access), repr(access.login), repr(access.tokens)) == []
    shown = [planted.settings, planted.access, planted.limits, planted.answerer, planted.stages, planted]
    assert found(*map(repr, shown)) == []


def test_every_field_that_holds_a_secret_is_hidden() -> None:
    """A setting that is added later and is called like a secret must not be shown either."""
    words = ("key", "secret", "token", "password")
    secret = {name for name, variable in VARIABLES.items() if any(word in variable.lower() for word in words)}
    shown = {field.name for field in dataclasses.fields(Settings) if field.repr}
    assert secret & shown <= {"api_tokens_file"}  # a path


def test_no_answer_of_the_api_carries_a_secret(planted: Services) -> None:
    own = {"Authorization": f"Bearer {TOKEN}"}
    ask = {"question": QUESTION}
    with TestClient(create_api(lambda: planted), raise_server_exceptions=False) as client:
        (document,) = client.get("/documents", headers=own).json()
        answers = [
            client.get("/health"),
            client.get("/openapi.json"),
            client.get("/documents"),
            client.get("/documents", headers={"Authorization": f"Bearer {SECRETS['OPENAI_API_KEY']}"}),
            client.get("/documents", headers=own),
            client.get("/uploads", headers=own),
            client.get(f"/documents/{document['id']}/file", headers=own),
            client.get("/documents/x/file", headers=own),
            client.get("/nothing", headers=own),
            client.put("/documents", headers=own),
            client.post("/documents", files={"files": ("a.pdf", b"x")}, headers=own),
            client.post("/search", json=ask, headers=own),
            client.post("/search", json={"question": 1}, headers=own),
            client.post("/search", content=b"{", headers=own),
            client.post("/ask", json=ask, headers=own),
        ]
    assert {answer.status_code for answer in answers} >= {200, 202, 400, 401, 404, 405, 422} - {400}
    told = answers[-1].json()["answer"]["error"]
    assert "401" in told
    assert found(*(answer.text for answer in answers), *(answer.headers for answer in answers)) == []


def test_no_defect_of_the_api_tells_a_secret(planted: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: object, **__: object) -> None:
        raise RuntimeError("defect")

    monkeypatch.setattr(planted.store, "documents", break_down)
    with TestClient(create_api(lambda: planted), raise_server_exceptions=False) as client:
        answer = client.get("/documents", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 500
    assert found(answer.text) == []


def test_no_export_carries_a_secret(planted: Services) -> None:
    ranking = rank(QUESTION, planted.stages)
    answered = answer(ranking, planted.answerer)
    record = QuestionRecord(QUESTION, ranking, (answered,), 50, None, "On", provenance(planted.stages))
    assert answered.error
    assert found(json.dumps(question_data(record)), conversation_markdown([record]), answered.error) == []


def test_no_page_shows_a_secret(planted: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    # without the login, which a page in the test harness has no cookie for
    planted.access = read_access(Settings(api_tokens=SECRETS["SECOND_LOOK_API_TOKENS"]))
    monkeypatch.setattr(rag.services, "_SHARED", Lazy(lambda: planted))
    page = AppTest.from_file(str(ASK_PAGE), default_timeout=60).run()
    page.chat_input[0].set_value(QUESTION).run()
    assert not page.exception
    shown = " ".join(str(getattr(element, "value", element)) for element in page.main)
    assert "401" in shown
    assert found(shown, page.main, page.session_state) == []


@pytest.mark.parametrize("environ", [SECRETS, {name: f" {value}x" for name, value in SECRETS.items()}])
def test_no_message_about_settings_quotes_a_secret(environ: dict[str, str]) -> None:
    wrong: list[dict[str, str]] = [
        {},
        {**LOGIN, "SECOND_LOOK_URL": ""},
        {**LOGIN, "OIDC_ISSUER": "http://planted-user:planted-password@login.example.org"},
        {**LOGIN, "SECOND_LOOK_URL": "https://planted-user:planted-password@look.example.org"},
        {"OIDC_CLIENT_ID": "look"},
        {"SECOND_LOOK_API_TOKENS": TOKEN},
        {"SECOND_LOOK_API_TOKENS": f"local:{TOKEN}"},
    ]
    for change in wrong:
        with pytest.raises(BadRequest) as told:
            read_access(read_settings({**environ, **change}))
        assert found(told.value) == []


def test_a_qdrant_server_that_is_away_is_told_without_key_or_password(planted: Services) -> None:
    settings = read_settings({**SECRETS, "LLM_MODEL": "tiny"})
    assert settings.qdrant_url
    with pytest.raises(UserError) as told:
        open_store(settings, Recipe("an embedder", "a chunker", 3))
    ranking = rank(QUESTION, planted.stages)
    answered = answer(ranking, make_answerer(settings, planted.score_sentences))
    assert "127.0.0.1:1" in answered.error
    assert found(told.value, answered.error) == []


def test_no_json_of_the_command_line_carries_a_secret(
    planted: Services, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {**SECRETS, **LOGIN}.items():
        monkeypatch.setenv(name, value)

    class Kept:
        def __enter__(self) -> Services:
            return planted

        def __exit__(self, *_: object) -> None:
            """The fixture closes them."""

    monkeypatch.setattr(rag.services, "opened", lambda _: Kept())
    export = tmp_path / "question.json"
    for command in (
        ["documents", "--json"],
        ["search", QUESTION, "--json"],
        ["ask", QUESTION, "--json", "--export", str(export)],
        ["replay", str(export), "--json"],
        ["documents"],
        ["ask", QUESTION],
    ):
        done = CliRunner().invoke(cli, command)
        assert done.exit_code in (0, 1), done.output
        assert done.exception is None or isinstance(done.exception, SystemExit)
        assert found(done.output) == []
    assert found(export.read_text(encoding="utf-8")) == []
