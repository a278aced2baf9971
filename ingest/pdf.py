"""PDF bytes to pages, and the image of a page with passages marked.

The functions that take a path run inside a worker process (see ingest.sandbox): what they take
and what they return can be pickled. pdfium counts, reads and draws; pypdf reads title and outline,
and text where pdfium finds none.

An offset into a page's text leads back to pdfium's own characters, and so to boxes on the page:
the text has one UTF-16 unit for each character that pdfium counts.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import islice
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ingest.errors import PdfRefused
from ingest.types import Page

if TYPE_CHECKING:
    from PIL.Image import Image
    from pypdf import PdfReader

# pypdfium2 has no types.
Pdfium: TypeAlias = Any
PdfDocument: TypeAlias = Any
PdfPage: TypeAlias = Any
PdfTextPage: TypeAlias = Any

MAX_PIXELS = 8_000_000
MAX_SIDE_PIXELS = 8_000
MAX_TITLE_CHARS = 200
MAX_PAGE_CHARS = 200_000
"""UTF-16 units of a page's text that are read: a hundred dense pages on one."""
MAX_SECTIONS = 10_000
HIGHLIGHT = (255, 214, 0)
HIGHLIGHT_OPACITY = 0.35

_JOINT = "\ufffe"
"""What pdfium puts for a hyphen at the end of a line, whose two halves it joins."""
_UNREADABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
# Both begin at a word's first letter: tried at each letter, a page that is one long word would take hours.
_HYPHENATED = re.compile(r"\b(\w+)-(?=(\w+))")
_JOINED = re.compile(rf"\b(\w+){_JOINT}(?=(\w+))")
_FILE_NAME = re.compile(r"\S+\.[A-Za-z]\w{1,7}")
_NO_TITLES = {"untitled", "title", "document", "presentation", "powerpoint presentation", "slide 1"}

_EMPTY = "The file is empty (0 bytes). Export or download it again and upload that."
_NOT_A_PDF = "The file is not a PDF: it has no %PDF- header. Print or export it as a PDF and upload that."
_DAMAGED = (
    "The file is damaged: no page can be read. "
    "Open it in a PDF viewer, save it as a new PDF and upload that one."
)
_PROTECTED = (
    "The file is protected in a way that cannot be read here. "
    "Open it in the program that it was made for, print it as a PDF and upload that one."
)
_SECTIONS_LEFT_OUT = f"The outline has more than {MAX_SECTIONS:,} entries: those after that are left out."


@dataclass(frozen=True, slots=True)
class Section:
    """An outline entry; `page` counts from 1."""

    page: int
    title: str


@dataclass(frozen=True, slots=True)
class Outline:
    """Title and sections in reading order; `warning` says why some or all are left out, and is else empty."""

    title: str
    sections: tuple[Section, ...]
    pages: int
    warning: str


class Box(NamedTuple):
    """A rectangle in points; the page's origin is at the bottom left, before any rotation."""

    left: float
    bottom: float
    right: float
    top: float


@dataclass(frozen=True, slots=True)
class PageImage:
    """A page drawn as PNG: width and height in pixels, and the page's own in points."""

    png: bytes
    width: int
    height: int
    page_width: float
    page_height: float


