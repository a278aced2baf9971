"""A passage at its place: page picture, highlight, tinted sentences, quotation, and the door to the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
from fastapi.testclient import TestClient
from PIL import Image
from streamlit.testing.v1 import AppTest

from app_pages.parts import source
from ingest.pdf import read_pages
from ingest.store import LOCAL_OWNER
from ingest.types import Chunk
from rag.api import create_api
from rag.passages import STEPS, quotation, score_passage, sentences
from rag.services import Services
from rag.settings import Settings
from tests.fakes import WordEmbedder, a_chunk, length_reranker
from tests.pdfs import encrypted_pdf, huge_page_pdf, text_pdf

PAGES = [
    ["The lake is deep."],
    ["Ten apples a day keep many doctors away from here.", "Pears do not."],
    ["Figs are sweet."],
]
HOSTILE = [
    "<script>window.hacked=1</script> <img src=x onerror=alert(1)> is here.",
    "An :red[apple] **bold** [link](http://evil.example) costs $5$ at www.evil.example.",
    "And ![picture](http://evil.example/x.png) `ends` it.",
]


def words_scored(question: str, passages: Sequence[str]) -> list[float]:
    return [float(len(passage.split())) for passage in passages]


def test_sentences_are_scored_under_the_heading_and_stepped_from_weakest_to_best() -> None:
    chunk = a_chunk("One two three. Four. Five six seven eight nine ten eleven.", heading="Big title")
    scored = score_passage("q", chunk, words_scored)
    assert [(s.text, s.score) for s in scored] == [
        ("One two three.", 5.0),
        ("Four.", 3.0),
        ("Five six seven eight nine ten eleven.", 9.0),
    ]
    assert [s.step for s in scored] == [1, 0, STEPS - 1]  # 2, 0 and 6 of 6, in five steps


def test_sentences_of_one_score_are_all_the_best_and_no_words_are_no_sentences() -> None:
    assert [s.step for s in score_passage("q", a_chunk("One two. Three four."), words_scored)] == [4, 4]
    assert score_passage("q", a_chunk("  "), words_scored) == ()


def test_sentences_leave_no_word_out() -> None:
    text = "Heading\nFirst line of a sen\ufffetence\ngoes on. Second one?\n12  34  56\n"
    assert " ".join(sentences(a_chunk(text))).split() == text.replace("\ufffe", "").split()


def test_a_quotation_names_file_and_page() -> None:
    assert quotation(a_chunk("Ripe\nplums", page=7)) == "“Ripe plums” (fruit.pdf, page 7)"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """One for all tests, because its sandbox takes a second to start."""
    made = Services(Settings(data=tmp_path_factory.mktemp("data")))
    made.use_models(WordEmbedder(), length_reranker())
    assert made.store.documents() == []  # opened before any file is kept, as the app does it
    yield made
    made.close()


@pytest.fixture
def library(shared: Services) -> Services:
    shared.use_models(WordEmbedder(), length_reranker())
    st.cache_data.clear()
    return shared


def add(library: Services, data: bytes, page: int, *, password: str = "", words: str = "") -> Chunk:
    """Store a file, and take a passage of one of its pages: all of it, or these words."""
    doc_id = library.originals.save(data, owner=LOCAL_OWNER)
    text = read_pages(library.originals.path(doc_id, owner=LOCAL_OWNER), page, page, password)[0].text
    start = text.index(words) if words else 0
    end = start + len(words) if words else len(text)
    return Chunk(doc_id, "fruit.pdf", page, start, end, text[start:end], "Fruit")


SCRIPT = """
import streamlit as st

from app_pages.parts import source

# workers of the sandbox import the main script
if __name__ == "__main__":
    asked = (st.session_state["services"], "How many apples?", st.session_state["chunk"])
    if st.button("open", key="open"):
        source.open_source(*asked, owner="local")
    elif not st.button("close", key="close"):
        # in a browser a click inside the dialog runs the dialog alone; the harness can only run everything
        if source._VIEW in st.session_state:
            source._show(*asked, "local")
