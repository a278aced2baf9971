"""How good the order is: bi-encoder, BM25 and the reranker on question sets with known answers.

    python -m bench.quality FOLDER... [--json] [--limit N] [--reranker NAME] [--no-headings] [--cache FOLDER]

A FOLDER is one of two kinds:

- BEIR layout (corpus.jsonl, queries.jsonl, qrels.tsv): each passage is one chunk, its title the heading. Every
  passage of score 1 or more is wanted, all of them alike.
- pdfs/ and questions.jsonl: the PDFs go through this project's own ingest, and each page that a question names
  as evidence is wanted. Evidence without a quoted text may run over: the page named and the next both count.

How pages are counted: a wanted page is found at the place of the first chunk that lies on it. Further chunks of
it keep their places and count for nothing, and a chunk stands for one wanted page at most. So recall@5 is the
share of the wanted pages (of one: the share of the questions whose page is found) among the 5 chunks that the
app would answer from, and nDCG@10 has one gain a page. A page that is not in pdfs/ counts as missed.

Everything runs through the app's own embedder, Qdrant Edge and reranker. The bi-encoder's first 100 are scored
once; "reranked from 10" and the like order the first 10 of them by those scores. BM25 is that of the index, with
its IDF over the whole folder. Measures are those of ir-measures, averaged over questions; "headroom" is the
share won of what lies between the bi-encoder's recall@5 and recall@50. Gains are paired, with the 95 % interval
of 10,000 bootstrap resamples of the questions.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt
import qdrant_edge
from ir_measures import RR, Qrel, R, ScoredDoc, iter_calc, nDCG

from bench.timing import machine, table
from ingest.chunk import CHUNKER, Chunker, place_headings, title_of
from ingest.embed import Embedder, Vectors, identify, load_embedder
from ingest.sandbox import Sandbox, read_document
from ingest.store import Recipe, Store
from ingest.store.edge import open_edge_store
from ingest.types import Chunk, Document
from ingest.weights import sha256
from rag.rerank import BUNDLED, Reranker, load_adapter, load_reranker, rerank, self_test
from rag.retrieve import retrieve
from rag.types import Hit

DEPTHS = (10, 20, 50, 100)
DEPTH = 50
"""The app's depth: what the fused orders choose from, and where the ceiling is measured."""
RESAMPLES = 10_000
SEED = 0
MEASURES = {
    "recall@1": R @ 1,
    "recall@5": R @ 5,
    "recall@10": R @ 10,
    "MRR@10": RR @ 10,
    "nDCG@10": nDCG @ 10,
    "recall@50": R @ 50,
}
SHOWN = ("recall@1", "recall@5", "recall@10", "MRR@10", "nDCG@10")
COMPARED = ("recall@5", "nDCG@10")
BI_ENCODER = "bi-encoder"

Floats = npt.NDArray[np.float64]
Ids = Sequence[str]


@dataclass(frozen=True, slots=True)
class Question:
    """A question and what it wants: each item is the places that count for it, the named one first."""

    text: str
    wanted: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Collection:
    """Chunks of one folder, document by document, the place of each (chunk id to passage or page), questions."""

    name: str
    chunks: tuple[Chunk, ...]
    places: Mapping[str, str]
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Weights:
    """What raw BM25 is multiplied by before it is added to the cosine, and to the reranker's score."""

    to_cosine: float = 0.03
    to_score: float = 0.6

    @property
    def fused(self) -> str:
        """Name of the rival without a model."""
        return f"cosine + {self.to_cosine:g} x BM25"


@dataclass(frozen=True, slots=True)
class Gain:
    """Mean difference over the questions, and its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


@dataclass(frozen=True, slots=True)
class Variant:
    """One order's means, its share of the headroom (None: there is none), its gains by rival and measure."""

    name: str
    means: dict[str, float]
    headroom: float | None
    gains: dict[str, dict[str, Gain]]


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured on one folder; `ceiling` is the bi-encoder's recall@50."""

    folder: str
    questions: int
    chunks: int
    headings: bool
    embedder: str
    reranker: str
    device: str
    ceiling: float
    variants: tuple[Variant, ...]


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
    """Read a folder of either kind. Raises FileNotFoundError where it is neither, PdfRefused."""
    if (folder / "corpus.jsonl").is_file():
        collection = load_beir(folder)
    elif (folder / "pdfs").is_dir():
        collection = load_pdfs(folder, chunker)
    else:
        raise FileNotFoundError(f"{folder} has neither corpus.jsonl nor pdfs/: give a folder of test data.")
    if headings:
        return collection
    bare = tuple(replace(chunk, heading="") for chunk in collection.chunks)
    return replace(collection, chunks=bare)