def load_parsers() -> None:
    """Import the parsers ahead of the first call, so that it does not pay for it; silence their logs."""
    import pypdf  # noqa: F401

    _load_pdfium()
    for name in ("pypdf", "pypdfium2"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def inspect(path: Path, password: str) -> int:
    """Count the pages.

    Raises PdfRefused: empty, not_a_pdf, password, or damaged where neither parser opens the file.
    """
    with path.open("rb") as file:
        head = file.read(1024)
    if not head:
        raise PdfRefused("empty", _EMPTY)
    if b"%PDF-" not in head:
        raise PdfRefused("not_a_pdf", _NOT_A_PDF)
    pdfium = _load_pdfium()
    pages = 0
    try:
        with _open_pdfium(path, password) as document:
            pages = len(document)
    except pdfium.PdfiumError as error:
        if error.err_code == pdfium.raw.FPDF_ERR_PASSWORD:
            raise _password_refused(password) from error
        if error.err_code == pdfium.raw.FPDF_ERR_SECURITY:
            raise PdfRefused("damaged", _PROTECTED) from error
    if not pages:
        with _open_pypdf(path, password) as reader:
            pages = len(reader.pages)
    if not pages:
        raise PdfRefused("damaged", _DAMAGED)
    return pages


def read_pages(path: Path, first: int, last: int, password: str) -> list[Page]:
    """Pages `first` to `last`, both included, as pdfium reads them; a page that it cannot read is empty."""
    pdfium = _load_pdfium()
    numbers = range(first, last + 1)
    try:
        with _open_pdfium(path, password) as document:
            return [Page(number, _pdfium_text(document, number)) for number in numbers]
    except pdfium.PdfiumError:
        return [Page(number, "") for number in numbers]


def reread_pages(path: Path, numbers: Sequence[int], password: str) -> list[Page]:
    """Read pages of these numbers with pypdf: slower, and there are no boxes for its offsets."""
    with _open_pypdf(path, password) as reader:
        return [Page(number, _pypdf_text(reader, number)) for number in numbers]


def read_outline(path: Path, password: str) -> Outline:
    """Read the metadata title and the outline; what cannot be read is left out, and a warning says so."""
    title = ""
    try:
        with _open_pypdf(path, password) as reader:
            title = _sensible_title(reader.metadata.title if reader.metadata else None)
            found = list(islice(_walk(reader, reader.outline), MAX_SECTIONS + 1))
            warning = _SECTIONS_LEFT_OUT if len(found) > MAX_SECTIONS else ""
            sections = sorted(found[:MAX_SECTIONS], key=lambda section: section.page)
            return Outline(title, tuple(sections), len(reader.pages), warning)
    except PdfRefused:
        unread = "outline" if title else "title and outline"
        return Outline(title, (), 0, f"The file's {unread} cannot be read.")


def render_page(
    path: Path, page: int, width_px: int, spans: Sequence[tuple[int, int]], password: str
) -> PageImage:
    """Draw a page `width_px` wide, or as wide as MAX_PIXELS allows, with the spans of its text marked.

    A span is (start, end) in characters of the page's text. Raises PdfRefused where it cannot be drawn.
    """
    with _open_page(path, page, password) as opened:
        page_width, page_height = opened.get_size()
        if not (page_width and page_height):
            raise PdfRefused(
                "damaged", f"Page {page} cannot be drawn: it has no area. Its text can still be read."
            )
        bitmap = opened.render(scale=_scale(page_width, page_height, width_px))
        corners = bitmap.get_posconv(opened)
        image = bitmap.to_pil().convert("RGB")
        for box in _boxes(opened, spans):
            _mark(image, corners.to_bitmap(box.left, box.top), corners.to_bitmap(box.right, box.bottom))
        bitmap.close()
    file = BytesIO()
    image.save(file, "PNG")
    return PageImage(file.getvalue(), image.width, image.height, page_width, page_height)


def span_boxes(path: Path, page: int, spans: Sequence[tuple[int, int]], password: str) -> list[Box]:
    """Boxes around spans of a page's text, one for each line that a span covers."""
    with _open_page(path, page, password) as opened:
        return _boxes(opened, spans)


def is_cut_off(text: str) -> bool:
    """Tell whether a page's text ends where no more of it is read."""
    return len(text) >= MAX_PAGE_CHARS // 2 and _units(text) >= MAX_PAGE_CHARS


def has_words(text: str) -> bool:
    """Tell whether there is anything to search for: a letter or a digit in any script."""
    return any(character.isalnum() for character in text)


def settle_hyphens(pages: Sequence[Page]) -> tuple[Page, ...]:
    """Make U+FFFE a hyphen again, except where the document elsewhere writes the two halves as one word.

    pdfium writes `non-` at a line's end and `GAAP` on the next as `non` U+FFFE `GAAP`, and
    `adip-`, `iscing` in the same way. Lengths stay as they are, and so do offsets.
    """
    joints = [match.groups() for page in pages for match in _JOINED.finditer(page.text.lower())]
    if not joints:
        return tuple(pages)
    words = _count(pages, r"\w+", {left + right for left, right in joints})
    hyphenated = _count(pages, _HYPHENATED, set(joints))
    broken = {(left, right) for left, right in joints if words[left + right] > hyphenated[left, right]}

    def settle(match: re.Match[str]) -> str:
        left, right = match.groups()
        return left + (_JOINT if (left.lower(), right.lower()) in broken else "-")

    settled = (_JOINED.sub(settle, page.text) for page in pages)
    return tuple(replace(page, text=text) for page, text in zip(pages, settled, strict=True))


def _count(pages: Iterable[Page], pattern: str | re.Pattern[str], wanted: set[Any]) -> Counter[Any]:
    found = (match for page in pages for match in re.findall(pattern, page.text.lower()))
    return Counter(match for match in found if match in wanted)


def _load_pdfium() -> Pdfium:
    import pypdfium2

    return pypdfium2


@contextmanager
def _open_pdfium(path: Path, password: str) -> Iterator[PdfDocument]:
    pdfium = _load_pdfium()
    with pdfium.PdfDocument(path, password=password or None) as document:
        with suppress(pdfium.PdfiumError):
            document.init_forms()
        yield document


@contextmanager
def _load_page(document: PdfDocument, number: int) -> Iterator[PdfPage]:
    """Load a page; what is typed into its form fields becomes part of its text."""
    page = document[number - 1]
    try:
        if document.formenv is not None:
            with suppress(_load_pdfium().PdfiumError):
                page.flatten()
            page.close()
            page = document[number - 1]  # pdfium sees the flattened content only when it loads anew
        yield page
    finally:
        page.close()


@contextmanager
def _open_page(path: Path, number: int, password: str) -> Iterator[PdfPage]:
    try:
        with _open_pdfium(path, password) as document, _load_page(document, number) as page:
            yield page
    except _load_pdfium().PdfiumError as error:
        message = f"Page {number} cannot be drawn: the file is damaged there. Its text can still be read."
        raise PdfRefused("damaged", message) from error


def _pdfium_text(document: PdfDocument, number: int) -> str:
    try:
        with _load_page(document, number) as page:
            return _page_text(page)
    except _load_pdfium().PdfiumError:
        return ""


def _page_text(page: PdfPage) -> str:
    textpage = page.get_textpage()
    try:
        return _text(textpage)
    finally:
        textpage.close()


def _text(textpage: PdfTextPage) -> str:
    count = min(textpage.count_chars(), MAX_PAGE_CHARS)
    text: str = textpage.get_text_range(0, count, errors="surrogatepass") if count else ""
    if _units(text) != count or _JOINT in text:
        # pdfium leaves some characters without a meaning out of its text, and writes others as it writes a joint
        units = "".join(chr(_unit(textpage, index)) for index in range(count))
        text = units.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return _clean(text)


def _unit(textpage: PdfTextPage, index: int) -> int:
    raw = _load_pdfium().raw
    if raw.FPDFText_IsHyphen(textpage, index) == 1:
        return ord(_JOINT)
    return int(raw.FPDFText_GetUnicode(textpage, index))


def _units(text: str) -> int:
    """UTF-16 units of the text: pdfium counts a character beyond U+FFFF as two."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _clean(text: str) -> str:
    """Put a space for each control character and lone surrogate."""
    return _UNREADABLE.sub(" ", text)


def _boxes(page: PdfPage, spans: Sequence[tuple[int, int]]) -> list[Box]:
    textpage = page.get_textpage()
    try:
        text = _text(textpage)
        boxes: list[Box] = []
        if not has_words(text):  # the page's text came from pypdf
            return boxes
        for start, end in spans:
            first, length = _units(text[:start]), _units(text[start:end])
            rects = textpage.count_rects(first, length) if length else 0
            boxes += _lines(Box(*textpage.get_rect(rect)) for rect in range(rects))
        return boxes
    finally:
        textpage.close()


def _lines(boxes: Iterable[Box]) -> list[Box]:
    """Unite the boxes of each line: pdfium may give one for each letter, and gives line ends without area."""
    lines: list[Box] = []
    for box in boxes:
        if box.left >= box.right or box.bottom >= box.top:
            continue
        if lines and _follows(lines[-1], box):
            lines[-1] = _around(lines[-1], box)
        else:
            lines.append(box)
    return lines


def _follows(last: Box, box: Box) -> bool:
    """Tell whether a box is beside the last one, on either side, less than its height away."""
    height = max(last.top - last.bottom, box.top - box.bottom)
    gap = max(box.left - last.right, last.left - box.right)
    return abs(gap) < height and box.bottom < last.top and last.bottom < box.top


def _around(one: Box, other: Box) -> Box:
    return Box(
        min(one.left, other.left),
        min(one.bottom, other.bottom),
        max(one.right, other.right),
        max(one.top, other.top),
    )


def _scale(width: float, height: float, width_px: int) -> float:
    """Pixels for each point, for an image `width_px` wide that stays within the limits."""
    pixels = MAX_PIXELS - 2 * MAX_SIDE_PIXELS  # pdfium rounds both sides up
    largest = min(sqrt(pixels / (width * height)), MAX_SIDE_PIXELS / max(width, height))
    return min(width_px / width, largest) * (1 - 1e-9)  # 900.0000001 would become 901


def _mark(image: Image, corner: tuple[int, int], opposite: tuple[int, int]) -> None:
    from PIL import Image

    (left, right), (top, bottom) = (sorted(ends) for ends in zip(corner, opposite, strict=True))
    area = (max(left, 0), max(top, 0), min(right + 1, image.width), min(bottom + 1, image.height))
    if area[0] < area[2] and area[1] < area[3]:
        marked = image.crop(area)
        tint = Image.new("RGB", marked.size, HIGHLIGHT)
        image.paste(Image.blend(marked, tint, HIGHLIGHT_OPACITY), area)


@contextmanager
def _open_pypdf(path: Path, password: str) -> Iterator[PdfReader]:
    """Open with pypdf; whatever goes wrong until it is closed is raised as PdfRefused."""
    from pypdf import PdfReader

    try:
        with PdfReader(path) as reader:
            _decrypt(reader, password)
            yield reader
    except (PdfRefused, MemoryError):
        raise
    except Exception as error:
        raise PdfRefused("damaged", _DAMAGED) from error


def _decrypt(reader: PdfReader, password: str) -> None:
    if reader.is_encrypted and not (reader.decrypt(password) or reader.decrypt(password.encode())):
        raise _password_refused(password)


def _pypdf_text(reader: PdfReader, number: int) -> str:
    try:
        return _clean(reader.pages[number - 1].extract_text()[:MAX_PAGE_CHARS])
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a damaged page makes pypdf raise anything; the next may be sound
        return ""


def _walk(reader: PdfReader, entries: Iterable[Any]) -> Iterator[Section]:
    for entry in entries:
        if isinstance(entry, list):
            yield from _walk(reader, entry)
            continue
        page = reader.get_destination_page_number(entry)
        title = _tidy(entry.title)
        if page is not None and title:
            yield Section(page + 1, title)


def _sensible_title(title: str | None) -> str:
    """Tidy the title; "" for what programs put there by themselves: file names, numbers, `Untitled`."""
    tidy = _tidy(title or "")
    made_up = (
        tidy.lower() in _NO_TITLES
        or tidy.startswith("Microsoft ")
        or _FILE_NAME.fullmatch(tidy)
        or sum(character.isalpha() for character in tidy) < 3
    )
    return "" if made_up else tidy


def _tidy(text: object) -> str:
    return " ".join(_clean(str(text)).split())[:MAX_TITLE_CHARS].rstrip()


def _password_refused(password: str) -> PdfRefused:
    if password:
        return PdfRefused("password", "The password does not open this file. Check it and try again.")
    return PdfRefused("password", "The file needs a password. Enter the one that opens it and try again.")
