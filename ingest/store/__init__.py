"""Where chunks and their vectors live: one protocol, two implementations.

Every document has one payload-only point. It says `kind="unfinished"` before the first chunk is
written and before the first is deleted, and is overwritten with `kind="document"` after the last
chunk is written. Chunks of an unfinished document are invisible to `search`, whoever writes them
and whatever happened to the writer, and `sweep` removes them.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ingest.chunk import CHUNKER
from ingest.types import Chunk, Document

Vectors = npt.NDArray[np.float32]
DENSE = "dense"
"""Name of the cosine vector."""
BM25 = "bm25"
"""Name of the sparse BM25 vector (IDF applied by Qdrant at query time)."""
LOCAL_OWNER = "local"
INDEXED_FIELDS = ("kind", "owner", "doc_id")
"""Payload fields with a keyword index, because searches and deletes filter on them."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What made the vectors of an index; an index is opened only with the recipe it was made with."""

    embedder: str
    chunker: str
    dimension: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A whole document as it lies in the index; `vectors` is (chunks, dim) float32."""

    document: Document
    chunks: tuple[Chunk, ...]
    vectors: Vectors


class Store(Protocol):
    """Chunks with a dense and a BM25 vector, filtered by owner and document inside the query."""

    def add(
        self, document: Document, chunks: Sequence[Chunk], vectors: Vectors, *, owner: str = LOCAL_OWNER
    ) -> None:
        """Write a document; the same document twice leaves the same points.

        `vectors` is (len(chunks), dim) float32 with unit rows.
        """

    def take(self, doc_id: str, *, owner: str = LOCAL_OWNER) -> Stored | None:
        """Read a whole document with its vectors, for an undo; None where there is no such document."""

    def delete(self, doc_id: str, *, owner: str = LOCAL_OWNER) -> bool:
        """Remove a document and its chunks; False where there was none."""

    def documents(self, *, owner: str = LOCAL_OWNER) -> list[Document]:
        """All documents of an owner, newest first."""

    def count(self, *, owner: str = LOCAL_OWNER) -> int:
        """How many chunks an owner's documents have."""

    def search(
        self,
        vector: npt.NDArray[np.float32],
        limit: int,
        *,
        owner: str = LOCAL_OWNER,
        doc_ids: Sequence[str] | None = None,
    ) -> list[tuple[Chunk, float]]:
        """Find the `limit` nearest chunks with their cosine, best first, equal cosines by chunk id.

        `vector` is (dim,) float32 of unit length. `doc_ids` narrows the search to those documents;
        None means all, an empty sequence means none.
        """

    def search_words(
        self,
        question: str,
        limit: int,
        *,
        owner: str = LOCAL_OWNER,
        doc_ids: Sequence[str] | None = None,
        chunk_ids: Sequence[str] | None = None,
    ) -> list[tuple[Chunk, float]]:
        """Find the `limit` chunks with the highest BM25, best first, equal scores by chunk id.

        Chunks that share no word with the question are not among them. How rare a word is, is counted in the
        whole index, whatever `doc_ids` and `chunk_ids` narrow the search to; None means all, an empty
        sequence means none.
        """

    def sweep(self) -> int:
        """Remove chunks of unfinished ingests, of every owner; returns how many.

        Also gives back the room of deleted points, which can take seconds: for a quiet moment.
        """

    def close(self) -> None:
        """Flush and let go of the index."""


def library_fingerprint(documents: Iterable[Document], embedder_id: str) -> str:
    """SHA-256, in hex, that is the same for the same documents, cut and embedded alike, in any order."""
    cut = sorted((document.id, document.chunks) for document in documents)
    return hashlib.sha256(json.dumps([embedder_id, CHUNKER, cut]).encode()).hexdigest()


def point_id(owner: str, key: str) -> str:
    """Id of a point in Qdrant: UUIDv5 of the owner and a chunk's or document's id."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"second-look:{owner}/{key}"))


def chunk_payload(chunk: Chunk, owner: str) -> dict[str, Any]:
    """Payload of a chunk's point."""
    return {
        "kind": "chunk",
        "owner": owner,
        "doc_id": chunk.doc_id,
        "source": chunk.source,
        "page": chunk.page,
        "start": chunk.start,
        "end": chunk.end,
        "text": chunk.text,
        "heading": chunk.heading,
    }


def chunk_from(payload: dict[str, Any]) -> Chunk:
    """Inverse of `chunk_payload`."""
    return Chunk(
        doc_id=payload["doc_id"],
        source=payload["source"],
        page=payload["page"],
        start=payload["start"],
        end=payload["end"],
        text=payload["text"],
        heading=payload["heading"],
    )


def document_payload(document: Document, owner: str) -> dict[str, Any]:
    """Payload of the point that stands for a whole document."""
    return {
        "kind": "document",
        "owner": owner,
        "doc_id": document.id,
        "source": document.source,
        "title": document.title,
        "pages": document.pages,
        "chunks": document.chunks,
        "size": document.size,
        "added": document.added,
        "warnings": list(document.warnings),
    }


def document_from(payload: dict[str, Any]) -> Document:
    """Inverse of `document_payload`."""
    return Document(
        id=payload["doc_id"],
        source=payload["source"],
        title=payload["title"],
        pages=payload["pages"],
        chunks=payload["chunks"],
        size=payload["size"],
        added=payload["added"],
        warnings=tuple(payload["warnings"]),
    )
