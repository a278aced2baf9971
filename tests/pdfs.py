"""Tiny real PDFs, made in memory: letter pages, one line under the other from the top left corner."""

# mypy: disable-error-code="no-untyped-call"
# reportlab is written without annotations

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from io import BytesIO
from itertools import accumulate
from typing import Any

from PIL import Image, ImageDraw
from reportlab.lib.pagesizes import letter
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

Outline = Sequence[tuple[int, str]]
"""(page, title) of each entry, pages counted from 1."""

FONT = "Helvetica"
FONT_SIZE = 12.0
LEFT = 72.0
FIRST_BASELINE = 720.0
LEADING = 18.0
"""Where lines stand, in points: line n of a page, from 0, is at (LEFT, FIRST_BASELINE - n * LEADING)."""

WESTERN = "Größe, naïve façade: 5 µm ± 1 %"
CHINESE = "营业收入增长百分之八"


def text_pdf(pages: Sequence[Sequence[str]], *, title: str = "", outline: Outline = ()) -> bytes:
    """Pages of lines in Latin-1; a page without lines is blank."""
    return _draw(pages, title=title, outline=outline)


def encrypted_pdf(
    pages: Sequence[Sequence[str]], *, password: str, title: str = "", outline: Outline = ()
) -> bytes:
    """Like text_pdf, opened by `password`; "" is what anyone opens and nobody may edit."""
    encryption = StandardEncryption(password, ownerPassword="owner", strength=128)
    return _draw(pages, title=title, outline=outline, encrypt=encryption)


def scanned_pdf(pages: int = 1) -> bytes:
    """Pages that hold an image each and no text."""
    return mixed_pdf([()] * pages)


def mixed_pdf(pages: Sequence[Sequence[str]], *, title: str = "") -> bytes:
    """Like text_pdf, but a page without lines holds an image."""
    return _draw(pages, title=title, scans=True)


def truncated_pdf(pages: Sequence[Sequence[str]] = (("Cut off",),), *, keep: float = 0.5) -> bytes:
    """Like text_pdf, with only the first part of its bytes."""
    whole = text_pdf(pages)
    return whole[: int(len(whole) * keep)]


def huge_page_pdf(lines: Sequence[str] = ("Very large",), *, side: float = 1_000_000) -> bytes:
    """One square page with sides of this many points."""
    return _draw([lines], size=(side, side))


def cropped_pdf(lines: Sequence[str], box: tuple[float, float, float, float]) -> bytes:
    """One page of which a viewer shows `box` alone: left, bottom, right and top in points."""
    return _draw([lines], crop=box)


def lettered_pdf(lines: Sequence[str]) -> bytes:
    """One page that looks as in text_pdf, but each letter is drawn by itself."""
    return _draw([lines], lettered=True)


def unseen_pdf(pages: Sequence[Sequence[str]], *, unseen: Collection[int]) -> bytes:
    """Like text_pdf, but pdfium finds no text on the pages `unseen`: it is drawn there without width."""
    return _draw(pages, unseen=unseen)


def rootless_pdf(pages: Sequence[Sequence[str]]) -> bytes:
    """Like text_pdf, but pdfium cannot open it: its trailer does not name the catalog."""
    return text_pdf(pages).replace(b"/Root", b"/Boot")


def rotated_pdf(lines: Sequence[str], *, degrees: int) -> bytes:
    """One page that a viewer turns clockwise by `degrees`, a multiple of 90."""
    across = degrees % 180 == 90
    return _draw([lines], size=(letter[1], letter[0]) if across else letter, degrees=degrees)


def form_pdf(lines: Sequence[str], *, typed: str) -> bytes:
    """One page with a form field, into which `typed` was typed, below the lines."""
    file = BytesIO()
    canvas = Canvas(file, pagesize=letter, invariant=1)
    canvas.setFont(FONT, FONT_SIZE)
    for row, line in enumerate(lines):
        canvas.drawString(LEFT, FIRST_BASELINE - row * LEADING, line)
    canvas.acroForm.textfield(name="field", value=typed, x=LEFT, y=400, width=200, height=20)
    canvas.save()
    return file.getvalue()


