from __future__ import annotations

import pytest
from markdown_it import MarkdownIt

from app_pages.parts.text import one_paragraph, plain, size_text

HOSTILE = [
    "[click](https://evil.example/x)",
    "![x](https://evil.example/x.png)",
    "<img src=https://evil.example/x>",
    "**bold** _it_ `code` ~~gone~~",
    "# Heading",
    ":red[alarm] :material/delete: :smile:",
    "$x^2$ and $$y$$",
    "https://evil.example and www.evil.example and a@evil.example",
    "a\nb\n\n- c",
    "\u202egnp.exe\u200b",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_letter_for_letter(text: str) -> None:
    tokens = MarkdownIt("commonmark", {"linkify": False}).parse(plain(text))
    kinds = {child.type for token in tokens for child in token.children or []}
    assert kinds <= {"text", "text_special", "code_inline"}
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]


@pytest.mark.parametrize(
    "text", ["www.evil.example.pdf", "a :red[x]", "http://evil.example", "me@evil.example"]
)
def test_what_streamlit_makes_live_is_code(text: str) -> None:
    (inline,) = [token for token in MarkdownIt("commonmark").parse(plain(text)) if token.type == "inline"]
    assert [(child.type, child.content.strip()) for child in inline.children or []] == [("code_inline", text)]


def test_backticks_do_not_end_the_code_early() -> None:
    (inline,) = [t for t in MarkdownIt("commonmark").parse(plain("`` :red[x] `")) if t.type == "inline"]
    assert [child.type for child in inline.children or []] == ["code_inline"]


def test_long_text_is_cut_with_an_ellipsis() -> None:
    assert plain("x" * 300, limit=10) == "x" * 9 + "…"


def test_direction_and_zero_width_characters_are_gone() -> None:
    assert plain("\u202eabc\u200b\u0000") == "abc"
    assert one_paragraph("a\r\nb\ufeff c") == "a b c"


def test_accents_do_not_climb_and_blanks_do_not_hide() -> None:
    assert one_paragraph("Z" + "\u0301" * 40 + " a\u3164\u2800\U000e0041b") == "Z" + "\u0301" * 3 + " ab"
    assert plain("e" + "\u0301" * 40) == "e" + "\u0301" * 3


def test_joiners_stay_where_a_script_needs_them() -> None:
    assert one_paragraph("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645") == (
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    )
    assert one_paragraph("pay\u200cpal") == "paypal"


@pytest.mark.parametrize(("size", "expected"), [(0, "0.1 kB"), (1500, "1.5 kB"), (2_340_000, "2.3 MB")])
def test_sizes_are_readable(size: int, expected: str) -> None:
    assert size_text(size) == expected
