"""Draw the sample library: `python -m samples.build [FOLDER]` writes samples/pdfs, the same bytes each time.

A family of documents is two files in samples/sources: NAME.txt is the text that they share, NAME.toml says in
which words and numbers each of them differs. The markup of the text, line by line:

    # Chapter           also an entry of the outline; begins a page where the family says so
    ## Section          an entry below it
    - item              a bullet
    1. step             a numbered step
    > text              a box: warnings and what must not be overlooked
    ^ text              the caption of the table that follows
    | a | b |           a row of a table, the first one is its head
    @if name ... @end   only where the document's value `name` is true (`@if not name`: where it is not)
    ${name}             a value of the document; a value may hold whole lines and other values

Everything else is a paragraph; blank lines part them.
"""

# mypy: disable-error-code="no-untyped-call, misc"
# reportlab is written without annotations

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from pathlib import Path
from string import Template
from typing import Any, Literal
from xml.sax.saxutils import escape

from reportlab.lib.colors import Color, HexColor
from reportlab.lib.pagesizes import A4, A5
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase.pdfmetrics import stringWidth
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus.doctemplate import BaseDocTemplate, PageTemplate
from reportlab.platypus.flowables import CondPageBreak, Flowable, HRFlowable, PageBreak, Spacer
from reportlab.platypus.frames import Frame
from reportlab.platypus.paragraph import Paragraph
from reportlab.platypus.tables import Table

FOLDER = Path(__file__).resolve().parent
SOURCES = FOLDER / "sources"
PDFS = FOLDER / "pdfs"

Kind = Literal["chapter", "section", "item", "step", "box", "caption", "table", "paragraph"]
MARKS: tuple[tuple[str, Kind], ...] = (
    ("# ", "chapter"),
    ("## ", "section"),
    ("- ", "item"),
    ("> ", "box"),
    ("^ ", "caption"),
    ("|", "table"),
)
SIZES = {"A4": A4, "A5": A5}
GREY = HexColor("#6b7280")
PALE = HexColor("#f1f5f9")


@dataclass(frozen=True, slots=True)
class Source:
    """One document before it is drawn: its file name, its values, and its text with them filled in."""

    file: str
    values: Mapping[str, Any]
    text: str

    @property
    def title(self) -> str:
        """The title in the PDF's metadata, and on its first page."""
        return str(self.values["title"])


@dataclass(frozen=True, slots=True)
class Block:
    """A run of text with one meaning; a table has one line a row."""

    kind: Kind
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """All lines as one."""
        return " ".join(self.lines)


def sources(folder: Path = SOURCES) -> list[Source]:
    """Every document of every family, by file name."""
    made = []
    for path in sorted(folder.glob("*.toml")):
        family = tomllib.loads(path.read_text(encoding="utf-8"))
        text = path.with_suffix(".txt").read_text(encoding="utf-8")
        for own in family["documents"]:
            values = _filled(family["common"] | own)
            made.append(Source(values["file"], values, fill(text, values)))
    return sorted(made, key=lambda source: source.file)


def fill(text: str, values: Mapping[str, Any]) -> str:
    """The text with the values in their places and without what this document leaves out.

    Raises KeyError for a value that nobody gave, ValueError for an `@if` that is never closed.
    """
    kept: list[str] = []
    open_at: list[bool] = []
    for line in Template(text).substitute(values).splitlines():
        if line.startswith("@if "):
            name = line.removeprefix("@if ").strip()
            wanted = not name.startswith("not ")
            open_at.append(bool(values[name.removeprefix("not ").strip()]) == wanted)
        elif line.strip() == "@end":
            open_at.pop()
        elif all(open_at):
            kept.append(line)
    if open_at:
        raise ValueError("An @if has no @end.")
    return "\n".join(kept)


def _filled(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: Template(value).substitute(values).strip() if isinstance(value, str) else value
        for name, value in values.items()
    }


def blocks(text: str) -> Iterator[Block]:
    """The blocks of a text in its markup."""
    pending: list[str] = []
    rows = groupby(text.splitlines(), key=_kind)
    for kind, group in rows:
        lines = [line.strip() for line in group]
        if kind == "table":
            yield Block("table", tuple(lines))
        elif kind != "paragraph":
            yield from (Block(kind, (re.sub(r"^(#+|[->^]|\d+\.) ", "", line),)) for line in lines)
        else:
            for line in [*lines, ""]:
                if line:
                    pending.append(line)
                elif pending:
                    yield Block("paragraph", tuple(pending))
                    pending = []


