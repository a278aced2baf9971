"""The real app in a process of its own, and a real browser in front of it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--headless=new",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
START_SECONDS = 60
SETTLE_MS = 120_000
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A failed test of this folder is tried once more: a machine under load stalls a browser for seconds.

    What failed the first time is told in the summary (RERUN), and fails the run where it fails again.
    """
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.flaky(reruns=1))


@dataclass(frozen=True)
class App:
    """A running app: its address, its data folder, its process."""

    url: str
    data: Path
    process: subprocess.Popen[bytes]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_app(data: Path, log: Path, port: int = 0, /, **environ: str) -> App:
    """Start `second-look serve` and wait until it answers; on any free port where none is given."""
    port = port or free_port()
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("OPENAI", "LLM", "QDRANT"))
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("second-look"), "serve"],
            env=kept | {"SECOND_LOOK_DATA": str(data), "SECOND_LOOK_PORT": str(port)} | environ,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    app = App(f"http://127.0.0.1:{port}", data, process)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{app.url}/_stcore/health", timeout=2) as answer:
                if answer.status == 200:
                    return app
        except OSError:
            time.sleep(0.05)
    stop_app(app)
    raise AssertionError(f"the app did not start:\n{log.read_text()[-3000:]}")


AT_REST = """async (ms) => {
  const main = document.querySelector('[data-testid=stMain]') ?? document.body;
  const fading = () => document.getAnimations().filter(
    (one) => one.playState === 'running' && one.effect.getComputedTiming().iterations !== Infinity);
  const look = () => [main.scrollHeight, main.scrollTop, document.body.querySelectorAll('*').length].join();
  const end = performance.now() + 20 * ms;
  for (let seen = look(), since = performance.now(); performance.now() < Math.min(since + ms, end); ) {
    await new Promise(requestAnimationFrame);
    if (look() !== seen || fading().length) [seen, since] = [look(), performance.now()];
  }
}"""


def settle(page: Page) -> None:
    """Wait until the script has come to its end and nothing on the page moves any more: pictures come late."""
    expect(page.locator("[data-test-script-state='notRunning']")).to_have_count(1, timeout=SETTLE_MS)
    page.evaluate(AT_REST, 400)
    expect(page.locator("[data-test-script-state='notRunning']")).to_have_count(1, timeout=SETTLE_MS)


def stop_app(app: App) -> None:
    app.process.terminate()
    try:
        app.process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        app.process.kill()
        app.process.wait()


@pytest.fixture
def run_app(tmp_path: Path) -> Iterator[Callable[..., App]]:
    """Start an app with the given environment; it is stopped after the test."""
    with ExitStack() as stack:

        def run(*, data: Path | None = None, **environ: str) -> App:
            app = start_app(data or tmp_path / "data", tmp_path / "app.log", **environ)
            stack.callback(stop_app, app)
            return app

        yield run


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; not for the whole session, because its event loop would run on beside other tests."""
    if not Path(CHROMIUM).exists():
        message = f"there is no Chromium at {CHROMIUM}; install it or name it in CHROMIUM"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        launched.close()


@dataclass
class Visit:
    """A page in the browser, and what it tried to do."""

    page: Page
    foreign: list[str]
    errors: list[str]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[[App], Visit]]:
    """Open the app at 1440 pixels; requests to other hosts are blocked and noted."""
    with ExitStack() as stack:

        def open_page(app: App, *, width: int = 1440, path: str = "") -> Visit:
            context = browser.new_context(viewport={"width": width, "height": 900})
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(30_000)
            visited = Visit(page, [], [])

            def guard(route: Route) -> None:
                if route.request.url.startswith((app.url, "data:", "blob:")):
                    route.continue_()
                else:
                    visited.foreign.append(route.request.url)
                    route.abort()

            context.route("**/*", guard)
            page.on("pageerror", lambda error: visited.errors.append(str(error)))
            page.goto(app.url + path)
            return visited

        yield open_page
