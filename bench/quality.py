"""How good the order is: bi-encoder, BM25 and the reranker on question sets with known answers.

    python -m bench.quality FOLDER... [--json] [--limit N] [--reranker NAME] [--against NAME] [--cache FOLDER]
                            [--no-headings] [--max-tokens N] [--dtype TYPE] [--depth N ...] [--runs FOLDER]

A FOLDER is one of two kinds:

- BEIR layout (corpus.jsonl, queries.jsonl, qrels.tsv): each passage is one chunk, its title the heading.
- pdfs/ and questions.jsonl: the PDFs go through this project's own ingest, and each page that a question names
  as evidence is wanted. Evidence without a quoted text may run over: the page named and the next both count.

How pages are counted: a wanted page is found at the place of the first chunk that lies on it. Further chunks of
it keep their places and count for nothing, and a chunk stands for one wanted page at most. So recall@5 is the
share of the wanted pages (of one: the share of the questions whose page is found) among the 5 chunks that the
app would answer from, and nDCG@10 has one gain a page. A page that is not in pdfs/ counts as missed.

Everything runs through `rag.evidence`, which is what the Evidence page and `second-look eval` run through: the
app's own embedder, Qdrant Edge and reranker. Beside the variants of the app: the reranker's score without its
cosine, and without its BM25 (or with 0.6 x BM25 where it has none), and the same reranker with --max-tokens or
in --dtype, or --against another one; those are compared with the reranker from 50, question by question.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import numpy as np

from bench.timing import machine
from ingest.chunk import CHUNKER, Chunker, place_headings, title_of
from ingest.embed import Embedder, Vectors, identify, load_embedder
from ingest.errors import UserError
from ingest.sandbox import Sandbox, read_document
from ingest.store import Recipe, Store
from ingest.store.edge import open_edge_store
from ingest.types import Chunk, Document
from ingest.weights import sha256
from rag.evidence.beir import passages_of, questions_of
from rag.evidence.export import report_data, report_markdown
from rag.evidence.formats import read_questions
from rag.evidence.questions import Judgement, Question, QuestionSet
from rag.evidence.report import make_report
from rag.evidence.run import Progress, run
from rag.evidence.runfile import Run, run_text
from rag.evidence.variants import Plan, Reranked, make_plan, reranked_name
from rag.rerank import BUNDLED, Reranker, load_reranker

DEPTHS = (10, 20, 50, 100)
DEPTH = 50
"""The app's depth."""
BM25_WEIGHT = 0.6
"""What a reranker without a BM25 term is tried with."""


@dataclass(frozen=True, slots=True)
class Collection:
    """Chunks of one folder, document by document, and questions about them."""

    chunks: tuple[Chunk, ...]
    questions: QuestionSet


class Countdown:
    """Tells on stderr how far a step is and how long it will still take; give it as `on_progress`."""

    def __init__(self, step: str) -> None:
        self._step = step
        self._begun = monotonic()
        self._every, self._end = (1.0, "\r") if sys.stderr.isatty() else (15.0, "\n")
        self._told = self._begun

    def __call__(self, done: int, total: int) -> None:
        """Print a line, if the last one is old enough or all is done."""
        now = monotonic()
        if done < total and now - self._told < self._every:
            return
        self._told = now
        left = (now - self._begun) / max(done, 1) * (total - done)
        line = f"{self._step}: {done:,} of {total:,}, {left:.0f} s left"
        print(f"{line:<70}", end=self._end if done < total else "\n", file=sys.stderr, flush=True)


def load_collection(folder: Path, chunker: Chunker, *, headings: bool = True) -> Collection:
    """Read a folder of either kind. Raises BadRequest, FileNotFoundError where it is neither, PdfRefused."""
    if (folder / "corpus.jsonl").is_file():
        collection = load_beir(folder)
    elif (folder / "pdfs").is_dir():
        collection = load_pdfs(folder, chunker)
    else:
        raise FileNotFoundError(f"{folder} has neither corpus.jsonl nor pdfs/: give a folder of test data.")
    if headings:
        return collection
    return replace(collection, chunks=tuple(replace(chunk, heading="") for chunk in collection.chunks))


