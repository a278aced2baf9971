"""Hits to ranked: a cross-encoder reads the question together with each candidate."""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ingest.bert import COMPUTE, PackedBert, is_plain_bert, read_bert, read_config, spread
from ingest.errors import ModelUnavailable, RerankFailed
from ingest.weights import (
    HUB_RERANKER,
    best_device,
    best_dtype,
    bundled_minilm,
    cached,
    check_sha256,
    dtype_name,
    find_model,
    quiet_transformers,
    sha256,
)
from rag.lexical import bm25
from rag.types import Hit, Ranked, ScorePart

if TYPE_CHECKING:
    import torch

Scores = npt.NDArray[np.float32]

BUNDLED = "bundled"
CARD = "reranker.json"
BUNDLED_FOLDER = Path(__file__).resolve().parents[1] / "models" / "reranker"
MAX_TOKENS = 512
QUESTION_TOKENS = 128
"""Longer questions are cut here, so that a chunk of 200 tokens and its heading always fit whole."""

SELF_TEST = (
    ("How long is the warranty?", "The warranty lasts 24 months.", "The lake is deep and cold in winter."),
    ("Who wrote the report?", "The report was written by Jane Miller.", "Preheat the oven to 200 degrees."),
    ("What is the capital of France?", "Paris is the capital of France.", "Tomatoes need a lot of sun."),
    (
        "How do I reset my password?",
        "To reset your password, click Forgot.",
        "The revenue fell by 3 percent.",
    ),
)
"""(question, relevant, irrelevant): a model that orders one of these wrongly is not a reranker."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a score means: `sigmoid(scale * score + offset)` is the shown probability of relevance.

    `threshold` is the probability below which even the best chunk probably does not answer the question;
    None where nobody has chosen one for this model.
    """

    scale: float = 1.0
    offset: float = 0.0
    threshold: float | None = None

    def probability(self, score: float) -> float:
        """A number between 0 and 1 for display; ranking never uses it."""
        z = self.scale * score + self.offset
        return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


@dataclass(frozen=True, slots=True)
class PairScores:
    """`logits` (n,) float32 of the cross-encoder alone; `truncated` says which pairs it did not read whole."""

    logits: Scores
    truncated: tuple[bool, ...]


class CrossEncoderModel(Protocol):
    """A loaded cross-encoder: one logit for each (question, passage)."""

    device: str

    def logits(self, question: str, passages: Sequence[str]) -> PairScores:
        """Score all passages for one question; no passages give empty arrays."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One score a passage and its summands, each (n,) float32: `total` = logits + cosines + words.

    `cosines` and `words` (BM25) are weighted already; `truncated` says which passages were not read whole.
    """

    total: Scores
    logits: Scores
    cosines: Scores
    words: Scores
    truncated: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Reranker:
    """A cross-encoder, the weights of what its score adds to the logit, and what the score means.

    score = logit + cosine_weight * cosine + bm25_weight * BM25: a model trained on that sum learns what the two
    others miss. Ordinary cross-encoders have weights of 0. `revision` is the SHA-256 of the weights file.
    A passage of more than `window_words` words is read in windows (`windows`), and its best one counts; 0 where
    the model reads passages whole.
    """

    name: str
    model: CrossEncoderModel
    cosine_weight: float
    calibration: Calibration
    bm25_weight: float = 0.0
    revision: str = ""
    window_words: int = 0

    @property
    def device(self) -> str:
        """Where it runs, and in which number type."""
        return self.model.device

    def score(self, question: str, passages: Sequence[str], cosines: Sequence[float]) -> Scored:
        """Scores that the order rests on, with their summands.

        Raises RerankFailed when the model breaks or gives a number that cannot be ranked.
        """
        try:
            pairs = self._read(question, passages)
        except (RuntimeError, ValueError, MemoryError) as error:
            raise RerankFailed(f"The reranker {self.name} failed: {str(error)[:200]}") from error
        return self.combine(question, passages, cosines, pairs)

    def _read(self, question: str, passages: Sequence[str]) -> PairScores:
        """The best window of each passage."""
        parts = [windows(passage, self.window_words) for passage in passages]
        pairs = self.model.logits(question, [window for own in parts for window in own])
        starts = np.cumsum([0, *map(len, parts)])
        if starts[-1] == len(passages):
            return pairs
        return PairScores(
            np.maximum.reduceat(pairs.logits, starts[:-1]),
            tuple(any(pairs.truncated[start:end]) for start, end in pairwise(starts)),
        )

    def combine(
        self, question: str, passages: Sequence[str], cosines: Sequence[float], pairs: PairScores
    ) -> Scored:
        """Scores from logits that are known already.

        How rare a word is, is counted among these passages: of fewer candidates the BM25 part is another.
        Raises RerankFailed for a number that cannot be ranked.
        """
        weighted = np.float32(self.cosine_weight) * np.asarray(cosines, np.float32)
        words = np.zeros(len(passages), np.float32)
        if self.bm25_weight:
            words = np.float32(self.bm25_weight) * bm25(question, passages)
        total = pairs.logits + weighted + words
        if not np.isfinite(total).all():
            raise RerankFailed(f"The reranker {self.name} gave a score that is not a number.")
        return Scored(total, pairs.logits, weighted, words, pairs.truncated)


