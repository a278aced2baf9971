"""A reranker of one's own: the present adapter goes on learning from labelled questions on the library."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.embed import Embedder
from ingest.errors import BadRequest, ModelUnavailable
from ingest.store import LOCAL_OWNER, Store
from ingest.weights import HUB_RERANKER, cached
from rag.evidence.compare import Difference, compare
from rag.evidence.match import Fit, Wanted
from rag.evidence.measures import judge
from rag.evidence.questions import Question
from rag.evidence.verdict import Verdict, judged, sentence
from rag.lexical import bm25
from rag.pipeline import DEPTH
from rag.rerank import (
    BUNDLED,
    BUNDLED_FOLDER,
    CARD,
    PairScores,
    Reranker,
    Scored,
    load_adapter,
    self_test,
)
from rag.retrieve import retrieve
from rag.train.calibrate import Asked, calibrate
from rag.train.learn import CHECKPOINT, Material, Team, train
from rag.train.mine import Countdown, Flags, Listed, Say
from rag.train.options import Options
from rag.train.record import ADAPTER, write_card
from rag.types import Hit

FEWEST = 40
"""Questions whose passage is found. With fewer the kept-out part is so small that hardly any gain is certain."""
FEWEST_TO_CALIBRATE = 100
KEPT_OUT, JUDGE = 0.35, 0.15
"""Shares of the questions: for the numbers at the end, and for the moment to stop; the others are learned from."""
MEASURES = ("nDCG@10", "recall@5")
SHOWN = ("bi-encoder", "before", "after")
OWN = Options(
    groups=8,
    learning_rate=5e-5,
    warmup=0.1,
    max_tokens=288,
    average=0.98,
    headings=0.0,
    alone=0.3,
    evaluations=5,
    patience=2,
)
EPOCHS = 4
OWN_SUFFIX = ", trained on own questions"
FEWEST_STEPS = 8


@dataclass(frozen=True, slots=True)
class Found:
    """A question with its hits, and which wanted items each hit may stand for."""

    question: Question
    hits: tuple[Hit, ...]
    fits: tuple[tuple[Fit, ...], ...]

    @property
    def passages(self) -> list[str]:
        """What a reranker reads, in the bi-encoder's order."""
        return [hit.chunk.passage for hit in self.hits]

    @property
    def cosines(self) -> list[float]:
        """Of question and passages."""
        return [hit.cosine for hit in self.hits]

    @property
    def relevant(self) -> Flags:
        """(hits,): which of them answer the question."""
        return np.array([bool(fits) for fits in self.fits])


@dataclass(frozen=True, slots=True)
class Parts:
    """Questions in three parts; no passage is relevant in two of them."""

    training: tuple[Found, ...]
    judging: tuple[Found, ...]
    kept_out: tuple[Found, ...]


@dataclass(frozen=True, slots=True)
class OwnReport:
    """What came of it. `means` by order and measure, on the kept-out part; `differences` after against before."""

    folder: Path
    trained_on: int
    kept_out: int
    means: dict[str, dict[str, float]]
    differences: dict[str, Difference]
    recommended: bool
    said: str
    calibrated: bool


def start_folder(name: str) -> Path:
    """Folder of the adapter behind the present reranker's name. Raises BadRequest where it is a whole model."""
    if name == BUNDLED or (not name and not cached(HUB_RERANKER)):
        return BUNDLED_FOLDER
    folder = Path(name).expanduser()
    if name and (folder / CARD).is_file():
        return folder
    raise BadRequest(
        f"The present reranker, {name or HUB_RERANKER}, is a whole model, and only adapters can be trained here. "
        f"Set RERANKER={BUNDLED} to start from the bundled one."
    )


