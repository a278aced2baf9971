"""Reading and drawing of tiny real PDFs."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from ingest.errors import PdfRefused
from ingest.pdf import (
    MAX_PIXELS,
    MAX_SIDE_PIXELS,
    Outline,
    Section,
    has_words,
    inspect,
    read_outline,
    read_pages,
    render_page,
    reread_pages,
    settle_hyphens,
    span_boxes,
)
from ingest.types import Page
from tests.pdfs import (
    CHINESE,
    FIRST_BASELINE,
    LEADING,
    LEFT,
    WESTERN,
    encrypted_pdf,
    form_pdf,
    huge_page_pdf,
    mapped_pdf,
    rotated_pdf,
    scanned_pdf,
    text_pdf,
    text_width,
    truncated_pdf,
    unicode_pdf,
)

Save = Callable[[bytes], Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(content: bytes) -> Path:
        path = tmp_path / "a.pdf"
        path.write_bytes(content)
        return path

    return write


def refusal(content: bytes, save: Save, password: str = "") -> PdfRefused:
    with pytest.raises(PdfRefused) as caught:
        inspect(save(content), password)
    return caught.value


def test_pages_are_counted(save: Save) -> None:
    assert inspect(save(text_pdf([["one"], ["two"], ["three"]])), "") == 3


def test_an_empty_file_is_refused(save: Save) -> None:
    problem = refusal(b"", save)
    assert problem.kind == "empty"
    assert str(problem) == "The file is empty (0 bytes). Export or download it again and upload that."


def test_a_file_that_is_no_pdf_is_refused(save: Save) -> None:
    problem = refusal(b"PK\x03\x04 a Word document", save)
    assert problem.kind == "not_a_pdf"
    assert "no %PDF- header" in str(problem)


def test_a_header_after_the_first_1024_bytes_does_not_count(save: Save) -> None:
    assert inspect(save(b"\n" * 1000 + text_pdf([["one"]])), "") == 1
    assert refusal(b"\n" * 1024 + text_pdf([["one"]]), save).kind == "not_a_pdf"


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused_as_damaged(save: Save, keep: float) -> None:
    problem = refusal(truncated_pdf(keep=keep), save)
    assert problem.kind == "damaged"
    assert "save it as a new PDF" in str(problem)


def test_a_missing_and_a_wrong_password_are_told_apart(save: Save) -> None:
    locked = encrypted_pdf([["hidden"]], password="open sesame")
    missing, wrong = refusal(locked, save), refusal(locked, save, "0p3n s3s4m3")
    assert missing.kind == wrong.kind == "password"
    assert str(missing) == "The file needs a password. Enter the one that opens it and try again."
    assert str(wrong) == "The password does not open this file. Check it and try again."


def test_the_right_password_opens_text_and_outline(save: Save) -> None:
    locked = encrypted_pdf([["hidden"]], password="open sesame", title="Under lock", outline=[(1, "Cave")])
    path = save(locked)
    assert inspect(path, "open sesame") == 1
    assert read_pages(path, 1, 1, "open sesame") == [Page(1, "hidden")]
    assert read_outline(path, "open sesame") == Outline("Under lock", (Section(1, "Cave"),), 1, "")


def test_a_file_that_only_may_not_be_edited_needs_no_password(save: Save) -> None:
    path = save(encrypted_pdf([["read me"]], password=""))
    assert inspect(path, "") == 1
    assert read_pages(path, 1, 1, "") == [Page(1, "read me")]


def test_a_password_that_is_not_needed_does_no_harm(save: Save) -> None:
    path = save(text_pdf([["open"]], title="Open to all"))
    assert inspect(path, "needless") == 1
    assert read_outline(path, "needless").title == "Open to all"


def test_pages_are_read_from_first_to_last_with_the_ends(save: Save) -> None:
    path = save(text_pdf([["one"], ["two", "lines"], ["three"], ["four"]]))
    assert read_pages(path, 2, 3, "") == [Page(2, "two\r\nlines"), Page(3, "three")]


def test_text_in_other_scripts_is_read(save: Save) -> None:
    assert read_pages(save(unicode_pdf()), 1, 1, "") == [Page(1, f"{WESTERN}\r\n{CHINESE}")]


def test_what_is_typed_into_a_form_is_text(save: Save) -> None:
    assert read_pages(save(form_pdf(["Name:"], typed="Ada Lovelace")), 1, 1, "") == [
        Page(1, "Name:\r\nAda Lovelace")
    ]


def test_a_scanned_page_has_no_words(save: Save) -> None:
    (page,) = read_pages(save(scanned_pdf()), 1, 1, "")
    assert page == Page(1, "")
    assert not has_words(page.text)


def test_words_are_letters_or_digits_of_any_script() -> None:
    assert has_words("2018")
    assert has_words(CHINESE)
    assert not has_words(" \r\n -- •")


def test_pages_of_a_file_that_pdfium_cannot_open_are_empty(save: Save) -> None:
    assert read_pages(save(truncated_pdf()), 1, 2, "") == [Page(1, ""), Page(2, "")]


def test_the_second_parser_reads_the_pages_it_is_asked_for(save: Save) -> None:
    path = save(text_pdf([["one"], ["two"], ["three"]]))
    assert reread_pages(path, [3, 1], "") == [Page(3, "three\n"), Page(1, "one\n")]


def test_a_page_that_the_second_parser_cannot_read_is_empty(save: Save) -> None:
    assert reread_pages(save(text_pdf([["one"]])), [1, 2], "") == [Page(1, "one\n"), Page(2, "")]


@pytest.mark.parametrize(
    ("meaning", "read"),
    [("\N{MATHEMATICAL ITALIC SMALL P}", "\N{MATHEMATICAL ITALIC SMALL P}"), ("fi", "fi")]
    + [(unreadable, " ") for unreadable in ("\x00", "\x02", "\x03", "\x96", "\ud800")],
)
def test_boxes_are_right_behind_characters_of_any_width(save: Save, meaning: str, read: str) -> None:
    path = save(mapped_pdf("aq word", {"q": meaning}))
    (page,) = read_pages(path, 1, 1, "")
    assert page.text == f"a{read} word"
    start = page.text.index("word")
    (box,) = span_boxes(path, 1, [(start, start + 4)], "")
    assert box.left == pytest.approx(LEFT + text_width("aq "), abs=1)
    assert box.right == pytest.approx(LEFT + text_width("aq word"), abs=1)


def test_the_box_of_a_word_lies_where_it_was_drawn(save: Save) -> None:
    path = save(text_pdf([["Revenue rose", "by 5 percent"]]))
    text = read_pages(path, 1, 1, "")[0].text
    start = text.index("5 percent")
    (box,) = span_boxes(path, 1, [(start, start + len("5 percent"))], "")
    baseline = FIRST_BASELINE - LEADING
    assert box.left == pytest.approx(LEFT + text_width("by "), abs=1)
    assert box.right == pytest.approx(LEFT + text_width("by 5 percent"), abs=1)
    assert baseline - 4 < box.bottom < baseline
    assert baseline + 8 < box.top < baseline + 12


def test_a_span_over_two_lines_has_a_box_on_each(save: Save) -> None:
    path = save(text_pdf([["Revenue rose", "by 5 percent"]]))
    upper, lower = span_boxes(path, 1, [(8, 16)], "")
    assert upper.left == pytest.approx(LEFT + text_width("Revenue "), abs=1)
    assert lower.right == pytest.approx(LEFT + text_width("by"), abs=1)
    assert upper.bottom > lower.top


def test_spans_outside_the_text_have_no_box(save: Save) -> None:
    path = save(text_pdf([["short"]]))
    assert span_boxes(path, 1, [(5, 9), (100, 200), (3, 3)], "") == []
    assert span_boxes(save(scanned_pdf()), 1, [(0, 5)], "") == []


def test_a_page_is_drawn_with_its_span_marked(save: Save) -> None:
    path = save(text_pdf([["Revenue rose"]]))
    drawn = render_page(path, 1, 612, [(8, 12)], "")
    image = Image.open(BytesIO(drawn.png))
    assert image.size == (drawn.width, drawn.height) == (612, 792)  # one pixel a point
    assert (drawn.page_width, drawn.page_height) == (612, 792)
    red, _, blue = image.split()
    yellow = [
        (x, y)
        for x in range(drawn.width)
        for y in range(drawn.height)
        if blue.getpixel((x, y)) != red.getpixel((x, y))
    ]
    across, down = zip(*yellow, strict=True)
    assert min(across) == pytest.approx(LEFT + text_width("Revenue "), abs=2)
    assert max(across) == pytest.approx(LEFT + text_width("Revenue rose"), abs=2)
    assert 792 - FIRST_BASELINE - 10 < min(down) < max(down) < 792 - FIRST_BASELINE + 4
    darkest, lightest = red.getextrema()
    assert darkest < 100  # type: ignore[operator]
    assert lightest == 255


def test_a_page_without_spans_is_drawn_unmarked(save: Save) -> None:
    drawn = render_page(save(text_pdf([["Revenue rose"]])), 1, 300, [], "")
    colors = Image.open(BytesIO(drawn.png)).getcolors(100_000)
    assert colors is not None
    assert all(red == green == blue for _, (red, green, blue) in colors)  # type: ignore[misc]


def test_a_turned_page_is_drawn_and_marked_as_a_viewer_shows_it(save: Save) -> None:
    drawn = render_page(save(rotated_pdf(["turned page"], degrees=90)), 1, 792, [(0, 6)], "")
    assert (drawn.width, drawn.height) == (792, 612)
    image = Image.open(BytesIO(drawn.png))
    middle = (round(FIRST_BASELINE + 9), round(LEFT + text_width("turned") / 2))
    red, _, blue = image.getpixel(middle)  # type: ignore[misc]
    assert red > blue


def test_a_huge_page_is_drawn_within_the_limits(save: Save) -> None:
    path = save(huge_page_pdf())
    assert render_page(path, 1, 900, [], "").width == 900
    drawn = render_page(path, 1, 50_000, [(0, 4)], "")
    assert (drawn.width - 1) * (drawn.height - 1) <= MAX_PIXELS  # pdfium rounds up
    assert max(drawn.width, drawn.height) <= MAX_SIDE_PIXELS


@pytest.mark.parametrize("page", [0, 2])
def test_a_page_that_is_not_there_cannot_be_drawn(save: Save, page: int) -> None:
    path = save(text_pdf([["one"]]))
    with pytest.raises(PdfRefused, match=f"Page {page} cannot be drawn"):
        render_page(path, page, 300, [], "")


def test_an_outline_is_in_reading_order(save: Save) -> None:
    outline = [(2, "Risks"), (1, "Business"), (2, "Properties")]
    path = save(text_pdf([["one"], ["two"]], title="Annual report", outline=outline))
    sections = (Section(1, "Business"), Section(2, "Risks"), Section(2, "Properties"))
    assert read_outline(path, "") == Outline("Annual report", sections, 2, "")


def test_an_outline_that_cannot_be_read_is_a_warning(save: Save) -> None:
    warning = "The file's title and outline cannot be read."
    assert read_outline(save(truncated_pdf()), "") == Outline("", (), 0, warning)


@pytest.mark.parametrize(
    ("title", "kept"),
    [
        ("10-K - 3M Company", "10-K - 3M Company"),
        ("  Two\n  lines ", "Two lines"),
        ("x" * 300, "x" * 200),
        ("Untitled", ""),
        ("Microsoft Word - draft 3.doc", ""),
        ("Scorecard2.xls", ""),
        ("0001018724-20-000004", ""),
    ],
)
def test_only_titles_that_people_gave_are_kept(save: Save, title: str, kept: str) -> None:
    assert read_outline(save(text_pdf([["one"]], title=title)), "").title == kept


def test_a_hyphen_at_a_line_end_comes_back_unless_it_broke_a_word(save: Save) -> None:
    lines = ["The adipiscing non-", "GAAP measure is adip-", "iscing."]
    pages = read_pages(save(text_pdf([lines])), 1, 1, "")
    assert pages == [Page(1, "The adipiscing non\ufffeGAAP measure is adip\ufffeiscing.")]
    assert settle_hyphens(pages) == (Page(1, "The adipiscing non-GAAP measure is adip\ufffeiscing."),)


def test_the_more_frequent_spelling_of_the_document_decides_on_a_hyphen() -> None:
    pages = [Page(1, "Share\ufffeholders"), Page(2, "shareholders shareholders share-holders")]
    assert settle_hyphens(pages)[0] == Page(1, "Share\ufffeholders")
    pages = [Page(1, "out-of\ufffenetwork"), Page(2, "out-of-network")]
    assert settle_hyphens(pages)[0] == Page(1, "out-of-network")


def test_pages_without_such_hyphens_stay_as_they_are() -> None:
    assert settle_hyphens([Page(1, "a-b c"), Page(2, "")]) == (Page(1, "a-b c"), Page(2, ""))
