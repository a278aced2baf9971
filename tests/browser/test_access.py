"""Accessibility: every page and state, light and dark, wide and on a phone, has no serious finding of axe."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
from playwright.sync_api import Browser, FilePayload, Page, expect

from rag.evidence.formats import write_csv
from rag.evidence.questions import Judgement, Question, question_id
from tests.browser.conftest import App, settle, start_app, stop_app
from tests.browser.test_app import ask, switch, upload
from tests.browser.test_ask import MODELS, QUESTION, SLOW, button, complete, manual
from tests.browser.test_evidence import choose, open_view
from tests.fake_llm import FakeLlm, say
from tests.pdfs import encrypted_pdf, truncated_pdf

pytestmark = pytest.mark.browser

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
RUN_AXE = """
async () => (await axe.run(document, {resultTypes: ["violations"]})).violations.flatMap((rule) =>
  rule.nodes.map((node) => ({
    rule: rule.id,
    impact: rule.impact,
    target: node.target.flat().join(" "),
    html: node.html.slice(0, 200),
    says: [...node.any, ...node.all, ...node.none].map((check) => check.message).join("; "),
  })))
"""
GRAVE = ("serious", "critical")
ASKED = (
    *((f"How often must the oil of the {model} be changed?", 2) for model in MODELS),
    *((f"How is the {model} stored?", 4) for model in MODELS),
    # no word of these stands in the manuals, so that a search by words cannot find them
    ("Where does one see whether enough lubricant is left?", 3),
    ("Can winter cold ruin a machine out of service?", 4),
)
"""Questions, and the page that answers them in every manual."""
MANY = 40 * len(ASKED)


def findings(page: Page) -> list[str]:
    """What axe finds grave on the page when it has come to rest; nothing is excluded."""
    settle(page)
    page.evaluate(AXE)
    found: list[dict[str, Any]] = page.evaluate(RUN_AXE)
    return [
        f"{one['rule']} ({one['impact']}): {one['target']}\n  {one['html']}\n  {one['says']}"
        for one in found
        if one["impact"] in GRAVE
    ]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """One app for all, with an LLM that gives two different answers in turn."""
    folder = tmp_path_factory.mktemp("access")
    replies = [say("Every **500 hours** [1]."), say("Every 250 hours [2].")] * 50
    with FakeLlm(*replies) as llm:
        running = start_app(
            folder / "data", folder / "app.log", OPENAI_BASE_URL=llm.base_url, LLM_MODEL="tiny"
        )
        yield running
        stop_app(running)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    folder = tmp_path_factory.mktemp("empty")
    running = start_app(folder / "data", folder / "app.log")
    yield running
    stop_app(running)


@pytest.fixture(params=[(1440, "light"), (1440, "dark"), (390, "light"), (390, "dark")], ids=str)
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page at each width in each colour scheme."""
    width, scheme = request.param
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    opened = context.new_page()
    opened.set_default_timeout(SLOW)
    yield opened
    context.close()


def test_empty_pages(page: Page, empty: App) -> None:
    page.goto(empty.url)
    expect(page.get_by_text("Your library is empty")).to_be_visible(timeout=SLOW)
    assert findings(page) == []
    page.goto(f"{empty.url}/documents")
    expect(page.get_by_text("No documents yet")).to_be_visible(timeout=SLOW)
    assert findings(page) == []
    page.goto(f"{empty.url}/evidence")
    expect(page.get_by_text("nothing to measure yet")).to_be_visible(timeout=SLOW)
    assert findings(page) == []


def test_questions_answers_and_sources(page: Page, app: App) -> None:
    open_library(page, app)
    assert findings(page) == []
    ask(page, QUESTION)
    complete(page)
    assert findings(page) == []

    page.get_by_role("button", name="Open page").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("img")).to_be_visible(timeout=SLOW)
    expect(dialog.get_by_text("strongest")).to_be_visible(timeout=SLOW)
    assert findings(page) == []
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0, timeout=SLOW)

    button(page, "Settings")
    expect(page.get_by_test_id("stPopoverBody")).to_be_visible(timeout=SLOW)
    assert findings(page) == []
    page.keyboard.press("Escape")
    ask(page, "And the P300?")
    expect(page.get_by_text("Earlier questions")).to_be_visible(timeout=SLOW)
    complete(page)
    assert findings(page) == []


def test_comparing_blind_and_with_names(page: Page, app: App) -> None:
    open_library(page, app)
    switch(page, "Compare")
    page.get_by_text("Blind", exact=True).click()
    ask(page, QUESTION)
    expect(page.locator(".st-key-ballot")).to_be_visible(timeout=SLOW)
    assert findings(page) == []
    button(page, "A is better")
    complete(page)
    assert findings(page) == []
    switch(page, "Off")
    expect(page.get_by_text("Reranking is off")).to_be_visible(timeout=SLOW)
    complete(page)
    assert findings(page) == []


