"""A corpus in BEIR layout as one document of the library, so that published numbers can be checked.

Each passage becomes a page: `squad, page 17` is the 17th passage, its title the heading. One document and not one
for each passage, because a library of 20,000 documents is of no use to anybody, and it is deleted in one go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from ingest.chunk import Chunker, Heading
from ingest.embed import Embedder
from ingest.errors import BadRequest
from ingest.originals import Originals, Record
from ingest.store import LOCAL_OWNER, Store
from ingest.types import Chunk, Document, Page
from rag.evidence.formats import BEIR_QRELS, CORPUS, QUERIES, Rows, beir_files, read_beir, read_objects
from rag.evidence.questions import Question

WARNING = "Made of a BEIR corpus: each passage is a page of its own, and there is no PDF to look at."


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage of a corpus."""

    id: str
    title: str
    text: str


def passages_of(folder: Path) -> tuple[Passage, ...]:
    """The passages of corpus.jsonl, in its order. Raises BadRequest, naming file and line."""
    path = folder / CORPUS
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadRequest(
            f"{path} cannot be read ({error.strerror}): give a folder in BEIR layout."
        ) from error
    rows = Rows(str(path))
    passages: dict[str, Passage] = {}
    for line, row in read_objects(data, str(path), rows):
        id_, title, text = row.get("_id"), row.get("title") or "", row.get("text")
        if not (isinstance(id_, str) and isinstance(title, str) and isinstance(text, str)):
            rows.problem(line, "a passage needs `_id` and `text`, and they and `title` must be texts")
        elif id_ in passages:
            rows.problem(line, f"the passage {id_[:100]!r} is there twice")
        else:
            passages[id_] = Passage(id_, title, text)
    rows.check()
    if not passages:
        raise BadRequest(f"{path} holds no passage.")
    return tuple(passages.values())


def questions_of(folder: Path, passages: Sequence[Passage], document: str) -> tuple[Question, ...]:
    """The questions of the folder, with pages of `document` for passages. Raises BadRequest.

    Questions without a relevant passage are left out.
    """
    pages = {passage.id: page for page, passage in enumerate(passages, start=1)}
    files = {name: data for name, data in beir_files(folder).items() if name != CORPUS}
    questions = []
    for question in read_beir(files, str(folder)):
        # without a corpus a judgement names its passage as the document
        unknown = [one.document for one in question.judgements if one.document not in pages]
        if unknown:
            raise BadRequest(
                f"{folder}: question {question.id!r} wants passage {unknown[0][:100]!r}, and {CORPUS} has none "
                "of that id."
            )
        judged = tuple(
            replace(one, document=document, pages=(pages[one.document],)) for one in question.judgements
        )
        if any(one.grade for one in judged):
            questions.append(replace(question, judgements=judged))
    if not questions:
        raise BadRequest(f"{folder}: no question of {QUERIES} has a relevant passage in {BEIR_QRELS[0]}.")
    return tuple(questions)


def ingest_corpus(
    folder: Path,
    passages: Sequence[Passage],
    chunker: Chunker,
    embedder: Embedder,
    store: Store,
    *,
    owner: str = LOCAL_OWNER,
    originals: Originals | None = None,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> Document:
    """Put the corpus into the library under the folder's name; one that is there already is left as it is.

    `originals` keeps a record of it, so that a rebuilt index can say that it is missing.
    Raises BadRequest where another document has that name, StoreUnavailable.
    """
    name = folder.resolve().name
    doc_id = hashlib.sha256((folder / CORPUS).read_bytes()).hexdigest()
    for document in store.documents(owner=owner):
        if document.id == doc_id:
            return document
        if document.source == name:
            raise BadRequest(f"The library has another document {name!r}: delete it, or rename the folder.")
    chunks = cut(passages, chunker, doc_id, name)
    if not chunks:
        raise BadRequest(f"None of the {len(passages):,} passages in {folder} has a word to search for.")
    vectors = embedder.embed([chunk.passage for chunk in chunks], on_progress=on_progress)
    document = Document(
        id=doc_id,
        source=name,
        title=name,
        pages=len(passages),
        chunks=len(chunks),
        size=(folder / CORPUS).stat().st_size,
        added=datetime.now(UTC).isoformat(timespec="seconds"),
        warnings=(WARNING,),
    )
    if originals is not None:
        originals.write_record(doc_id, Record(owner, name, document.added, pdf=False))
    store.add(document, chunks, vectors, owner=owner)
    return document


def cut(passages: Sequence[Passage], chunker: Chunker, doc_id: str, source: str) -> list[Chunk]:
    """The app's own chunks of each passage, its title the heading."""
    pages = [Page(number, passage.text) for number, passage in enumerate(passages, start=1)]
    # an empty title too has its heading: otherwise the passage would go under the one before it
    headings = [Heading(number, 0, passage.title) for number, passage in enumerate(passages, start=1)]
    return chunker.chunks(pages, doc_id=doc_id, source=source, title="", headings=headings)
