from __future__ import annotations

from pathlib import Path

import pytest

from ingest.errors import BadRequest
from rag.settings import VARIABLES, Settings, read_settings

ROOT = Path(__file__).resolve().parents[1]


def test_nothing_set_gives_the_embedded_defaults() -> None:
    settings = read_settings({})
    assert settings == Settings()
    assert settings.data == Path("data")
    assert settings.qdrant_url == ""
    assert not settings.has_llm


def test_variables_are_read_with_their_types() -> None:
    settings = read_settings({"SECOND_LOOK_DATA": "/srv/x", "MAX_PAGES": "7", "PARSE_SECONDS": "2.5"})
    assert (settings.data, settings.max_pages, settings.parse_seconds) == (Path("/srv/x"), 7, 2.5)


def test_an_empty_variable_counts_as_not_set() -> None:
    assert read_settings({"LLM_MODEL": "  ", "MAX_PAGES": ""}) == Settings()


@pytest.mark.parametrize("value", ["many", "-1", "0", "1.5"])
def test_a_number_that_makes_no_sense_is_told_by_its_variable(value: str) -> None:
    with pytest.raises(BadRequest, match="MAX_PAGES"):
        read_settings({"MAX_PAGES": value})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"OPENAI_API_KEY": "k", "LLM_MODEL": "m"}, True),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:1/v1", "LLM_MODEL": "m"}, True),
        ({"OPENAI_API_KEY": "k"}, False),
        ({"LLM_MODEL": "m"}, False),
    ],
)
def test_an_llm_needs_a_model_and_a_key_or_an_address(environ: dict[str, str], expected: bool) -> None:
    assert read_settings(environ).has_llm is expected


@pytest.mark.parametrize(
    ("word", "meant"), [("yes", True), ("TRUE", True), ("1", True), ("no", False), ("off", False)]
)
def test_a_yes_is_read_as_people_write_it(word: str, meant: bool) -> None:
    assert read_settings({"SECOND_LOOK_OPEN_TO_EVERYONE": word}).open_to_everyone is meant


def test_a_yes_that_is_neither_is_told_by_its_variable() -> None:
    with pytest.raises(BadRequest, match="SECOND_LOOK_OPEN_TO_EVERYONE must be yes or no"):
        read_settings({"SECOND_LOOK_OPEN_TO_EVERYONE": "perhaps"})


def test_questions_can_be_made_shorter_but_no_longer() -> None:
    assert read_settings({"MAX_QUESTION_CHARS": "100"}).max_question_chars == 100
    with pytest.raises(BadRequest, match="at most 2000"):
        read_settings({"MAX_QUESTION_CHARS": "2001"})


def test_secrets_are_not_in_the_repr() -> None:
    shown = repr(read_settings({"OPENAI_API_KEY": "sk-secret", "QDRANT_API_KEY": "q-secret"}))
    assert "secret" not in shown


def test_every_variable_is_documented() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for variable in VARIABLES.values():
        assert variable in example
        assert f"`{variable}`" in readme