def windows(passage: str, words: int) -> list[str]:
    """A passage as it is, or, where it has more than `words` words, parts of equal length with at most that many.

    Neighbours share a quarter of `words`. A model that learned from short passages judges long ones by what
    stands in them best (MaxP; Dai and Callan, 2019). 0 words: never in parts.
    """
    places = [(word.start(), word.end()) for word in re.finditer(r"\S+", passage)] if words else []
    if len(places) <= words:
        return [passage]
    shared = words // 4
    count = -(-(len(places) - shared) // (words - shared))
    length = -(-(len(places) + (count - 1) * shared) // count)
    starts = (round(number * (len(places) - length) / (count - 1)) for number in range(count))
    return [passage[places[start][0] : places[start + length - 1][1]] for start in starts]


def rerank(question: str, hits: Sequence[Hit], reranker: Reranker) -> tuple[Ranked, ...]:
    """All hits in the reranker's order; equal scores keep the bi-encoder's order. Raises RerankFailed."""
    scored = reranker.score(question, [hit.chunk.passage for hit in hits], [hit.cosine for hit in hits])
    order = sorted(range(len(hits)), key=lambda position: (-scored.total[position], hits[position].rank))
    return tuple(
        Ranked(
            hit=hits[position],
            logit=float(scored.total[position]),
            probability=reranker.calibration.probability(float(scored.total[position])),
            rank=rank,
            parts=_parts(reranker, scored, position),
            truncated=scored.truncated[position],
        )
        for rank, position in enumerate(order, start=1)
    )


def _parts(reranker: Reranker, scored: Scored, position: int) -> tuple[ScorePart, ...]:
    parts = [ScorePart("cross-encoder logit", float(scored.logits[position]))]
    if reranker.cosine_weight:
        parts.append(ScorePart(f"{reranker.cosine_weight:g} x cosine", float(scored.cosines[position])))
    if reranker.bm25_weight:
        parts.append(ScorePart(f"{reranker.bm25_weight:g} x BM25", float(scored.words[position])))
    return tuple(parts)


@dataclass(frozen=True, slots=True)
class _Pair:
    ids: list[int]
    type_ids: list[int]


class PackedCrossEncoder:
    """A BERT cross-encoder with one output, computed without padding on a CPU."""

    def __init__(
        self,
        folder: Path,
        tensors: Mapping[str, torch.Tensor],
        dtype: torch.dtype,
        *,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        """`tensors` by the names of the library's BertForSequenceClassification; all else is in the folder."""
        from tokenizers import Tokenizer

        self._max_tokens = max_tokens
        self.device = f"cpu, {dtype_name(dtype)}"
        self._bert = PackedBert(read_bert(folder, tensors, prefix="bert."), dtype)
        self._pooler = tensors["bert.pooler.dense.weight"].float(), tensors["bert.pooler.dense.bias"].float()
        self._classifier = tensors["classifier.weight"].float(), tensors["classifier.bias"].float()
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._start, self._end = self._tokenizer.encode("").ids  # [CLS] and [SEP]
        self._tokenizing = threading.Lock()

    def logits(self, question: str, passages: Sequence[str]) -> PairScores:
        """See `CrossEncoderModel.logits`."""
        import torch
        from torch.nn.functional import linear

        pairs, truncated = self._pairs(question, passages)

        def score(batch: list[int]) -> Scores:
            first = self._bert.states([pairs[position] for position in batch], first_only=True).float()
            with torch.inference_mode():
                pooled = torch.tanh(linear(first, *self._pooler))
                scores: Scores = linear(pooled, *self._classifier)[:, 0].numpy()
            return scores

        logits = np.empty(len(pairs), np.float32)
        for batch, scores in spread(score, [len(pair.ids) for pair in pairs]):
            logits[batch] = scores
        return PairScores(logits, truncated)

    def _pairs(self, question: str, passages: Sequence[str]) -> tuple[list[_Pair], tuple[bool, ...]]:
        with self._tokenizing:
            asked, *read = (
                encoding.ids
                for encoding in self._tokenizer.encode_batch([question, *passages], add_special_tokens=False)
            )
        head = [self._start, *asked[:QUESTION_TOKENS], self._end]
        room = self._max_tokens - len(head) - 1
        pairs = []
        for ids in read:
            tail = [*ids[:room], self._end]
            pairs.append(_Pair(head + tail, [0] * len(head) + [1] * len(tail)))
        cut = len(asked) > QUESTION_TOKENS
        return pairs, tuple(cut or len(ids) > room for ids in read)


class LibraryCrossEncoder:
    """Any sentence-transformers CrossEncoder, run by the library; the way for GPUs and other architectures."""

    def __init__(self, model: Any, device: torch.device, dtype: torch.dtype) -> None:
        self.device = f"{device.type}, {dtype_name(dtype)}"
        self._model = model
        self._model.model.to(dtype)
        self._tokenizing = threading.Lock()

    def logits(self, question: str, passages: Sequence[str]) -> PairScores:
        """See `CrossEncoderModel.logits`."""
        import torch

        if not passages:
            return PairScores(np.zeros(0, np.float32), ())
        pairs = [(question, passage) for passage in passages]
        with self._tokenizing, COMPUTE:
            limit = min(self._model.tokenizer.model_max_length, 100_000)
            lengths = [len(ids) for ids in self._model.tokenizer(pairs, truncation=False)["input_ids"]]
            scored = self._model.predict(
                pairs, activation_fn=torch.nn.Identity(), convert_to_tensor=True, show_progress_bar=False
            )
        logits = scored.float().cpu().numpy().reshape(len(passages)).astype(np.float32)
        return PairScores(logits, tuple(length > limit for length in lengths))


def load_reranker(
    name: str = "", *, dtype: torch.dtype | None = None, max_tokens: int = MAX_TOKENS
) -> Reranker:
    """The reranker of that name: a folder, a hub name in the local cache, or "bundled".

    A folder holds a whole cross-encoder, or an adapter with its `reranker.json`. Without a name
    ms-marco-MiniLM-L-6-v2 where it is in the cache, else the bundled adapter. `dtype` and `max_tokens` (question
    and passage together) are for measurements; by default the best number type of the machine, and 512.
    Raises ModelUnavailable, also when the model cannot tell a relevant passage from an irrelevant one.
    """
    if not name and cached(HUB_RERANKER):
        name = HUB_RERANKER
    own = Path(name).expanduser() if name else BUNDLED_FOLDER
    if not name or name == BUNDLED:
        reranker = load_adapter(BUNDLED_FOLDER, dtype=dtype, max_tokens=max_tokens)
    elif (own / CARD).is_file():
        reranker = load_adapter(own, dtype=dtype, max_tokens=max_tokens)
    else:
        folder = find_model(name)
        model = _load_model(folder, dtype=dtype, max_tokens=max_tokens)
        revision = sha256(folder / "model.safetensors")
        reranker = Reranker(name, model, 0.0, Calibration(), revision=revision)
    self_test(reranker)
    return reranker


def load_adapter(folder: Path, *, dtype: torch.dtype | None = None, max_tokens: int = MAX_TOKENS) -> Reranker:
    """A low-rank adapter on the bundled all-MiniLM-L6-v2, described by its `reranker.json`.

    Raises ModelUnavailable where a file is missing, altered, or made for other weights.
    """
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        weights = folder / "adapter.safetensors"
        check_sha256(weights, card["adapter_sha256"])
        calibration = Calibration(
            float(card["calibration"]["scale"]), float(card["calibration"]["offset"]), card["threshold"]
        )
        cosine_weight = float(card["score"]["cosine"])
        bm25_weight = float(card["score"].get("bm25", 0.0))
        window_words = int(card.get("window_words", 0))
        name = str(card["name"])
        revision = str(card["adapter_sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelUnavailable(f"The reranker in {folder.name}/ cannot be read: {error!r}.") from error
    model = _load_model(bundled_minilm(), adapter=weights, dtype=dtype, max_tokens=max_tokens)
    return Reranker(name, model, cosine_weight, calibration, bm25_weight, revision, window_words)


def _load_model(
    folder: Path,
    *,
    adapter: Path | None = None,
    dtype: torch.dtype | None = None,
    max_tokens: int = MAX_TOKENS,
) -> CrossEncoderModel:
    device = best_device()
    dtype = dtype or best_dtype(device)
    if device.type == "cpu" and is_plain_bert(read_config(folder)):
        tensors = _tensors(folder, adapter)
        if "bert.embeddings.LayerNorm.weight" in tensors and "bert.pooler.dense.weight" in tensors:
            _check_outputs(folder, len(tensors.get("classifier.bias", ())))
            return PackedCrossEncoder(folder, tensors, dtype, max_tokens=max_tokens)
    return _library_model(folder, adapter, device, dtype, max_tokens)


def _library_model(
    folder: Path, adapter: Path | None, device: torch.device, dtype: torch.dtype, max_tokens: int
) -> CrossEncoderModel:
    from sentence_transformers import CrossEncoder

    quiet_transformers()
    try:
        model = CrossEncoder(
            str(folder),
            num_labels=1 if adapter else None,
            device=str(device),
            local_files_only=True,
            max_length=None if max_tokens == MAX_TOKENS else max_tokens,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelUnavailable(f"{folder.name} is not a cross-encoder: {str(error)[:200]}") from error
    _check_outputs(folder, model.num_labels)
    if adapter:
        merge_adapter(model.model, adapter)
    model.eval()
    return LibraryCrossEncoder(model, device, dtype)


def _check_outputs(folder: Path, count: int) -> None:
    if count != 1:
        raise ModelUnavailable(f"{folder.name} gives {count} numbers a pair; a reranker gives one.")


def _tensors(folder: Path, adapter: Path | None) -> dict[str, torch.Tensor]:
    """All tensors of a BERT cross-encoder, by the library's names, an adapter merged into them."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(folder / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise ModelUnavailable(f"{folder.name} is not a cross-encoder: {str(error)[:200]}") from error
    if adapter is None:
        return tensors
    whole = {f"bert.{name}": tensor.float() for name, tensor in tensors.items() if tensor.is_floating_point()}
    return merged(whole, adapter)


def merge_adapter(model: torch.nn.Module, adapter: Path) -> None:
    """Add an adapter to a model of the library in place; see `merged`."""
    model.load_state_dict(merged(model.state_dict(), adapter))


def merged(state: Mapping[str, torch.Tensor], adapter: Path) -> dict[str, torch.Tensor]:
    """These tensors with every `lora_B @ lora_A` added to its weight, and every other tensor of the adapter."""
    from safetensors.torch import load_file

    tensors = load_file(adapter)
    new = dict(state)
    for key, tensor in tensors.items():
        if key.endswith(".lora_A"):
            target = f"{key.removesuffix('.lora_A')}.weight"
            new[target] = new[target] + tensors[key[:-1] + "B"].float() @ tensor.float()
        elif not key.endswith(".lora_B"):
            new[key] = tensor.float()
    return new


def self_test(reranker: Reranker) -> None:
    """Raise ModelUnavailable unless the cross-encoder itself prefers each relevant passage of SELF_TEST."""
    for question, relevant, irrelevant in SELF_TEST:
        scores = reranker.model.logits(question, [relevant, irrelevant]).logits
        if not (np.isfinite(scores).all() and scores[0] > scores[1]):
            raise ModelUnavailable(
                f"The reranker {reranker.name} fails its self-test: it does not score {relevant!r} above "
                f"{irrelevant!r} for {question!r}. It is not used."
            )
