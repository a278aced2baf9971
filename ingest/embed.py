"""Texts to unit vectors, with a bi-encoder."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ingest.bert import (
    BATCH_TOKENS,
    COMPUTE,
    BertWeights,
    PackedBert,
    is_plain_bert,
    read_bert,
    read_config,
    spread,
)
from ingest.errors import ModelUnavailable
from ingest.weights import (
    MINILM,
    MINILM_SHA256,
    best_device,
    best_dtype,
    bundled_minilm,
    dtype_name,
    find_model,
    quiet_transformers,
    sha256,
)

if TYPE_CHECKING:
    import torch

SENTENCES_TOKENS = 2 * BATCH_TOKENS
"""More than the sentences of an answer's sources. Whoever embeds more, ingests, and lets questions pass."""
Vectors = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]
"""Called with (done, of how many)."""


class Embedder(Protocol):
    """A loaded bi-encoder."""

    name: str
    id: str
    dimension: int
    device: str

    def embed(self, texts: Sequence[str], *, on_progress: Progress | None = None) -> Vectors:
        """(len(texts), dimension) float32, unit rows, in the order given; no texts give (0, dimension)."""

    def reads_whole(self, text: str) -> bool:
        """False where the text is longer than the model reads, so that its end has no part in the vector."""


class PackedEmbedder:
    """all-MiniLM-L6-v2 or any other BERT bi-encoder with mean pooling, computed without padding a sequence."""

    def __init__(
        self, identity: Identity, weights: BertWeights, dtype: torch.dtype, *, max_tokens: int
    ) -> None:
        from tokenizers import Tokenizer

        self.name = identity.name
        self.id = identity.id
        self.device = f"cpu, {dtype_name(dtype)}"
        self._bert = PackedBert(weights, dtype)
        self.dimension: int = self._bert.dim
        self._tokenizer = Tokenizer.from_file(str(identity.folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._tokenizing = threading.Lock()

    def embed(self, texts: Sequence[str], *, on_progress: Progress | None = None) -> Vectors:
        """See `Embedder.embed`; texts beyond the model's limit are cut there."""
        import torch

        with self._tokenizing:
            encodings = self._tokenizer.encode_batch(list(texts))
        lengths = [len(encoding.ids) for encoding in encodings]

        def means(batch: list[int]) -> Vectors:
            states = self._bert.states([encodings[position] for position in batch])
            # float32 for mean and norm: a bfloat16 sum of 200 states loses the third digit
            parts = torch.split(states.float(), [lengths[position] for position in batch])
            return np.stack([part.mean(dim=0).numpy() for part in parts])

        vectors = np.zeros((len(texts), self.dimension), np.float32)
        done = 0
        for batch, rows in spread(means, lengths, prompt=SENTENCES_TOKENS):
            vectors[batch] = rows
            done += len(batch)
            if on_progress:
                on_progress(done, len(texts))
        return unit_rows(vectors)

    def reads_whole(self, text: str) -> bool:
        """See `Embedder.reads_whole`."""
        with self._tokenizing:
            return not self._tokenizer.encode(text).overflowing


class LibraryEmbedder:
    """Any sentence-transformers bi-encoder, run by the library; the way for GPUs and other architectures."""

    def __init__(self, identity: Identity, model: Any, device: torch.device, dtype: torch.dtype) -> None:
        self.name = identity.name
        self.id = identity.id
        self.device = f"{device.type}, {dtype_name(dtype)}"
        self.dimension = int(model.get_embedding_dimension())
        self._model = model.to(dtype)

    def embed(self, texts: Sequence[str], *, on_progress: Progress | None = None) -> Vectors:
        """See `Embedder.embed`."""
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        step = 256
        for start in range(0, len(texts), step):
            part = list(texts[start : start + step])
            with COMPUTE:
                encoded = self._model.encode(
                    part, batch_size=64, convert_to_tensor=True, show_progress_bar=False
                )
            vectors[start : start + step] = encoded.float().cpu().numpy()
            if on_progress:
                on_progress(min(start + step, len(texts)), len(texts))
        return unit_rows(vectors)

    def reads_whole(self, text: str) -> bool:
        """See `Embedder.reads_whole`."""
        with COMPUTE:
            ids = self._model.tokenizer(text, truncation=False, verbose=False)["input_ids"]
        return len(ids) <= (self._model.max_seq_length or len(ids))


@dataclass(frozen=True, slots=True)
class Identity:
    """Which bi-encoder it is, told from its files alone: `id` goes into the index, `name` on the screen."""

    folder: Path
    name: str
    id: str
    dimension: int


def identify(name: str = "") -> Identity:
    """The bi-encoder of that name or folder, not loaded yet; without a name the bundled one.

    Raises ModelUnavailable.
    """
    folder = find_model(name) if name else bundled_minilm()
    digest = sha256(folder / "model.safetensors") if name else MINILM_SHA256
    shown = name or MINILM
    return Identity(folder, shown, f"{shown}@{digest[:12]}", _dimension(folder))


def load_embedder(identity: Identity) -> Embedder:
    """Load a bi-encoder. Raises ModelUnavailable."""
    device = best_device()
    dtype = best_dtype(device)
    max_tokens = _mean_of_at_most(identity.folder)
    if device.type == "cpu" and max_tokens and is_plain_bert(read_config(identity.folder)):
        tensors = _tensors(identity)
        if "embeddings.LayerNorm.weight" in tensors:  # old files have other names, which the library knows
            weights = read_bert(identity.folder, tensors)
            return PackedEmbedder(identity, weights, dtype, max_tokens=max_tokens)
    return _library_embedder(identity, device, dtype)


def _library_embedder(identity: Identity, device: torch.device, dtype: torch.dtype) -> Embedder:
    from sentence_transformers import SentenceTransformer

    quiet_transformers()
    try:
        model = SentenceTransformer(str(identity.folder), device=str(device), local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise _no_bi_encoder(identity, error) from error
    return LibraryEmbedder(identity, model, device, dtype)


def _tensors(identity: Identity) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(identity.folder / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise _no_bi_encoder(identity, error) from error


def _no_bi_encoder(identity: Identity, error: Exception) -> ModelUnavailable:
    return ModelUnavailable(f"{identity.name} is not a bi-encoder: {str(error)[:200]}")


def unit_rows(vectors: Vectors) -> Vectors:
    """Rows scaled to length 1; a row of zeros stays one."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
    return scaled


def _mean_of_at_most(folder: Path) -> int:
    """How many tokens a bi-encoder reads that takes the mean of their states; 0 where it works otherwise."""
    modules = _read_json(folder / "modules.json")
    kinds = [str(module.get("type")).rpartition(".")[2] for module in modules] if modules else []
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        return 0
    pooling = _read_json(folder / str(modules[1].get("path")) / "config.json") or {}
    modes = [name for name, on in pooling.items() if name.startswith("pooling_mode_") and on]
    if pooling.get("pooling_mode") != "mean" and modes != ["pooling_mode_mean_tokens"]:
        return 0
    said = _read_json(folder / "sentence_bert_config.json") or {}
    return int(said.get("max_seq_length") or 0)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _dimension(folder: Path) -> int:
    # a Dense module after the pooling changes the size of the vectors
    dense = sorted(folder.glob("[0-9]*_Dense/config.json"))
    config, key = (dense[-1], "out_features") if dense else (folder / "config.json", "hidden_size")
    try:
        return int(json.loads(config.read_text(encoding="utf-8"))[key])
    except (OSError, ValueError, KeyError) as error:
        raise ModelUnavailable(f"{config} does not say the size of the vectors ({key}).") from error
