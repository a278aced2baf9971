"""Labelled questions to lists: what the bi-encoder would hand the reranker, with what is known before it reads."""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ingest.embed import Embedder, Vectors
from rag.lexical import weigh
from rag.train.pairs import Labelled, Pairs

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]
Say = Callable[[str], None]

SAME = 0.93
"""Texts with a cosine above this say the same: one can be neither right nor wrong where the other is right."""
RULES = "lists-1"
"""Counted up when the rules below change, so that lists made by others are not taken from a cache."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A question with its candidates, the bi-encoder's best first, then relevant texts that it did not find.

    `numbers` (n,) of the texts, `known` (n, 2): cosine and BM25, `relevant` (n,). The first `retrieved` are
    what the bi-encoder found.
    """

    source: str
    question: str
    numbers: Numbers
    known: Floats
    relevant: Flags
    retrieved: int

    @property
    def found(self) -> Listed:
        """Without what the bi-encoder did not find."""
        end = self.retrieved
        return Listed(
            self.source, self.question, self.numbers[:end], self.known[:end], self.relevant[:end], end
        )


class Lexicon:
    """The words of every text, looked at once: BM25 of any list of them is then quick."""

    def __init__(self, texts: Sequence[str]) -> None:
        from qdrant_edge import Bm25

        self._model = Bm25()
        self._texts = texts
        self._known: dict[int, tuple[npt.NDArray[np.int64], Floats]] = {}

    def bm25(self, question: str, numbers: Sequence[int] | Numbers) -> Floats:
        """BM25 of the texts `numbers`, rare words counted within them; as `rag.lexical.bm25` gives it."""
        wanted = np.array(self._model.embed_query(question).indices, np.int64)
        read = [self._words(int(number)) for number in numbers]
        if not read:
            return np.zeros(0, np.float32)
        rows = np.repeat(np.arange(len(read)), [len(words) for words, _ in read])
        words = np.concatenate([words for words, _ in read])
        weights = np.concatenate([weights for _, weights in read])
        found: dict[int, dict[int, float]] = defaultdict(dict)
        for place in np.flatnonzero(np.isin(words, wanted)):
            found[int(words[place])][int(rows[place])] = float(weights[place])
        return weigh(found, total=len(read))

    def _words(self, number: int) -> tuple[npt.NDArray[np.int64], Floats]:
        if number not in self._known:
            vector = self._model.embed_document(self._texts[number])
            self._known[number] = (np.array(vector.indices, np.int64), np.array(vector.values, np.float32))
        return self._known[number]


def find_lists(
    pairs: Pairs,
    questions: Sequence[Labelled],
    embedder: Embedder,
    *,
    cache: Path,
    depth: int = 50,
    say: Say = print,
) -> list[Listed]:
    """The `depth` texts nearest to each question, of all texts of all sources; vectors and lists are cached.

    Left out: texts that may be right but are not labelled so (`Labelled.doubtful`, and those that contain a
    relevant text, are contained in one, or are nearer to one than SAME).
    """
    asked = [question.question for question in questions]
    key = _digest(
        RULES,
        embedder.id,
        depth,
        pairs.texts,
        [[q.source, q.question, q.relevant, q.doubtful] for q in questions],
    )
    file = cache / f"lists-{key}.npz"
    if file.is_file():
        return _load(file, questions)
    vectors = embed_cached(pairs.texts, embedder, cache, "texts", say=say)
    wanted = embed_cached(asked, embedder, cache, "questions", say=say)
    lists = list(_mine(pairs, questions, vectors, wanted, depth=depth, say=say))
    _save(file, lists)
    return lists


def embed_cached(
    texts: Sequence[str], embedder: Embedder, cache: Path, what: str, *, say: Say = print
) -> Vectors:
    """Vectors of the texts, kept in the cache folder under the hash of the texts and the embedder."""
    file = cache / f"{what}-{_digest(embedder.id, list(texts))}.npy"
    if file.is_file():
        kept: Vectors = np.load(file, allow_pickle=False)
        return kept
    report = Countdown(f"embedding {what}", say)
    vectors = embedder.embed(texts, on_progress=report)
    cache.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part.npy")
    np.save(part, vectors)
    part.replace(file)
    return vectors


