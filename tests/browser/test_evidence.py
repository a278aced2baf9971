"""The Evidence page in a real browser: from import to drill-down, and a reload in the middle of a run."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import FilePayload, Page, expect

from rag.evidence.formats import write_csv
from rag.evidence.questions import Judgement, Question, question_id
from tests.browser.conftest import App, Visit, settle
from tests.pdfs import text_pdf

SUBJECTS = ("oil", "filter", "belt", "valve", "hose", "seal", "motor", "lamp", "gauge")
ENTRIES = [
    f"Check the {subject} of the compressor every {weeks} weeks and note it."
    for weeks, subject in enumerate(SUBJECTS, start=3)
]
# no word of these questions stands in their passages, so that a search by words cannot find them
UNLIKE = {
    "Doctor Miller wrote this manual in Paris.": "Who is the author?",
    "A new machine costs nine thousand euros.": "What is the price?",
    "The lake freezes in January.": "When does water turn to ice?",
}
PAGES = [[entry] for entry in (*ENTRIES, *UNLIKE)]
ASKED = (*(f"How often must the {subject} be looked at?" for subject in SUBJECTS), *UNLIKE.values())
QUESTIONS = tuple(
    Question(question_id(text), text, (Judgement("compressor.pdf", (page,)),))
    for page, text in enumerate(ASKED, start=1)
)


@pytest.fixture
def app(run_app: Callable[..., App]) -> App:
    return run_app()


def upload(page: Page, name: str, kind: str, data: bytes) -> None:
    page.locator('input[type="file"]').set_input_files([FilePayload(name=name, mimeType=kind, buffer=data)])


def open_view(page: Page, name: str) -> None:
    page.get_by_test_id("stButtonGroup").get_by_text(name, exact=True).click()


def choose(page: Page, label: str, option: str) -> None:
    """Choose from a list in sight, when the page is at rest: a scroll or a new run closes an open list."""
    settle(page)
    box = page.get_by_role("combobox", name=label, exact=True)
    expect(box).to_have_count(1)
    box.scroll_into_view_if_needed()
    settle(page)
    box.click()
    page.get_by_role("option", name=option, exact=True).click()
    expect(box).to_have_value(option)
    settle(page)


def test_from_import_to_drill_down(app: App, visit: Callable[..., Visit]) -> None:
    visited = visit(app, path="/documents")
    page = visited.page
    upload(page, "compressor.pdf", "application/pdf", text_pdf(PAGES))
    expect(page.get_by_text("Library: 1 document")).to_be_visible(timeout=120_000)
    page.get_by_role("link", name="Evidence").click()
    expect(page.get_by_text("First, questions with known answers")).to_be_visible()
    upload(page, "mine.csv", "text/csv", write_csv(QUESTIONS))
    expect(page.get_by_text("Imported 12 questions")).to_be_visible()
    page.get_by_role("button", name="Ask 12 questions").click()
    expect(page.locator('[class*="st-key-verdict-"]')).to_be_visible(timeout=180_000)
    expect(page.get_by_role("heading", level=2).first).to_contain_text("eranking")
    for heading in (
        "Every order against",
        "How many candidates are worth",
        "When not to answer",
        "Question by question",
    ):
        expect(page.get_by_role("heading", name=heading)).to_be_visible()
    # the report is found again after a reload
    page.reload()
    expect(page.locator('[class*="st-key-verdict-"]')).to_be_visible(timeout=60_000)
    _open_a_question(page)
    open_view(page, "Runs")
    expect(page.get_by_role("button", name="Delete this run")).to_be_visible()
    open_view(page, "Question sets")
    page.get_by_role("button", name="Delete this set").click()
    expect(page.get_by_text("Deleted")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("12 questions · 12 with a right passage")).to_be_visible()
    assert visited.foreign == []
    assert visited.errors == []


def _open_a_question(page: Page) -> None:
    """Open a question that the reranked order wins against a search by words, and its source."""
    expect(page.get_by_role("heading", name="In ordinary use")).to_be_visible(timeout=60_000)
    choose(page, "against", "BM25")
    page.get_by_text(re.compile(r"^[1-9]\d* won$")).click()
    page.locator('[class*="st-key-drill-"] summary').first.click()
    expect(page.get_by_text("Right passage: compressor.pdf").first).to_be_visible()
    expect(page.get_by_text("not found")).to_be_visible()
    page.get_by_role("button", name="Open page").first.click()
    expect(page.get_by_role("dialog")).to_contain_text("compressor.pdf")
    page.keyboard.press("Escape")


@pytest.mark.parametrize("width", [390])
def test_a_narrow_page_does_not_scroll_sideways(app: App, visit: Callable[..., Visit], width: int) -> None:
    page = visit(app, path="/documents", width=width).page
    upload(page, "compressor.pdf", "application/pdf", text_pdf(PAGES))
    expect(page.get_by_text("Library: 1 document")).to_be_visible(timeout=120_000)
    page.goto(f"{app.url}/evidence")
    upload(page, "mine.csv", "text/csv", write_csv(QUESTIONS))
    page.get_by_role("button", name="Ask 12 questions").click()
    page.reload()  # in the middle of the run, or just after it
    expect(page.locator('[class*="st-key-verdict-"]')).to_be_visible(timeout=180_000)
    expect(page.get_by_role("heading", name="Question by question")).to_be_visible(timeout=30_000)
    assert page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth") <= width
