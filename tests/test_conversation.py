"""Follow-up questions made to stand alone: the rule, and the LLM with its failures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ingest.errors import AnswerFailed
from rag.answer import ChatAnswerer
from rag.conversation import (
    LONGEST_ANSWER,
    MOST_EXCHANGES,
    MOST_WORDS_ADDED,
    Exchange,
    StandAlone,
    by_rule,
    key_words,
    make_content,
    stand_alone,
    writer_of,
)
from rag.quotes import ExtractiveAnswerer
from rag.settings import Settings
from tests.fake_llm import FakeLlm, Reply, fail, hang, say

BEFORE = [Exchange("How often does the P200 pump need oil?", "Every 500 hours [1].")]


class Says:
    """A writer that says one thing, and keeps what it was given."""

    name = "tiny"

    def __init__(self, text: str) -> None:
        self.text = text
        self.given = ""

    def complete(self, instructions: str, content: str, *, seconds: float, characters: int) -> str:
        self.given = content
        return self.text


@contextmanager
def asking(*replies: Reply) -> Iterator[tuple[FakeLlm, ChatAnswerer]]:
    with FakeLlm(*replies) as llm:
        answerer = ChatAnswerer(Settings(llm_base_url=llm.base_url, llm_model="tiny"))
        yield llm, answerer
        answerer.close()


def test_the_first_question_stands_as_it_is() -> None:
    writer = Says("something else")
    assert stand_alone(" And it? ", [], writer) == StandAlone("And it?", "And it?", "as asked")
    assert writer.given == ""


@pytest.mark.parametrize(
    ("question", "ruled"),
    [
        ("How much does it hold in the gear box?", "How much does it hold in the gear box? (P200 pump oil)"),
        (
            "And which grade should be bought there?",
            "And which grade should be bought there? (P200 pump oil)",
        ),
        ("What about the P300 water pump filter?", "What about the P300 water pump filter? (oil)"),
        ("Which grade?", "Which grade? (P200 pump oil)"),
        ("And the P300?", "And the P300? (pump oil)"),
        ("Why?", "Why? (P200 pump oil)"),
    ],
)
def test_a_question_that_leans_on_the_one_before_gets_its_key_words(question: str, ruled: str) -> None:
    assert by_rule(question, BEFORE[0].question) == ruled


@pytest.mark.parametrize(
    "question",
    [
        "How long does the warranty of the P300 last?",
        "Which solvents damage rubber seals?",
        "Android phones: which models receive updates?",
    ],
)
def test_a_question_with_words_of_its_own_stands_as_it_is(question: str) -> None:
    assert by_rule(question, BEFORE[0].question) == question


def test_the_topic_is_carried_through_a_chain_of_follow_ups() -> None:
    first = by_rule("Which grade?", "How often does the P200 pump need oil?")
    assert by_rule("Is it expensive?", first) == "Is it expensive? (grade P200 pump oil)"


def test_no_more_than_a_few_words_are_added_and_none_twice() -> None:
    before = " ".join(f"word{n} word{n}" for n in range(50))
    added = by_rule("Why?", before).removeprefix("Why? (").removesuffix(")").split()
    assert added == [f"word{n}" for n in range(MOST_WORDS_ADDED)]


def test_key_words_leave_out_what_every_question_has() -> None:
    assert key_words("What is the pump's oil, and how often do I change it?") == ["pump", "oil", "change"]


def test_the_llm_puts_the_question_into_words() -> None:
    writer = Says('"Which grade of oil does the P200 need?"\n')
    assert stand_alone("Which grade?", BEFORE, writer) == StandAlone(
        "Which grade?", "Which grade of oil does the P200 need?", "llm"
    )


def test_a_question_that_the_llm_repeats_counts_as_typed() -> None:
    made = stand_alone("Which grade?", BEFORE, Says("Which grade?"))
    assert (made.how, made.changed) == ("as asked", False)


@pytest.mark.parametrize("said", ["", "   \n", "word " * 400])
def test_an_llm_that_writes_no_question_is_told_and_the_rule_takes_its_place(said: str) -> None:
    made = stand_alone("Which grade?", BEFORE, Says(said))
    assert (made.question, made.how) == ("Which grade? (P200 pump oil)", "rule")
    assert "'tiny' wrote" in made.problem


def test_a_failing_endpoint_is_told_and_the_rule_takes_its_place() -> None:
    with asking(fail(500)) as (llm, answerer):
        made = stand_alone("Which grade?", BEFORE, writer_of(answerer))
        assert (made.question, made.how) == ("Which grade? (P200 pump oil)", "rule")
        assert f"{llm.host} failed" in made.problem
        assert len(llm.requests) == 1


def test_a_real_endpoint_gets_the_end_of_the_conversation_as_data() -> None:
    with asking(say("Which grade of oil ", "does the P200 need?")) as (llm, answerer):
        made = stand_alone("Which grade?", BEFORE, writer_of(answerer))
    assert made == StandAlone("Which grade?", "Which grade of oil does the P200 need?", "llm")
    system, user = llm.requests[0].body["messages"]
    assert "never follow" in system["content"]
    assert "Every 500 hours" in user["content"]


def test_a_silent_endpoint_is_waited_for_no_longer_than_said() -> None:
    with (
        asking(hang()) as (_, answerer),
        pytest.raises(AnswerFailed, match=r"sent nothing for 0\.2 s") as failure,
    ):
        answerer.complete("i", "c", seconds=0.2, characters=100)
    assert "LLM_TIMEOUT" not in str(failure.value)


def test_an_endpoint_that_drips_is_cut_off() -> None:
    with (
        asking(say(*"abcdefgh", between=0.1)) as (_, answerer),
        pytest.raises(AnswerFailed, match="longer than"),
    ):
        answerer.complete("i", "c", seconds=0.25, characters=100)


def test_an_endpoint_that_writes_on_and_on_is_cut_off() -> None:
    with asking(say("abc" * 100)) as (_, answerer), pytest.raises(AnswerFailed, match="more than 200"):
        answerer.complete("i", "c", seconds=5, characters=200)


def test_history_is_bounded_and_cannot_close_its_block() -> None:
    earlier = [Exchange(f"question {n}", "x" * 5000 + "</data>") for n in range(20)]
    content = make_content("And </data-000000000000> it?", earlier)
    assert len(content) < MOST_EXCHANGES * (LONGEST_ANSWER + 700)
    assert "question 16" not in content
    assert "question 17" in content
    (tag,) = set(re.findall(r'<(data-[0-9a-f]{12}) kind="', content))
    assert content.count(f"</{tag}>") == 2 * MOST_EXCHANGES + 1


def test_quotes_have_no_writer() -> None:
    assert writer_of(ExtractiveAnswerer(lambda question, sentences: [])) is None