def _mine(
    pairs: Pairs,
    questions: Sequence[Labelled],
    vectors: Vectors,
    asked: Vectors,
    *,
    depth: int,
    say: Say,
    step: int = 256,
) -> Iterator[Listed]:
    import torch

    pool = np.array(pairs.pool, np.int32)
    candidates = torch.from_numpy(np.ascontiguousarray(vectors[pool])).T
    lexicon = Lexicon(pairs.texts)
    report = Countdown("finding candidates", say)
    more = min(len(pool), depth + 16)  # some are left out
    for start in range(0, len(questions), step):
        part = torch.from_numpy(asked[start : start + step])
        nearest = torch.topk(part @ candidates, more, dim=1).indices.numpy()
        for row, question in enumerate(questions[start : start + step]):
            numbers = _clear(pool[nearest[row]], question, pairs.plain, vectors)[:depth]
            yield _list(question, numbers, vectors, asked[start + row], lexicon)
        report(min(start + step, len(questions)), len(questions))


def _clear(numbers: Numbers, question: Labelled, plain: Sequence[str], vectors: Vectors) -> Numbers:
    """The numbers without those of texts that are neither surely right nor surely wrong."""
    right = set(question.relevant)
    forms = [plain[number] for number in question.relevant]
    near = (vectors[numbers] @ vectors[list(question.relevant)].T).max(axis=1)
    kept = [
        int(number)
        for number, cosine in zip(numbers, near, strict=True)
        if number in right
        or not (
            cosine > SAME
            or number in question.doubtful
            or any(form in plain[number] or plain[number] in form for form in forms)
        )
    ]
    return np.array(kept, np.int32)


def _list(
    question: Labelled, numbers: Numbers, vectors: Vectors, asked: npt.NDArray[np.float32], lexicon: Lexicon
) -> Listed:
    words = lexicon.bm25(question.question, numbers)
    missed = [number for number in question.relevant if number not in numbers]
    # what was not retrieved gets the BM25 that it would have had as one more candidate
    others = [lexicon.bm25(question.question, [*numbers, number])[-1:] for number in missed]
    whole = np.array([*numbers, *missed], np.int32)
    known = np.stack([vectors[whole] @ asked, np.concatenate([words, *others])], axis=1).astype(np.float32)
    relevant = np.isin(whole, question.relevant)
    return Listed(question.source, question.question, whole, known, relevant, len(numbers))


def _save(file: Path, lists: Sequence[Listed]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part.npz")
    np.savez(
        part,
        numbers=np.concatenate([one.numbers for one in lists]),
        known=np.concatenate([one.known for one in lists]),
        relevant=np.concatenate([one.relevant for one in lists]),
        sizes=np.array([len(one.numbers) for one in lists], np.int32),
        retrieved=np.array([one.retrieved for one in lists], np.int32),
    )
    part.replace(file)


def _load(file: Path, questions: Sequence[Labelled]) -> list[Listed]:
    with np.load(file, allow_pickle=False) as kept:
        ends = np.cumsum(kept["sizes"])[:-1]
        parts = [np.split(kept[name], ends) for name in ("numbers", "known", "relevant")]
        retrieved = kept["retrieved"].tolist()
    return [
        Listed(question.source, question.question, numbers, known, relevant, end)
        for question, numbers, known, relevant, end in zip(questions, *parts, retrieved, strict=True)
    ]


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


class Countdown:
    """Tells now and then how far a step is and how long it will still take."""

    def __init__(self, step: str, say: Say, *, every: float = 10.0) -> None:
        self._step, self._say, self._every = step, say, every
        self._begun = self._told = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Tell, if the last time was long enough ago."""
        now = time.monotonic()
        if now - self._told < self._every:
            return
        self._told = now
        left = (now - self._begun) / max(done, 1) * (total - done)
        self._say(f"{self._step}: {done:,} of {total:,}, {left / 60:.1f} min left")
