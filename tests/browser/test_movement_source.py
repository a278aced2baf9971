"""The rank movement and the source view in a real browser: what is drawn, marked, turned, and downloaded."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import FilePayload, Locator, Page, expect

from tests.browser.conftest import App, Visit
from tests.pdfs import text_pdf

pytestmark = pytest.mark.browser

OIL = "The pump needs fresh oil every 500 hours of work."
PUMP = text_pdf(
    [
        [f"Model {n} is painted in colour {n} and weighs {n + 20} kilograms." for n in range(30)],
        [OIL],
        ["Store it dry and free from frost."],
    ]
)
HOSTILE = "<img src=x onerror=alert(1)> ![x](http://evil.example/x.png) speaks of pump oil."
LAKE = text_pdf([["The lake is deep and cold in winter."], [HOSTILE]])
QUESTION = "How often does the pump need oil?"


def ask(page: Page) -> None:
    """Upload two documents and ask; returns when both orders are shown."""
    page.locator('input[type="file"]').set_input_files(
        [
            FilePayload(name=name, mimeType="application/pdf", buffer=data)
            for name, data in (("pump.pdf", PUMP), ("lake.pdf", LAKE))
        ]
    )
    expect(page.get_by_text("Library: 2 documents")).to_be_visible(timeout=120_000)
    page.get_by_role("link", name="Ask", exact=True).first.click()
    box = page.get_by_test_id("stChatInput").locator("textarea")
    box.fill(QUESTION)
    box.press("Enter")
    expect(page.get_by_role("heading", name="Reranked order")).to_be_visible(timeout=120_000)
    expect(page.get_by_text(re.compile(r"All \d+ candidates"))).to_be_visible(timeout=60_000)


def yellow_pixels(page: Page, image: Locator) -> int:
    """How many pixels of a picture carry the highlight."""
    address = image.evaluate("(image) => image.src")
    picture = np.asarray(Image.open(BytesIO(page.request.get(address).body())).convert("RGB")).astype(int)
    return int((picture[..., 0] - picture[..., 2] > 60).sum())


def line_of(page: Page, place: int) -> tuple[float, float]:
    """A point near the left end of a candidate's line, where no other one crosses it."""
    line = page.locator("svg.marks g.mark-rule").last.locator("line").nth(place)
    x, y = line.evaluate(
        """(line) => {
            const [x2, y2] = ["x2", "y2"].map((name) => Number(line.getAttribute(name)));
            const point = new DOMPoint(0.03 * x2, 0.03 * y2).matrixTransform(line.getScreenCTM());
            return [point.x, point.y];
        }"""
    )
    return float(x), float(y)


def point_at_last_line(page: Page) -> None:
    """Hover until the text is shown: a click has the picture drawn anew, and a new one waits for a movement."""
    expect(page.locator("[data-test-script-state='notRunning']")).to_have_count(1, timeout=60_000)
    lines = page.locator("svg.marks g.mark-rule").last.locator("line")
    tip = page.locator("#vg-tooltip-element.visible")
    for _ in range(20):
        page.mouse.move(0, 0)
        page.mouse.move(*line_of(page, lines.count() - 1))
        page.wait_for_timeout(500)
        if tip.count():
            break
    expect(tip).to_be_visible()


def test_the_movement_is_drawn_read_and_clicked(
    run_app: Callable[..., App], visit: Callable[..., Visit]
) -> None:
    visited = visit(run_app(), path="/documents")
    page = visited.page
    ask(page)
    expect(page.get_by_text(re.compile(r"Kendall tau -?\d\.\d\d, overlap \d of \d"))).to_be_visible()
    chart = page.locator(
        "svg.marks[aria-label^='Line chart of'], [aria-label^='Line chart of'] svg.marks"
    ).first
    expect(chart).to_be_visible()
    chart.scroll_into_view_if_needed()

    lines = page.locator("svg.marks g.mark-rule").last.locator("line")
    shown = []
    for place in range(lines.count()):
        page.mouse.move(*line_of(page, place))
        tip = page.locator("#vg-tooltip-element.visible")
        expect(tip).to_be_visible()
        shown.append(tip.inner_text())
        assert tip.locator("img, script, a").count() == 0
    assert any(HOSTILE in text for text in shown)

    for _ in range(2):  # the same line opens its source each time
        point_at_last_line(page)  # it listens again
        page.mouse.down()
        page.mouse.up()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_text("Why this passage")).to_be_visible(timeout=60_000)
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
    assert visited.foreign == []
    assert visited.errors == []


def test_the_picture_follows_a_change_of_theme_at_once(
    run_app: Callable[..., App], visit: Callable[..., Visit]
) -> None:
    page = visit(run_app(), path="/documents").page
    ask(page)
    words = page.locator("svg.marks text", has_text="Bi-encoder").first
    expect(words).to_have_css("fill", "rgb(23, 38, 43)")
    page.emulate_media(color_scheme="dark")
    expect(words).to_have_css("fill", "rgb(230, 238, 240)")


def test_a_card_opens_its_page_with_the_passage_marked(
    run_app: Callable[..., App], visit: Callable[..., Visit]
) -> None:
    app = run_app()
    visited = visit(app, path="/documents")
    page = visited.page
    ask(page)
    card = page.locator('[class*="st-key-card-"]').filter(has_text=OIL).first
    card.get_by_role("button", name="Open page").click()
    dialog = page.get_by_role("dialog")
    image = dialog.locator("img[alt='Page 2 of pump.pdf, the passage is marked']")
    expect(image).to_be_visible(timeout=60_000)
    assert yellow_pixels(page, image) > 500
    expect(dialog.get_by_text("strongest")).to_be_visible(timeout=60_000)
    expect(dialog.locator('[class*="st-key-source-sentence-4-"]').get_by_text(OIL)).to_be_visible()
    expect(dialog.get_by_text(f"“{OIL}” (pump.pdf, page 2)")).to_be_visible()

    narrow = image.bounding_box()
    dialog.get_by_role("button", name="Zoom in").click()
    expect(dialog.locator(".st-key-source-zoom-150 img")).to_be_visible(timeout=30_000)
    wide = image.bounding_box()
    assert narrow
    assert wide
    assert wide["width"] == pytest.approx(1.5 * narrow["width"], rel=0.05)

    page.keyboard.press("ArrowRight")
    third = dialog.locator("img[alt='Page 3 of pump.pdf']")
    expect(third).to_be_visible(timeout=30_000)
    assert yellow_pixels(page, third) == 0
    dialog.get_by_role("button", name="Previous page").click()
    expect(image).to_be_visible(timeout=30_000)

    address = dialog.get_by_role("link", name="Download original").get_attribute("href")
    download = page.request.get(f"{app.url}{address}")
    assert download.body() == PUMP
    assert download.headers["content-disposition"] == 'attachment; filename="pump.pdf"'
    address = dialog.get_by_role("link", name="Open original at page 2").get_attribute("href")
    assert str(address).endswith("/file?inline=true#page=2")
    inline = page.request.get(f"{app.url}{address}")
    assert inline.headers["content-disposition"] == 'inline; filename="pump.pdf"'
    assert visited.foreign == []
    assert visited.errors == []
