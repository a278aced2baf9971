"""What stays beside an adapter: run.json, how it was made, and reranker.json, how it is loaded."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ingest.weights import MINILM_SHA256, best_device, best_dtype, dtype_name, sha256
from rag.rerank import CARD
from rag.train.model import READ_TOKENS
from rag.train.options import Options

ADAPTER = "adapter.safetensors"
WINDOW_WORDS = 200
"""What a passage may have to be read whole: more than any chunk of this project, and about what training reads."""


def write_record(
    folder: Path, hashes: dict[str, str], options: Options, progress: dict[str, Any], start: Path | None
) -> None:
    """Write run.json: what was trained on, how, with which versions, and every evaluation."""
    import platform
    from importlib.metadata import version

    device = best_device()
    record = {
        "data": hashes,
        "base_sha256": MINILM_SHA256,
        "start_sha256": sha256(start) if start else None,
        "adapter_sha256": sha256(folder / ADAPTER),
        "options": asdict(options),
        "steps": progress["step"],
        "best_step": progress["best_step"],
        "pairs": progress["step"] * options.groups * (1 + options.negatives),
        "minutes": round(progress["seconds"] / 60, 1),
        "device": f"{device.type}, {dtype_name(best_dtype(device))}",
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "tokenizers", "qdrant-edge-py")},
        },
        "evaluations": progress["history"],
    }
    (folder / "run.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def write_card(
    folder: Path, name: str, options: Options, calibration: dict[str, Any], *, note: str = ""
) -> None:
    """Write reranker.json, which the reranker is loaded by."""
    card = {
        "name": name,
        "base_sha256": MINILM_SHA256,
        "adapter_sha256": sha256(folder / ADAPTER),
        "max_tokens": READ_TOKENS,
        "question_tokens": options.question_tokens,
        "window_words": WINDOW_WORDS,
        "score": {"logit": 1.0, "cosine": options.cosine, "bm25": options.bm25},
        **calibration,
        **({"note": note} if note else {}),
    }
    (folder / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
