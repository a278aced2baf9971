"""A passage at its place: the page as an image with the passage marked, and why it was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from app_pages.parts.account import own_stages
from app_pages.parts.text import one_paragraph, plain
from ingest.errors import PdfRefused, UserError
from ingest.pdf import Box, PageImage, inspect, render_page, span_boxes
from ingest.sandbox import Sandbox
from ingest.types import Chunk
from rag.passages import STEPS, Sentence, quotation, score_passage, sentences
from rag.services import Services

PAGE_PIXELS = 1200
"""How wide a page is drawn at 100 %: a little more than it is shown, for screens with fine pixels."""
ZOOMS = (100, 150, 200, 300)
"""Widths of the page in per cent of its place; ingest.pdf draws no page larger than its limit."""
SPACE_ABOVE = 0.04
"""How much of the page is shown above the passage."""
KEPT_PAGES = 64
KEPT_SCORES = 256

_VIEW = "source-view"
_TINTS = (0.0, 0.11, 0.22, 0.34, 0.48)
"""How strong the theme's accent is behind a sentence of each step; text on the strongest keeps 7 : 1."""

STYLE = (
    """
<style>
  .st-key-source-page {
    display: block; flex: none; max-height: 66vh; overflow: auto; border-radius: .5rem;
    border: 1px solid rgba(128, 140, 145, .45);
  }
  .st-key-source-sheet { position: relative; gap: 0; }
  .st-key-source-sheet > div { position: static; max-width: none; }
  .source-passage { position: absolute; width: 1px; height: 1px; left: 0; scroll-initial-target: nearest; }
  .st-key-source-bar [data-testid="stMarkdownContainer"],
  .st-key-source-bar [data-testid="stMarkdownContainer"] p { margin: 0; }
  .st-key-source-sentences { gap: .2rem; }
  [class*="st-key-source-sentence-"] {
    padding: .2rem .5rem; border-radius: .25rem; border-left: 0 solid #1f8ea3; gap: .5rem;
    flex-wrap: nowrap !important;
  }
  [class*="st-key-source-sentence-"] > div:last-child { min-width: 0; flex: 1 1 0; }
  [class*="st-key-source-sentence-"] [data-testid="stText"] {
    font-size: .875rem; line-height: 1.45; white-space: pre-wrap; overflow-wrap: anywhere; font-family: inherit;
  }
  [role="dialog"] [data-testid="stCode"] code { font-family: inherit; font-size: .875rem; }
  .source-legend { display: flex; gap: .35rem; align-items: center; font-size: .8rem; }
  .source-legend i {
    display: inline-block; width: 1.6rem; height: .9rem; border-left: 0 solid #1f8ea3;
    outline: 1px solid rgba(128, 140, 145, .5);
  }
  @media (max-width: 640px) {
    .st-key-source-page { max-height: 52vh; }
    .st-key-source-bar { gap: .4rem; }
    .st-key-source-bar button { min-width: 0; padding-inline: .4rem; }
    .st-key-source-bar [class*="st-key-source-"]:not(.st-key-source-back) button p {
      position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
    }
  }
"""
    + "".join(
        f"  .st-key-source-zoom-{zoom} img {{ width: {zoom}% !important; max-width: none !important; }}\n"
        f"  .st-key-source-zoom-{zoom} [data-testid='stImage'] {{ overflow: visible; }}\n"
        for zoom in ZOOMS
    )
    + "".join(
        f"  [class*='st-key-source-sentence-{step}-'], .source-legend .step-{step} {{"
        f" background: rgba(31, 142, 163, {tint}); border-left-width: {step}px !important; }}\n"
        for step, tint in enumerate(_TINTS)
    )
    + "</style>"
)
"""A fixed text, never with anything from outside in it; labels of the buttons are only hidden from sight."""

LEGEND = (
    '<div class="source-legend" role="img" aria-label="Five tints, from the weakest sentence to the strongest">'
    "<span>weakest</span>"
    + "".join(f'<i class="step-{step}"></i>' for step in range(STEPS))
    + "<span>strongest</span></div>"
)


@dataclass
class _View:
    """Which page is shown, and how large; lives as long as its dialog."""

    page: int
    zoom: int = 0


