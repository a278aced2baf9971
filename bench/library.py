"""A large library for benchmarks: real text, made once and kept in a folder.

The first chunks are those of 100-page PDFs that go through the upload queue: Wikipedia paragraphs from ../shared
where that is, else words of the sample library in random order. All others have the same texts and random vectors,
for the search to look through.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import numpy as np

from bench.timing import ROOT
from ingest.chunk import CHUNKER
from ingest.embed import identify
from ingest.store import LOCAL_OWNER, Recipe, Stored
from ingest.store.edge import open_edge_store
from rag.samples import sample_questions
from rag.services import Services, opened
from rag.settings import Settings
from tests.pdfs import text_pdf

CHUNKS = 50_000
REAL = 500
"""Chunks of the library that the benchmarks of memory, start and crowds share, and those with own vectors."""
FOLDER = Path(tempfile.gettempdir()) / "second-look-bench-library"
PAGES = 100
SQUAD = ROOT.parent / "shared" / "data" / "eval-dev" / "squad"


def paragraphs() -> Iterator[str]:
    """Real paragraphs, or as many as wanted of random words."""
    if SQUAD.is_dir():
        for line in (SQUAD / "corpus.jsonl").read_text(encoding="utf-8").splitlines():
            yield json.loads(line)["text"]
        return
    words = [word for question in sample_questions() for word in question.answer.split()]
    chance = random.Random(1)
    while True:
        yield " ".join(chance.choices(words, k=120)) + "."


def questions(count: int) -> list[str]:
    """Different questions, spread over the whole library."""
    if SQUAD.is_dir():
        rows = (SQUAD / "queries.jsonl").read_text(encoding="utf-8").splitlines()
        texts = [json.loads(row)["text"].strip() for row in rows]
    else:
        texts = [question.text for question in sample_questions()]
    return texts[:: max(1, len(texts) // count)][:count]


def pdf_of(texts: Sequence[str], title: str, *, lines: int = 38) -> bytes:
    """A PDF with a page for each text, at most so many lines of it."""
    # the fonts that every PDF reader has know Latin-1 alone
    pages = [textwrap.wrap(text.encode("latin-1", "replace").decode("latin-1"), 80)[:lines] for text in texts]
    return text_pdf(pages, title=title)


def fill(folder: Path, chunks: int, *, real: int) -> None:
    """Make a library of so many chunks, the first `real` of them with vectors of their own.

    One that is there already stays, unless it was not finished, or made by other code or in another size.
    """
    finished, recipe = folder / "finished", f"{chunks} {real} {_layout()}"
    if finished.exists() and finished.read_text(encoding="utf-8") == recipe:
        return
    if folder.exists():
        shutil.rmtree(folder)
    with opened(Settings(data=folder)) as services:
        texts = paragraphs()
        number = 0
        while services.store.count() < real:
            number += 1
            _add(number, list(islice(texts, PAGES)), services)
            print(f"volume {number}: {services.store.count():,} of {real:,} chunks", file=sys.stderr)
        taken = [services.store.take(document.id) for document in services.store.documents()]
        all_of_it = _joined([stored for stored in taken if stored])
        for number in count():
            missing = chunks - services.store.count()
            if missing <= 0:
                break
            _add_far(number, all_of_it, services, missing)
    finished.write_text(recipe, encoding="utf-8")


def _layout() -> str:
    """How an index is laid out and what made its vectors: an older one is another."""
    identity = identify()
    with tempfile.TemporaryDirectory() as scratch:
        open_edge_store(Path(scratch), Recipe(identity.id, CHUNKER, identity.dimension)).close()
        laid_out = (Path(scratch) / "edge_config.json").read_bytes()
    return f"{identity.id} {CHUNKER} {hashlib.sha256(laid_out).hexdigest()}"


def _add(number: int, texts: Sequence[str], services: Services) -> None:
    name = f"volume-{number:03}.pdf"
    job = services.queue.add(name, pdf_of(texts, f"Volume {number}"), owner=LOCAL_OWNER)
    services.queue.run_pending()
    services.queue.dismiss(job.id, owner=LOCAL_OWNER)


def _joined(parts: Sequence[Stored]) -> Stored:
    """One document of all pages of these."""
    chunks, pages = [], 0
    for part in parts:
        chunks += [replace(chunk, page=chunk.page + pages) for chunk in part.chunks]
        pages += part.document.pages
    vectors = np.concatenate([part.vectors for part in parts])
    return Stored(replace(parts[0].document, pages=pages, chunks=len(chunks)), tuple(chunks), vectors)


def _add_far(number: int, like: Stored, services: Services, most: int) -> None:
    """The same texts again under another name, in directions of their own; at most so many chunks."""
    doc_id = hashlib.sha256(f"far {number}".encode()).hexdigest()
    name, title = f"far-{number:03}.pdf", f"Far {number}"
    chunks = [replace(chunk, doc_id=doc_id, source=name, heading=title) for chunk in like.chunks[:most]]
    document = replace(like.document, id=doc_id, source=name, title=title, chunks=len(chunks))
    vectors = np.random.default_rng(number).normal(size=like.vectors[:most].shape).astype(np.float32)
    services.store.add(document, chunks, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