def load_beir(folder: Path) -> Collection:
    """Passages, questions and judgements; questions without a wanted passage are left out."""
    chunks, places = [], {}
    for number, row in enumerate(_rows(folder / "corpus.jsonl"), start=1):
        text = row["text"]
        # a passage is a page of its own: that makes its chunk's id unique
        chunk = Chunk(folder.name, folder.name, number, 0, len(text), text, row.get("title", ""))
        chunks.append(chunk)
        places[chunk.id] = row["_id"]
    wanted: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
    with (folder / "qrels.tsv").open(encoding="utf-8", newline="") as file:
        for judged in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            if float(judged["score"]) > 0:
                wanted[judged["query-id"]].append((judged["corpus-id"],))
    questions = [
        Question(row["text"], tuple(wanted[row["_id"]]))
        for row in _rows(folder / "queries.jsonl")
        if row["_id"] in wanted
    ]
    return Collection(folder.name, tuple(chunks), places, tuple(questions))


def load_pdfs(folder: Path, chunker: Chunker) -> Collection:
    """Chunks of every PDF, through the app's own reader and chunker. Raises PdfRefused."""
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
    places = {chunk.id: _page(chunk.source, chunk.page) for chunk in chunks}
    questions = [
        Question(row.get("question") or row["text"], tuple(map(_pages, row["evidence"])))
        for row in _rows(folder / "questions.jsonl")
        if row["evidence"]
    ]
    return Collection(folder.name, tuple(chunks), places, tuple(questions))


def _pages(evidence: Mapping[str, Any]) -> tuple[str, ...]:
    """The page named; without a quoted text, which shows where it ends, the next one too."""
    file = evidence.get("file") or evidence["doc"]
    named = _page(file, evidence["page"])
    return (named,) if evidence.get("text") else (named, _page(file, evidence["page"] + 1))


def _page(file: str, number: int) -> str:
    return f"{file}, page {number}"


