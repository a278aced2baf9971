"""Take the pictures of docs/screenshots: `python -m docs.screenshots`, with the app's own text and real models."""

from __future__ import annotations

import tempfile
from pathlib import Path

from playwright.sync_api import Browser, FilePayload, Page, expect, sync_playwright

from tests.browser.conftest import ARGUMENTS, CHROMIUM, App, start_app, stop_app
from tests.pdfs import text_pdf

FOLDER = Path(__file__).resolve().parent / "screenshots"
QUESTION = "How often must the oil of the P200 be changed?"
WIDTHS = {"wide": 1440, "narrow": 390}
SCHEMES = ("light", "dark")


def manual(model: str, hours: int, litres: float, grade: int) -> bytes:
    """One of a family of manuals that differ in the numbers alone: the right neighbourhood, many houses."""
    pages = [
        [
            f"Pump {model}: operating manual",
            f"This manual describes the pump {model}. Read it before you start the pump, and keep it near.",
            "Only trained people may open the housing. Switch off the power before any work.",
        ],
        [
            "Lubrication",
            f"Change the oil every {hours} hours of work, or once a year, whichever comes first.",
            f"The gear box holds {litres} litres of oil of grade {grade}. Let it cool down before you drain it.",
            "Collect the old oil and hand it in where used oil is taken.",
        ],
        [
            "Checking the oil",
            "Check the oil level each week through the glass at the side. Milky oil has water in it: change it.",
            "Oil that smells burnt points to a worn bearing. Note every oil change in the log at the end.",
        ],
        [
            "Cleaning",
            f"Clean the filter of the {model} each month. Never use solvents on the seals.",
            "Rinse the pump with clear water after salt water has passed through it.",
        ],
        [
            "Storage and warranty",
            "Store the pump dry and free from frost. Turn the shaft by hand once a month.",
            f"The warranty of the {model} lasts 24 months. It ends when the oil was not changed in time.",
        ],
    ]
    return text_pdf(
        pages, title=f"Pump {model} manual", outline=[(n + 1, page[0]) for n, page in enumerate(pages)]
    )


MANUALS = {
    "pump-p100.pdf": manual("P100", 250, 0.8, 32),
    "pump-p200.pdf": manual("P200", 500, 1.2, 46),
    "pump-p210.pdf": manual("P210", 400, 1.2, 46),
    "pump-p300.pdf": manual("P300", 1000, 2.5, 68),
}


def main() -> None:
    """Start the app on an empty library, go through it, and take each picture."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        app = start_app(Path(folder) / "data", Path(folder) / "app.log")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            fill(app, browser)
            for scheme in SCHEMES:
                for name, width in WIDTHS.items():
                    context = browser.new_context(
                        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
                    )
                    take(app, context.new_page(), f"{name}-{scheme}", width)
                    context.close()
        finally:
            browser.close()
            stop_app(app)
    (FOLDER / "ask-wide-light.png").replace(FOLDER / "ask.png")


def fill(app: App, browser: Browser) -> None:
    """Upload the manuals and wait for them."""
    page = browser.new_page()
    page.goto(f"{app.url}/documents")
    page.locator('input[type="file"]').set_input_files(
        [FilePayload(name=name, mimeType="application/pdf", buffer=data) for name, data in MANUALS.items()]
    )
    expect(page.get_by_text(f"Library: {len(MANUALS)} documents")).to_be_visible(timeout=120_000)
    page.get_by_role("button", name="Clear finished").click()
    page.close()


def take(app: App, page: Page, suffix: str, width: int) -> None:
    """Take the pictures of both pages at one width and colour scheme."""
    page.goto(f"{app.url}/documents")
    expect(page.get_by_text("Library:")).to_be_visible(timeout=30_000)
    snap(page, f"documents-{suffix}", width)
    page.goto(app.url)
    box = page.get_by_test_id("stChatInput").locator("textarea")
    box.fill(QUESTION)
    box.press("Enter")
    expect(page.get_by_role("heading", name="Reranked order")).to_be_visible(timeout=120_000)
    snap(page, f"ask-{suffix}", width)
    page.get_by_text("Compare", exact=True).first.click()
    expect(page.locator('[class*="st-key-answer-1-plain"]')).to_contain_text("[", timeout=120_000)
    snap(page, f"compare-{suffix}", width)


def snap(page: Page, name: str, width: int) -> None:
    """Take one picture of the whole page, however far it scrolls."""
    page.wait_for_timeout(1500)
    height = page.evaluate("Math.max(...[...document.querySelectorAll('*')].map(e => e.scrollHeight))")
    page.set_viewport_size({"width": width, "height": min(int(height) + 40, 3200)})
    page.wait_for_timeout(800)
    page.screenshot(path=FOLDER / f"{name}.png")
    page.set_viewport_size({"width": width, "height": 900})


if __name__ == "__main__":
    main()