def mapped_pdf(text: str, meanings: Mapping[str, str]) -> bytes:
    """One page with a line whose font gives some of its characters another meaning, or none that is text."""
    pairs = "\n".join(
        f"<{ord(shown):02X}> <{meant.encode('utf-16-be', 'surrogatepass').hex()}>"
        for shown, meant in meanings.items()
    )
    cmap = (
        "/CIDInit /ProcSet findresource begin begincmap\n"
        "1 begincodespacerange\n<00> <FF>\nendcodespacerange\n"
        f"{len(meanings)} beginbfchar\n{pairs}\nendbfchar\nendcmap end"
    )
    line = f"BT /F 12 Tf {LEFT} {FIRST_BASELINE} Td ({text}) Tj ET"
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        "/Resources << /Font << /F 5 0 R >> >> >>",
        f"<< /Length {len(line)} >>\nstream\n{line}\nendstream",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /ToUnicode 6 0 R >>",
        f"<< /Length {len(cmap)} >>\nstream\n{cmap}\nendstream",
    ]
    return _file(objects)


def unicode_pdf() -> bytes:
    """One page: the line WESTERN in an embedded font, and below it CHINESE in one that is not embedded."""
    pdfmetrics.registerFont(TTFont("Vera", "Vera.ttf"))
    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))
    file = BytesIO()
    canvas = Canvas(file, pagesize=letter, invariant=1)
    for number, (font, line) in enumerate([("Vera", WESTERN), ("STSong-Light", CHINESE)]):
        canvas.setFont(font, FONT_SIZE)
        canvas.drawString(LEFT, FIRST_BASELINE - number * LEADING, line)
    canvas.save()
    return file.getvalue()


def text_width(text: str) -> float:
    """Width in points of a text in the font of text_pdf."""
    return float(pdfmetrics.stringWidth(text, FONT, FONT_SIZE))


def _draw(
    pages: Sequence[Sequence[str]],
    *,
    title: str = "",
    outline: Outline = (),
    scans: bool = False,
    size: tuple[float, float] = letter,
    crop: tuple[float, float, float, float] | None = None,
    unseen: Collection[int] = (),
    lettered: bool = False,
    degrees: int = 0,
    **options: Any,
) -> bytes:
    file = BytesIO()
    canvas = Canvas(file, pagesize=size, invariant=1, **options)
    canvas.setTitle(title)
    canvas.setCropBox(crop)
    for number, lines in enumerate(pages, start=1):
        for place, (_, heading) in enumerate(entry for entry in outline if entry[0] == number):
            key = f"{number}/{place}"
            canvas.bookmarkPage(key)
            canvas.addOutlineEntry(heading, key)
        canvas.setPageRotation(degrees)
        canvas.setFont(FONT, FONT_SIZE)
        if number in unseen:
            canvas.scale(0, 1)
        for row, line in enumerate(lines):
            for start, text in enumerate(line) if lettered else [(0, line)]:
                canvas.drawString(LEFT + text_width(line[:start]), FIRST_BASELINE - row * LEADING, text)
        if scans and not lines:
            canvas.drawImage(ImageReader(_scan()), 0, 0, *size)
        canvas.showPage()
    canvas.save()
    return file.getvalue()


def _file(objects: Sequence[str]) -> bytes:
    """A PDF of these objects, the first of which is its catalog."""
    parts = ["%PDF-1.4\n"]
    for number, body in enumerate(objects, start=1):
        parts.append(f"{number} 0 obj\n{body}\nendobj\n")
    starts = list(accumulate(len(part) for part in parts))
    table = "".join(f"{start:010} 00000 n \n" for start in starts[:-1])
    size = len(objects) + 1
    parts.append(f"xref\n0 {size}\n0000000000 65535 f \n{table}")
    parts.append(f"trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{starts[-1]}\n%%EOF\n")
    return "".join(parts).encode("ascii")


def _scan() -> Image.Image:
    """A sheet of paper with grey bars for lines."""
    sheet = Image.new("L", (85, 110), 240)
    pen = ImageDraw.Draw(sheet)
    for y in range(12, 100, 6):
        pen.line((10, y, 74, y), fill=90, width=2)
    return sheet
