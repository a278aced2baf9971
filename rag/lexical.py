"""BM25 of a few passages against one question: the words that a cross-encoder of this size overlooks."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from qdrant_edge import Bm25

Scores = npt.NDArray[np.float32]


def bm25(question: str, passages: Sequence[str]) -> Scores:
    """BM25 of each passage, (passages,) float32, 0 where no word is shared.

    Words, stemming and term weights are Qdrant's. How rare a word is, is counted within these passages alone:
    no index is asked, and what all candidates share tells them no longer apart.
    """
    model = Bm25()
    wanted = set(model.embed_query(question).indices)
    found: dict[int, dict[int, float]] = defaultdict(dict)
    for position, passage in enumerate(passages):
        vector = model.embed_document(passage)
        for word, weight in zip(vector.indices, vector.values, strict=True):
            if word in wanted:
                found[word][position] = weight
    return weigh(found, total=len(passages))


def weigh(found: Mapping[int, Mapping[int, float]], *, total: int) -> Scores:
    """Sum over the words of idf x term weight, (total,) float32.

    `found` maps a word to its weight in each of the `total` passages that hold it, by their position.
    idf = ln(1 + (N - df + 1/2) / (df + 1/2)): https://qdrant.tech/documentation/concepts/indexing/#idf-modifier
    """
    scores = np.zeros(total, np.float32)
    for weights in found.values():
        idf = math.log(1 + (total - len(weights) + 0.5) / (len(weights) + 0.5))
        for position, weight in weights.items():
            scores[position] += idf * weight
    return scores
