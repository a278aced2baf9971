"""Reading and drawing of tiny real PDFs."""

from __future__ import annotations

import random
import re
import time
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
    cropped_pdf,
    encrypted_pdf,
    form_pdf,
    huge_page_pdf,
    lettered_pdf,
    mapped_pdf,
    rootless_pdf,
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


def test_a_file_without_pages_is_refused_as_damaged(save: Save) -> None:
    without = (
        text_pdf([["one"]]).replace(b"/Count 1", b"/Count 0").replace(b"/Type /Page\n", b"/Type /Gone\n")
    )
    assert refusal(re.sub(rb"/Kids \[ \d+ 0 R \]", b"/Kids [       ]", without), save).kind == "damaged"


def test_a_protection_that_no_password_opens_is_told(save: Save) -> None:
    protected = text_pdf([["one"]]).replace(b"/Root", b"/Encrypt << /Filter /Unknown >> /Root")
    problem = refusal(protected, save)
    assert problem.kind == "damaged"
    assert "protected in a way that cannot be read here" in str(problem)


def test_a_file_that_pdfium_cannot_open_is_counted_and_read_by_the_second_parser(save: Save) -> None:
    path = save(rootless_pdf([["one"], ["two"]]))
    assert inspect(path, "") == 2
    assert read_pages(path, 1, 2, "") == [Page(1, ""), Page(2, "")]
    assert reread_pages(path, [1, 2], "") == [Page(1, "one\n"), Page(2, "two\n")]
    with pytest.raises(PdfRefused, match="Page 1 cannot be drawn"):
        render_page(path, 1, 300, [], "")


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


@pytest.mark.parametrize("password", ["pässwört", "пароль", "密码", "owner"])
def test_both_parsers_take_passwords_in_any_script_and_the_owners(save: Save, password: str) -> None:
    path = save(encrypted_pdf([["hidden"]], password="密码" if password == "owner" else password))
    assert read_pages(path, 1, 1, password) == [Page(1, "hidden")]
    assert reread_pages(path, [1], password) == [Page(1, "hidden\n")]


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


def test_letters_that_are_drawn_one_by_one_have_a_box_for_each_line(save: Save) -> None:
    path = save(lettered_pdf(["Revenue rose", "by 5 percent"]))
    assert read_pages(path, 1, 1, "") == [Page(1, "Revenue rose\r\nby 5 percent")]
    upper, lower = span_boxes(path, 1, [(8, 16)], "")
    assert upper.left == pytest.approx(LEFT + text_width("Revenue "), abs=1)
    assert upper.right == pytest.approx(LEFT + text_width("Revenue rose"), abs=1)
    assert lower.left == pytest.approx(LEFT, abs=1)
    assert lower.right == pytest.approx(LEFT + text_width("by"), abs=1)


def test_a_line_end_has_no_box(save: Save) -> None:
    path = save(text_pdf([["one", "two"]]))
    assert read_pages(path, 1, 1, "")[0].text[3:5] == "\r\n"
    assert span_boxes(path, 1, [(3, 5)], "") == []


def test_a_word_of_a_real_filing_has_a_box(filings: Path) -> None:
    rng = random.Random(0)
    words = 0
    for path in sorted((filings / "pdfs").glob("*.pdf"))[::4]:
        pages = inspect(path, "")
        for number in rng.sample(range(1, pages + 1), 4):
            text = read_pages(path, number, number, "")[0].text
            spans = [match.span() for match in re.finditer(r"\w+", text)]
            for span in rng.sample(spans, min(len(spans), 10)):
                assert span_boxes(path, number, [span], ""), (path.name, number, span)
                words += 1
    assert words > 100


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
    assert 0.99 * MAX_PIXELS < drawn.width * drawn.height <= MAX_PIXELS
    assert max(drawn.width, drawn.height) <= MAX_SIDE_PIXELS


def test_a_page_without_area_cannot_be_drawn_but_read(save: Save) -> None:
    path = save(cropped_pdf(["out of sight"], (1000, 1000, 1100, 1100)))
    assert read_pages(path, 1, 1, "") == [Page(1, "out of sight")]
    with pytest.raises(PdfRefused, match="Page 1 cannot be drawn: it has no area") as caught:
        render_page(path, 1, 300, [], "")
    assert caught.value.kind == "damaged"


def test_a_mark_is_right_on_a_cropped_page(save: Save) -> None:
    path = save(cropped_pdf(["Revenue rose"], (60, 700, 260, 740)))
    drawn = render_page(path, 1, 200, [(0, 7)], "")
    assert (drawn.width, drawn.height) == (200, 40)
    image = Image.open(BytesIO(drawn.png))
    red, _, blue = image.getpixel((round(LEFT - 60 + text_width("Revenue") - 2), round(740 - FIRST_BASELINE)))  # type: ignore[misc]
    assert red > blue


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


def test_a_title_is_kept_where_only_the_outline_cannot_be_read(save: Save) -> None:
    content = text_pdf([["one"]], title="Annual report", outline=[(1, "Business")])
    broken = re.sub(rb"/Dest \[[^]]*\]", lambda match: b"/A 5".ljust(len(match[0])), content)
    warning = "The file's outline cannot be read."
    assert read_outline(save(broken), "") == Outline("Annual report", (), 0, warning)


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


@pytest.mark.parametrize("text", ["a" * 200_000, "a-" * 100_000 + "b" * 200_000, "a\ufffe" * 100_000])
def test_hyphens_of_a_page_that_is_one_long_word_are_settled_at_once(text: str) -> None:
    began = time.process_time()
    settle_hyphens([Page(1, f"x\ufffey {text}")])
    assert time.process_time() - began < 5


def test_pages_without_such_hyphens_stay_as_they_are() -> None:
    assert settle_hyphens([Page(1, "a-b c"), Page(2, "")]) == (Page(1, "a-b c"), Page(2, ""))