def train_own(
    questions: Sequence[Question],
    embedder: Embedder,
    store: Store,
    *,
    start: Path,
    out: Path,
    options: Options = OWN,
    epochs: int = EPOCHS,
    owner: str = LOCAL_OWNER,
    say: Say = print,
) -> OwnReport:
    """Train the adapter in `start` on labelled questions; the result is in `out`, which it does not replace.

    The folder is written even where the result is not recommended; its card then says so. Raises BadRequest where
    the questions are too few or do not fit the library.
    """
    if (out / CARD).exists():
        raise BadRequest(f"There is a reranker in {out} already: name another folder with --out.")
    present = load_adapter(start)
    found = find(questions, embedder, store, owner=owner, say=say)
    parts = divide(found)
    options = replace(
        options,
        cosine=present.cosine_weight,
        bm25=present.bm25_weight,
        steps=options.steps or max(FEWEST_STEPS, -(-len(parts.training) * epochs // options.groups)),
    )
    out.mkdir(parents=True, exist_ok=True)
    train(material(parts), out, options, team=Team(0, 1, 0), start=start / ADAPTER, say=say)
    (out / CHECKPOINT).unlink()
    return _report(parts, present, start, out, options, say)


def find(
    questions: Sequence[Question],
    embedder: Embedder,
    store: Store,
    *,
    owner: str = LOCAL_OWNER,
    say: Say = print,
) -> list[Found]:
    """The candidates of every question that has a relevant passage, through the app's own retrieval."""
    asked = [question for question in questions if question.relevant]
    if not store.documents(owner=owner):
        raise BadRequest("The library is empty: ingest the documents that the questions are about.")
    report = Countdown("finding candidates", say)
    found = []
    for done, (question, vector) in enumerate(
        zip(asked, embedder.embed([question.text for question in asked]), strict=True), start=1
    ):
        wanted = Wanted(question.relevant)
        hits = retrieve(vector, store, depth=DEPTH, owner=owner)
        found.append(Found(question, hits, tuple(wanted.fits(hit.chunk) for hit in hits)))
        report(done, len(asked))
    return found


def divide(found: Sequence[Found]) -> Parts:
    """Three parts by the hash of the passages, those with a passage in common together.

    Questions whose passages are not among the candidates teach nothing; in the kept-out part they count as
    missed, before and after. Raises BadRequest where the parts would be too small.
    """
    usable = sum(any(one.fits) for one in found)
    if usable < FEWEST:
        raise BadRequest(
            f"Too few questions: {len(found)} have a relevant passage, and for {usable} of them the library's "
            f"first {DEPTH} candidates hold it. At least {FEWEST} such questions are needed, better 200."
        )
    groups = _groups(found)
    kept: list[Found] = []
    judging: list[Found] = []
    training: list[Found] = []
    for group in groups:
        if len(kept) < KEPT_OUT * len(found):
            kept += group
        elif len(judging) < JUDGE * len(found):
            judging += group
        else:
            training += group
    learning = tuple(one for one in training if any(one.fits))
    judges = tuple(one for one in judging if any(one.fits))
    if len(learning) < FEWEST // 4 or len(judges) < FEWEST // 20:
        raise BadRequest(
            f"The {len(found)} questions are about too few passages: kept apart by passage, only {len(learning)} "
            f"are left to learn from and {len(judges)} to judge by. Add questions on other passages."
        )
    return Parts(learning, judges, tuple(kept))


def _groups(found: Sequence[Found]) -> list[list[Found]]:
    """Questions that have a passage in common, directly or through others; groups in the order of a hash."""
    leader = list(range(len(found)))

    def lead(number: int) -> int:
        while leader[number] != number:
            number = leader[number]
        return number

    first: dict[object, int] = {}
    for number, one in enumerate(found):
        chunks = [hit.chunk.id for hit, fits in zip(one.hits, one.fits, strict=True) if fits]
        for key in (*chunks, *one.question.relevant):
            leader[lead(number)] = lead(first.setdefault(key, number))
    groups: dict[int, list[Found]] = defaultdict(list)
    for number, one in enumerate(found):
        groups[lead(number)].append(one)
    return sorted(
        groups.values(), key=lambda group: hashlib.sha256(group[0].question.text.encode()).hexdigest()
    )


def material(parts: Parts) -> Material:
    """The parts as the training loop takes them: every passage once, every question a list of their numbers."""
    numbers: dict[str, int] = {}

    def listed(one: Found) -> Listed:
        texts = np.array([numbers.setdefault(text, len(numbers)) for text in one.passages], np.int32)
        known = np.stack([np.array(one.cosines), bm25(one.question.text, one.passages)], axis=1)
        return Listed(
            "own",
            one.question.text,
            texts,
            known.astype(np.float32),
            np.isin(texts, texts[one.relevant]),  # the same words elsewhere answer as well
            len(one.hits),
        )

    training = [listed(one) for one in parts.training]
    judging = [listed(one) for one in parts.judging]
    return Material(list(numbers), training, judging)


def _report(parts: Parts, present: Reranker, start: Path, out: Path, options: Options, say: Say) -> OwnReport:
    card = json.loads((start / CARD).read_text(encoding="utf-8"))
    name = f"{card['name'].removesuffix(OWN_SUFFIX)}{OWN_SUFFIX}"
    kept = {key: card[key] for key in ("calibration", "threshold")}
    write_card(out, name, options, kept)
    new = load_adapter(out)
    before = _read(parts.kept_out, present, "reading what was kept out, before", say)
    after = _read(parts.kept_out, new, "reading what was kept out, after", say)
    values = {
        "bi-encoder": _judge(parts.kept_out, [np.array(one.cosines) for one in parts.kept_out]),
        "before": _judge(parts.kept_out, [scored.total for scored in before]),
        "after": _judge(parts.kept_out, [scored.total for scored in after]),
    }
    found = compare([(values["after"][measure], values["before"][measure]) for measure in MEASURES])
    differences = dict(zip(MEASURES, found, strict=True))
    verdict = judged(differences[MEASURES[0]], MEASURES[0])
    problem = _problem(new)
    recommended = verdict.word == "helps" and not problem
    said = problem or _said(verdict, recommended=recommended)
    asked = [
        _asked(one, scored, new)
        for one, scored in zip(parts.kept_out, after, strict=True)
        if one.relevant.any() and not one.relevant.all()
    ]
    calibrated = len(asked) >= FEWEST_TO_CALIBRATE
    note = "" if recommended else f"Not recommended. {said}"
    write_card(out, name, options, calibrate(asked) if calibrated else kept, note=note)
    return OwnReport(
        folder=out,
        trained_on=len(parts.training),
        kept_out=len(parts.kept_out),
        means={
            order: {measure: float(values[order][measure].mean()) for measure in MEASURES} for order in SHOWN
        },
        differences=differences,
        recommended=recommended,
        said=said,
        calibrated=calibrated,
    )


def _read(found: Sequence[Found], reranker: Reranker, step: str, say: Say) -> list[Scored]:
    say(f"{step}: {len(found)} questions")
    report = Countdown(step, say)
    scored = []
    for one in found:
        scored.append(reranker.score(one.question.text, one.passages, one.cosines))
        report(len(scored), len(found))
    return scored


def _judge(found: Sequence[Found], scores: Sequence[npt.NDArray[Any]]) -> dict[str, npt.NDArray[np.float64]]:
    """Each of MEASURES for every question, in the order of its scores."""
    ranks, grades = [], []
    for one, own in zip(found, scores, strict=True):
        wanted = Wanted(one.question.relevant)
        ranks.append(wanted.ranks([one.fits[place] for place in np.argsort(-own, kind="stable")]))
        grades.append([judgement.grade for judgement in one.question.relevant])
    return judge(ranks, grades, MEASURES)


def _asked(one: Found, scored: Scored, reranker: Reranker) -> Asked:
    left = np.flatnonzero(~one.relevant)
    rest = replace(one, hits=tuple(one.hits[place] for place in left))
    logits = PairScores(scored.logits[left], tuple(scored.truncated[place] for place in left))
    without = reranker.combine(one.question.text, rest.passages, rest.cosines, logits)
    return Asked(scored.total, one.relevant, without.total)


def _problem(reranker: Reranker) -> str:
    """Why the app would refuse the adapter; empty where it would not."""
    try:
        self_test(reranker)
    except ModelUnavailable as error:
        return str(error)
    return ""


def _said(verdict: Verdict, *, recommended: bool) -> str:
    seen = sentence(verdict, of="Training on your questions", over="the reranker it started from")
    return seen if recommended else f"It is not certain that it is better: keep the present reranker. {seen}"


def report_data(report: OwnReport) -> dict[str, Any]:
    """A report as JSON data."""
    return {
        "folder": str(report.folder),
        "trained_on": report.trained_on,
        "kept_out": report.kept_out,
        "means": report.means,
        "differences": {
            measure: {
                name: getattr(found, name) for name in ("mean", "low", "high", "p", "won", "tied", "lost")
            }
            for measure, found in report.differences.items()
        },
        "recommended": report.recommended,
        "said": report.said,
        "calibrated": report.calibrated,
    }


def report_lines(report: OwnReport) -> list[str]:
    """A report as text."""
    lines = [f"Learned from {report.trained_on} questions; measured on {report.kept_out} that were kept out:"]
    lines.append(f"{'':12}" + "".join(f"{measure:>10}" for measure in MEASURES))
    for order in SHOWN:
        lines.append(f"{order:12}" + "".join(f"{report.means[order][measure]:10.3f}" for measure in MEASURES))
    for measure in MEASURES:
        lines.append(f"after - before, {measure}: {report.differences[measure]} (95 % interval)")
    lines.append(report.said)
    if not report.calibrated:
        lines.append(
            f"Probability and threshold are still those of the reranker it started from: with "
            f"{FEWEST_TO_CALIBRATE} questions kept out they would be fitted anew."
        )
    use = "To use it" if report.recommended else "To use it all the same"
    lines.append(f"Written to {report.folder}. {use}, set RERANKER={report.folder.resolve()}")
    return lines