def open_source(services: Services, question: str, chunk: Chunk, *, owner: str) -> None:
    """Open a dialog with the chunk's page, its words marked, and its sentences tinted by their own scores."""
    st.session_state[_VIEW] = _View(chunk.page)
    title = plain(chunk.source, limit=80)
    st.dialog(title, width="large", icon=":material/find_in_page:")(_show)(services, question, chunk, owner)


def _show(services: Services, question: str, chunk: Chunk, owner: str) -> None:
    st.html(STYLE)
    view: _View = st.session_state[_VIEW]
    path = services.originals.path(chunk.doc_id, owner=owner)
    picture, words = st.columns([3, 2], gap="medium")
    with picture:
        _show_page(services, chunk, view, path, owner)
    with words:
        _show_sentences(services, question, chunk)
        st.markdown("**Quotation with its reference**")
        st.code(one_paragraph(quotation(chunk)), language=None, wrap_lines=True)
        if path.exists():
            _show_original(chunk, view.page)


def _show_page(services: Services, chunk: Chunk, view: _View, path: Path, owner: str) -> None:
    if not path.exists():
        st.warning(
            "The file was deleted, so its page cannot be shown. The passage is still here.",
            icon=":material/delete:",
        )
        return
    try:
        sandbox = services.viewer
        password, pages = _unlock(sandbox, path, chunk)
        if not pages:
            return
        _show_bar(chunk, view, pages)
        spans = ((chunk.start, chunk.end),) if view.page == chunk.page else ()
        source = (owner, chunk.doc_id, view.page, spans)
        width = PAGE_PIXELS * ZOOMS[view.zoom] // 100
        if password:  # what a password opens is kept nowhere
            image, boxes = _draw(sandbox, path, view.page, width, spans, password)
        else:
            image, boxes = _draw_once(source, width, sandbox, path)
    except (UserError, FileNotFoundError) as problem:
        gone = isinstance(problem, FileNotFoundError)
        message = "The file was just deleted." if gone else plain(str(problem), limit=500)
        st.warning(f"{message} The passage's text is still here.", icon=":material/warning:")
        return
    _show_image(image, boxes, chunk, view)


def _unlock(sandbox: Sandbox, path: Path, chunk: Chunk) -> tuple[str, int]:
    """The password, "" for most files, and the number of pages; 0 while the right password is missing."""
    try:
        return "", _count_once(chunk.doc_id, sandbox, path)
    except PdfRefused as problem:
        if problem.kind != "password":
            raise
    password = st.text_input(
        "Password of this file",
        type="password",
        key="source-password",
        autocomplete="off",
        help="For this view only: it is not stored.",
    )
    if not password:
        st.info(
            "The file is encrypted, and passwords are not kept. Enter it to see the page.",
            icon=":material/lock:",
        )
        return "", 0
    try:
        return password, sandbox.call(inspect, path, password)
    except PdfRefused as problem:
        if problem.kind != "password":
            raise
        st.error(plain(str(problem), limit=500), icon=":material/lock:")
        return "", 0


def _show_bar(chunk: Chunk, view: _View, pages: int) -> None:
    def turn(page: int) -> None:
        view.page = page

    def zoom(step: int) -> None:
        view.zoom = step

    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="source-bar"):
        st.button(
            "Previous page",
            icon=":material/chevron_left:",
            key="source-previous",
            shortcut="Left",
            disabled=view.page <= 1,
            on_click=turn,
            args=(view.page - 1,),
        )
        st.markdown(f"Page {view.page} of {pages}", width="content")
        st.button(
            "Next page",
            icon=":material/chevron_right:",
            key="source-next",
            shortcut="Right",
            disabled=view.page >= pages,
            on_click=turn,
            args=(view.page + 1,),
        )
        st.button(
            "Zoom out",
            icon=":material/zoom_out:",
            key="source-zoom-out",
            disabled=view.zoom == 0,
            on_click=zoom,
            args=(view.zoom - 1,),
        )
        st.button(
            "Zoom in",
            icon=":material/zoom_in:",
            key="source-zoom-in",
            disabled=view.zoom == len(ZOOMS) - 1,
            on_click=zoom,
            args=(view.zoom + 1,),
        )
        if view.page != chunk.page:
            st.button(
                f"Back to the passage, page {chunk.page}",
                type="tertiary",
                key="source-back",
                on_click=turn,
                args=(chunk.page,),
            )


