"""A threshold that somebody chose from labelled questions, put into the reranker for as long as it fits.

It is bound to one reranker's weights and one library: with another model, other weights or other documents it no
longer says anything, and the model's own threshold stands again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from ingest.errors import StoreUnavailable
from rag.rerank import Reranker

THRESHOLD_FILE = "threshold.json"


@dataclass(frozen=True, slots=True)
class Threshold:
    """From this logit of the best passage on a question is answered without a doubt.

    `revision` is the SHA-256 of the reranker's weights, `corpus` the library's fingerprint.
    """

    logit: float
    reranker: str
    revision: str
    corpus: str


def threshold_file(data: Path, owner: str) -> Path:
    """Where the threshold of an owner with a plain name is: beside its question sets."""
    return data / "evidence" / owner / THRESHOLD_FILE


def read_threshold(path: Path) -> Threshold | None:
    """The threshold in a file, None where there is no file. Raises StoreUnavailable where it cannot be read."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Threshold(float(data["logit"]), data["reranker"], data["revision"], data["corpus"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreUnavailable(
            f"{path} cannot be read ({error}): remove it, and choose the threshold again on the Evidence page."
        ) from error


def fits(threshold: Threshold, reranker: Reranker, corpus: str) -> bool:
    """Whether a threshold was chosen for this reranker on this library."""
    return (threshold.reranker, threshold.revision, threshold.corpus) == (
        reranker.name,
        reranker.revision,
        corpus,
    )


def apply_threshold(reranker: Reranker, threshold: Threshold | None, corpus: str) -> Reranker:
    """The reranker with the threshold in its calibration; as it is where the threshold does not fit."""
    if threshold is None or not fits(threshold, reranker, corpus):
        return reranker
    chosen = reranker.calibration.probability(threshold.logit)
    return replace(reranker, calibration=replace(reranker.calibration, threshold=chosen))
