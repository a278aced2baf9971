"""What people would use instead, with the weights of the bundled reranker: for bench/rerank.py.

Each rival gives one number for each passage that ranks as its logit does. Those that are not installed
(`pip install -r bench/requirements.txt -c requirements.lock`) are told, not passed over.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ingest.weights import bundled_minilm, quiet_transformers
from rag.rerank import BUNDLED_FOLDER, Scores, merge_adapter

NAME = "second-look-minilm"


class Rival(Protocol):
    """Another way to score the same pairs with the same weights."""

    def logits(self, question: str, passages: Sequence[str]) -> Scores:
        """One number for each passage; higher is better."""


def merged() -> Any:
    """A sentence-transformers CrossEncoder of the bundled base with the adapter in it, float32."""
    from sentence_transformers import CrossEncoder

    quiet_transformers()
    model = CrossEncoder(str(bundled_minilm()), num_labels=1, device="cpu", local_files_only=True)
    merge_adapter(model.model, BUNDLED_FOLDER / "adapter.safetensors")
    model.eval()
    return model


class Stock:
    """The tutorial's way: `CrossEncoder.predict`, float32, its default batch size and threads."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def logits(self, question: str, passages: Sequence[str]) -> Scores:
        """See `Rival`."""
        import torch

        pairs = [(question, passage) for passage in passages]
        scores: Scores = self._model.predict(
            pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False
        )
        return scores


class LangChain:
    """LangChain's CrossEncoderReranker over HuggingFaceCrossEncoder; it returns an order, not the scores."""

    def __init__(self, folder: Path) -> None:
        from langchain.retrievers.document_compressors import (  # type: ignore[import-not-found,unused-ignore]
            CrossEncoderReranker,
        )
        from langchain_community.cross_encoders import (  # type: ignore[import-not-found,unused-ignore]
            HuggingFaceCrossEncoder,
        )

        self._model = HuggingFaceCrossEncoder(model_name=str(folder))
        self._compressor = CrossEncoderReranker

    def logits(self, question: str, passages: Sequence[str]) -> Scores:
        """See `Rival`; the negative of each passage's place."""
        from langchain_core.documents import (  # type: ignore[import-not-found,unused-ignore]
            Document,
        )

        documents = [Document(passage, metadata={"at": at}) for at, passage in enumerate(passages)]
        reranker = self._compressor(model=self._model, top_n=len(passages))
        places = np.zeros(len(passages), np.float32)
        for place, document in enumerate(reranker.compress_documents(documents, question)):
            places[document.metadata["at"]] = -place
        return places


class FlashRank:
    """FlashRank's Ranker on the exported ONNX file."""

    def __init__(self, folder: Path) -> None:
        from flashrank import Ranker, RerankRequest  # type: ignore[import-not-found,unused-ignore]
        from flashrank.Config import (  # type: ignore[import-not-found,unused-ignore]
            model_file_map,
        )

        model_file_map[folder.name] = "model.onnx"
        self._ranker = Ranker(folder.name, str(folder.parent), max_length=512, log_level="ERROR")
        self._request = RerankRequest

    def logits(self, question: str, passages: Sequence[str]) -> Scores:
        """See `Rival`."""
        texts = [{"at": at, "text": passage} for at, passage in enumerate(passages)]
        scores = np.zeros(len(passages), np.float32)
        for one in self._ranker.rerank(self._request(question, texts)):
            scores[one["at"]] = one["score"]
        return scores


class FastEmbed:
    """fastembed's TextCrossEncoder on the exported ONNX file."""

    def __init__(self, folder: Path) -> None:
        from fastembed.common.model_description import (  # type: ignore[import-not-found,unused-ignore]
            ModelSource,
        )
        from fastembed.rerank.cross_encoder import (  # type: ignore[import-not-found,unused-ignore]
            TextCrossEncoder,
        )

        TextCrossEncoder.add_custom_model(NAME, ModelSource(hf=NAME), model_file="model.onnx")
        self._model = TextCrossEncoder(NAME, specific_model_path=str(folder), local_files_only=True)

    def logits(self, question: str, passages: Sequence[str]) -> Scores:
        """See `Rival`."""
        return np.array(list(self._model.rerank(question, list(passages))), np.float32)


def export_onnx(model: Any, folder: Path) -> None:
    """The merged cross-encoder as an ONNX file with the tokenizer's files beside it. Raises ImportError."""
    import onnxscript  # type: ignore[import-not-found,unused-ignore] # noqa: F401 - what the export needs
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    model.model.config.save_pretrained(folder)
    for file in bundled_minilm().glob("*.json"):
        if file.name != "config.json":
            shutil.copy(file, folder)
    example = model.tokenizer([("a question", "a passage")] * 2, return_tensors="pt")
    names = ["input_ids", "attention_mask", "token_type_ids"]
    axes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    torch.onnx.export(
        model.model,
        kwargs={name: example[name] for name in names},
        f=folder / "model.onnx",
        input_names=names,
        output_names=["logits"],
        dynamic_shapes=dict.fromkeys(names, axes),
        external_data=False,
        verbose=False,
    )


def rivals(model: Any, folder: Path) -> tuple[dict[str, Rival], dict[str, str]]:
    """All rivals by name, and those that cannot run here with the reason; the files go into `folder`."""
    logging.disable(logging.WARNING)
    found: dict[str, Rival] = {}
    missing: dict[str, str] = {}
    exported = folder / NAME
    try:
        export_onnx(model, exported)
    except ImportError as error:
        missing["FlashRank"] = missing["fastembed"] = str(error)
    else:
        kinds: dict[str, Callable[[Path], Rival]] = {"FlashRank": FlashRank, "fastembed": FastEmbed}
        for name, kind in kinds.items():
            try:
                found[name] = kind(exported)
            except ImportError as error:
                missing[name] = str(error)
    whole = folder / "whole"
    model.save_pretrained(str(whole))
    try:
        found["LangChain CrossEncoderReranker"] = LangChain(whole)
    except ImportError as error:
        missing["LangChain CrossEncoderReranker"] = str(error)
    return found, missing
