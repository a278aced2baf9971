"""What a score means: a probability, and the threshold of "probably not in your documents".

`python -m rag.train.calibrate ADAPTER_FOLDER SET_FOLDER` measures that threshold on a set of questions with and
without an answer, in BEIR layout with an `answerability` of each question (ANSWERABLE, UNANSWERABLE, others).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.embed import Embedder, identify, load_embedder
from ingest.errors import BadRequest, UserError
from rag.conversation import Exchange, stand_alone
from rag.rerank import Reranker, load_reranker
from rag.train.measure import whole
from rag.train.mine import Countdown, Flags, Lexicon, Listed
from rag.train.model import Floats
from rag.train.options import Options

FALSE_ALARMS = 0.02
"""The one rule of the threshold: of the questions with an answer at most this share falls below it."""
SHOWN = 5
DEPTH = 50


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with an answer: scores (n,) of its candidates, which are relevant, and the rest asked alone.

    `without` are the scores of the candidates that are left when the relevant ones are taken away.
    """

    scores: Floats
    relevant: Flags
    without: Floats


def ask(
    lists: Sequence[Listed], logits: Sequence[Floats], texts: Sequence[str], options: Options
) -> list[Asked]:
    """Every list twice, with its relevant passages and with them taken away; lists without any are left out."""
    lexicon = Lexicon(texts)
    asked = []
    for one, own in zip(lists, logits, strict=True):
        if one.relevant.any() and not one.relevant.all():
            left = ~one.relevant
            # how rare a word is, is counted among the candidates: fewer of them, another BM25
            words = lexicon.bm25(one.question, one.numbers[left])
            known = np.stack([one.known[left, 0], words], axis=1)
            scores = whole(own, one.known, options)
            asked.append(Asked(scores, one.relevant, whole(own[left], known, options)))
    return asked


def calibrate(asked: Sequence[Asked]) -> dict[str, Any]:
    """Scale and offset of the shown probability, and the threshold, as the card holds them.

    The probability is fitted on the SHOWN best candidates of each question, which are the ones that people see.
    Errors and rates are measured on the half of the questions that was not fitted on, both ways.
    """
    if len(asked) < 2:
        raise BadRequest(f"{len(asked)} questions are too few to calibrate on.")
    halves = (asked[::2], asked[1::2])
    errors, rates = [], []
    for fitted, other in (halves, halves[::-1]):
        scale, offset = fit_sigmoid(*_best(fitted))
        points, labels = _best(other)
        errors.append(calibration_error(sigmoid(scale * points + offset), labels))
        rates.append(_rates(other, _limit(fitted)))
    scale, offset = fit_sigmoid(*_best(asked))
    recall, alarms = np.mean(rates, axis=0)
    return {
        "calibration": {
            "scale": round(scale, 4),
            "offset": round(offset, 4),
            "expected_calibration_error": round(float(np.mean(errors)), 4),
        },
        "threshold": round(float(sigmoid(np.array([scale * _limit(asked) + offset]))[0]), 4),
        "threshold_quality": {
            "rule": f"at most {FALSE_ALARMS:.0%} false alarms",
            "false_alarms": round(float(alarms), 3),
            "recall": round(float(recall), 3),
            "questions": len(asked),
        },
    }


def _best(asked: Sequence[Asked]) -> tuple[Floats, Floats]:
    """(scores, labels) of each question's best candidates."""
    places = [np.argsort(-one.scores, kind="stable")[:SHOWN] for one in asked]
    points = np.concatenate([one.scores[best] for one, best in zip(asked, places, strict=True)])
    labels = np.concatenate([one.relevant[best] for one, best in zip(asked, places, strict=True)])
    return points, labels.astype(np.float32)


def _limit(asked: Sequence[Asked]) -> float:
    """The score below which the best candidate of a question with an answer falls in FALSE_ALARMS of cases."""
    return float(np.quantile([one.scores.max() for one in asked], FALSE_ALARMS))


def _rates(asked: Sequence[Asked], limit: float) -> tuple[float, float]:
    """(share of the questions without an answer that are found out, share of the others that are suspected)."""
    without = np.array([one.without.max() < limit for one in asked])
    with_one = np.array([one.scores.max() < limit for one in asked])
    return float(without.mean()), float(with_one.mean())


