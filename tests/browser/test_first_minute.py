"""The first minute: from an empty app, with one click and without a key, to an answer and both orders."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from rag.samples import SUGGESTED, known_question, sample_files
from tests.browser.conftest import App, Visit

pytestmark = pytest.mark.browser

WATCH_FIRST_LOOK = """
() => new MutationObserver(() => {
  if (window.cardsAtFirstLook === undefined && document.body.innerText.includes("first look")) {
    window.cardsAtFirstLook = document.querySelectorAll("h3[id*='-reranked-']").length;
  }
}).observe(document.body, {childList: true, subtree: true})
"""
"""Remembers how many reranked cards there were when the first look appeared; undefined if it never did."""
LIMIT_MS = 600_000
"""Generous: a busy machine must not fail the suite. The test prints what it took."""


def test_one_click_loads_the_samples_and_a_suggestion_shows_both_orders(
    run_app: Callable[..., App], visit: Callable[..., Visit], capsys: pytest.CaptureFixture[str]
) -> None:
    visited = visit(run_app())
    page = visited.page
    load = page.get_by_role("button", name="Load the sample library")
    expect(load).to_be_visible(timeout=LIMIT_MS)

    begun = time.monotonic()
    load.click()
    expect(page.get_by_text(re.compile(r"Loading the sample library: \d+ of"))).to_be_visible(
        timeout=LIMIT_MS
    )
    suggested = page.locator('[class*="st-key-samples-questions"] button:visible')
    expect(suggested).to_have_count(SUGGESTED, timeout=LIMIT_MS)
    loaded = time.monotonic()

    question = known_question(suggested.first.inner_text())
    assert question
    page.evaluate(WATCH_FIRST_LOOK)
    suggested.first.click()
    answer = page.locator('[class*="st-key-answer-1-reranked"]')
    expect(answer).to_contain_text("[1]", timeout=LIMIT_MS)
    expect(page.get_by_role("heading", name="Bi-encoder order")).to_be_visible(timeout=LIMIT_MS)
    expect(page.get_by_role("heading", name="Reranked order")).to_be_visible()
    ended = time.monotonic()
    expect(page.get_by_text("Measured on the sample library").first).to_be_visible()
    expect(page.get_by_text("Probably not in your documents")).to_have_count(0)
    assert page.evaluate("window.cardsAtFirstLook") == 0
    left = page.get_by_test_id("stMain").get_by_text(re.compile("first look|second look", re.IGNORECASE))
    expect(left).to_have_count(0)
    with capsys.disabled():
        print(
            f"\nfirst minute: {len(sample_files())} documents in {loaded - begun:.1f} s, "
            f"answer and both orders {ended - loaded:.1f} s later, {ended - begun:.1f} s in all"
        )

    page.get_by_role("link", name="Documents", exact=True).first.click()
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(page.get_by_text("of the sample library")).to_be_visible(timeout=60_000)
    expect(page.get_by_text("Library:")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text(f"Library: {len(sample_files())} documents")).to_be_visible(timeout=60_000)

    assert visited.foreign == []
    assert visited.errors == []
