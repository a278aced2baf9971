"""Pages to chunks: at most 200 tokens, cut at sentence ends, offsets kept."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from statistics import quantiles
from typing import TYPE_CHECKING

from ingest.types import Chunk, Page

if TYPE_CHECKING:
    from semantic_text_splitter import TextSplitter

MAX_TOKENS = 200
OVERLAP_TOKENS = 32
"""About one sentence; the splitter repeats whole sentences only, so it is an upper limit."""
MAX_CHUNK_CHARS = 4_000
"""No real text has so many in 200 tokens; but a tokenizer takes a word of any length for one unknown token."""
BLOCK_CHARS = 20_000
"""Longer pages are cut into such blocks first: the splitter takes the square of the time for unbroken text."""
MAX_HEADING_CHARS = 160
CHUNKER = f"sentences-{MAX_TOKENS}-{OVERLAP_TOKENS}/1"
"""Name and version of what this module does; it is recorded in the index."""

_SPACE = re.compile(r"\s")
_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Heading:
    """A title of the outline and where its section begins: page from 1, offset in the page's text."""

    page: int
    start: int
    title: str


class Chunker:
    """Cuts pages with the bi-encoder's own tokenizer, so that no chunk is longer than it reads."""

    def __init__(self, tokenizer_file: Path) -> None:
        from semantic_text_splitter import TextSplitter
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(tokenizer_file))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._splitter: TextSplitter = TextSplitter.from_huggingface_tokenizer(
            tokenizer, MAX_TOKENS, overlap=OVERLAP_TOKENS
        )

    def chunks(
        self, pages: Iterable[Page], *, doc_id: str, source: str, title: str, headings: Sequence[Heading] = ()
    ) -> list[Chunk]:
        """Chunks of all pages in reading order; a page without words gives none."""
        starts = [(heading.page, heading.start) for heading in headings]
        pages = list(pages)
        chunks = []
        for page, spans in zip(pages, self._spans([page.text for page in pages]), strict=True):
            for start, end in spans:
                section = bisect_right(starts, (page.number, start)) - 1
                heading = join_heading(title, headings[section].title if section >= 0 else "")
                text = page.text[start:end]
                chunks.append(Chunk(doc_id, source, page.number, start, end, text, heading))
        return chunks

    def _spans(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """(start, end) of each text's chunks; the splitter works on all cores at once."""
        blocks = [
            (number, start, end)
            for number, text in enumerate(texts)
            for start, end in cut_at_spaces(text, 0, len(text), BLOCK_CHARS)
        ]
        cut = self._splitter.chunk_all_indices(
            [unwrap(texts[number][start:end]) for number, start, end in blocks]
        )
        spans: list[list[tuple[int, int]]] = [[] for _ in texts]
        for (number, begin, _), pieces in zip(blocks, cut, strict=True):
            for start, piece in pieces:
                spans[number] += [
                    part
                    for part in cut_at_spaces(
                        texts[number], begin + start, begin + start + len(piece), MAX_CHUNK_CHARS
                    )
                    if any(map(str.isalnum, texts[number][slice(*part)]))
                ]
        return spans


def cut_at_spaces(text: str, start: int, end: int, limit: int) -> Iterator[tuple[int, int]]:
    """(start, end) of parts of at most `limit` characters, that end at white space where there is any."""
    while end - start > limit:
        spaces = [match.end() for match in _SPACE.finditer(text, start + limit // 2, start + limit)]
        middle = spaces[-1] if spaces else start + limit
        yield start, middle
        start = middle
    yield start, end


def unwrap(text: str) -> str:
    """The text with the line ends inside paragraphs turned into spaces, at the same length.

    A PDF ends every printed line, and the splitter holds a line end for a better place to cut than the
    end of a sentence. A line that reaches nearly as far as the page's long lines, and does not end a
    sentence, goes on in the next one; short lines (headings, table rows) keep their end.
    """
    lengths = [len(line) for line in _LINE_END.split(text) if line.strip()]
    if len(lengths) < 2:
        return text
    wrapped_at = 0.8 * quantiles(lengths, n=10)[-1]
    parts = []
    begin = 0
    for match in _LINE_END.finditer(text):
        line = text[begin : match.start()]
        goes_on = len(line) >= wrapped_at and not line.rstrip().endswith((".", "!", "?", ":"))
        parts.append(line + (" " * len(match[0]) if goes_on else match[0]))
        begin = match.end()
    return "".join(parts) + text[begin:]


def place_headings(sections: Iterable[tuple[int, str]], pages: Sequence[Page]) -> list[Heading]:
    """Find where each outline title stands on its page, in reading order; the page's top when it is not found.

    `sections` are (page from 1, title).
    """
    texts = {page.number: page.text for page in pages}
    wanted = [(page, " ".join(title.split())) for page, title in sections]
    lines = {page: _one_line(texts.get(page, "")) for page in {page for page, _ in wanted}}
    placed = []
    for page, title in wanted:
        line, places = lines[page]
        found = line.find(_small(title)) if title else -1
        placed.append(Heading(page, places[found] if found >= 0 else 0, title))
    return sorted(placed, key=lambda heading: (heading.page, heading.start))


def _one_line(text: str) -> tuple[str, list[int]]:
    """The text in small letters with single spaces, and where in it each of these characters stands.

    Plain search in this takes no time for any title; a pattern with white space of any length can take hours.
    """
    places = [
        at for at, character in enumerate(text) if not (character.isspace() and text[at - 1 : at].isspace())
    ]
    return _small("".join(" " if text[at].isspace() else text[at] for at in places)), places


def _small(text: str) -> str:
    """Small letters, each for one: some capitals become two characters."""
    small = text.lower()
    return small if len(small) == len(text) else "".join(ch.lower()[:1] for ch in text)


def join_heading(title: str, section: str) -> str:
    """Title and section on one line, without saying the same twice, at most MAX_HEADING_CHARS long."""
    parts = [title] if not section or section.lower() == title.lower() else [title, section]
    heading = " > ".join(" ".join(part.split()) for part in parts if part.strip())
    return heading if len(heading) <= MAX_HEADING_CHARS else heading[: MAX_HEADING_CHARS - 1].rstrip() + "…"


def title_of(metadata_title: str, source: str) -> str:
    """The document's title for people: its metadata's where that says something, else the file's name."""
    title = " ".join(metadata_title.split())
    stem = " ".join(re.split(r"[\s_]+", PurePath(source).stem)).strip()
    looks_like_a_path = re.search(r"[\\/]|\.(docx?|pdf|indd|qxd|tex|html?|xlsx?)\b", title, re.IGNORECASE)
    if len(title) < 4 or looks_like_a_path or title.lower().startswith(("microsoft word", "untitled")):
        return stem
    return title
