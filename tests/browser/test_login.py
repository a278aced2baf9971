"""Two people in two browsers, signed in by a real OpenID Connect provider on loopback."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from rag.access import make_token, token_line, user_name
from tests.browser.conftest import App, free_port, start_app, stop_app
from tests.browser.test_access import findings
from tests.browser.test_app import LAKE, OIL, PUMP, QUESTION, ask, go, upload
from tests.oidc import CLIENT_SECRET, PEOPLE, Oidc
from tests.pdfs import text_pdf

pytestmark = pytest.mark.browser

SLOW = 60_000
TOKENS = {"ann": make_token(), "bob": make_token()}


@dataclass(frozen=True)
class Place:
    """The running app, its provider, its log."""

    app: App
    oidc: Oidc
    cookie_secret: str

    def log(self) -> str:
        return (self.app.data.parent / "app.log").read_text(encoding="utf-8")

    def call(
        self, method: str, path: str, *, body: object = None, token: str = "", cookie: str = ""
    ) -> tuple[int, str]:
        """Status and text of a request made by hand."""
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if cookie:
            headers["Cookie"] = cookie
        data = json.dumps(body).encode() if body is not None else None
        asked = urllib.request.Request(f"{self.app.url}{path}", data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                return answer.status, answer.read().decode("latin-1")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode("latin-1")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder, port = tmp_path_factory.mktemp("login"), free_port()
    with Oidc() as oidc:
        environ = oidc.environ(f"http://127.0.0.1:{port}")
        lines = [token_line(user_name(oidc.issuer, str(PEOPLE[who]["sub"])), TOKENS[who]) for who in TOKENS]
        running = start_app(
            folder / "data",
            folder / "app.log",
            port,
            **environ,
            SECOND_LOOK_USERS="@example.org",
            SECOND_LOOK_API_TOKENS=",".join(lines),
        )
        yield Place(running, oidc, environ["SECOND_LOOK_COOKIE_SECRET"])
        stop_app(running)


@pytest.fixture
def person(browser: Browser, place: Place) -> Iterator[Callable[..., Page]]:
    """Open the app in a browser of its own and sign in as somebody."""
    with ExitStack() as stack:

        def come(who: str = "", *, width: int = 1440, scheme: str = "light") -> Page:
            context: BrowserContext = browser.new_context(
                viewport={"width": width, "height": 900},
                color_scheme="dark" if scheme == "dark" else "light",
            )
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(SLOW)
            page.goto(place.app.url)
            expect(page.get_by_role("button", name="Sign in")).to_be_visible(timeout=SLOW)
            if who:
                page.get_by_role("button", name="Sign in").click()
                page.get_by_role("link", name=who).click()
            return page

        yield come


def cookies(page: Page) -> str:
    return "; ".join(f"{one.get('name')}={one.get('value')}" for one in page.context.cookies())


def add(page: Page, name: str, data: bytes) -> None:
    page.goto(f"{page.url.split('/')[0]}//{page.url.split('/')[2]}/documents")
    upload(page, (name, data))
    expect(page.get_by_text("Library: 1 document,")).to_be_visible(timeout=SLOW)


def test_two_people_see_their_own_documents_and_nothing_of_each_other(
    place: Place, person: Callable[..., Page]
) -> None:
    ann, bob = person("ann"), person("bob")
    expect(ann.get_by_text("Ann Ash")).to_be_visible(timeout=SLOW)
    expect(bob.get_by_text("Bob *Birch*")).to_be_visible(timeout=SLOW)  # letter for letter
    add(ann, "pump.pdf", text_pdf(PUMP, title="Pump manual"))
    expect(bob.get_by_text("Your library is empty")).to_be_visible(timeout=SLOW)
    add(bob, "lake.pdf", text_pdf(LAKE))
    expect(bob.get_by_text("pump.pdf")).to_have_count(0)
    expect(ann.get_by_text("lake.pdf")).to_have_count(0)

    go(bob, "Ask")
    ask(bob)
    expect(bob.get_by_text("lake.pdf, page").first).to_be_visible(timeout=SLOW)
    assert "pump" not in bob.locator('[class*="st-key-card-"]').all_inner_texts()[0]
    assert OIL not in bob.locator("body").inner_text()
    go(ann, "Ask")
    ask(ann)
    answer = ann.locator('[class*="st-key-answer-1-reranked"]')
    expect(answer).to_contain_text("every 500 hours", timeout=SLOW)

    _fetches_only_own_files(place, ann, bob)
    _reach_only_their_own_by_hand(place)
    _signs_out(place, bob)
    expect(ann.get_by_text("Ann Ash")).to_be_visible()
    _tells_no_secret(place, ann)


def _fetches_only_own_files(place: Place, ann: Page, bob: Page) -> None:
    """The links to the original work for a browser that is signed in, with its own documents alone."""
    ann.get_by_role("button", name="Open page").first.click()
    link = ann.get_by_role("dialog").get_by_role("link", name="Download original")
    expect(link).to_be_visible(timeout=SLOW)
    file = str(link.get_attribute("href"))
    with ann.expect_download() as download:
        link.click()
    assert download.value.path().read_bytes() == text_pdf(PUMP, title="Pump manual")
    ann.keyboard.press("Escape")
    assert place.call("GET", file, cookie=cookies(ann))[0] == 200
    assert place.call("GET", file, cookie=cookies(bob))[0] == 404
    assert place.call("GET", file)[0] == 401
    assert place.call("GET", "/api/documents", cookie=cookies(ann))[0] == 401


def _reach_only_their_own_by_hand(place: Place) -> None:
    def ids(who: str) -> list[str]:
        return [one["id"] for one in json.loads(place.call("GET", "/api/documents", token=TOKENS[who])[1])]

    (pump,), (lake,) = ids("ann"), ids("bob")
    assert place.call("GET", f"/api/documents/{lake}/file", token=TOKENS["ann"])[0] == 404
    assert place.call("DELETE", f"/api/documents/{lake}", token=TOKENS["ann"])[0] == 404
    assert "lake" not in place.call("GET", "/api/uploads", token=TOKENS["ann"])[1]
    for doc_ids in (None, [lake], [lake, pump]):
        query = {"question": "How cold is the lake?", "doc_ids": doc_ids}
        status, text = place.call("POST", "/api/search", body=query, token=TOKENS["ann"])
        assert (status, lake in json.dumps(json.loads(text)["hits"])) == (200, False)
    assert place.call("POST", "/api/search", body={"question": QUESTION})[0] == 401
    assert place.call("POST", "/api/search", body={"question": QUESTION}, token=TOKENS["ann"] + "x")[0] == 401
    assert place.call("PUT", "/_stcore/upload_file/any/thing", body={})[0] == 403
    assert ids("bob") == [lake]


def _signs_out(place: Place, page: Page) -> None:
    before = cookies(page)
    assert "_streamlit_user=" in before
    go(page, "Sign out")
    expect(page.get_by_role("button", name="Sign in")).to_be_visible(timeout=SLOW)
    assert "_streamlit_user=" not in cookies(page)
    assert "/logout" in place.oidc.asked
    page.goto(f"{place.app.url}/documents")
    expect(page.get_by_role("button", name="Sign in")).to_be_visible(timeout=SLOW)
    expect(page.get_by_text("lake.pdf")).to_have_count(0)


def _tells_no_secret(place: Place, page: Page) -> None:
    page.goto(f"{place.app.url}/account")
    expect(page.get_by_text("Signed in as")).to_be_visible(timeout=SLOW)
    shown = page.content() + place.log()
    for secret in (CLIENT_SECRET, place.cookie_secret, *TOKENS.values()):
        assert secret not in shown
    assert "for those of SECOND_LOOK_USERS whom 127.0.0.1" in place.log()


def test_whoever_is_not_on_the_list_gets_no_further(place: Place, person: Callable[..., Page]) -> None:
    page = person("eve")
    expect(page.get_by_text("not on the list")).to_be_visible(timeout=SLOW)
    expect(page.get_by_test_id("stFileUploader")).to_have_count(0)
    page.goto(f"{place.app.url}/documents")
    expect(page.get_by_text("not on the list")).to_be_visible(timeout=SLOW)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible(timeout=SLOW)


def test_under_another_name_the_page_leads_to_the_right_one(
    place: Place, person: Callable[..., Page]
) -> None:
    page = person()
    page.goto(place.app.url.replace("127.0.0.1", "localhost"))
    link = page.get_by_role("link", name=re.compile("^Go to"))
    expect(link).to_be_visible(timeout=SLOW)
    assert link.get_attribute("href") == place.app.url


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_signing_in_and_out_has_no_grave_finding_of_axe(
    place: Place, person: Callable[..., Page], width: int, scheme: str
) -> None:
    page = person(width=width, scheme=scheme)
    assert findings(page) == []
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="ann").click()
    expect(page.get_by_test_id("stHeader")).to_be_visible(timeout=SLOW)
    page.goto(f"{place.app.url}/account")
    expect(page.get_by_text("Signed in as")).to_be_visible(timeout=SLOW)
    assert findings(page) == []
