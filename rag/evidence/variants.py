"""Many orders of one question's candidates, from one embedding, one search and one reading by each reranker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from time import perf_counter
from typing import Literal

import numpy as np

from ingest.embed import Embedder
from ingest.errors import BadRequest
from ingest.store import LOCAL_OWNER, Store
from ingest.types import Chunk
from rag.pipeline import DEPTH, MAX_DEPTH
from rag.rerank import PairScores, Reranker, Scored
from rag.retrieve import retrieve
from rag.types import Hit

DEPTHS = (10, 20, 50, 100, 200)
BI_ENCODER = "bi-encoder"
BM25 = "BM25"
Kind = Literal["bi-encoder", "BM25", "fused", "reranked"]


@dataclass(frozen=True, slots=True)
class Fusion:
    """How the two rivals without a model put cosine and BM25 together, on the first `depth` of each."""

    depth: int = DEPTH
    weight: float = 0.03
    rank_constant: int = 60

    @property
    def sum_name(self) -> str:
        """The bi-encoder's first ones by cosine + weight x raw BM25."""
        return f"cosine + {self.weight:g} x BM25"

    @property
    def rrf_name(self) -> str:
        """Both lists by reciprocal rank fusion: https://dl.acm.org/doi/10.1145/1571941.1572114."""
        return f"RRF of cosine and BM25 (k = {self.rank_constant})"


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to order; `curve` is empty for those without a reranker."""

    name: str
    kind: Kind
    depth: int
    curve: str = ""


@dataclass(frozen=True, slots=True)
class Reranked:
    """The bi-encoder's first `depth` in a reranker's order.

    Variants of the same `curve` differ in their depth alone. Several variants may share a reranker's model: it
    reads each candidate once.
    """

    name: str
    curve: str
    reranker: Reranker
    depth: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What to put side by side."""

    reranked: tuple[Reranked, ...]
    fusion: Fusion = Fusion()

    @property
    def deepest(self) -> int:
        """How many candidates the bi-encoder finds."""
        return max([self.fusion.depth, *(variant.depth for variant in self.reranked)])

    @property
    def variants(self) -> tuple[Variant, ...]:
        """All that are put side by side, those without a reranker first."""
        return (
            Variant(BI_ENCODER, "bi-encoder", self.deepest),
            Variant(BM25, "BM25", self.deepest),
            Variant(self.fusion.sum_name, "fused", self.fusion.depth),
            Variant(self.fusion.rrf_name, "fused", self.fusion.depth),
            *(Variant(one.name, "reranked", one.depth, one.curve) for one in self.reranked),
        )