"""


@pytest.fixture
def opened(library: Services) -> Callable[[Chunk], AppTest]:
    def open_it(chunk: Chunk) -> AppTest:
        page = AppTest.from_string(SCRIPT, default_timeout=60)
        page.session_state["services"] = library
        page.session_state["chunk"] = chunk
        page.run()
        page.button(key="open").click().run()
        assert not page.exception
        return page

    return open_it


def words_of(page: AppTest) -> str:
    kinds = ("markdown", "caption", "text", "warning", "error", "info", "code")
    return "\n".join(str(getattr(element, "value", "")) for kind in kinds for element in page.get(kind))


def alt_of(page: AppTest) -> str:
    (image,) = page.get("image")
    return str(image.proto.imgs[0].alt)


def click(page: AppTest, key: str) -> AppTest:
    page.button(key=key).click().run()
    assert not page.exception
    return page


def test_the_dialog_opens_at_the_chunks_page_with_its_words_marked(
    library: Services, opened: Callable[[Chunk], AppTest]
) -> None:
    page = opened(add(library, text_pdf(PAGES), 2))
    assert "Page 2 of 3" in words_of(page)
    assert alt_of(page) == "Page 2 of fruit.pdf, the passage is marked"


def test_exactly_the_words_of_the_passage_are_marked(library: Services) -> None:
    chunk = add(library, text_pdf(PAGES), 2, words="Pears do not.")
    path = library.originals.path(chunk.doc_id, owner=LOCAL_OWNER)
    drawn, (box,) = source._draw(
        library.viewer, path, 2, 612, [(chunk.start, chunk.end)], ""
    )  # one pixel a point
    image = np.asarray(Image.open(BytesIO(drawn.png)).convert("RGB")).astype(int)
    rows, columns = np.nonzero(image[..., 0] - image[..., 2] > 40)  # yellow has much more red than blue
    assert box.left - 1 <= columns.min() <= columns.max() <= box.right + 1
    assert box.bottom - 2 <= 792 - rows.max() <= 792 - rows.min() <= box.top + 2
    assert len(rows) > 0.5 * (box.right - box.left) * (box.top - box.bottom)


def test_other_pages_are_turned_to_without_a_mark_and_back(
    library: Services, opened: Callable[[Chunk], AppTest]
) -> None:
    page = click(opened(add(library, text_pdf(PAGES), 2)), "source-next")
    assert alt_of(page) == "Page 3 of fruit.pdf"
    assert page.button(key="source-next").disabled
    page = click(click(page, "source-previous"), "source-previous")
    assert alt_of(page) == "Page 1 of fruit.pdf"
    assert page.button(key="source-previous").disabled
    assert "the passage is marked" in alt_of(click(page, "source-back"))


def test_opening_again_begins_at_the_passage(library: Services, opened: Callable[[Chunk], AppTest]) -> None:
    page = click(opened(add(library, text_pdf(PAGES), 2)), "source-next")
    click(page, "open")
    assert "Page 2 of 3" in words_of(page)


def test_zoom_draws_the_page_wider(library: Services) -> None:
    chunk = add(library, text_pdf(PAGES), 1)
    path = library.originals.path(chunk.doc_id, owner=LOCAL_OWNER)
    widths = [
        source._draw(library.tools.sandbox, path, 1, source.PAGE_PIXELS * zoom // 100, [], "")[0].width
        for zoom in source.ZOOMS[:2]
    ]
    assert widths == [1200, 1800]


def test_pages_are_kept_but_not_for_ever_and_nothing_that_a_password_opened(
    library: Services, opened: Callable[[Chunk], AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    call = library.viewer.call

    def counting(function: Callable[..., object], *args: object, **options: object) -> object:
        calls.append(function.__name__)
        return call(function, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(library.viewer, "call", counting)
    page = opened(add(library, text_pdf(PAGES), 2))
    click(click(page, "source-next"), "source-previous")
    assert calls.count("render_page") == 2

    calls.clear()
    page = opened(add(library, encrypted_pdf(PAGES, password="sesame"), 2, password="sesame"))
    page.text_input(key="source-password").set_value("sesame").run()
    click(click(page, "source-next"), "source-previous")
    assert calls.count("render_page") == 3


def test_sentences_are_shown_with_scores_and_tints(
    library: Services, opened: Callable[[Chunk], AppTest]
) -> None:
    page = opened(add(library, text_pdf(PAGES), 2))
    # the heading is one word more
    assert [text.value for text in page.text] == [
        "11.00",
        "Ten apples a day keep many doctors away from here.",
        "4.00",
        "Pears do not.",
    ]
    assert "the reranker, word lengths" in words_of(page)


def test_without_a_reranker_the_tints_are_said_to_be_the_cosines(
    library: Services, opened: Callable[[Chunk], AppTest]
) -> None:
    library.use_models(WordEmbedder(), None, "There is none.")
    assert "because there is no reranker" in words_of(opened(add(library, text_pdf(PAGES), 2)))


def test_hostile_sentences_stay_text(library: Services, opened: Callable[[Chunk], AppTest]) -> None:
    page = opened(add(library, text_pdf([HOSTILE]), 1))
    shown = " ".join(text.value for text in page.text)
    for part in ("<img src=x onerror=alert(1)>", ":red[apple]", "![picture](http://evil.example/x.png)"):
        assert part in shown
    live = [
        str(getattr(element, "proto", ""))
        for kind in ("markdown", "caption", "html")
        for element in page.get(kind)
    ]
    assert "strongest" in " ".join(live)
    assert "evil.example" not in " ".join(live)
    assert "onerror" not in " ".join(live)
    assert page.code[0].language in ("", "plaintext")


def test_a_deleted_file_is_said_and_the_passage_remains(
    library: Services, opened: Callable[[Chunk], AppTest]
) -> None:
    chunk = add(library, text_pdf(PAGES), 2)
    library.originals.discard(chunk.doc_id, owner=LOCAL_OWNER)
    page = opened(chunk)
    assert "The file was deleted" in page.warning[0].value
    assert not page.get("image")
    assert not page.get("link_button")
    assert "Pears do not." in words_of(page)


def test_an_encrypted_file_asks_for_its_password_and_keeps_it_nowhere(
    library: Services, opened: Callable[[Chunk], AppTest]
) -> None:
    page = opened(add(library, encrypted_pdf(PAGES, password="sesame"), 2, password="sesame"))
    assert "passwords are not kept" in page.info[0].value
    assert "Pears do not." in words_of(page)
    page.text_input(key="source-password").set_value("guess").run()
    assert "does not open this file" in page.error[0].value
    page.text_input(key="source-password").set_value("sesame").run()
    assert not page.exception
    assert alt_of(page) == "Page 2 of fruit.pdf, the passage is marked"
    click(page, "close")
    assert "source-password" not in page.session_state


def test_a_page_that_cannot_be_drawn_is_said_and_the_passage_remains(
    library: Services, opened: Callable[[Chunk], AppTest]
) -> None:
    chunk = add(library, text_pdf(PAGES), 2)
    library.originals.path(chunk.doc_id, owner=LOCAL_OWNER).write_bytes(b"%PDF-1.4 torn")
    page = opened(chunk)
    assert "damaged" in page.warning[0].value
    assert "Pears do not." in words_of(page)


def test_a_page_without_places_for_its_letters_says_that_nothing_is_marked(
    library: Services, opened: Callable[[Chunk], AppTest]
) -> None:
    chunk = add(library, huge_page_pdf(["Very large"]), 1)
    beyond = Chunk(chunk.doc_id, "fruit.pdf", 1, 500, 510, "elsewhere", "")
    page = opened(beyond)
    assert "cannot be marked" in words_of(page)
    assert alt_of(page) == "Page 1 of fruit.pdf"


def test_the_original_is_a_link_to_its_page(library: Services, opened: Callable[[Chunk], AppTest]) -> None:
    chunk = add(library, text_pdf(PAGES), 2)
    page = click(opened(chunk), "source-next")
    file = f"/api/documents/{chunk.doc_id}/file"
    assert [link.proto.url for link in page.get("link_button")] == [file, f"{file}?inline=true#page=3"]


CARDS = """
import streamlit as st

