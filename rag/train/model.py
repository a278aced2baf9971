"""The cross-encoder: its forward pass, and the adapter that what it learned is written as."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from ingest.weights import bundled_minilm, quiet_transformers

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]
Tensors = dict[str, "torch.Tensor"]

CLS, SEP = 101, 102
READ_TOKENS = 256
"""Tokens of question and passage where scores are measured; more than a step learns from, for its speed."""


class Tokenized:
    """Word pieces of texts, computed once for each text that is asked for."""

    def __init__(self, folder: Path, texts: Sequence[str]) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._texts = texts
        self._known: dict[int, Tokens] = {}

    def passage(self, number: int) -> Tokens:
        """Word pieces of text `number`, without special tokens."""
        if number not in self._known:
            self._known[number] = self.encode(self._texts[number])
        return self._known[number]

    def encode(self, text: str) -> Tokens:
        """Word pieces of any text, at most 512 of them."""
        ids = self._tokenizer.encode(text[:8000], add_special_tokens=False).ids
        return np.array(ids[:512], np.int32)


class Pair(NamedTuple):
    """What the cross-encoder reads."""

    question: Tokens
    passage: Tokens


def load_backbone(seed: int) -> tuple[Tensors, int]:
    """(float32 weights of the cross-encoder with a new classifier, attention heads)."""
    import torch
    from transformers import BertForSequenceClassification

    quiet_transformers()
    torch.manual_seed(seed)
    model = BertForSequenceClassification.from_pretrained(str(bundled_minilm()), num_labels=1)
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}, int(
        model.config.num_attention_heads
    )


def layer_count(weights: Tensors) -> int:
    """Number of encoder layers."""
    return len({name.split(".")[3] for name in weights if name.startswith("bert.encoder.layer.")})


def logits(
    weights: Tensors, heads: int, pairs: Sequence[Pair], max_tokens: int, frozen: int = 0
) -> torch.Tensor:
    """One float32 logit a pair.

    Written out because it is measurably faster than the library's model on a CPU: plain attention (its
    gradient is faster than the fused one's), a last layer for the first token alone, and no graph for the
    `frozen` layers.
    """
    import torch
    from torch.nn.functional import layer_norm, linear

    device = weights["classifier.weight"].device
    ids, types, mask = (part.to(device) for part in _pad(pairs, max_tokens))
    prefix = "bert.embeddings."
    with torch.set_grad_enabled(False):
        x = (
            weights[f"{prefix}word_embeddings.weight"][ids]
            + weights[f"{prefix}token_type_embeddings.weight"][types]
            + weights[f"{prefix}position_embeddings.weight"][: ids.shape[1]]
        )
        norm = (weights[f"{prefix}LayerNorm.weight"], weights[f"{prefix}LayerNorm.bias"])
        x = layer_norm(x, x.shape[-1:], *norm, eps=1e-12)
    hidden = ((1 - mask) * -30000.0).to(x.dtype)[:, None, None, :]
    last = layer_count(weights) - 1
    grad = torch.is_grad_enabled()
    for number in range(last + 1):
        with torch.set_grad_enabled(grad and number >= frozen):
            x = _layer(weights, f"bert.encoder.layer.{number}.", heads, x, hidden, first_only=number == last)
    pooled = linear(x[:, 0], weights["bert.pooler.dense.weight"], weights["bert.pooler.dense.bias"]).tanh()
    return linear(pooled, weights["classifier.weight"], weights["classifier.bias"])[:, 0].float()


def _layer(
    weights: Tensors, prefix: str, heads: int, x: torch.Tensor, hidden: torch.Tensor, *, first_only: bool
) -> torch.Tensor:
    import torch
    from torch.nn.functional import gelu, layer_norm, linear

    def dense(name: str, value: torch.Tensor) -> torch.Tensor:
        return linear(value, weights[f"{prefix}{name}.weight"], weights[f"{prefix}{name}.bias"])

    def normed(name: str, value: torch.Tensor) -> torch.Tensor:
        pair = (weights[f"{prefix}{name}.weight"], weights[f"{prefix}{name}.bias"])
        return layer_norm(value, value.shape[-1:], *pair, eps=1e-12)

    def split_heads(value: torch.Tensor) -> torch.Tensor:
        return value.view(value.shape[0], value.shape[1], heads, -1).transpose(1, 2)

    asking = x[:, :1] if first_only else x
    query = split_heads(dense("attention.self.query", asking))
    key = split_heads(dense("attention.self.key", x))
    value = split_heads(dense("attention.self.value", x))
    scale = query.shape[-1] ** -0.5
    attention = torch.softmax(torch.matmul(query * scale, key.transpose(2, 3)) + hidden, dim=-1)
    read = torch.matmul(attention, value).transpose(1, 2).reshape(asking.shape)
    x = normed("attention.output.LayerNorm", asking + dense("attention.output.dense", read))
    return normed("output.LayerNorm", x + dense("output.dense", gelu(dense("intermediate.dense", x))))


def _pad(pairs: Sequence[Pair], max_tokens: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, segment numbers and mask, each (pairs, longest)."""
    import torch

    lengths = [pair_length(pair, max_tokens) for pair in pairs]
    ids = np.zeros((len(pairs), max(lengths)), np.int64)
    types, mask = np.zeros_like(ids), np.zeros_like(ids)
    for row, (pair, length) in enumerate(zip(pairs, lengths, strict=True)):
        middle = len(pair.question) + 2
        ids[row, 0], ids[row, middle - 1], ids[row, length - 1] = CLS, SEP, SEP
        ids[row, 1 : middle - 1] = pair.question
        ids[row, middle : length - 1] = pair.passage[: length - 1 - middle]
        types[row, middle:length] = 1
        mask[row, :length] = 1
    return torch.from_numpy(ids), torch.from_numpy(types), torch.from_numpy(mask)


