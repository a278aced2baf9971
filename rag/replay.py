"""An exported question, run again: what is still the same, and what changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ingest.errors import BadRequest
from rag.export import QUESTION_FORMAT, QUESTION_VERSION, Provenance, app_version, candidates_data
from rag.pipeline import MAX_DEPTH
from rag.types import Ranking

DIFFERENT = 3
"""Exit status of `second-look replay` when other sources are chosen now."""
MAX_FILE_BYTES = 50_000_000

Score = Literal["logit", "cosine"]
Candidate = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Parameters:
    """How the exported question was looked for; `doc_ids` is None where all documents were asked."""

    question: str
    depth: int
    sources: int
    reranking: bool
    doc_ids: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that was noted at the export and is another now; empty where it was not noted."""

    what: str
    before: str
    now: str


@dataclass(frozen=True, slots=True)
class Moved:
    """A candidate and its rank in the order that was used, before and now; None where it is no candidate."""

    source: str
    page: int
    before: int | None
    now: int | None


@dataclass(frozen=True, slots=True)
class ScoreChange:
    """The candidate whose score changed most, of those scored both times."""

    score: Score
    source: str
    page: int
    before: float
    now: float


@dataclass(frozen=True, slots=True)
class Changes:
    """What is different now.

    `entered` and `left` are the sources that are chosen only now, and only before; `moved` are those chosen both
    times at another rank. `compared` candidates were found both times, and `ranks_changed` of them stand
    elsewhere now. `score` is None where no candidate was scored both times.
    """

    question: str
    kept: int
    entered: tuple[Moved, ...]
    left: tuple[Moved, ...]
    moved: tuple[Moved, ...]
    compared: int
    ranks_changed: int
    score: ScoreChange | None
    differences: tuple[Difference, ...]
    not_reproducible: tuple[str, ...]
    seconds_before: float
    seconds_now: float

    @property
    def same_sources(self) -> bool:
        """True when the same chunks are chosen, in whatever order."""
        return not self.entered and not self.left


