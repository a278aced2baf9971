"""How long people wait in the browser, among 20,000 chunks: `python -m bench.ui [--folder FOLDER] [--runs N]`.

The real app with the real models in Chromium, and an LLM that answers at once, so that what is measured is the
app. Four waits, from the key or the click to what the browser has drawn: Enter to the first card of the first
order (the bi-encoder's, shown while the candidates are read again), Enter to the first reranked card, Enter to
the first words of the answer, a click on "Open page" to the page with the passage marked. Every round asks
another question in a conversation of its own. The library is made once and kept in FOLDER: 2,000 chunks of
100-page PDFs, Wikipedia paragraphs from ../shared where that is, else words of the sample library in random
order; the other 18,000 have the same texts and random vectors, for the search to look through. Exits with 1 where
a median misses its goal.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from playwright.sync_api import Page, expect, sync_playwright

from bench.library import fill, questions
from bench.timing import machine, table
from ingest.errors import UserError
from tests.browser.conftest import ARGUMENTS, CHROMIUM, App, start_app, stop_app
from tests.fake_llm import FakeLlm, say

CHUNKS = 20_000
REAL = 2_000
RUNS = 9
GOALS = {"first order": 0.3, "first card": 0.7, "first token": 0.7, "page": 0.5}
LABELS = {
    "first order": "Enter to the first card of the first order",
    "first card": "Enter to the first reranked card",
    "first token": "Enter to the first words of the answer",
    "page": "click to the page with the passage marked",
}
FOLDER = Path(tempfile.gettempdir()) / "second-look-bench-ui"
SLOW_MS = 120_000
SAID = "It stands in the sources [1]."

WATCH = """
() => {
  const at = {};
  let watched = {};
  window.watchFor = (event, found) => {
    for (const name of Object.keys(at)) delete at[name];
    watched = found;
    const begin = (happened) => {
      if (event === "keydown" && happened.key !== "Enter") return;
      window.removeEventListener(event, begin, true);
      const started = performance.now();
      const look = () => {
        for (const [name, test] of Object.entries(watched)) {
          if (!(name in at) && test()) at[name] = (performance.now() - started) / 1000;
        }
        if (Object.keys(at).length < Object.keys(watched).length) requestAnimationFrame(look);
      };
      requestAnimationFrame(look);
    };
    window.addEventListener(event, begin, true);
  };
  window.seenAt = () => Object.keys(at).length === Object.keys(watched).length ? at : null;
}
"""
WATCH_ANSWER = """
(said) => window.watchFor("keydown", {
  "first order": () => document.querySelector("h3[id$='-plain-1']"),
  "first card": () => document.querySelector("h3[id$='-reranked-1']"),
  "first token": () => [...document.querySelectorAll("[class*='st-key-answer-']")]
    .some((place) => place.innerText.includes(said)),
})
"""
WATCH_PAGE = """
() => window.watchFor("click", {
  "page": () => [...document.querySelectorAll("[role=dialog] img[alt$='the passage is marked']")]
    .some((image) => image.complete && image.naturalWidth > 0),
})
"""


def one_round(page: Page, question: str) -> dict[str, float]:
    """Seconds of each wait for one question."""
    box = page.get_by_test_id("stChatInput").locator("textarea")
    box.fill(question)
    page.evaluate(WATCH_ANSWER, SAID)
    box.press("Enter")
    seconds = _seen(page)
    expect(page.get_by_role("button", name="Regenerate")).to_be_visible(timeout=SLOW_MS)
    _settle(page)
    page.evaluate(WATCH_PAGE)
    page.locator("[class*='st-key-open-'][class*='-reranked-1'] button").click()
    seconds |= _seen(page)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    _settle(page)
    page.get_by_role("button", name="New topic").click()
    expect(page.get_by_text("the conversation was cleared")).to_be_visible(timeout=SLOW_MS)
    _settle(page)
    return seconds


def _seen(page: Page) -> dict[str, float]:
    found: dict[str, float] = page.wait_for_function("() => window.seenAt()", timeout=SLOW_MS).json_value()
    return found


def _settle(page: Page) -> None:
    """Wait until the page's script has come to its end."""
    expect(page.locator("[data-test-script-state='notRunning']")).to_have_count(1, timeout=SLOW_MS)


def measure(app: App, runs: int) -> dict[str, list[float]]:
    """Seconds of each wait in each round; one round before them is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in GOALS}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(app.url)
        expect(page.get_by_test_id("stChatInput")).to_be_visible(timeout=SLOW_MS)
        page.evaluate(WATCH)
        first, *others = questions(runs + 1)
        one_round(page, first)
        for question in others:
            for name, value in one_round(page, question).items():
                seconds[name].append(value)
        browser.close()
    return seconds


def report(seconds: dict[str, list[float]], busy: float) -> bool:
    """Print the table; True where every goal is met."""
    rows = [["wait", "seconds, median", "lowest", "highest", "goal", "met"]]
    met = {name: median(times) < GOALS[name] for name, times in seconds.items()}
    for name, times in seconds.items():
        numbers = [f"{median(times):.2f}", f"{min(times):.2f}", f"{max(times):.2f}"]
        rows.append([LABELS[name], *numbers, f"{GOALS[name]:g}", "yes" if met[name] else "no"])
    print(table(rows))
    cores = os.cpu_count() or 1
    if busy > cores / 4:
        print(f"\nNot a quiet machine: {busy:.1f} processes were running on {cores} cores before the start.")
    return all(met.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"where the library is kept ({FOLDER})")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.runs < 1:
        parser.error("--runs must be at least 1")
    try:
        fill(options.folder, CHUNKS, real=REAL)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    busy = os.getloadavg()[0]
    with FakeLlm(say(SAID)) as llm:
        environ: dict[str, Any] = {"OPENAI_BASE_URL": llm.base_url, "LLM_MODEL": "instant"}
        app = start_app(options.folder, options.folder / "app.log", **environ)
        try:
            seconds = measure(app, options.runs)
        finally:
            stop_app(app)
    if options.json:
        print(json.dumps({"machine": machine(), "load": busy, "seconds": seconds, "goals": GOALS}, indent=1))
        return 0 if all(median(times) < GOALS[name] for name, times in seconds.items()) else 1
    print(machine())
    print(f"{CHUNKS:,} chunks, {options.runs} questions, the LLM answers at once\n")
    return 0 if report(seconds, busy) else 1


if __name__ == "__main__":
    sys.exit(main())