def _show_image(image: PageImage, boxes: Sequence[Box], chunk: Chunk, view: _View) -> None:
    here = view.page == chunk.page
    with st.container(key="source-page"), st.container(key="source-sheet"):
        with st.container(key=f"source-zoom-{ZOOMS[view.zoom]}"):
            marked = ", the passage is marked" if here and boxes else ""
            st.image(image.png, alt=f"Page {view.page} of {one_paragraph(chunk.source)}{marked}")
        # browsers that know scroll-initial-target begin there; the others begin at the top of the page. It can
        # be focused, so that the page is scrolled with the keyboard too
        down = max(0.0, min(1 - boxes[0].top / image.page_height - SPACE_ABOVE, 1.0)) * 100 if boxes else 0.0
        words = "The passage on the page" if boxes else "The page"
        st.html(
            f'<div class="source-passage" style="top: {down:.1f}%" tabindex="0" role="img" aria-label="{words}">'
            "</div>"
        )
    if here and not boxes:
        st.caption("The passage cannot be marked: this page's letters have no places in the file.")


def _show_sentences(services: Services, question: str, chunk: Chunk) -> None:
    st.markdown("**Why this passage**")
    if chunk.heading:
        st.caption(f"Heading: {plain(chunk.heading)}")
    try:
        stages = own_stages(services)
        by = stages.reranker.name if stages.reranker else ""
        scored = _score_once(question, chunk.id, by, chunk, services)
    except UserError as problem:
        st.warning(
            f"The sentences cannot be scored. {plain(str(problem), limit=500)}", icon=":material/warning:"
        )
        for number, text in enumerate(sentences(chunk)):
            with st.container(key=f"source-sentence-0-{number}"):
                st.text(one_paragraph(text))
        return
    judge = f"the reranker, {plain(by)}" if by else "its cosine, because there is no reranker"
    st.caption(f"Each sentence alone, scored against your question by {judge}:")
    st.html(LEGEND)
    with st.container(key="source-sentences"):
        for number, sentence in enumerate(scored):
            with st.container(horizontal=True, key=f"source-sentence-{sentence.step}-{number}"):
                st.text(f"{sentence.score:.2f}", width=46)
                st.text(one_paragraph(sentence.text))


def _show_original(chunk: Chunk, page: int) -> None:
    file = f"/api/documents/{chunk.doc_id}/file"
    with st.container(horizontal=True, key="source-original"):
        st.link_button("Download original", file, icon=":material/download:")
        st.link_button(
            f"Open original at page {page}", f"{file}?inline=true#page={page}", icon=":material/open_in_new:"
        )


_Source = tuple[str, str, int, tuple[tuple[int, int], ...]]
"""Owner, document, page, marked spans."""


def _draw(
    sandbox: Sandbox, path: Path, page: int, width: int, spans: Sequence[tuple[int, int]], password: str
) -> tuple[PageImage, list[Box]]:
    image = sandbox.call(render_page, path, page, width, spans, password)
    boxes = sandbox.call(span_boxes, path, page, spans, password) if spans else []
    return image, boxes


@st.cache_data(max_entries=KEPT_PAGES, show_spinner=False)
def _draw_once(source: _Source, width: int, _sandbox: Sandbox, _path: Path) -> tuple[PageImage, list[Box]]:
    _, _, page, spans = source
    return _draw(_sandbox, _path, page, width, spans, "")


@st.cache_data(max_entries=KEPT_SCORES, show_spinner=False)
def _count_once(doc_id: str, _sandbox: Sandbox, _path: Path) -> int:  # noqa: ARG001 - the id is the cache's key
    return _sandbox.call(inspect, _path, "")


@st.cache_data(max_entries=KEPT_SCORES, show_spinner=False)
def _score_once(
    question: str,
    chunk_id: str,  # noqa: ARG001 - both are the cache's key
    by: str,  # noqa: ARG001
    _chunk: Chunk,
    _services: Services,
) -> tuple[Sentence, ...]:
    return score_passage(question, _chunk, _services.score_sentences)
