"""Both pages in Streamlit's own test harness, over real services."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import rag.services
from ingest.store import LOCAL_OWNER
from rag.rerank import Calibration, Reranker
from rag.services import Lazy, Services
from tests.fakes import BrokenModel
from tests.pdfs import encrypted_pdf, text_pdf

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
        "Bi-encoder order",
        "Reranked order",
    ]
    found = len(library.store.search(library.embedder.embed([QUESTION])[0], 5))
    assert len(cards(page)) == 2 * found
    for part in ("cosine **", "logit **", "sigmoid **", "embedding", "search", "reranking", "first token"):
        assert part in shown


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
    assert [turn.question for turn in page.session_state["turns"]] == [QUESTION, "Which grade of oil?"]
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
