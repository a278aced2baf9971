"""A BERT encoder for CPUs that computes no padding: token sequences lie end to end in one matrix.

Same weights and same numbers as the library's model (a test compares them), less work: one matrix product
for query, key and value, attention per group of equally long sequences, and, where only the first token's
state is wanted, a last layer for that token alone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch
    from tokenizers import Encoding

BATCH_TOKENS = 4096
"""Tokens computed at once: enough for full-speed matrix products, few enough to stay in the cache."""

COMPUTE = threading.Lock()
"""Held for one batch. Two models at work on the same cores are slower than one after the other, by far."""


class _Layer(NamedTuple):
    qkv: tuple[torch.Tensor, torch.Tensor]
    attention_out: tuple[torch.Tensor, torch.Tensor]
    attention_norm: tuple[torch.Tensor, torch.Tensor]
    up: tuple[torch.Tensor, torch.Tensor]
    down: tuple[torch.Tensor, torch.Tensor]
    out_norm: tuple[torch.Tensor, torch.Tensor]


class PackedBert:
    """The weights of a `transformers.BertModel`, laid out for computing without padding."""

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        config = model.config
        self.dim: int = config.hidden_size
        self._heads: int = config.num_attention_heads
        self._eps: float = config.layer_norm_eps
        self._dtype = dtype
        embeddings = model.embeddings
        self._words = self._cast(embeddings.word_embeddings.weight)
        self._positions = self._cast(embeddings.position_embeddings.weight)
        self._types = self._cast(embeddings.token_type_embeddings.weight)
        self._norm = self._pair(embeddings.LayerNorm)
        self._layers = [self._layer(layer) for layer in model.encoder.layer]

    def states(self, encodings: Sequence[Encoding], *, first_only: bool = False) -> torch.Tensor:
        """Last hidden states, (all tokens, dim), sequences one after the other.

        Give equally long sequences side by side: they share their attention products. With `first_only`,
        only each sequence's first token: (sequences, dim).
        """
        import torch

        lengths = [len(encoding.ids) for encoding in encodings]
        with COMPUTE, torch.inference_mode():
            x = self._embed(encodings, lengths)
            for layer in self._layers[:-1]:
                x = self._block(layer, x, self._attend(layer, x, lengths))
            last = self._layers[-1]
            attended = self._attend(last, x, lengths, first_only=first_only)
            if first_only:
                x = x[torch.tensor(np.cumsum([0, *lengths[:-1]]))]
            return self._block(last, x, attended)

    def _embed(self, encodings: Sequence[Encoding], lengths: Sequence[int]) -> torch.Tensor:
        import torch
        from torch.nn.functional import layer_norm

        ids = torch.tensor([token for encoding in encodings for token in encoding.ids])
        types = torch.tensor([kind for encoding in encodings for kind in encoding.type_ids])
        positions = torch.cat([torch.arange(length) for length in lengths])
        x = self._words[ids] + self._types[types] + self._positions[positions]
        return layer_norm(x, (self.dim,), *self._norm, eps=self._eps)

    def _attend(
        self, layer: _Layer, x: torch.Tensor, lengths: Sequence[int], *, first_only: bool = False
    ) -> torch.Tensor:
        import torch
        from torch.nn.functional import linear

        qkv = linear(x, *layer.qkv)
        head = self.dim // self._heads
        outputs = []
        begin = 0
        for length, same in groupby(lengths):
            count = len(list(same))
            block = qkv[begin : begin + count * length].view(count, length, 3, self._heads, head)
            query, key, value = (block[:, :, part].transpose(1, 2) for part in range(3))
            if first_only:
                query = query[:, :, :1]
            weights = torch.softmax(torch.matmul(query, key.transpose(2, 3)), dim=-1)
            outputs.append(torch.matmul(weights, value).transpose(1, 2).reshape(-1, self.dim))
            begin += count * length
        return torch.cat(outputs)

    def _block(self, layer: _Layer, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import gelu, layer_norm, linear

        x = layer_norm(
            x + linear(attended, *layer.attention_out), (self.dim,), *layer.attention_norm, self._eps
        )
        inner = gelu(linear(x, *layer.up))
        return layer_norm(x + linear(inner, *layer.down), (self.dim,), *layer.out_norm, self._eps)

    def _layer(self, layer: Any) -> _Layer:
        import torch

        attention = layer.attention.self
        scale = (self.dim // self._heads) ** -0.5  # folded into the query, so that no step has to scale
        weight = torch.cat([attention.query.weight * scale, attention.key.weight, attention.value.weight])
        bias = torch.cat([attention.query.bias * scale, attention.key.bias, attention.value.bias])
        return _Layer(
            qkv=(self._cast(weight), self._cast(bias)),
            attention_out=self._pair(layer.attention.output.dense),
            attention_norm=self._pair(layer.attention.output.LayerNorm),
            up=self._pair(layer.intermediate.dense),
            down=self._pair(layer.output.dense),
            out_norm=self._pair(layer.output.LayerNorm),
        )

    def _pair(self, module: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return self._cast(module.weight), self._cast(module.bias)

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to(self._dtype).contiguous()


def can_pack(model: Any, device: torch.device) -> bool:
    """True for plain BERT models on a CPU, whose numbers `PackedBert` reproduces."""
    config = model.config
    return (
        device.type == "cpu"
        and type(model).__name__ == "BertModel"
        and config.hidden_act == "gelu"
        and getattr(config, "position_embedding_type", "absolute") in (None, "absolute")
    )


def batches(lengths: Sequence[int], *, tokens: int = BATCH_TOKENS) -> Iterator[list[int]]:
    """Positions of all sequences, sorted by length, in batches of at most `tokens` (one sequence at least)."""
    batch: list[int] = []
    held = 0
    for position in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and held + lengths[position] > tokens:
            yield batch
            batch, held = [], 0
        batch.append(position)
        held += lengths[position]
    if batch:
        yield batch