def _rows(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def spaced(questions: Sequence[Question], limit: int | None) -> tuple[Question, ...]:
    """At most `limit` questions, at even distances: sets are often sorted by document."""
    if limit is None or limit >= len(questions):
        return tuple(questions)
    return tuple(questions[number * len(questions) // limit] for number in range(limit))


class Lexical:
    """BM25 of all chunks of a folder, as Qdrant would score them: Edge's own terms, its formula for the IDF.

    ln((n - df + 0.5) / (df + 0.5) + 1): https://qdrant.tech/documentation/concepts/indexing/#idf-modifier
    """

    def __init__(self, passages: Ids) -> None:
        self._bm25 = qdrant_edge.Bm25()
        self._count = len(passages)
        read = [self._bm25.embed_document(passage) for passage in passages]
        terms = np.concatenate([np.array(own.indices, np.int64) for own in read])
        values = np.concatenate([np.array(own.values, np.float64) for own in read])
        rows = np.repeat(np.arange(self._count), [len(own.indices) for own in read])
        by_term = np.argsort(terms, kind="stable")
        self._terms, self._values, self._rows = terms[by_term], values[by_term], rows[by_term]

    def scores(self, question: str) -> Floats:
        """(chunks,): 0 where no word is shared."""
        scores = np.zeros(self._count)
        for term in self._bm25.embed_query(question).indices:
            first, end = np.searchsorted(self._terms, [term, term + 1])
            holding = int(end - first)
            idf = np.log((self._count - holding + 0.5) / (holding + 0.5) + 1)
            scores[self._rows[first:end]] += idf * self._values[first:end]
        return scores


def embed_cached(texts: Ids, embedder: Embedder, cache: Path | None, report: Countdown) -> Vectors:
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
        document = Document(doc_id, source, source, len(own), len(own), 0, "2026-01-01T00:00:00+00:00", ())
        store.add(document, [chunks[row] for row in own], vectors[own])


def best_first(ids: Ids, values: Sequence[float] | Floats, *, depth: int) -> list[str]:
    """The first `depth` ids by falling value; equal values keep their order."""
    order = np.argsort(-np.asarray(values[:depth], np.float64), kind="stable")
    return [ids[position] for position in order]


def orders(
    hits: Sequence[Hit], words: Mapping[str, float], scores: Floats, logits: Floats, weights: Weights
) -> dict[str, list[str]]:
    """Chunk ids in the order of each variant.

    `hits` are the bi-encoder's first 100. `words` is the BM25 of all chunks that share a word with the question.
    `scores` and `logits` (hits,) are the reranker's whole score and the cross-encoder's part of it.
    """
    ids = [hit.chunk.id for hit in hits]
    cosines = np.array([hit.cosine for hit in hits])
    bm25 = np.array([words.get(id_, 0.0) for id_ in ids])
    depth = DEPTHS[-1]
    made = {
        BI_ENCODER: ids,
        "BM25": best_first(list(words), list(words.values()), depth=len(words))[:depth],
        weights.fused: best_first(ids, cosines + weights.to_cosine * bm25, depth=DEPTH),
    }
    for depth in DEPTHS:
        made[f"reranked from {depth}"] = best_first(ids, scores, depth=depth)
    if not np.array_equal(scores, logits):
        made[f"reranked from {DEPTH}, without cosine"] = best_first(ids, logits, depth=DEPTH)
    both = scores + weights.to_score * bm25
    made[f"reranked from {DEPTH}, + {weights.to_score:g} x BM25"] = best_first(ids, both, depth=DEPTH)
    return made


def found(places: Ids, wanted: Sequence[Ids]) -> list[int | None]:
    """For each place in order which of the wanted items it finds, None where none or one found before.

    A place that counts for several stands for the one that names it first.
    """
    left = dict(enumerate(wanted))
    items: list[int | None] = []
    for place in places:
        fits = [(options.index(place), item) for item, options in left.items() if place in options]
        items.append(min(fits)[1] if fits else None)
        if fits:
            del left[min(fits)[1]]
    return items


def judge(items: Sequence[Sequence[int | None]], wanted: Sequence[int]) -> dict[str, Floats]:
    """Each of MEASURES for every question, (questions,).

    `items` holds what `found` gives for each question, `wanted` how many items each one has.
    """
    qrels = [Qrel(str(row), f"item {item}", 1) for row, count in enumerate(wanted) for item in range(count)]
    run = [
        ScoredDoc(str(row), f"rank {rank}" if item is None else f"item {item}", -rank)
        for row, own in enumerate(items)
        for rank, item in enumerate(own, start=1)
    ]
    names = {measure: name for name, measure in MEASURES.items()}
    values = {name: np.zeros(len(wanted)) for name in MEASURES}
    for metric in iter_calc(list(names), qrels, run):
        values[names[metric.measure]][int(metric.query_id)] = metric.value
    return values


def bootstrap(differences: Floats, *, resamples: int = RESAMPLES, seed: int = SEED) -> Gain:
    """Mean of the paired differences with the percentile interval (2.5 to 97.5 %) of resampled means."""
    random = np.random.default_rng(seed)
    count = len(differences)
    step = max(1, 2_000_000 // count)  # 16 MB of numbers at once
    parts = [
        differences[random.integers(0, count, (min(step, resamples - start), count))].mean(axis=1)
        for start in range(0, resamples, step)
    ]
    low, high = np.percentile(np.concatenate(parts), [2.5, 97.5])
    return Gain(float(differences.mean()), float(low), float(high))


def headroom(recall: float, before: float, ceiling: float) -> float | None:
    """Share won of what lies between the bi-encoder's recall@5 and its recall@50; None where nothing does."""
    return (recall - before) / (ceiling - before) if ceiling > before else None


def compare(judged: Mapping[str, Mapping[str, Floats]], rivals: Ids) -> tuple[Variant, ...]:
    """Means, headroom and gains of every variant, from its measures for every question."""
    first = judged[BI_ENCODER]
    before, ceiling = float(first["recall@5"].mean()), float(first["recall@50"].mean())
    return tuple(
        Variant(
            name,
            {measure: float(values[measure].mean()) for measure in SHOWN},
            headroom(float(values["recall@5"].mean()), before, ceiling) if name != BI_ENCODER else None,
            {
                rival: {measure: bootstrap(values[measure] - judged[rival][measure]) for measure in COMPARED}
                for rival in rivals
                if rival != name
            },
        )
        for name, values in judged.items()
    )


def measure(
    collection: Collection,
    embedder: Embedder,
    reranker: Reranker,
    *,
    weights: Weights | None = None,
    cache: Path | None = None,
) -> Report:
    """Ask every question of a collection and judge every order of what comes back."""
    weights = weights or Weights()
    chunks, questions = collection.chunks, collection.questions
    if not chunks or not questions:
        raise ValueError(f"{collection.name} has no passages or no questions to measure with.")
    passages = [chunk.passage for chunk in chunks]
    vectors = embed_cached(passages, embedder, cache, Countdown(f"{collection.name}, embedding"))
    lexical = Lexical(passages)
    asked = embedder.embed([question.text for question in questions])
    items: defaultdict[str, list[list[int | None]]] = defaultdict(list)
    report = Countdown(f"{collection.name}, reranking")
    with TemporaryDirectory() as scratch:
        store = open_edge_store(Path(scratch), Recipe(embedder.id, CHUNKER, embedder.dimension))
        try:
            fill(store, chunks, vectors)
            for done, (question, vector) in enumerate(zip(questions, asked, strict=True), start=1):
                hits = retrieve(vector, store, depth=DEPTHS[-1])
                words = _sharing_words(chunks, lexical.scores(question.text))
                for name, ids in orders(
                    hits, words, *_reread(question.text, hits, reranker), weights
                ).items():
                    items[name].append(found([collection.places[id_] for id_ in ids], question.wanted))
                report(done, len(questions))
        finally:
            store.close()
    counts = [len(question.wanted) for question in questions]
    judged = {name: judge(own, counts) for name, own in items.items()}
    return Report(
        folder=collection.name,
        questions=len(questions),
        chunks=len(chunks),
        headings=any(chunk.heading for chunk in chunks),
        embedder=embedder.id,
        reranker=reranker.name,
        device=reranker.device,
        ceiling=float(judged[BI_ENCODER]["recall@50"].mean()),
        variants=compare(judged, [BI_ENCODER, weights.fused]),
    )


def _sharing_words(chunks: Sequence[Chunk], scores: Floats) -> dict[str, float]:
    return {chunk.id: score for chunk, score in zip(chunks, scores.tolist(), strict=True) if score}


def _reread(question: str, hits: Sequence[Hit], reranker: Reranker) -> tuple[Floats, Floats]:
    """The reranker's score and the cross-encoder's part of it, in the order of the hits."""
    scores, logits = np.zeros(len(hits)), np.zeros(len(hits))
    for ranked in rerank(question, hits, reranker):
        scores[ranked.hit.rank - 1] = ranked.logit
        logits[ranked.hit.rank - 1] = ranked.parts[0].value
    return scores, logits


def markdown(report: Report) -> str:
    """A report as a line of text and a table."""
    rivals = list(report.variants[-1].gains)  # the last is no rival itself, so that it has them all
    head = ["order", *SHOWN, "headroom won"]
    head += [f"{measure} against {rival}" for rival in rivals for measure in COMPARED]
    rows = [head]
    for variant in report.variants:
        won = "" if variant.headroom is None else f"{variant.headroom:.0%}"
        gains = [
            str(variant.gains[rival][measure]) if rival in variant.gains else ""
            for rival in rivals
            for measure in COMPARED
        ]
        rows.append([variant.name, *(f"{variant.means[measure]:.3f}" for measure in SHOWN), won, *gains])
    said = (
        f"{report.folder}: {report.questions:,} questions, {report.chunks:,} chunks "
        f"{'with' if report.headings else 'without'} headings, reranker {report.reranker} ({report.device}), "
        f"ceiling recall@50 {report.ceiling:.3f}"
    )
    return f"{said}\n\n{table(rows)}"


def find_reranker(name: str) -> Reranker:
    """A reranker by the app's names, or a folder that holds an adapter. Raises ModelUnavailable."""
    if not (Path(name) / "reranker.json").is_file():
        return load_reranker(name)
    reranker = load_adapter(Path(name))
    self_test(reranker)
    return reranker


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--json", action="store_true", help="one JSON object a folder, each on its own line")
    parser.add_argument("--limit", type=int, metavar="N", help="ask N questions, evenly spaced over the set")
    parser.add_argument(
        "--reranker", default=BUNDLED, metavar="NAME", help="a model, or a folder with an adapter"
    )
    parser.add_argument("--no-headings", action="store_true", help="embed and rerank the bare texts")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep the vectors of passages here")
    defaults = Weights()
    parser.add_argument("--bm25-to-cosine", type=float, default=defaults.to_cosine, metavar="WEIGHT")
    parser.add_argument("--bm25-to-score", type=float, default=defaults.to_score, metavar="WEIGHT")
    options = parser.parse_args(None if arguments is None else list(arguments))
    if options.limit is not None and options.limit < 1:
        parser.error("--limit takes a number from 1")

    identity = identify()
    chunker = Chunker(identity.folder / "tokenizer.json")
    embedder, reranker = load_embedder(identity), find_reranker(options.reranker)
    weights = Weights(options.bm25_to_cosine, options.bm25_to_score)
    if not options.json:
        print(machine())
    for folder in options.folders:
        try:
            collection = load_collection(folder, chunker, headings=not options.no_headings)
        except FileNotFoundError as error:
            parser.error(str(error))
        collection = replace(collection, questions=spaced(collection.questions, options.limit))
        report = measure(collection, embedder, reranker, weights=weights, cache=options.cache)
        print(json.dumps(asdict(report)) if options.json else f"\n{markdown(report)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