def test_documents_with_uploads_of_every_kind(page: Page, app: App) -> None:
    open_library(page, app)
    page.goto(f"{app.url}/documents")
    settle(page)
    upload(
        page,
        ("broken.pdf", truncated_pdf()),
        ("locked.pdf", encrypted_pdf([["A secret."]], password="sesame")),
    )
    expect(page.get_by_text("damaged").first).to_be_visible(timeout=SLOW)
    expect(page.get_by_label("Password", exact=True).first).to_be_visible(timeout=SLOW)
    assert findings(page) == []
    page.get_by_role("button", name="Delete").first.click()
    expect(page.get_by_role("dialog")).to_be_visible(timeout=SLOW)
    assert findings(page) == []


def test_evidence_from_a_set_to_the_verdict_and_its_questions(page: Page, app: App) -> None:
    open_evidence(page, app)
    if page.get_by_text("First, questions with known answers").count():
        assert findings(page) == []
        import_sets(page)
        assert findings(page) == []
        choose(page, "Question set", "mine")
        page.get_by_role("button", name=f"Ask {len(ASKED)} questions").click()
    expect(page.locator('[class*="st-key-verdict-"]')).to_be_visible(timeout=SLOW)
    expect(page.get_by_role("heading", name="Question by question")).to_be_visible(timeout=SLOW)
    assert findings(page) == []

    choose(page, "against", "BM25")
    page.get_by_text(re.compile(r"^[1-9]\d* won$")).click()
    page.locator('[class*="st-key-drill-"] summary').first.click()
    expect(page.get_by_text("Right passage: pump-").first).to_be_visible(timeout=SLOW)
    assert findings(page) == []
    page.get_by_role("button", name="Open page").first.click()
    expect(page.get_by_role("dialog").locator("img")).to_be_visible(timeout=SLOW)
    assert findings(page) == []
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0, timeout=SLOW)
    button(page, "Export")
    expect(page.get_by_test_id("stPopoverBody")).to_be_visible(timeout=SLOW)
    assert findings(page) == []


def test_evidence_sets_runs_and_one_that_is_going_on(page: Page, app: App) -> None:
    open_evidence(page, app)
    if page.get_by_text("First, questions with known answers").count():
        import_sets(page)
    choose(page, "Question set", "many")
    page.get_by_role("button", name=f"Ask {MANY} questions").click()
    expect(page.locator(".st-key-evidence-going")).to_be_visible(timeout=SLOW)
    assert findings(page) == []
    page.locator(".st-key-evidence-going").get_by_role("button", name="Stop").click()
    expect(page.locator(".st-key-evidence-waiting")).to_be_visible(timeout=SLOW)
    assert findings(page) == []
    button(page, "Give it up")
    expect(page.locator(".st-key-evidence-waiting")).to_have_count(0, timeout=SLOW)

    open_view(page, "Runs")
    expect(page.get_by_role("button", name="Delete this run")).to_be_visible(timeout=SLOW)
    assert findings(page) == []
    open_view(page, "Question sets")
    expect(page.get_by_role("button", name="Save changes")).to_be_visible(timeout=SLOW)
    assert findings(page) == []
    button(page, "Delete this set")
    expect(page.locator(".st-key-undo-set")).to_be_visible(timeout=SLOW)
    assert findings(page) == []
    button(page, "Undo")
    expect(page.locator(".st-key-undo-set")).to_have_count(0, timeout=SLOW)
    settle(page)  # the next test wants the set that was brought back


def open_evidence(page: Page, app: App) -> None:
    """The Evidence page over the four manuals."""
    open_library(page, app)
    page.goto(f"{app.url}/evidence")
    expect(page.get_by_role("heading", name="Evidence")).to_be_visible(timeout=SLOW)
    settle(page)


def import_sets(page: Page) -> None:
    """A set for a verdict, and one that takes a while."""
    many = [
        (f"{text[:-1]}, for the {number}th time?", on)
        for number in range(MANY // len(ASKED))
        for text, on in ASKED
    ]
    for name, asked in (("mine", ASKED), ("many", many)):
        questions = [
            Question(
                question_id(text), text, tuple(Judgement(f"pump-{model}.pdf", (on,)) for model in MODELS)
            )
            for text, on in asked
        ]
        page.locator('input[type="file"]').set_input_files(
            [FilePayload(name=f"{name}.csv", mimeType="text/csv", buffer=write_csv(questions))]
        )
        expect(page.get_by_text(f"Imported {len(questions)} questions")).to_be_visible(timeout=SLOW)
        open_view(page, "Question sets")
        settle(page)
    open_view(page, "Verdict")
    settle(page)


def open_library(page: Page, app: App) -> None:
    """The Ask page over the four manuals. By address: on a phone the links are behind a button."""
    page.goto(f"{app.url}/documents")
    settle(page)
    if page.get_by_text(f"Library: {len(MODELS)} documents").count() == 0:
        upload(page, *((f"pump-{model}.pdf", manual(model, hours)) for model, hours in MODELS.items()))
        expect(page.get_by_text(f"Library: {len(MODELS)} documents")).to_be_visible(timeout=SLOW)
    page.goto(app.url)
    expect(page.get_by_test_id("stChatInput")).to_be_visible(timeout=SLOW)
