"""The Ask page in a real browser: comparing blind, following up, stopping, links, scope, settings."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import App, Visit
from tests.browser.test_app import ask, go, switch, upload
from tests.fake_llm import FakeLlm, say
from tests.pdfs import text_pdf

pytestmark = pytest.mark.browser

MODELS = {"P100": 250, "P200": 500, "P210": 400, "P300": 1000}
QUESTION = "How often must the oil of the P200 be changed?"
SLOW = 120_000


def manual(model: str, hours: int) -> bytes:
    pages = [
        [f"Pump {model}: operating manual", f"This manual describes the pump {model}. Keep it near."],
        ["Lubrication", f"Change the oil every {hours} hours of work, or once a year."],
        ["Checking the oil", "Check the oil level each week through the glass at the side."],
        ["Storage", f"Store the {model} dry and free from frost. Turn the shaft once a month."],
    ]
    return text_pdf(pages, title=f"Pump {model} manual")


def fill(page: Page) -> None:
    upload(page, *((f"pump-{model.lower()}.pdf", manual(model, hours)) for model, hours in MODELS.items()))
    expect(page.get_by_text(f"Library: {len(MODELS)} documents")).to_be_visible(timeout=SLOW)
    go(page, "Ask")


def complete(page: Page) -> None:
    """Wait until the answer is there and the page has come to its end."""
    expect(page.get_by_role("button", name="Regenerate")).to_be_visible(timeout=SLOW)


def button(page: Page, name: str) -> None:
    page.get_by_role("button", name=name).first.click()


@pytest.fixture
def quoting(run_app: Callable[..., App], visit: Callable[..., Visit]) -> Visit:
    """The app without an LLM, its library filled."""
    visited = visit(run_app(), path="/documents")
    fill(visited.page)
    return visited


def test_a_blind_vote_hides_the_sides_until_it_is_cast(
    run_app: Callable[..., App], visit: Callable[..., Visit]
) -> None:
    with FakeLlm(say("Every 500 hours [1]."), say("Every 250 hours [2].")) as llm:
        app = run_app(OPENAI_BASE_URL=llm.base_url, LLM_MODEL="tiny")
        page = visit(app, path="/documents").page
        fill(page)
        switch(page, "Compare")
        page.get_by_text("Blind", exact=True).click()
        ask(page, QUESTION)
        ballot = page.locator(".st-key-ballot")
        expect(ballot).to_be_visible(timeout=SLOW)
        expect(page.get_by_text("Answer A")).to_be_visible()
        expect(page.get_by_role("heading", name="Reranked order")).to_have_count(0)
        expect(page.locator('[class*="st-key-card-"]')).to_have_count(0)
        assert "reranked-" not in page.locator('[class*="st-key-latest-"]').inner_html()

        button(page, "A is better")
        expect(page.get_by_text("You chose A")).to_be_visible(timeout=SLOW)
        expect(page.get_by_text("Of the 1 that chose")).to_be_visible()
        expect(page.get_by_role("heading", name="Reranked order")).to_be_visible(timeout=SLOW)
        expect(page.get_by_text("citations of the reranked answer")).to_be_visible()
        assert (app.data / "votes.sqlite3").exists()
        button(page, "Take back the last vote")
        expect(page.get_by_text("No votes yet")).to_be_visible(timeout=SLOW)


def test_a_follow_up_is_put_into_words_edited_and_exported(quoting: Visit, tmp_path: Path) -> None:
    page = quoting.page
    ask(page, QUESTION)
    complete(page)
    ask(page, "And the P300?")
    expect(page.get_by_text("Searched for: And the P300? (oil changed)")).to_be_visible(timeout=SLOW)
    expect(page.get_by_text("gets the key words of the question before it")).to_be_visible()
    complete(page)

    button(page, "Edit question")
    box = page.get_by_role("textbox", name="Search for")
    expect(box).to_have_value("And the P300? (oil changed)")
    box.fill("How often must the oil of the P300 be changed?")
    button(page, "Ask again")
    expect(page.get_by_text("Searched for: How often must the oil of the P300 be changed?")).to_be_visible(
        timeout=SLOW
    )
    expect(page.locator("h3#q2-reranked-1")).to_contain_text("pump-p300.pdf, page 2", timeout=SLOW)
    complete(page)

    with page.expect_download() as downloaded:
        button(page, "Question as JSON")
    data = json.loads(Path(downloaded.value.path()).read_text(encoding="utf-8"))
    assert "P300 be changed" in json.dumps(data)
    with page.expect_download() as downloaded:
        button(page, "Conversation as Markdown")
    text = Path(downloaded.value.path()).read_text(encoding="utf-8")
    assert text.index("P200") < text.index("P300")

    button(page, "New topic")
    expect(page.get_by_text("the conversation was cleared")).to_be_visible(timeout=SLOW)
    button(page, "Undo")
    expect(page.get_by_text("Earlier questions")).to_be_visible(timeout=SLOW)
    assert quoting.errors == []


def test_stop_keeps_the_text_so_far_and_the_page_stays_usable(
    run_app: Callable[..., App], visit: Callable[..., Visit]
) -> None:
    slow = say("Every ", "500 ", "hours ", *["and so on "] * 200, between=0.3)
    with FakeLlm(slow) as llm:
        page = visit(run_app(OPENAI_BASE_URL=llm.base_url, LLM_MODEL="tiny"), path="/documents").page
        fill(page)
        ask(page, QUESTION)
        answer = page.locator('[class*="st-key-answer-1-reranked"]')
        expect(answer).to_contain_text("Every 500", timeout=SLOW)
        # the cards are there long before the answer is complete
        expect(page.locator("h3#q1-reranked-1")).to_be_visible(timeout=SLOW)
        button(page, "Stop")
        complete(page)
        expect(answer).to_contain_text("Stopped: this is the text so far.")
        expect(answer).to_contain_text("Every 500")
        assert answer.inner_text().count("and so on") < 150


WATCH_SHIFTS = """
() => {
  window.shifted = 0;
  new PerformanceObserver((list) => {
    for (const shift of list.getEntries()) if (!shift.hadRecentInput) window.shifted += shift.value;
  }).observe({type: "layout-shift"});
}
"""
MOST_SHIFT = {1440: 0.1, 390: 0.25}
"""By width; web.dev calls 0.1 good and more than 0.25 poor. On a phone 0.165 was seen on a busy machine."""


@pytest.mark.parametrize("width", [1440, 390])
def test_hardly_anything_jumps_while_answers_are_written(
    run_app: Callable[..., App], visit: Callable[..., Visit], width: int
) -> None:
    slow = say(*["every 500 hours [1] "] * 40, between=0.03)
    with FakeLlm(slow) as llm:
        page = visit(run_app(OPENAI_BASE_URL=llm.base_url, LLM_MODEL="tiny"), path="/documents").page
        fill(page)
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate(WATCH_SHIFTS)
        for mode in ("On", "Compare"):
            switch(page, mode)
            page.wait_for_timeout(1500)  # the switch itself moves what is below it
            page.evaluate("window.shifted = 0")
            ask(page, QUESTION)
            complete(page)
            page.wait_for_timeout(500)
            shifted = page.evaluate("window.shifted")
            assert shifted < MOST_SHIFT[width], f"{mode} at {width} pixels: {shifted:.3f}"


def test_a_link_opens_the_question_with_its_settings(quoting: Visit) -> None:
    page = quoting.page
    switch(page, "Off")
    ask(page, QUESTION)
    complete(page)
    button(page, "Link")
    panel = page.get_by_test_id("stPopoverBody")
    expect(panel.get_by_role("button", name="Copy to clipboard")).to_be_visible()
    address = panel.locator("code").inner_text()
    assert re.search(r"/\?q=How\+often.*&mode=off&depth=50&sources=5$", address)

    page.goto(address)
    complete(page)
    expect(page.get_by_text("Reranking is off")).to_be_visible()
    expect(page.get_by_text(QUESTION, exact=True).first).to_be_visible()

    page.goto(address.replace("depth=50", "depth=7") + "&evil=%3Cscript%3E")
    expect(page.get_by_text("This link cannot be used")).to_be_visible(timeout=SLOW)
    expect(page.get_by_text("depth must be one of")).to_be_visible()
    expect(page.get_by_text(QUESTION, exact=True)).to_have_count(0)


def test_scope_and_settings_apply_to_the_question_at_once_and_reset(quoting: Visit) -> None:
    page = quoting.page
    ask(page, QUESTION)
    complete(page)
    button(page, "Settings")
    panel = page.get_by_test_id("stPopoverBody")
    expect(panel).to_contain_text("Bi-encoder:")
    panel.get_by_role("combobox").click()
    page.get_by_role("option", name="pump-p300.pdf").click()
    page.keyboard.press("Escape")
    expect(page.get_by_text("only 1 of 4 documents: pump-p300.pdf")).to_be_visible(timeout=SLOW)
    expect(page.get_by_text("candidates from 1 document")).to_be_visible(timeout=SLOW)
    titles = page.locator('[class*="st-key-card-"] h3').all_inner_texts()
    assert titles
    assert all("pump-p300.pdf" in title for title in titles)

    if not panel.is_visible():
        button(page, "Settings")
    button(page, "Reset to defaults")
    expect(page.get_by_text("candidates from all documents")).to_be_visible(timeout=SLOW)


def test_on_a_phone_the_reranked_order_comes_first(quoting: Visit) -> None:
    page = quoting.page
    page.set_viewport_size({"width": 390, "height": 844})
    ask(page, QUESTION)
    complete(page)
    reranked = page.get_by_role("heading", name="Reranked order").bounding_box()
    first = page.get_by_role("heading", name="Bi-encoder order").bounding_box()
    assert reranked is not None
    assert first is not None
    assert reranked["y"] < first["y"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
