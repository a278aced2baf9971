"""The nouns of the ingest side: a page, a chunk of it, a document."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

_NAMESPACE = uuid.UUID("6f0c5f0e-5d43-5b0e-9d0c-2f6b5e5c0a17")


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a PDF; `number` counts from 1, `text` is as the parser gave it."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage of one page: `text == page.text[start:end]`, offsets in characters.

    `heading` is the document's title and section; it is not part of `text`.
    """

    doc_id: str
    source: str
    page: int
    start: int
    end: int
    text: str
    heading: str

    @property
    def id(self) -> str:
        """UUIDv5 of document, page and offsets: the same passage always gets the same id."""
        return str(uuid.uuid5(_NAMESPACE, f"{self.doc_id}/{self.page}/{self.start}/{self.end}"))

    @property
    def passage(self) -> str:
        """What embedder and reranker read: the heading on a line of its own, then the text."""
        words = " ".join(self.text.replace("\ufffe", "").split())
        return f"{self.heading}\n{words}" if self.heading else words


@dataclass(frozen=True, slots=True)
class Document:
    """A PDF in the library; `id` is the SHA-256 of its bytes in hex, `added` is ISO 8601 in UTC."""

    id: str
    source: str
    title: str
    pages: int
    chunks: int
    size: int
    added: str
    warnings: tuple[str, ...]
