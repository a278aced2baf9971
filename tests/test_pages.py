"""The pages in Streamlit's own test harness, over real services."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qs

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

import rag.services
from app_pages.parts.answers import differences
from app_pages.parts.links import Link, query, read_link
from app_pages.parts.stream import OnText, Stop, Stoppable, Writing, peek
from app_pages.parts.turn import Look, Turn
from ingest.embed import Embedder
from ingest.errors import BadRequest, StoreUnavailable
from ingest.store import LOCAL_OWNER
from ingest.types import Chunk, Document
from rag.pipeline import answer, rank
from rag.rerank import Calibration, PairScores, Reranker
from rag.services import Lazy, Services
from rag.settings import Settings
from rag.types import Answer, Answered, Citation, Hit, Ranking, Seconds
from rag.votes import Tally, VoteLog
from tests.fake_llm import FakeLlm, fail, say
from tests.fakes import BrokenModel, a_chunk
from tests.pdfs import encrypted_pdf, text_pdf

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

PAGES = Path(__file__).resolve().parents[1] / "app_pages"
QUESTION = "How often does the pump need oil?"
MANUAL = [
    [f"The model {n} pump is painted in colour number {n} and weighs {n + 20} kilograms." for n in range(30)],
    ["The pump needs fresh oil every 500 hours of work.", "Use oil of grade 46."],
    ["The lake is deep and cold in winter.", "Fish live in it."],
]


@pytest.fixture(autouse=True)
def shared(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rag.services, "_SHARED", Lazy(lambda: services))


@pytest.fixture
def library(services: Services) -> Services:
    services.queue.add("pump.pdf", text_pdf(MANUAL, title="Pump manual"), owner=LOCAL_OWNER)
    services.queue.run_pending()
    return services


def open_page(name: str) -> AppTest:
    # the frame shows Ask first, and page links need it
    script = "main.py" if name == "ask.py" else name
    page = AppTest.from_file(str(PAGES / script), default_timeout=60).run()
    assert not page.exception
    return page


def ask(page: AppTest, question: str = QUESTION) -> AppTest:
    page.chat_input[0].set_value(question).run()
    assert not page.exception
    return page


def words(page: AppTest) -> str:
    kinds = ("markdown", "caption", "text", "subheader", "warning", "error", "info")
    return "\n".join(str(getattr(element, "value", "")) for kind in kinds for element in page.get(kind))


def cards(page: AppTest) -> list[str]:
    return [heading.value for heading in page.subheader if heading.value.startswith("#")]


def test_an_empty_library_says_what_to_do() -> None:
    page = open_page("ask.py")
    assert "Upload some PDFs" in page.info[0].value
    assert not page.chat_input


def test_a_question_gets_a_cited_answer_and_both_orders(library: Services) -> None:
    page = ask(open_page("ask.py"))
    shown = words(page)
    assert "every 500 hours" in shown
    assert "[\\[1\\]](#q1-reranked-1)" in shown
    assert [heading.value for heading in page.subheader if "order" in heading.value] == [
        "Reranked order",
        "Bi-encoder order",
    ]
    found = len(library.store.search(library.embedder.embed([QUESTION])[0], 5))
    assert len(cards(page)) == 2 * found
    for part in ("cosine **", "logit **", "sigmoid **", "embedding", "search", "reranking", "first token"):
        assert part in shown


def draw_first_look() -> None:
    """The script of a page that shows the first look at what lies in the session."""
    import streamlit as st

    from app_pages.parts.first import show_first_look
    from rag.conversation import StandAlone
    from rag.services import shared_services

    ranking = st.session_state["first"]
    words = StandAlone(ranking.question, ranking.question, "as asked")
    show_first_look(words, ranking, 1, st.session_state["look"], shared_services())


def first_look(ranking: Ranking, look: Look) -> AppTest:
    page = AppTest.from_function(draw_first_look)
    page.session_state["first"], page.session_state["look"] = ranking, look
    page.run()
    assert not page.exception
    return page


def test_the_first_look_shows_the_bi_encoders_order_and_nothing_of_it_stays(library: Services) -> None:
    first = rank(QUESTION, library.stages, reranking=False)
    page = first_look(first, Look())
    assert len(cards(page)) == min(len(first.hits), first.sources)
    assert "Nearest so far:" in words(page)
    assert "first look" in words(page)
    complete = words(ask(open_page("ask.py"))).lower()
    assert "first look" not in complete
    assert "second look" not in complete
    assert "nearest so far" not in complete


def test_the_first_look_of_a_blind_comparison_names_no_passage(library: Services) -> None:
    first = rank(QUESTION, library.stages, reranking=False)
    page = first_look(first, Look(mode="Compare", blind=True))
    assert "Reading" in words(page)
    assert cards(page) == []
    assert "pump" not in words(page).replace(QUESTION, "")


def test_without_an_llm_the_page_says_so_and_how_to_configure_one(library: Services) -> None:
    assert "OPENAI_API_KEY" in words(ask(open_page("ask.py"))).replace("\\", "")


def test_switched_off_there_is_one_order_and_it_says_so(library: Services) -> None:
    page = open_page("ask.py")
    page.segmented_control(key="mode").set_value("Off").run()
    ask(page)
    shown = words(page)
    assert "Reranking is off" in shown
    assert "logit" not in shown
    assert "Reranked order" not in shown


def test_compare_shows_both_answers_of_one_retrieval(library: Services) -> None:
    page = ask(open_page("ask.py"))
    ranking = page.session_state["turns"][0].ranking
    page.segmented_control(key="mode").set_value("Compare").run()
    assert not page.exception
    turn = page.session_state["turns"][0]
    assert turn.ranking is ranking
    assert set(turn.answers) == {"plain", "reranked"}
    assert "**Bi-encoder only**" in words(page)
    assert "**Reranked**" in words(page)


def test_switching_on_again_after_off_reranks_the_same_question(library: Services) -> None:
    page = open_page("ask.py")
    page.segmented_control(key="mode").set_value("Off").run()
    hits = ask(page).session_state["turns"][0].ranking.hits
    page.segmented_control(key="mode").set_value("On").run()
    assert "Reranked order" in words(page)
    assert page.session_state["turns"][0].ranking.hits is hits
    assert len(page.session_state["turns"]) == 1


def test_a_reranker_that_fails_is_said_in_plain_sight(library: Services) -> None:
    library.use_models(library.embedder, Reranker("sick", BrokenModel(), 0, Calibration()))
    page = ask(open_page("ask.py"))
    assert "Not reranked" in page.warning[0].value
    assert "every 500 hours" in words(page)


def test_a_question_outside_the_documents_is_doubted(library: Services) -> None:
    page = ask(open_page("ask.py"), "Who won the chess championship of 1972?")
    assert "Probably not in your documents" in page.warning[0].value


def test_the_conversation_is_kept(library: Services) -> None:
    page = ask(ask(open_page("ask.py")), "Which grade of oil?")
    assert [turn.words.asked for turn in page.session_state["turns"]] == [QUESTION, "Which grade of oil?"]
    assert QUESTION in words(page)


def test_hostile_names_are_shown_as_plain_text(services: Services) -> None:
    name = "![x](https:evil.example) :red[<b>] www.evil.example.pdf"
    services.queue.add(name, text_pdf(MANUAL), owner=LOCAL_OWNER)
    services.queue.run_pending()
    for page in (open_page("documents.py"), ask(open_page("ask.py"))):
        shown = words(page)
        assert "evil.example" in shown
        # only as code, which Streamlit leaves alone
        assert "evil.example" not in re.sub(r"(`+) .*? \1", "", shown)


def test_the_documents_page_lists_the_library(library: Services) -> None:
    shown = words(open_page("documents.py")).replace("\\", "")
    assert "**pump.pdf**" in shown
    assert "3 pages" in shown
    assert "Library: 1 document" in shown


def test_a_refused_upload_is_told_with_its_reason(services: Services) -> None:
    services.queue.add("notes.pdf", b"these are notes", owner=LOCAL_OWNER)
    assert "not a PDF" in words(open_page("documents.py")).replace("\\", "")


def test_a_locked_file_asks_for_its_password_and_opens_with_it(services: Services) -> None:
    services.queue.add("locked.pdf", encrypted_pdf(MANUAL, password="sesame"), owner=LOCAL_OWNER)
    services.queue.run_pending()
    page = open_page("documents.py")
    page.text_input[0].set_value("sesame")
    next(button for button in page.button if button.label == "Unlock").click().run()
    services.queue.run_pending()
    (job,) = services.queue.jobs(owner=LOCAL_OWNER)
    assert (job.state, job.message[:8]) == ("done", "3 pages,")


def test_delete_asks_before_anything_is_removed(library: Services) -> None:
    (document,) = library.store.documents()
    page = open_page("documents.py")
    page.button(key=f"delete-{document.id}").click().run()
    assert page.button(key="confirm-delete").label == "Delete"
    assert library.store.documents() == [document]


def test_finished_uploads_can_be_cleared(library: Services) -> None:
    page = open_page("documents.py")
    page.button(key="clear").click().run()
    assert library.queue.jobs(owner=LOCAL_OWNER) == []


# --- Conversation ----------------------------------------------------------------------------------------


def latest(page: AppTest) -> Turn:
    turn: Turn = page.session_state["turns"][-1]
    return turn


def press(page: AppTest, label: str) -> AppTest:
    next(button for button in page.button if button.label == label).click().run()
    assert not page.exception
    return page


def test_a_follow_up_is_put_into_words_by_a_rule_that_is_told(library: Services) -> None:
    page = ask(ask(open_page("ask.py")), "Which grade?")
    assert latest(page).ranking.question == "Which grade? (pump oil)"
    shown = words(page).replace("\\", "")
    assert "Searched for: **Which grade? (pump oil)**" in shown
    assert "gets the key words of the question before it" in shown


def test_a_follow_up_can_be_searched_for_as_typed(library: Services) -> None:
    page = press(ask(ask(open_page("ask.py")), "Which grade?"), "Search as typed")
    assert latest(page).ranking.question == "Which grade?"
    assert len(page.session_state["turns"]) == 2
    assert "Searched for" not in words(page)


def test_an_edited_question_is_asked_as_it_stands_in_the_same_place(library: Services) -> None:
    page = ask(ask(open_page("ask.py")), "Which grade?")
    page.text_area[0].set_value("Is it deep?")
    press(page, "Ask again")
    assert [turn.words.asked for turn in page.session_state["turns"]] == [QUESTION, "Which grade?"]
    assert latest(page).ranking.question == "Is it deep?"
    assert latest(page).words.how == "edited"


def test_a_new_topic_clears_the_conversation_and_can_be_undone(library: Services) -> None:
    page = press(ask(open_page("ask.py")), "New topic")
    assert QUESTION not in words(page)
    press(page, "Undo")
    assert QUESTION in words(page)
    press(page, "New topic")
    ask(page, "Which grade?")
    assert latest(page).ranking.question == "Which grade?"


def test_regenerate_writes_again_from_the_same_ranking(library: Services) -> None:
    page = ask(open_page("ask.py"))
    before = latest(page).ranking, latest(page).answers["reranked"]
    press(page, "Regenerate")
    assert latest(page).ranking is before[0]
    assert latest(page).answers["reranked"] is not before[1]
    assert latest(page).answers["reranked"].answer == before[1].answer


@pytest.fixture
def with_llm(
    settings: Settings, embedder: Embedder, reranker: Reranker, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeLlm]:
    with FakeLlm(
        say("Every 500 hours [1]."), say("Which grade of oil does the pump need?"), fail(400)
    ) as llm:
        made = Services(replace(settings, llm_base_url=llm.base_url, llm_model="tiny"))
        made.use_models(embedder, reranker)
        made.queue.add("pump.pdf", text_pdf(MANUAL), owner=LOCAL_OWNER)
        made.queue.run_pending()
        monkeypatch.setattr(rag.services, "_SHARED", Lazy(lambda: made))
        yield llm
        made.close()


def test_an_llm_puts_follow_ups_into_words_and_its_failure_is_told(with_llm: FakeLlm) -> None:
    page = ask(ask(open_page("ask.py")), "Which grade?")
    assert latest(page).ranking.question == "Which grade of oil does the pump need?"
    assert "by the LLM" in words(page)
    ask(page, "Why?")
    assert latest(page).words.how == "rule"
    assert "The LLM could not put it into words" in words(page)
    assert "HTTP 400" in words(page)


# --- Settings --------------------------------------------------------------------------------------------


@pytest.fixture
def two_documents(library: Services) -> Services:
    lake = [["The lake is deep.", "The pump of the lake needs no oil at all."]]
    library.queue.add("lake.pdf", text_pdf(lake, title="Lake"), owner=LOCAL_OWNER)
    library.queue.run_pending()
    return library


def id_of(services: Services, source: str) -> str:
    return next(document.id for document in services.store.documents() if document.source == source)


def test_the_scope_narrows_the_search_itself_and_asks_the_latest_question_again(
    two_documents: Services,
) -> None:
    page = ask(open_page("ask.py"))
    assert {hit.chunk.source for hit in latest(page).ranking.hits} == {"pump.pdf", "lake.pdf"}
    page.multiselect(key="scope").set_value([id_of(two_documents, "lake.pdf")]).run()
    assert {hit.chunk.source for hit in latest(page).ranking.hits} == {"lake.pdf"}
    assert "only 1 of 2 documents: lake.pdf" in words(page).replace("\\", "")


def test_a_deleted_document_leaves_the_scope_and_that_is_told(two_documents: Services) -> None:
    page = ask(open_page("ask.py"))
    page.multiselect(key="scope").set_value([id_of(two_documents, "lake.pdf")]).run()
    two_documents.delete(id_of(two_documents, "lake.pdf"))
    page.run()
    assert page.multiselect(key="scope").value == []
    assert "One chosen document is no longer in the library. All documents are asked now." in words(page)
    assert {hit.chunk.source for hit in latest(page).ranking.hits} == {"pump.pdf"}


def test_fewer_sources_keep_the_ranking_and_another_depth_makes_a_new_one(library: Services) -> None:
    page = ask(open_page("ask.py"))
    hits = latest(page).ranking.hits
    page.slider(key="sources").set_value(1).run()
    assert latest(page).ranking.hits is hits
    assert len(latest(page).answers["reranked"].sources) == 1
    assert len(cards(page)) == 2
    page.segmented_control(key="depth").set_value(10).run()
    assert latest(page).ranking.hits is not hits
    assert latest(page).look == Look(depth=10, sources=1)
    assert "10 candidates instead of 50" in words(page)


def test_reset_brings_the_defaults_back_and_asks_again(two_documents: Services) -> None:
    page = ask(open_page("ask.py"))
    page.multiselect(key="scope").set_value([id_of(two_documents, "lake.pdf")])
    page.slider(key="sources").set_value(2)
    page.segmented_control(key="depth").set_value(100).run()
    page.button(key="reset").click().run()
    assert latest(page).look == Look()
    assert "instead of" not in words(page)


def test_the_settings_name_the_models_in_use(library: Services) -> None:
    shown = words(open_page("ask.py")).replace("\\", "")
    assert f"Bi-encoder: {library.stages.embedder.name}" in shown
    assert "Answers: extractive (no LLM configured)" in shown


# --- Links -----------------------------------------------------------------------------------------------


def a_document(letter: str) -> Document:
    return Document(letter * 64, f"{letter}.pdf", letter, 1, 1, 1, "2026-01-01T00:00:00+00:00", ())


def parse(address: str) -> dict[str, list[str]]:
    return parse_qs(address.removeprefix("?"))


def test_a_link_brings_back_the_question_and_every_setting() -> None:
    look = Look("Compare", 100, 3, ("a" * 64, "b" * 64))
    address = query("What & why? 50 %\u00e9", look)
    documents = [a_document(letter) for letter in "abc"]
    assert read_link(parse(address), documents) == Link("What & why? 50 %\u00e9", look)


def test_no_parameters_are_no_link_and_few_mean_the_defaults() -> None:
    assert read_link({}, []) is None
    assert read_link({"q": ["Why?"]}, []) == Link("Why?", Look())


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"q": [""]}, "q must be"),
        ({"q": ["x" * 2001]}, "q must be"),
        ({"q": ["Why?", "How?"]}, "q is given more than once"),
        ({"q": ["Why?"], "mode": ["<script>"]}, "mode must be on, off, compare"),
        ({"q": ["Why?"], "depth": ["51"]}, "depth must be one of"),
        ({"q": ["Why?"], "depth": ["1e2"]}, "depth must be one of"),
        ({"q": ["Why?"], "depth": ["\u0661\u0660"]}, "depth must be one of"),
        ({"q": ["Why?"], "sources": ["-1"]}, "sources must be from 1 to 10"),
        ({"q": ["Why?"], "doc": ["a"]}, "doc 'a' is no document"),
        ({"q": ["Why?"], "doc": ["a" * 12, "f" * 12]}, "doc 'ffffffffffff' is no document"),
        ({"q": ["Why?"], "owner": ["somebody"]}, "'owner' is no parameter"),
    ],
)
def test_a_link_that_cannot_be_used_is_refused_by_name(parameters: dict[str, list[str]], named: str) -> None:
    with pytest.raises(BadRequest, match=re.escape(named)):
        read_link(parameters, [a_document("a"), a_document("b")])


def test_opening_a_link_asks_once_with_its_settings(two_documents: Services) -> None:
    page = AppTest.from_file(str(PAGES / "main.py"), default_timeout=60)
    look = Look("Off", 20, 2, (id_of(two_documents, "lake.pdf"),))
    for name, values in parse(query(QUESTION, look)).items():
        page.query_params[name] = values
    page.run()
    assert not page.exception
    assert latest(page).look == look
    assert latest(page).ranking.question == QUESTION
    page.run()
    assert len(page.session_state["turns"]) == 1
    ask(page, "How deep is the lake in winter?")
    assert [turn.words.asked for turn in page.session_state["turns"]] == [
        QUESTION,
        "How deep is the lake in winter?",
    ]


def test_a_hostile_link_asks_nothing_and_its_words_stay_words(library: Services) -> None:
    page = AppTest.from_file(str(PAGES / "main.py"), default_timeout=60)
    page.query_params["q"] = QUESTION
    page.query_params["![x](https:evil.example)"] = "1"
    page.run()
    assert "turns" not in page.session_state or not page.session_state["turns"]
    assert "This link cannot be used" in page.error[0].value
    assert "evil.example" not in re.sub(r"(`+) .*? \1", "", page.error[0].value)


# --- Comparing -------------------------------------------------------------------------------------------


class TurnedAround:
    """A cross-encoder that likes the last candidate best; sentences it likes long."""

    device = "cpu, float32"

    def logits(self, question: str, passages: Sequence[str]) -> PairScores:
        return PairScores(np.arange(len(passages), dtype=np.float32), tuple(False for _ in passages))


def compare_blind(page: AppTest) -> AppTest:
    page.segmented_control(key="mode").set_value("Compare").run()
    page.toggle(key="blind").set_value(True).run()
    return ask(page)


@pytest.fixture
def different_answers(library: Services) -> Services:
    """The second look turns the order around, so that both sides quote from other sources."""
    turned = Reranker("turned around", TurnedAround(), 0, Calibration())
    library.use_models(library.embedder, turned)
    return library


def test_a_blind_comparison_hides_what_would_give_the_sides_away(different_answers: Services) -> None:
    page = compare_blind(open_page("ask.py"))
    shown = words(page)
    assert "**Answer A**" in shown
    assert "**Answer B**" in shown
    for secret in ("**Reranked**", "Bi-encoder only", "Reranked order", "#q1-", "total"):
        assert secret not in shown
    assert cards(page) == []
    labels = [button.label for button in page.button]
    assert {"A is better", "B is better", "No difference", "Reveal without voting"} <= set(labels)
    assert "Question as JSON" not in labels


@pytest.mark.parametrize("letter", ["A", "B"])
def test_a_vote_reveals_the_sides_and_is_kept(different_answers: Services, letter: str) -> None:
    page = compare_blind(open_page("ask.py"))
    swapped = latest(page).swapped
    press(page, f"{letter} is better")
    (vote,) = VoteLog(different_answers.settings.data / "votes.sqlite3").votes()
    assert vote.choice == ("reranked" if (letter == "A") == swapped else "plain")
    assert vote.question == QUESTION
    shown = words(page)
    assert f"You chose {letter}" in shown
    assert "**Reranked**" in shown
    assert "Reranked order" in shown
    assert "Of the 1 that chose" in shown.replace("\\", "")
    assert "A is better" not in [button.label for button in page.button]


def test_the_last_vote_can_be_taken_back(different_answers: Services) -> None:
    page = press(compare_blind(open_page("ask.py")), "No difference")
    assert "1 saw no difference" in words(page)
    press(page, "Take back the last vote")
    assert VoteLog(different_answers.settings.data / "votes.sqlite3").tally() == Tally(0, 0, 0)
    assert "No vote on this question" in words(page)


def test_revealing_without_a_vote_leaves_none(different_answers: Services) -> None:
    page = press(compare_blind(open_page("ask.py")), "Reveal without voting")
    assert "Reranked order" in words(page)
    assert VoteLog(different_answers.settings.data / "votes.sqlite3").votes() == []
    assert "A is better" not in [button.label for button in page.button]


def test_what_was_seen_with_its_labels_cannot_be_voted_on(different_answers: Services) -> None:
    page = ask(open_page("ask.py"))
    page.segmented_control(key="mode").set_value("Compare").run()
    page.toggle(key="blind").set_value(True).run()
    assert "A is better" not in [button.label for button in page.button]
    assert "its sides are known" in words(page)


def hits_of(*names: str) -> tuple[Hit, ...]:
    chunks = [a_chunk(name, start=number * 10) for number, name in enumerate(names)]
    return tuple(Hit(chunk, 0.5, rank) for rank, chunk in enumerate(chunks, start=1))


def cites(*hits: Hit) -> Answered:
    citations = tuple(Citation(number, hit.chunk) for number, hit in enumerate(hits, start=1))
    return Answered(Answer("text", citations, ()), (), True, "tiny", "", None, 0.1, "")


def test_the_difference_of_two_answers_is_what_only_one_of_them_cites() -> None:
    hits = hits_of("apple", "pear", "plum", "fig")
    ranking = Ranking("?", hits, (), 2, Seconds(0, 0, 0), "e", "r", "", None)
    assert differences(ranking, cites(hits[0], hits[1]), cites(hits[0], hits[2], hits[3])) == [
        "2 of 3 citations of the reranked answer were outside the bi-encoder's top 2.",
        "Only the reranked answer cites fruit.pdf, page 1 (bi-encoder #3); fruit.pdf, page 1 (bi-encoder #4).",
        "Only the bi-encoder's answer cites fruit.pdf, page 1 (bi-encoder #2).",
    ]
    assert differences(ranking, cites(hits[0]), cites(hits[0]))[-1] == "Both answers cite the same passages."
    assert differences(ranking, cites(), cites()) == []


# --- Stopping --------------------------------------------------------------------------------------------


class Drips:
    """An answerer that writes one word and then falls silent."""

    name = "drips"
    note = ""

    def __init__(self) -> None:
        self.over = threading.Event()

    def stream(self, question: str, sources: Sequence[Chunk]) -> Iterator[str]:
        yield "Every "
        self.over.wait(30)
        yield "500 hours"


def a_ranking() -> Ranking:
    return Ranking("?", hits_of("apple"), (), 1, Seconds(0, 0, 0), "e", "r", "", None)


def wait_for_text(writing: Writing) -> None:
    deadline = time.monotonic() + 10
    while not writing.text and time.monotonic() < deadline:
        time.sleep(0.01)


def test_stop_keeps_the_text_so_far_although_the_llm_is_silent() -> None:
    answerer = Drips()
    writing = Writing(lambda on_text, stop: answer(a_ranking(), Stoppable(answerer, stop), on_text=on_text))
    wait_for_text(writing)
    writing.stop()
    assert writing.result().answer.text == "Every "
    assert writing.stopped
    answerer.over.set()


def test_a_complete_answer_is_not_stopped_afterwards() -> None:
    answerer = Drips()
    answerer.over.set()
    writing = Writing(lambda on_text, stop: answer(a_ranking(), Stoppable(answerer, stop), on_text=on_text))
    assert writing.result().answer.text == "Every 500 hours"
    writing.stop()
    assert not writing.stopped


class Place:
    """Where a text is shown; keeps it."""

    shown = ""

    def markdown(self, text: str) -> None:
        self.shown = text


def test_a_peek_waits_for_first_words_and_no_longer() -> None:
    """What is drawn after it, the picture, must not wait for an LLM that is silent."""
    answerer, silent, words = Drips(), threading.Event(), Place()
    ours = Writing(lambda on_text, stop: answer(a_ranking(), Stoppable(answerer, stop), on_text=on_text))
    peek([ours], [cast("DeltaGenerator", words)], patience=60)
    assert words.shown == "Every"
    answerer.over.set()

    def say_nothing(_: OnText, __: Stop) -> Answered:
        silent.wait(60)
        return ours.result()

    mute, nothing, begun = Writing(say_nothing), Place(), time.monotonic()
    peek([mute], [cast("DeltaGenerator", nothing)], patience=0.2)
    assert time.monotonic() - begun < 30
    assert nothing.shown == ""
    assert not mute.done
    silent.set()


class Breaks:
    """An answerer whose store is gone."""

    name = "breaks"
    note = ""

    def stream(self, question: str, sources: Sequence[Chunk]) -> Iterator[str]:
        if not sources:
            yield ""
        raise StoreUnavailable("gone")


def test_an_error_for_the_person_in_front_comes_out_of_the_thread() -> None:
    writing = Writing(lambda on_text, stop: answer(a_ranking(), Stoppable(Breaks(), stop), on_text=on_text))
    with pytest.raises(StoreUnavailable, match="gone"):
        writing.result()