def fit_sigmoid(points: Floats, labels: Floats) -> tuple[float, float]:
    """(scale, offset) that make sigmoid(scale * point + offset) likeliest; Newton's method (Platt, 1999)."""
    middle, spread = float(points.mean()), float(points.std()) or 1.0
    design = np.stack([(points - middle) / spread, np.ones_like(points)], axis=1).astype(np.float64)
    solution = np.zeros(2)
    for _ in range(50):
        chance = sigmoid(design @ solution)
        slope = design.T @ (chance - labels) + 1e-3 * solution
        curve = (design * (chance * (1 - chance))[:, None]).T @ design + 1e-3 * np.eye(2)
        solution = solution - np.linalg.solve(curve, slope)
    scale = float(solution[0]) / spread
    return scale, float(solution[1]) - scale * middle


def calibration_error(chances: Floats, labels: Floats, *, bins: int = 10) -> float:
    """Expected calibration error: mean over bins of |stated chance - share that came true|, by size."""
    which = np.minimum((chances * bins).astype(int), bins - 1)
    parts = [which == number for number in range(bins) if (which == number).any()]
    return float(sum(part.mean() * abs(chances[part].mean() - labels[part].mean()) for part in parts))


def sigmoid(values: npt.NDArray[Any]) -> Floats:
    """1 / (1 + e ** -value)."""
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -60, 60))), np.float32)


def flagged(
    folder: Path, reranker: Reranker, embedder: Embedder, *, limit: int | None = None
) -> dict[str, tuple[int, int]]:
    """For each answerability of a set: (questions, of those said to be probably not in the documents).

    A question inside a conversation is asked as the app would search for it where no LLM is configured.
    """
    if reranker.calibration.threshold is None:
        raise BadRequest(f"The reranker {reranker.name} has no threshold to measure.")
    passages = [_passage(row) for row in _rows(folder / "corpus.jsonl")]
    rows = _rows(folder / "queries.jsonl")[:limit]
    questions = [_alone(row) for row in rows]
    vectors = embedder.embed(passages)
    counts: dict[str, list[bool]] = defaultdict(list)
    report = Countdown("reading", _tell)
    for row, question, vector in zip(rows, questions, embedder.embed(questions), strict=True):
        cosines = vectors @ vector
        nearest = np.argsort(-cosines, kind="stable")[:DEPTH]
        scored = reranker.score(question, [passages[n] for n in nearest], cosines[nearest].tolist())
        best = reranker.calibration.probability(float(scored.total.max()))
        counts[" ".join(row["answerability"])].append(best < reranker.calibration.threshold)
        report(sum(map(len, counts.values())), len(rows))
    return {name: (len(said), sum(said)) for name, said in sorted(counts.items())}


def _alone(row: dict[str, Any]) -> str:
    """The question of a row, made to stand alone by the rule of `rag.conversation`."""
    earlier: list[Exchange] = []
    turns = [text for speaker, text in row.get("history", ()) if speaker == "user"]
    for text in turns:
        earlier.append(Exchange(stand_alone(text, earlier).question, ""))
    return stand_alone(row["text"], earlier).question


def _passage(row: dict[str, Any]) -> str:
    return "\n".join(part for part in (row.get("title", ""), " ".join(row["text"].split())) if part)


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise BadRequest(f"There is no {path}: give a folder with corpus.jsonl and queries.jsonl.")
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: Iterable[str] | None = None) -> int:
    """The command line; see --help."""
    parser = argparse.ArgumentParser(
        prog="python -m rag.train.calibrate",
        description='How often a reranker says "probably not in your documents", and how often rightly.',
    )
    parser.add_argument("reranker", help='folder of an adapter with its card, or "bundled"')
    parser.add_argument("folder", type=Path, help="corpus.jsonl and queries.jsonl with answerability")
    parser.add_argument("--limit", type=int, metavar="N", help="ask the first N questions")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    given = parser.parse_args(None if arguments is None else list(arguments))
    try:
        reranker = load_reranker(given.reranker)
        counts = flagged(given.folder, reranker, load_embedder(identify()), limit=given.limit)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    if given.json:
        print(json.dumps(counts))
        return 0
    print(f"{reranker.name}, threshold {reranker.calibration.threshold}: said to be not in the documents")
    for name, (count, said) in counts.items():
        print(f"{name:15} {said:4} of {count:4} ({said / count:.1%})")
    print("Of the answerable these are false alarms, of the unanswerable the recall.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
