"""Take the pictures of docs/screenshots: `python -m docs.screenshots [PART ...]`, each page and state in use.

The library is the sample library, the models are the app's own, and no LLM is needed. All questions of the sample
library are asked for the Evidence page, which takes minutes. With PARTs of names only those pictures are taken:
`python -m docs.screenshots source-wide`.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, FilePayload, Locator, Page, expect, sync_playwright

from rag.samples import sample_files
from tests.browser.conftest import ARGUMENTS, CHROMIUM, App, start_app, stop_app
from tests.pdfs import encrypted_pdf, truncated_pdf

FOLDER = Path(__file__).resolve().parent / "screenshots"
QUESTION = "Where is the assembly point in Corvo?"
FOLLOW_UP = "And which ones are allowed it?"
Scheme = Literal["light", "dark"]
WIDTHS = {"wide": 1440, "narrow": 390}
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
TALLEST = 1800
COLOURS = 128
"""Pictures are kept small: text on few colours needs no more."""
SLOW = 600_000
VERY_SLOW = 3_600_000


@dataclass(frozen=True, slots=True)
class Camera:
    """A page at one width in one colour scheme, and which pictures are wanted of it."""

    page: Page
    width: int
    suffix: str
    parts: Sequence[str]

    def whole(self, name: str) -> None:
        """Take the whole page, however far it scrolls."""
        if not self._wanted(name):
            return
        settle(self.page)
        height = self.page.evaluate(
            "Math.max(...[...document.querySelectorAll('*')].map(e => e.scrollHeight))"
        )
        self.page.set_viewport_size({"width": self.width, "height": min(int(height) + 40, TALLEST)})
        self.page.wait_for_timeout(800)
        self._keep(name, self.page.screenshot())
        self.page.set_viewport_size({"width": self.width, "height": 900})

    def screen(self, name: str) -> None:
        """Take what is to be seen now."""
        if self._wanted(name):
            settle(self.page)
            self._keep(name, self.page.screenshot())

    def part(self, name: str, place: Locator) -> None:
        """Take one part of the page, however tall it is, without the bar that stays above it."""
        if not self._wanted(name):
            return
        settle(self.page)
        self.page.set_viewport_size({"width": self.width, "height": TALLEST})
        bar = self.page.add_style_tag(content="[data-testid=stHeader] { visibility: hidden; }")
        place.evaluate("(part) => part.scrollIntoView({block: 'start'})")
        self.page.wait_for_timeout(800)
        box = place.bounding_box()
        if box is None:
            raise RuntimeError(f"{name} is not on the page.")
        box["height"] = min(box["height"], TALLEST - box["y"])
        self._keep(name, self.page.screenshot(clip=box))
        bar.evaluate("(style) => style.remove()")
        self.page.set_viewport_size({"width": self.width, "height": 900})

    def any_of(self, name: str) -> bool:
        """Whether a picture of this name may be wanted."""
        return not self.parts or any(part.startswith(name) for part in self.parts)

    def _wanted(self, name: str) -> bool:
        return not self.parts or any(part in f"{name}-{self.suffix}" for part in self.parts)

    def _keep(self, name: str, png: bytes) -> None:
        picture = Image.open(BytesIO(png)).convert("RGB")
        small = picture.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        small.save(FOLDER / f"{name}-{self.suffix}.png", optimize=True)


def main() -> None:
    """Start the app on an empty library, go through it, and take each picture."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        app = start_app(Path(folder) / "data", Path(folder) / "app.log")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            cameras = [camera(browser, name, scheme) for name in WIDTHS for scheme in SCHEMES]
            for each in cameras:
                take_empty(app, each)
            load_samples(app, browser)
            for each in cameras:
                take_offers(app, each)
            if cameras[0].any_of("evidence"):
                ask_the_samples(app, cameras[0].page)
            for each in cameras:
                take_evidence(app, each)
                take_documents(app, each)
                take_questions(app, each)
                take_comparison(app, each)
        finally:
            browser.close()
            stop_app(app)