def load_beir(folder: Path) -> Collection:
    """One chunk for each passage, on a page of its own; questions that no passage answers are left out."""
    passages = passages_of(folder)
    chunks = tuple(
        Chunk(folder.name, folder.name, page, 0, len(one.text), one.text, one.title)
        for page, one in enumerate(passages, start=1)
    )
    return Collection(chunks, QuestionSet(folder.name, questions_of(folder, passages, folder.name)))


def load_pdfs(folder: Path, chunker: Chunker) -> Collection:
    """Chunks of every PDF, through the app's own reader and chunker. Raises BadRequest, PdfRefused."""
    paths = sorted((folder / "pdfs").glob("*.pdf"))
    report = Countdown(f"{folder.name}, reading PDFs")
    chunks: list[Chunk] = []
    with Sandbox(seconds=60, memory_mb=2000) as sandbox:
        for done, path in enumerate(paths, start=1):
            read = read_document(sandbox, path, "", max_pages=5000)
            sections = [(section.page, section.title) for section in read.sections]
            chunks += chunker.chunks(
                read.pages,
                doc_id=sha256(path),
                source=path.name,
                title=title_of(read.title, path.name),
                headings=place_headings(sections, read.pages),
            )
            report(done, len(paths))
    questions = [
        replace(question, judgements=tuple(map(_runs_over, question.judgements)))
        for question in read_questions(folder / "questions.jsonl")
        if question.relevant
    ]
    return Collection(tuple(chunks), QuestionSet(folder.name, tuple(questions)))


def _runs_over(judgement: Judgement) -> Judgement:
    """The page named; without a quoted text, which shows where it ends, the next one too."""
    if judgement.quote or len(judgement.pages) != 1:
        return judgement
    return replace(judgement, pages=(judgement.pages[0], judgement.pages[0] + 1))