def _kind(line: str) -> Kind:
    if re.match(r"\d+\. ", line):
        return "step"
    return next((kind for mark, kind in MARKS if line.startswith(mark)), "paragraph")


def draw(source: Source) -> bytes:
    """The document as a PDF: the same bytes for the same source."""
    file = BytesIO()
    look = _Look(source.values)
    book = _Book(file, source, look)
    book.build([*_front(source, look), *_body(source, look)])
    return file.getvalue()


class _Look:
    """Paper, colours and fonts of a family."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.paper: tuple[float, float] = SIZES[values["paper"]]
        size = float(values["font_size"])
        self.size = size
        self.side = self.paper[0] * 0.105
        self.top = self.side + size * 1.6
        self.bottom = self.side + size * 1.4
        self.width = self.paper[0] - 2 * self.side
        self.accent: Color = HexColor(values["accent"])
        self.chapter_breaks = bool(values["chapter_breaks"])
        regular, bold = ("Times-Roman", "Times-Bold") if values["serif"] else ("Helvetica", "Helvetica-Bold")
        self.font, self.bold = regular, bold
        base = ParagraphStyle(
            "base", fontName=regular, fontSize=size, leading=size * 1.36, spaceAfter=size * 0.55
        )
        head = {"parent": base, "fontName": bold, "textColor": self.accent}
        self.styles = {
            "paragraph": base,
            "title": ParagraphStyle("title", **head | {"fontSize": size * 2.1, "leading": size * 2.5}),
            "company": ParagraphStyle("company", parent=base, textColor=GREY, spaceAfter=2),
            "chapter": ParagraphStyle(
                "chapter",
                **head,
                spaceBefore=size * 0.9,
                fontSize=size * 1.5,
                leading=size * 1.85,
                keepWithNext=1,
            ),
            "section": ParagraphStyle(
                "section",
                **head,
                spaceBefore=size * 0.5,
                fontSize=size * 1.12,
                leading=size * 1.5,
                keepWithNext=1,
            ),
            "caption": ParagraphStyle(
                "caption", parent=base, fontName=bold, fontSize=size * 0.92, spaceAfter=2, keepWithNext=1
            ),
            "item": ParagraphStyle(
                "item", parent=base, leftIndent=size * 1.7, bulletIndent=size * 0.3, spaceAfter=size * 0.25
            ),
            "cell": ParagraphStyle(
                "cell", parent=base, fontSize=size * 0.9, leading=size * 1.15, spaceAfter=0
            ),
            "head": ParagraphStyle(
                "head", parent=base, fontName=bold, fontSize=size * 0.9, leading=size * 1.15, spaceAfter=0
            ),
        }


class _Book(BaseDocTemplate):
    """Pages with a head line and a foot line; chapters and sections go into the outline."""

    def __init__(self, file: BytesIO, source: Source, look: _Look) -> None:
        values = source.values
        super().__init__(
            file,
            pagesize=look.paper,
            title=source.title,
            author=values["company"],
            subject=values["subject"],
            invariant=1,
            pageCompression=1,
        )
        self._source, self._look, self._entries = source, look, 0
        height = look.paper[1] - look.top - look.bottom
        frame = Frame(look.side, look.bottom, look.width, height, leftPadding=0, rightPadding=0, id="body")
        self.addPageTemplates(PageTemplate("page", [frame], onPage=self._head, onPageEnd=self._foot))

    def afterFlowable(self, flowable: Flowable) -> None:  # noqa: N802 - reportlab's name
        """Put headings into the outline."""
        if not isinstance(flowable, Paragraph) or flowable.style.name not in ("chapter", "section"):
            return
        self._entries += 1
        key = f"entry-{self._entries}"
        self.canv.bookmarkPage(key)
        level = 0 if flowable.style.name == "chapter" else 1
        self.canv.addOutlineEntry(flowable.getPlainText(), key, level, closed=0)

    def _head(self, canvas: Canvas, _: BaseDocTemplate) -> None:
        look = self._look
        y = look.paper[1] - look.top + look.size * 1.3
        self._line(canvas, y, str(self._source.values["company"]), str(self._source.values["running"]))
        canvas.line(look.side, y - 4, look.paper[0] - look.side, y - 4)

    def _foot(self, canvas: Canvas, _: BaseDocTemplate) -> None:
        self._line(
            canvas,
            self._look.bottom - self._look.size * 2,
            str(self._source.values["number"]),
            f"Page {canvas.getPageNumber()}",
        )

    def _line(self, canvas: Canvas, y: float, left: str, right: str) -> None:
        canvas.setFont(self._look.font, self._look.size * 0.8)
        canvas.setFillColor(GREY)
        canvas.setStrokeColor(GREY)
        canvas.setLineWidth(0.4)
        canvas.drawString(self._look.side, y, left)
        canvas.drawRightString(self._look.paper[0] - self._look.side, y, right)


def _front(source: Source, look: _Look) -> list[Flowable]:
    return [
        Paragraph(escape(str(source.values["subject"])), look.styles["company"]),
        Paragraph(escape(source.title), look.styles["title"]),
        HRFlowable(width="100%", thickness=1.5, color=look.accent, spaceAfter=look.size),
    ]


def _body(source: Source, look: _Look) -> Iterator[Flowable]:
    step, first = 0, True
    for block in blocks(source.text):
        step = step + 1 if block.kind == "step" else 0
        if block.kind == "chapter":
            if look.chapter_breaks and not first:
                yield PageBreak()
            elif not first:
                yield CondPageBreak(look.size * 9)
            first = False
        if block.kind == "table":
            yield _table(block.lines, look)
            yield Spacer(0, look.size * 0.8)
        elif block.kind == "box":
            yield _box(block.text, look)
            yield Spacer(0, look.size * 0.6)
        elif block.kind in ("item", "step"):
            yield Paragraph(
                _inline(block.text), look.styles["item"], bulletText=f"{step}." if step else "\u2022"
            )
        else:
            yield Paragraph(_inline(block.text), look.styles[block.kind])


def _inline(text: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", escape(text))


def _table(lines: Sequence[str], look: _Look) -> Table:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    columns = list(zip(*rows, strict=True))
    # each column by its longest cell, so that numbers take little and sentences much, but no word is broken
    wanted = [min(max(map(len, column)), 60) + 4 for column in columns]
    least = [
        max(stringWidth(word, look.bold, look.size * 0.9) for cell in column for word in cell.split() or [""])
        + 9
        for column in columns
    ]
    spare = look.width - sum(least)
    cells = [
        [Paragraph(_inline(cell), look.styles["cell" if number else "head"]) for cell in row]
        for number, row in enumerate(rows)
    ]
    return Table(
        cells,
        colWidths=[low + spare * part / sum(wanted) for low, part in zip(least, wanted, strict=True)],
        repeatRows=1,
        style=[
            ("BACKGROUND", (0, 0), (-1, 0), PALE),
            ("LINEBELOW", (0, 0), (-1, -1), 0.3, GREY),
            ("LINEBELOW", (0, 0), (-1, 0), 1, look.accent),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("TOPPADDING", (0, 0), (-1, -1), 2.5),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 2.5),
            ("LEFTPADDING", (0, 0), (-1, -1), 4),
            ("RIGHTPADDING", (0, 0), (-1, -1), 4),
        ],
    )


def _box(text: str, look: _Look) -> Table:
    return Table(
        [[Paragraph(_inline(text), look.styles["cell"])]],
        colWidths=[look.width],
        style=[("BACKGROUND", (0, 0), (-1, -1), PALE), ("LINEBEFORE", (0, 0), (0, -1), 3, look.accent)],
    )


def main(folder: Path = PDFS) -> int:
    """Write every PDF into the folder and remove those that have no source any more."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {source.file: draw(source) for source in sources()}
    for stale in sorted(path for path in folder.glob("*.pdf") if path.name not in made):
        print(f"{stale.name}: removed, it has no source")
        stale.unlink()
    for name, data in made.items():
        (folder / name).write_bytes(data)
        print(f"{name}: {len(data) / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:2])))