from app_pages.parts.cards import hit_card, ranked_card
from rag.types import Hit, Ranked, ScorePart
from tests.fakes import a_chunk

hit = Hit(a_chunk("An apple."), 0.512, 3)
parts = (
    ScorePart("cross-encoder logit", -4.93),
    ScorePart("20 x cosine", 10.24),
    ScorePart("0.4 x BM25", 2.1),
)
ranked = Ranked(hit, 7.41, 0.93, 1, parts, False)
foot = ranked_card(ranked, anchor="r1")
hit_card(hit, ranked, anchor="h3", chosen=True)
foot(lambda chunk: st.session_state.update(opened=chunk.text), None)
"""


def test_cards_open_their_page_and_say_what_their_score_is_made_of() -> None:
    page = AppTest.from_string(CARDS, default_timeout=30).run()
    assert not page.exception
    captions = [caption.value.replace("\\", "").replace("\u00a0", " ") for caption in page.caption]
    assert captions[1].splitlines() == [
        "logit **7.41** · sigmoid **0.93** · cosine **0.512**  ",
        "logit = \u22124.93 (cross-encoder logit) + 10.24 (20 x cosine) + 2.10 (0.4 x BM25)",
    ]
    assert [button.key for button in page.button] == ["open-r1"]  # the other foot is still to be filled
    page.button(key="open-r1").click().run()
    assert page.session_state["opened"] == "An apple."


def stored(services: Services) -> tuple[TestClient, str, bytes]:
    data = text_pdf(PAGES)
    services.queue.add('Ä "fruit".pdf', data, owner=LOCAL_OWNER)
    services.queue.run_pending()
    (document,) = services.store.documents()
    return TestClient(create_api(lambda: services)), document.id, data


def test_the_file_is_downloaded_under_its_own_name_and_read_inline_without_any_rights(
    services: Services,
) -> None:
    client, doc_id, data = stored(services)
    for query, kind in (("", "attachment"), ("?inline=true", "inline")):
        answer = client.get(f"/documents/{doc_id}/file{query}")
        assert answer.content == data
        assert answer.headers["content-type"] == "application/pdf"
        assert answer.headers["content-disposition"].startswith(f"{kind}; filename*=utf-8''%C3%84")
        assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"


def test_a_file_that_is_gone_is_404_with_a_sentence(services: Services) -> None:
    client, doc_id, _ = stored(services)
    Path(services.originals.path(doc_id, owner=LOCAL_OWNER)).unlink()
    answer = client.get(f"/documents/{doc_id}/file")
    assert answer.status_code == 404
    assert "is gone" in answer.json()["detail"]