def camera(browser: Browser, name: str, scheme: Scheme) -> Camera:
    """A page of its own at this width and scheme."""
    context = browser.new_context(
        viewport={"width": WIDTHS[name], "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.set_default_timeout(SLOW)
    return Camera(page, WIDTHS[name], f"{name}-{scheme}", sys.argv[1:])


def load_samples(app: App, browser: Browser) -> None:
    """Load the sample library, and upload two files that need attention."""
    page = browser.new_page()
    page.set_default_timeout(SLOW)
    page.goto(app.url)
    page.get_by_role("button", name="Load the sample library").click()
    expect(page.get_by_test_id("stChatInput")).to_be_visible(timeout=SLOW)
    page.goto(f"{app.url}/documents")
    page.locator('input[type="file"]').set_input_files(
        [
            FilePayload(name=name, mimeType="application/pdf", buffer=data)
            for name, data in (
                ("quarterly-report.pdf", encrypted_pdf([["Figures"]], password="not told")),  # noqa: S106
                ("scan-broken.pdf", truncated_pdf()),
            )
        ]
    )
    expect(page.get_by_label("Password", exact=True)).to_be_visible(timeout=SLOW)
    expect(page.get_by_text(f"Library: {len(sample_files())} documents")).to_be_visible(timeout=SLOW)
    page.close()


def take_empty(app: App, camera: Camera) -> None:
    """The first minute: nothing in the library yet."""
    camera.page.goto(app.url)
    expect(camera.page.get_by_role("button", name="Load the sample library")).to_be_visible(timeout=SLOW)
    camera.whole("empty")


def take_offers(app: App, camera: Camera) -> None:
    """The Evidence page before there is a question set."""
    camera.page.goto(f"{app.url}/evidence")
    expect(camera.page.get_by_role("button", name="Use these questions")).to_be_visible(timeout=SLOW)
    camera.whole("evidence-start")


def ask_the_samples(app: App, page: Page) -> None:
    """Ask the sample library's questions; takes minutes."""
    page.goto(f"{app.url}/evidence")
    page.get_by_role("button", name="Use these questions").click()
    page.get_by_role("button", name=re.compile(r"Ask \d+ questions")).click()
    expect(page.locator('[class*="st-key-verdict-"]')).to_be_visible(timeout=VERY_SLOW)


def take_evidence(app: App, camera: Camera) -> None:
    """The verdict on reranking, once the questions were asked; its parts, and the questions themselves."""
    if not camera.any_of("evidence"):
        return
    page = camera.page
    page.goto(f"{app.url}/evidence")
    expect(page.locator('[class*="st-key-verdict-"]')).to_be_visible(timeout=SLOW)
    expect(page.get_by_role("heading", name="In ordinary use")).to_be_visible(timeout=SLOW)
    camera.whole("evidence")
    camera.part("evidence-depth", page.locator(".st-key-evidence-depth-0"))
    camera.part("evidence-threshold", page.locator(".st-key-evidence-threshold"))
    page.get_by_text(re.compile(r"^\d+ won$")).click()
    settle(page)
    page.locator('[class*="st-key-drill-"] summary').first.click()
    expect(page.get_by_text("Right passage:").first).to_be_visible(timeout=SLOW)
    camera.part("evidence-drill", page.locator(".st-key-evidence-drill"))
    page.get_by_test_id("stButtonGroup").get_by_text("Question sets", exact=True).click()
    expect(page.get_by_role("button", name="Save changes")).to_be_visible(timeout=SLOW)
    camera.whole("evidence-sets")


def take_documents(app: App, camera: Camera) -> None:
    """The library, with uploads that need attention."""
    camera.page.goto(f"{app.url}/documents")
    expect(camera.page.get_by_text("Library:")).to_be_visible(timeout=SLOW)
    camera.whole("documents")


def take_questions(app: App, camera: Camera) -> None:
    """A question: suggestions, answer with both orders, movement, source, settings, a follow-up."""
    page = camera.page
    page.goto(app.url)
    expect(page.locator('[class*="st-key-samples-questions"] button:visible').first).to_be_visible(
        timeout=SLOW
    )
    camera.whole("start")
    ask(page, QUESTION)
    camera.whole("ask")
    camera.part("movement", page.locator('[class*="st-key-picture-"]'))
    page.locator('[class*="st-key-open-"][class*="-reranked-1"] button').click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("img")).to_be_visible(timeout=SLOW)
    expect(dialog.get_by_text("strongest")).to_be_visible(timeout=SLOW)
    camera.screen("source")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    page.get_by_role("button", name="Settings").click()
    expect(page.get_by_test_id("stPopoverBody")).to_contain_text("Bi-encoder:")
    camera.screen("settings")
    page.keyboard.press("Escape")
    ask(page, FOLLOW_UP)
    camera.whole("conversation")


def take_comparison(app: App, camera: Camera) -> None:
    """Two answers, without their names and with them."""
    page = camera.page
    page.goto(app.url)
    page.get_by_text("Compare", exact=True).first.click()
    page.get_by_text("Blind", exact=True).click()
    settle(page)
    fill_in(page, QUESTION)
    expect(page.locator(".st-key-ballot")).to_be_visible(timeout=SLOW)
    camera.whole("blind")
    page.get_by_role("button", name="Reveal without voting").click()
    complete(page)
    camera.whole("compare")


def ask(page: Page, question: str) -> None:
    """Ask, and wait for the answer and both orders."""
    fill_in(page, question)
    complete(page)


def fill_in(page: Page, question: str) -> None:
    """Type a question and send it; returns when it is on the page."""
    box = page.get_by_test_id("stChatInput").locator("textarea")
    box.fill(question)
    box.press("Enter")
    expect(page.locator('[class*="st-key-latest-"]').get_by_text(question, exact=True)).to_be_visible(
        timeout=SLOW
    )


def complete(page: Page) -> None:
    """Wait until answer and orders are there."""
    expect(page.get_by_role("button", name="Regenerate")).to_be_visible(timeout=SLOW)
    expect(page.get_by_role("heading", name="Reranked order").first).to_be_visible(timeout=SLOW)
    settle(page)


def settle(page: Page) -> None:
    """Wait until the page's script has come to its end and all is drawn."""
    expect(page.locator("[data-test-script-state='notRunning']")).to_have_count(1, timeout=SLOW)
    page.wait_for_timeout(1000)


if __name__ == "__main__":
    main()
