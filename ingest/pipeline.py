"""One PDF to one document in the index."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from ingest.chunk import Chunker, place_headings, title_of
from ingest.embed import Embedder
from ingest.errors import PdfRefused
from ingest.sandbox import Sandbox, read_document
from ingest.store import Store
from ingest.types import Chunk, Document

Stage = Literal["reading", "embedding"]
OnStage = Callable[[Stage, int, int], None]
"""Called with (stage, done, of how many): pages while reading, chunks while embedding."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What has to stay loaded between two PDFs."""

    sandbox: Sandbox
    chunker: Chunker
    embedder: Embedder
    store: Store
    max_pages: int


@dataclass(frozen=True, slots=True)
class Cut:
    """A PDF read and cut into chunks, not yet embedded."""

    title: str
    pages: int
    chunks: tuple[Chunk, ...]
    warnings: tuple[str, ...]


def read_and_cut(
    path: Path,
    tools: Tools,
    *,
    doc_id: str,
    source: str,
    password: str = "",
    on_stage: OnStage = lambda *_: None,
) -> Cut:
    """Read a PDF and cut its pages. Raises PdfRefused."""
    read = read_document(
        tools.sandbox,
        path,
        password,
        max_pages=tools.max_pages,
        on_progress=lambda done, total: on_stage("reading", done, total),
    )
    title = title_of(read.title, source)
    headings = place_headings([(section.page, section.title) for section in read.sections], read.pages)
    chunks = tools.chunker.chunks(read.pages, doc_id=doc_id, source=source, title=title, headings=headings)
    if not chunks:
        raise PdfRefused("no_text", f"None of the {len(read.pages)} pages has any words to search for.")
    return Cut(title, len(read.pages), tuple(chunks), read.warnings)


def ingest(
    path: Path,
    tools: Tools,
    *,
    doc_id: str,
    source: str,
    owner: str,
    added: str = "",
    password: str = "",
    cut: Cut | None = None,
    on_stage: OnStage = lambda *_: None,
) -> Document:
    """Read, cut, embed and store one PDF; nothing is stored unless all of it is.

    `source` is the file's name as people know it, `added` when it came (ISO 8601 in UTC; now, if empty), `cut`
    what `read_and_cut` gave, where that was called before. Raises PdfRefused, StoreUnavailable.
    """
    cut = cut or read_and_cut(path, tools, doc_id=doc_id, source=source, password=password, on_stage=on_stage)
    on_stage("embedding", 0, len(cut.chunks))
    vectors = tools.embedder.embed(
        [chunk.passage for chunk in cut.chunks],
        on_progress=lambda done, total: on_stage("embedding", done, total),
    )
    document = Document(
        id=doc_id,
        source=source,
        title=cut.title,
        pages=cut.pages,
        chunks=len(cut.chunks),
        size=path.stat().st_size,
        added=added or datetime.now(UTC).isoformat(timespec="seconds"),
        warnings=cut.warnings,
    )
    tools.store.add(document, cut.chunks, vectors, owner=owner)
    return document