def read_record(path: Path) -> dict[str, Any]:
    """A question as `second-look` exported it.

    Raises BadRequest, saying what is wrong, for files that are not there, not JSON, of another kind, or damaged.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadRequest(f"{path.name} is too large for an exported question.")
        record = json.loads(path.read_bytes(), parse_constant=_no_number)
    except OSError as error:
        raise BadRequest(f"Cannot read {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise BadRequest(
            f"{path.name} is not JSON: export a question from the app, or with --export."
        ) from error
    if not isinstance(record, dict) or record.get("format") != QUESTION_FORMAT:
        raise BadRequest(
            f"{path.name} is not an exported question: its format is not {QUESTION_FORMAT!r}. Export one from the "
            "app, or with --export."
        )
    if record.get("version") != QUESTION_VERSION:
        raise BadRequest(
            f"{path.name} has version {record.get('version')!r} of the format; this app reads version "
            f"{QUESTION_VERSION}. Use the app that wrote it ({record.get('app_version')!r})."
        )
    _check(record, path.name)
    return record


def parameters(record: Mapping[str, Any]) -> Parameters:
    """How to run a record again."""
    used = record["parameters"]
    doc_ids = used["doc_ids"]
    return Parameters(
        question=record["question"],
        depth=used["depth"],
        sources=used["sources"],
        reranking=used["reranking"],
        doc_ids=None if doc_ids is None else tuple(doc_ids),
    )


def changes(
    record: Mapping[str, Any], ranking: Ranking, *, now: Provenance, documents: Collection[str]
) -> Changes:
    """Compare a record with the same question ranked now.

    `documents` are the ids of all documents in the library, to say which of the scope are gone.
    """
    wanted = parameters(record)
    rank_of = _reranked_rank if wanted.reranking else _first_rank
    before = _ordered(record["candidates"], rank_of)
    after = _ordered(candidates_data(ranking, reranked=wanted.reranking), rank_of)
    chosen_before = [key for key, candidate in before.items() if candidate["chosen"]]
    chosen_after = [key for key, candidate in after.items() if candidate["chosen"]]
    both = [key for key in before if key in after]
    elsewhere = {key for key in both if rank_of(before[key]) != rank_of(after[key])}

    def moved(key: str) -> Moved:
        chunk = (after.get(key) or before[key])["chunk"]
        old, new = (rank_of(side[key]) if key in side else None for side in (before, after))
        return Moved(chunk["source"], chunk["page"], old, new)

    return Changes(
        question=wanted.question,
        kept=sum(key in chosen_after for key in chosen_before),
        entered=tuple(moved(key) for key in chosen_after if key not in chosen_before),
        left=tuple(moved(key) for key in chosen_before if key not in chosen_after),
        moved=tuple(moved(key) for key in chosen_after if key in chosen_before and key in elsewhere),
        compared=len(both),
        ranks_changed=len(elsewhere),
        score=_largest_change([(before[key], after[key]) for key in both], reranking=wanted.reranking),
        differences=tuple(_differences(record, ranking, now)),
        not_reproducible=tuple(_not_reproducible(record, wanted, ranking, documents)),
        seconds_before=record["seconds"]["total"],
        seconds_now=ranking.seconds.total,
    )


def changes_data(found: Changes) -> dict[str, Any]:
    """The changes as JSON."""
    return {"same_sources": found.same_sources, **asdict(found)}


def changes_text(found: Changes) -> str:
    """The changes as lines for people."""
    chosen_before = found.kept + len(found.left)
    lines = [
        f"The same {found.kept} sources are chosen."
        if found.same_sources
        else f"{len(found.left)} of {chosen_before} sources left, {len(found.entered)} entered."
    ]
    for title, sources in (("entered", found.entered), ("left", found.left), ("moved", found.moved)):
        lines += [
            f"  {title}: {one.source}, page {one.page} ({_place(one.before)} -> {_place(one.now)})"
            for one in sources
        ]
    lines.append(
        f"Ranks: {found.ranks_changed} of {found.compared} candidates found both times changed theirs."
    )
    if found.score:
        score = found.score
        lines.append(
            f"Largest score difference: {score.score} {score.before:.4f} -> {score.now:.4f} "
            f"({score.now - score.before:+.4f}), {score.source}, page {score.page}."
        )
    for difference in found.differences:
        before, now = difference.before or "not noted", difference.now or "none"
        lines.append(f"{difference.what}: {before} -> {now}")
    lines += [f"Not reproducible: {reason}" for reason in found.not_reproducible]
    lines.append(f"Time: {found.seconds_before:.3f} s -> {found.seconds_now:.3f} s.")
    # names come from outside and must not steer a terminal
    return "\n".join("".join(filter(str.isprintable, line)) for line in lines)


def _ordered(candidates: list[Candidate], rank_of: Callable[[Candidate], int]) -> dict[str, Candidate]:
    """Candidates by chunk id, in the order that was used."""
    return {candidate["chunk"]["id"]: candidate for candidate in sorted(candidates, key=rank_of)}


def _first_rank(candidate: Candidate) -> int:
    rank: int = candidate["rank"]
    return rank


def _reranked_rank(candidate: Candidate) -> int:
    """The bi-encoder's rank where the second look failed."""
    return candidate["reranked_rank"] or _first_rank(candidate)


def _largest_change(pairs: list[tuple[Candidate, Candidate]], *, reranking: bool) -> ScoreChange | None:
    if not pairs:
        return None
    twice = all(candidate["logit"] is not None for pair in pairs for candidate in pair)
    score: Score = "logit" if reranking and twice else "cosine"
    before, now = max(pairs, key=lambda pair: abs(pair[1][score] - pair[0][score]))
    chunk = now["chunk"]
    return ScoreChange(score, chunk["source"], chunk["page"], before[score], now[score])