def pair_length(pair: Pair, max_tokens: int) -> int:
    """Tokens of a pair with its three special tokens, after the cut."""
    return min(len(pair.question) + len(pair.passage) + 3, max_tokens)


def by_length(pairs: Sequence[Pair], max_tokens: int, tokens: int) -> list[list[int]]:
    """Positions sorted by length, in batches of at most about `tokens` tokens."""
    batches: list[list[int]] = []
    room = 0
    for position in sorted(range(len(pairs)), key=lambda number: -len(pairs[number].passage)):
        length = pair_length(pairs[position], max_tokens)
        if room < length:
            batches.append([])
            room = tokens
        batches[-1].append(position)
        room -= length
    return batches


def predict(weights: Tensors, heads: int, pairs: Sequence[Pair], max_tokens: int) -> Floats:
    """Logits without a gradient, (pairs,) float32, computed in batches of like length."""
    import torch

    scores = np.empty(len(pairs), np.float32)
    with torch.inference_mode():
        room = 4096 if weights["classifier.weight"].device.type == "cpu" else 65536
        for batch in by_length(pairs, max_tokens, room):
            part = logits(weights, heads, [pairs[position] for position in batch], max_tokens)
            scores[batch] = part.cpu().numpy()
    return scores


def export(learned: Tensors, base: Tensors, path: Path, rank: int) -> None:
    """Write what changed as float16 safetensors: matrices of the encoder as low-rank differences, others whole.

    `NAME.lora_B @ NAME.lora_A` is the best approximation of the difference of that rank (Eckart and Young).
    """
    from safetensors.torch import save_file

    tensors: Tensors = {}
    for name, value in learned.items():
        tensor = value.detach().float().cpu()
        if name.startswith("bert.encoder.") and tensor.dim() == 2:
            target = name.removesuffix(".weight")
            left, right = low_rank(tensor - base[name].float().cpu(), rank)
            tensors[f"{target}.lora_B"], tensors[f"{target}.lora_A"] = left, right
        else:
            tensors[name] = tensor
    save_file({name: tensor.half().contiguous() for name, tensor in tensors.items()}, path)


def low_rank(difference: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, A) whose product is the best approximation of that rank.

    From the eigenvectors of the smaller square, which is ten times as fast as a singular value decomposition.
    """
    import torch

    wide = difference.double()
    wide = wide if wide.shape[0] <= wide.shape[1] else wide.T
    squares, vectors = torch.linalg.eigh(wide @ wide.T)  # ascending
    kept = vectors[:, -rank:]
    # the size goes into both halves alike: in float16 small numbers lose their digits
    root = squares[-rank:].clamp(min=1e-12 * float(squares[-1]) + 1e-30).pow(0.25)
    left, right = kept * root, (kept.T @ wide) / root[:, None]
    if wide.shape != difference.shape:
        left, right = right.T, left.T
    return left.float(), right.float()


def with_adapter(base: Tensors, path: Path) -> Tensors:
    """The backbone with an adapter merged into it; float32."""
    from safetensors.torch import load_file

    tensors = load_file(path)
    merged = dict(base)
    for key, tensor in tensors.items():
        if key.endswith(".lora_A"):
            target = key.removesuffix(".lora_A")
            change = tensors[f"{target}.lora_B"].float() @ tensor.float()
            merged[f"{target}.weight"] = base[f"{target}.weight"] + change
        elif not key.endswith(".lora_B"):
            merged[key] = tensor.float()
    return merged
