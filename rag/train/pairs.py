"""A folder of pairs to labelled questions, and to those that are held out."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ingest.errors import BadRequest
from ingest.weights import sha256

HEADING_SOURCES = ("docs:", "openstax:")
"""Sources whose questions are headings: weaker labels, so only well-ranked positives of theirs are used."""
HELD_OUT = 8
"""Of 256: questions whose passage's hash begins below this are never trained on."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A question and the numbers of the texts that answer it; those in `doubtful` may or may not."""

    source: str
    question: str
    relevant: tuple[int, ...]
    doubtful: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Pairs:
    """All texts and questions of a pairs folder; `hashes` are the SHA-256 of its files.

    `plain` are the texts without their form. Of texts that are the same in it, questions name the first.
    """

    texts: list[str]
    plain: list[str]
    questions: list[Labelled]
    hashes: dict[str, str] = field(default_factory=dict)

    @property
    def pool(self) -> list[int]:
        """Numbers of the texts, each plain text once."""
        return list({text: number for number, text in reversed(list(enumerate(self.plain)))}.values())[::-1]


def read_pairs(folder: Path) -> Pairs:
    """Read every *.jsonl.gz of a pairs folder: texts ({"t"}) first, then rows that refer to them by number.

    A row: src, q, pos, rank (the bi-encoder's, of the positive, from 0); other fields are not read. A question
    that stands in several rows has all their positives.
    """
    texts: list[str] = []
    rows: list[dict[str, Any]] = []
    hashes: dict[str, str] = {}
    for path in sorted(folder.glob("*.jsonl.gz")):
        hashes[path.name] = sha256(path)
        first = len(texts)
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                item = json.loads(line)
                if "t" in item:
                    texts.append(item["t"])
                else:
                    rows.append({**item, "pos": first + item["pos"]})
    if not rows:
        raise BadRequest(f"No pairs in {folder}: expected files named *.jsonl.gz with texts and rows.")
    return gather(texts, rows, hashes)


def gather(texts: list[str], rows: Sequence[dict[str, Any]], hashes: dict[str, str]) -> Pairs:
    """Rows of one positive each to questions with all of theirs, those without a usable one left out."""
    forms = [plain(text) for text in texts]
    first: dict[str, int] = {}
    for number, form in enumerate(forms):
        first.setdefault(form, number)
    together: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        together[plain(row["q"])].append(row)
    questions = []
    for own in together.values():
        right = dict.fromkeys(first[forms[row["pos"]]] for row in own if _usable(row))
        others = dict.fromkeys(first[forms[row["pos"]]] for row in own if not _usable(row))
        if right:
            doubtful = tuple(number for number in others if number not in right)
            questions.append(Labelled(own[0]["src"], own[0]["q"], tuple(right), doubtful))
    return Pairs(texts, forms, questions, hashes)


def _usable(row: dict[str, Any]) -> bool:
    """False where the bi-encoder puts the positive so far down that the label is more likely wrong than hard."""
    return bool(row["rank"] <= (15 if row["src"].startswith(HEADING_SOURCES) else 60))


def plain(text: str) -> str:
    """Lower case, words only: two texts that differ in form alone are one text."""
    return " ".join(re.findall(r"\w+", text.lower()))


def split(pairs: Pairs, *, held_out: Collection[str] = ()) -> tuple[list[Labelled], list[Labelled]]:
    """(train, held out): no question and no relevant passage of one is in the other.

    A passage's hash decides, so the split depends on no order, seed or size. Sources named in `held_out` are
    held out whole. The held-out questions take turns between the sources, so that any first part of them is
    mixed.
    """
    aside: dict[str, list[Labelled]] = defaultdict(list)
    rest: list[Labelled] = []
    for question in pairs.questions:
        drawn = any(_digest(pairs.plain[number])[0] < HELD_OUT for number in question.relevant)
        if question.source in held_out or drawn:
            aside[question.source].append(question)
        else:
            rest.append(question)
    turns = [
        (turn, source, question)
        for source, own in aside.items()
        for turn, question in enumerate(sorted(own, key=lambda one: _digest(one.question)))
    ]
    held = [question for _, _, question in sorted(turns, key=lambda one: one[:2])]
    taken = {number for question in held for number in question.relevant}
    return [question for question in rest if not taken.intersection(question.relevant)], held


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def order(sources: Sequence[str], seed: int) -> list[int]:
    """Positions of questions in a reproducible random order in which small sources come more often early.

    Each question draws u ** (1 / w) with w = size of its source ** -0.3; the largest come first
    (Efraimidis and Spirakis, 2006).
    """
    sizes: dict[str, int] = defaultdict(int)
    for source in sources:
        sizes[source] += 1
    draws = np.random.default_rng(seed).random(len(sources))
    powers = np.array([sizes[source] ** 0.3 for source in sources])
    return [int(position) for position in np.argsort(-(draws**powers), kind="stable")]


def sample(questions: Sequence[Labelled], count: int, seed: int) -> list[Labelled]:
    """At most `count` of the questions, drawn at random and kept in their order."""
    if count >= len(questions):
        return list(questions)
    drawn = random.Random(seed).sample(range(len(questions)), count)  # noqa: S311 - reproducible, not secret
    return [questions[position] for position in sorted(drawn)]