def _differences(record: Mapping[str, Any], ranking: Ranking, now: Provenance) -> list[Difference]:
    embedder, reranker = record["models"]["embedder"], record["models"]["reranker"] or {}
    corpus = record["corpus"] or {}
    looked_again = bool(ranking.reranker)
    seen = [
        ("App version", record.get("app_version"), app_version()),
        ("Embedder", embedder.get("name"), ranking.embedder),
        ("Embedder revision", embedder.get("revision"), now.embedder),
        ("Embedder device", embedder.get("device"), now.embedder_device),
        ("Reranker", reranker.get("name"), ranking.reranker),
        ("Reranker revision", reranker.get("revision"), now.reranker if looked_again else ""),
        ("Reranker device", reranker.get("device"), now.reranker_device if looked_again else ""),
        ("Documents in scope", corpus.get("documents"), now.documents),
        ("Corpus fingerprint", corpus.get("fingerprint"), now.corpus),
    ]
    noted = [(what, "" if before is None else str(before), str(after)) for what, before, after in seen]
    return [Difference(what, before, after) for what, before, after in noted if before != after]


def _not_reproducible(
    record: Mapping[str, Any], wanted: Parameters, ranking: Ranking, documents: Collection[str]
) -> list[str]:
    gone = [doc_id for doc_id in wanted.doc_ids or () if doc_id not in documents]
    found = []
    if gone:
        listed = ", ".join(f"{doc_id[:12]}..." for doc_id in gone[:5]) + (" and others" if gone[5:] else "")
        found.append(f"{len(gone)} of the {len(wanted.doc_ids or ())} chosen documents are gone: {listed}.")
    if ranking.rerank_problem:
        found.append(f"the second look: {ranking.rerank_problem}")
    if record["rerank_problem"]:
        found.append(f"the failure of the reranker at the export: {record['rerank_problem']}")
    if record["answers"]:
        found.append("the answers: they are not written again.")
    return found


def _place(rank: int | None) -> str:
    return f"#{rank}" if rank else "not found"


# --- Files from outside -----------------------------------------------------------------------------------

_NUMBER = (int, float)
_SHAPE: dict[str, Any] = {
    "question": str,
    "parameters": {"depth": int, "sources": int, "reranking": bool, "doc_ids": (list, type(None))},
    "models": {"embedder": dict, "reranker": (dict, type(None))},
    "corpus": (dict, type(None)),
    "candidates": list,
    "rerank_problem": (str, type(None)),
    "seconds": {"total": _NUMBER},
    "answers": list,
}
_CANDIDATE: dict[str, Any] = {
    "rank": int,
    "cosine": _NUMBER,
    "reranked_rank": (int, type(None)),
    "logit": (*_NUMBER, type(None)),
    "chosen": bool,
    "chunk": {"id": str, "source": str, "page": int},
}


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _check(record: dict[str, Any], name: str) -> None:
    """Raise BadRequest unless everything that a replay reads is there and of its type."""
    wrong = _mismatch(record, _SHAPE, "")
    if not wrong:
        candidates = [_mismatch(one, _CANDIDATE, "candidates.") for one in record["candidates"]]
        doc_ids = record["parameters"]["doc_ids"] or []
        wrong = next(filter(None, candidates), "") or (
            "" if all(isinstance(doc_id, str) for doc_id in doc_ids) else "parameters.doc_ids"
        )
    if wrong:
        raise BadRequest(
            f"{name} is a damaged export: {wrong} is missing or of another type. Export it again."
        )
    if record["parameters"]["depth"] > MAX_DEPTH:
        raise BadRequest(f"{name} asks for more than {MAX_DEPTH} candidates, which this app does not find.")


def _mismatch(found: Any, shape: Mapping[str, Any], path: str) -> str:
    """The first field that does not fit, or nothing."""
    if not isinstance(found, dict):
        return path.rstrip(".") or "the record"
    for key, wanted in shape.items():
        value = found.get(key)
        if isinstance(wanted, dict):
            inner = _mismatch(value, wanted, f"{path}{key}.")
            if inner:
                return inner
        elif key not in found or not isinstance(value, wanted):
            return f"{path}{key}"
    return ""
