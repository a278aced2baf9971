"""What a step reads: questions with a relevant passage and negatives, drawn from their lists."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rag.train.measure import whole
from rag.train.mine import Listed
from rag.train.model import Floats, Pair, Tokenized, Tokens
from rag.train.options import Options
from rag.train.pairs import HEADING_SOURCES


class Batch(NamedTuple):
    """`pairs` holds the groups one after the other, the relevant passage first in each."""

    pairs: list[Pair]
    known: Floats
    """(groups, passages a group, 2): cosine, BM25."""


def make_batch(
    lists: Sequence[Listed], tokenized: Tokenized, options: Options, generator: np.random.Generator
) -> Batch:
    """Draw the passages that a step reads, and put headings on some."""
    pairs: list[Pair] = []
    known: list[Floats] = []
    for one in lists:
        chosen = draw(one, options, generator)
        question = tokenized.encode(one.question)[: options.question_tokens]
        passages = [tokenized.passage(int(one.numbers[place])) for place in chosen]
        if generator.random() < options.headings:
            passages = _with_headings(one.source, passages, tokenized, generator)
        pairs.extend(Pair(question, passage) for passage in passages)
        known.append(one.known[chosen])
    return Batch(pairs, np.stack(known))


def draw(one: Listed, options: Options, generator: np.random.Generator) -> list[int]:
    """Places in the list of a relevant passage and of the negatives.

    Most are drawn by how good they look to cosine and BM25, `options.uniform` negatives from all others alike.
    """
    looks = whole(np.zeros(len(one.numbers), np.float32), one.known, options)
    drawn = looks + 2.0 * generator.gumbel(size=len(looks))
    right, wrong = np.flatnonzero(one.relevant), np.flatnonzero(~one.relevant)
    positive = right[np.argmax(drawn[right])]
    hard = wrong[np.argsort(-drawn[wrong], kind="stable")][: options.negatives - options.uniform]
    others = generator.permutation(np.setdiff1d(wrong, hard))[: options.uniform]
    return [int(positive), *(int(place) for place in np.resize([*hard, *others], options.negatives))]


def _with_headings(
    source: str, passages: Sequence[Tokens], tokenized: Tokenized, generator: np.random.Generator
) -> list[Tokens]:
    """Put a heading before every passage, as retrieved passages have one.

    It names the source, which says nothing, and half of the time also some of the passage's own words; not
    where the question is itself a heading, or the answer would be given away.
    """
    title = re.sub(r"\W+|_", " ", source.rpartition(":")[2].rpartition("/")[2]).strip()
    name = tokenized.encode(title)
    own = generator.random() < 0.5 and not source.startswith(HEADING_SOURCES)
    headed = []
    for passage in passages:
        length = int(generator.integers(2, 7))
        start = int(generator.integers(0, max(1, len(passage) - length)))
        words = passage[start : start + length] if own else passage[:0]
        headed.append(np.concatenate([name, words, passage]))
    return headed
