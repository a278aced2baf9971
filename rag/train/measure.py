"""How well lists are ordered: logits of all candidates, nDCG@10 of every question."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rag.train.mine import Flags, Listed
from rag.train.model import READ_TOKENS, Floats, Pair, Tensors, Tokenized, predict
from rag.train.options import Options


def read(
    lists: Sequence[Listed], weights: Tensors, heads: int, tokenized: Tokenized, options: Options
) -> list[Floats]:
    """The cross-encoder's logits of every candidate of every list."""
    pairs = [
        Pair(question, tokenized.passage(int(number)))
        for one in lists
        for question in [tokenized.encode(one.question)[: options.question_tokens]]
        for number in one.numbers
    ]
    ends = np.cumsum([len(one.numbers) for one in lists])[:-1]
    return np.split(predict(weights, heads, pairs, READ_TOKENS), ends)


def whole(logits: Floats, known: Floats, options: Options) -> Floats:
    """The shipped score: logit + cosine weight x cosine + BM25 weight x BM25."""
    return (logits + known @ np.array([options.cosine, options.bm25], np.float32)).astype(np.float32)


def gain(scores: Floats, relevant: Flags) -> float:
    """nDCG@10 where one relevant passage is enough: 1 / log2(1 + rank of the best placed one); ties lose.

    0 from rank 11 on, and where no relevant passage is in the list.
    """
    if not relevant.any():
        return 0.0
    rank = 1 + int((scores[~relevant] >= scores[relevant].max()).sum())
    return 1 / math.log2(1 + rank) if rank <= 10 else 0.0


def gains(lists: Sequence[Listed], logits: Sequence[Floats], options: Options) -> dict[str, Floats]:
    """nDCG@10 of every question, (questions,), by each kind of score; a list without a relevant passage is 0."""
    kinds: dict[str, list[float]] = {name: [] for name in ("cosine", "cosine_bm25", "logit", "score")}
    for one, own in zip(lists, logits, strict=True):
        nothing = np.zeros_like(own)
        for name, scores in (
            ("cosine", one.known[:, 0]),
            ("cosine_bm25", whole(nothing, one.known, options)),
            ("logit", own),
            ("score", whole(own, one.known, options)),
        ):
            kinds[name].append(gain(scores, one.relevant))
    return {name: np.array(values, np.float32) for name, values in kinds.items()}


def losses(lists: Sequence[Listed], logits: Sequence[Floats], options: Options) -> Floats:
    """-log softmax of all relevant passages together by the shipped score; 0 where a list has none."""
    found = []
    for one, own in zip(lists, logits, strict=True):
        scores = whole(own, one.known, options).astype(np.float64)
        best = one.relevant.any() and _log_sum(scores[one.relevant]) - _log_sum(scores)
        found.append(-float(best))
    return np.array(found, np.float32)


def _log_sum(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    top = float(values.max())
    return top + math.log(float(np.exp(values - top).sum()))