def spaced(questions: Sequence[Question], limit: int | None) -> tuple[Question, ...]:
    """At most `limit` questions, at even distances: sets are often sorted by document."""
    if limit is None or limit >= len(questions):
        return tuple(questions)
    return tuple(questions[number * len(questions) // limit] for number in range(limit))


def embed_cached(texts: Sequence[str], embedder: Embedder, cache: Path | None, report: Countdown) -> Vectors:
    """Vectors of the texts, from the cache folder where it has those of the same texts and embedder."""
    if cache is None:
        return embedder.embed(texts, on_progress=report)
    key = hashlib.sha256(json.dumps([embedder.id, embedder.device, *texts]).encode()).hexdigest()
    file = cache / f"{key}.npy"
    if file.exists():
        kept: Vectors = np.load(file, allow_pickle=False)
        return kept
    vectors = embedder.embed(texts, on_progress=report)
    cache.mkdir(parents=True, exist_ok=True)
    np.save(file, vectors)
    return vectors


def fill(store: Store, chunks: Sequence[Chunk], vectors: Vectors) -> None:
    """Put all chunks into the store, each document with its own."""
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for row, chunk in enumerate(chunks):
        rows[chunk.doc_id].append(row)
    for doc_id, own in rows.items():
        source = chunks[own[0]].source
        pages = max(chunks[row].page for row in own)
        document = Document(doc_id, source, source, pages, len(own), 0, "2026-01-01T00:00:00+00:00", ())
        store.add(document, [chunks[row] for row in own], vectors[own])


def plan_of(reranker: Reranker, others: dict[str, Reranker], depths: Sequence[int] = DEPTHS) -> Plan:
    """The reranker from every depth, its score taken apart, and others from the app's depth."""
    taken_apart = {}
    if reranker.cosine_weight:
        taken_apart["without cosine"] = replace(reranker, cosine_weight=0.0)
    if reranker.bm25_weight:
        taken_apart["without BM25"] = replace(reranker, bm25_weight=0.0)
    else:
        taken_apart[f"+ {BM25_WEIGHT:g} x BM25"] = replace(reranker, bm25_weight=BM25_WEIGHT)
    more = tuple(
        Reranked(reranked_name(label, DEPTH), label, other, DEPTH)
        for label, other in (taken_apart | others).items()
    )
    plan = make_plan([reranker], depths)
    return replace(plan, reranked=plan.reranked + more)


def measure(collection: Collection, embedder: Embedder, plan: Plan, *, cache: Path | None = None) -> Run:
    """Ask every question of a collection, and judge every order of what comes back."""
    name = collection.questions.name
    passages = [chunk.passage for chunk in collection.chunks]
    vectors = embed_cached(passages, embedder, cache, Countdown(f"{name}, embedding"))
    report = Countdown(f"{name}, reranking")

    def tell(progress: Progress) -> None:
        report(progress.done, progress.total)

    with TemporaryDirectory() as scratch:
        store = open_edge_store(Path(scratch), Recipe(embedder.id, CHUNKER, embedder.dimension))
        try:
            fill(store, collection.chunks, vectors)
            return run(collection.questions, embedder, store, plan, on_progress=tell)
        finally:
            store.close()


def load_others(options: argparse.Namespace) -> dict[str, Reranker]:
    """What the reranker is compared with, by the name of its variant. Raises ModelUnavailable."""
    others = {}
    if options.max_tokens:
        label = f"{options.max_tokens} tokens"
        others[label] = load_reranker(options.reranker, max_tokens=options.max_tokens)
    if options.dtype:
        import torch

        others[options.dtype] = load_reranker(options.reranker, dtype=getattr(torch, options.dtype))
    for name in options.against:
        others[name] = load_reranker(name)
    return others


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--json", action="store_true", help="one JSON object a folder, each on its own line")
    parser.add_argument("--limit", type=int, metavar="N", help="ask N questions, evenly spaced over the set")
    parser.add_argument(
        "--reranker", default=BUNDLED, metavar="NAME", help="a model, or a folder with an adapter"
    )
    parser.add_argument(
        "--against", default=[], action="append", metavar="NAME", help="another reranker to compare with"
    )
    parser.add_argument("--depth", type=int, nargs="+", default=DEPTHS, metavar="N", help="candidate depths")
    parser.add_argument(
        "--max-tokens", type=int, metavar="N", help="also read N tokens a pair instead of 512"
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="also run in this type")
    parser.add_argument("--no-headings", action="store_true", help="embed and rerank the bare texts")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep the vectors of passages here")
    parser.add_argument(
        "--runs", type=Path, metavar="FOLDER", help="write each run here, for `eval --compare`"
    )
    return parser


def main(arguments: Iterable[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(None if arguments is None else list(arguments))
    if options.limit is not None and options.limit < 1:
        parser.error("--limit takes a number from 1")
    identity = identify()
    chunker = Chunker(identity.folder / "tokenizer.json")
    try:
        embedder = load_embedder(identity)
        plan = plan_of(load_reranker(options.reranker), load_others(options), options.depth)
        if not options.json:
            print(machine())
        for folder in options.folders:
            collection = load_collection(folder, chunker, headings=not options.no_headings)
            questions = spaced(collection.questions.questions, options.limit)
            name = collection.questions.name + (" (without headings)" if options.no_headings else "")
            asked = replace(collection, questions=QuestionSet(name, questions))
            measured = measure(asked, embedder, plan, cache=options.cache)
            if options.runs:
                options.runs.mkdir(parents=True, exist_ok=True)
                (options.runs / f"{folder.name}.json").write_text(run_text(measured), encoding="utf-8")
            report = make_report(measured)
            told = json.dumps(report_data(report)) if options.json else f"\n{report_markdown(report)}"
            print(told, flush=True)
    except (UserError, FileNotFoundError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