@dataclass(frozen=True, slots=True)
class Order:
    """Chunks best first, with the scores that put them there."""

    variant: Variant
    chunks: tuple[Chunk, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of each stage for one question; `rerank` is by curve and depth."""

    embed: float
    search: float
    words: float
    rerank: Mapping[str, Mapping[int, float]]


@dataclass(frozen=True, slots=True)
class Candidates:
    """All that the orders of a question are made of.

    `hits` are the bi-encoder's, `words` the chunks with the highest BM25, `bm25` the BM25 of the first hits by
    chunk id, where it is above 0. `scored` holds for each reranked variant the scores of its hits.
    """

    question: str
    hits: tuple[Hit, ...]
    words: tuple[tuple[Chunk, float], ...]
    bm25: Mapping[str, float]
    scored: Mapping[str, Scored]
    timing: Timing


def make_plan(
    rerankers: Sequence[Reranker], depths: Sequence[int] = DEPTHS, *, fusion: Fusion | None = None
) -> Plan:
    """Every reranker from every depth. Raises BadRequest for a depth that cannot be used."""
    for depth in depths:
        if not 1 <= depth <= MAX_DEPTH:
            raise BadRequest(f"The candidate depth must be from 1 to {MAX_DEPTH}, not {depth}.")
    names = _labels(rerankers)
    variants = [
        Reranked(reranked_name(name if len(rerankers) > 1 else "", depth), name, reranker, depth)
        for name, reranker in zip(names, rerankers, strict=True)
        for depth in sorted(set(depths))
    ]
    return Plan(tuple(variants), fusion or Fusion())


def reranked_name(label: str, depth: int) -> str:
    """Name of a reranked variant."""
    return f"reranked from {depth}" + (f", {label}" if label else "")


def _labels(rerankers: Sequence[Reranker]) -> list[str]:
    names = [reranker.name for reranker in rerankers]
    if len(set(names)) == len(names):
        return names
    return [f"{name} ({number})" for number, name in enumerate(names, start=1)]


def find_candidates(
    question: str,
    embedder: Embedder,
    store: Store,
    plan: Plan,
    *,
    owner: str = LOCAL_OWNER,
    doc_ids: Sequence[str] | None = None,
) -> Candidates:
    """Ask a question once, the way `rank` does, and read its deepest candidate list once with each reranker.

    Raises RerankFailed, StoreUnavailable.
    """
    begun = perf_counter()
    vector = embedder.embed([question])[0]
    embedded = perf_counter()
    hits = retrieve(vector, store, depth=plan.deepest, owner=owner, doc_ids=doc_ids)
    searched = perf_counter()
    words = store.search_words(question, plan.deepest, owner=owner, doc_ids=doc_ids)
    lexical = perf_counter()
    first = [hit.chunk.id for hit in hits[: plan.fusion.depth]]
    bm25 = {
        chunk.id: score
        for chunk, score in store.search_words(question, len(first), owner=owner, chunk_ids=first)
    }
    scored, seconds = _read(question, hits, plan)
    timing = Timing(embedded - begun, searched - embedded, lexical - searched, seconds)
    return Candidates(question, hits, tuple(words), bm25, scored, timing)


def _read(
    question: str, hits: Sequence[Hit], plan: Plan
) -> tuple[dict[str, Scored], dict[str, dict[int, float]]]:
    """Scores of every variant, and the seconds from the first candidate to each depth of each curve.

    Candidates are read in steps, from one depth to the next, so that each depth has its own time. A step has fewer
    passages than the whole, so the times of deep lists come out slightly longer than in one go.
    """
    passages = [hit.chunk.passage for hit in hits]
    cosines = [hit.cosine for hit in hits]
    read = {
        id(reranker.model): _read_in_steps(question, passages, reranker, depths)
        for reranker, depths in _models(plan)
    }
    scored: dict[str, Scored] = {}
    seconds: dict[str, dict[int, float]] = {}
    for variant in plan.reranked:
        pairs, at_depth = read[id(variant.reranker.model)]
        end = variant.depth
        begun = perf_counter()
        scored[variant.name] = variant.reranker.combine(
            question, passages[:end], cosines[:end], PairScores(pairs.logits[:end], pairs.truncated[:end])
        )
        combined = perf_counter() - begun
        seconds.setdefault(variant.curve, {})[end] = at_depth[end] + combined
    return scored, seconds


def _models(plan: Plan) -> list[tuple[Reranker, list[int]]]:
    """Each model once, by one of the rerankers that use it, with all depths that it is wanted at."""
    found: dict[int, tuple[Reranker, list[int]]] = {}
    for variant in plan.reranked:
        depths = found.setdefault(id(variant.reranker.model), (variant.reranker, []))[1]
        if variant.depth not in depths:
            depths.append(variant.depth)
    return [(reranker, sorted(depths)) for reranker, depths in found.values()]


def _read_in_steps(
    question: str, passages: Sequence[str], reranker: Reranker, depths: Sequence[int]
) -> tuple[PairScores, dict[int, float]]:
    bare = replace(reranker, cosine_weight=0.0, bm25_weight=0.0)
    logits = [np.zeros(0, np.float32)]
    truncated: list[bool] = []
    seconds: dict[int, float] = {}
    spent = 0.0
    for start, end in pairwise([0, *depths]):
        step = passages[start:end]
        if step:
            begun = perf_counter()
            scored = bare.score(question, step, [0.0] * len(step))
            spent += perf_counter() - begun
            logits.append(scored.logits)
            truncated += scored.truncated
        seconds[end] = spent
    return PairScores(np.concatenate(logits), tuple(truncated)), seconds


def make_orders(candidates: Candidates, plan: Plan) -> tuple[Order, ...]:
    """The order of each variant: bi-encoder, BM25, both fused in two ways, reranked."""
    fusion = plan.fusion
    hits = candidates.hits
    near = hits[: fusion.depth]
    sums = [hit.cosine + fusion.weight * candidates.bm25.get(hit.chunk.id, 0.0) for hit in near]
    made = [
        [(hit.chunk, hit.cosine) for hit in hits],
        candidates.words,
        _sorted([hit.chunk for hit in near], sums),
        _fuse_ranks(near, candidates.words, fusion),
    ]
    for variant in plan.reranked:
        chunks = [hit.chunk for hit in hits[: variant.depth]]
        made.append(_sorted(chunks, candidates.scored[variant.name].total.tolist()))
    return tuple(
        Order(variant, tuple(chunk for chunk, _ in best), tuple(score for _, score in best))
        for variant, best in zip(plan.variants, made, strict=True)
    )


def _sorted(chunks: Sequence[Chunk], scores: Sequence[float]) -> list[tuple[Chunk, float]]:
    """By falling score; equal scores keep the order given, which is the bi-encoder's."""
    return sorted(zip(chunks, scores, strict=True), key=lambda pair: -pair[1])


def _fuse_ranks(
    near: Sequence[Hit], words: Sequence[tuple[Chunk, float]], fusion: Fusion
) -> list[tuple[Chunk, float]]:
    found: dict[str, Chunk] = {}
    scores: dict[str, float] = {}
    for chunks in ([hit.chunk for hit in near], [chunk for chunk, _ in words[: fusion.depth]]):
        for rank, chunk in enumerate(chunks, start=1):
            key = found.setdefault(chunk.id, chunk).id
            scores[key] = scores.get(key, 0.0) + 1 / (fusion.rank_constant + rank)
    return _sorted(list(found.values()), [scores[key] for key in found])
