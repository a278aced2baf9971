"""The limit: the matrix products of the model alone, at the shapes of the real batches, in the number type used.

Everything else that a BERT does (tokenizing, softmax, norms, GELU, moving rows about) is left out, so no way of
computing the same model in the same number type on the same cores is faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ingest.bert import spread
from ingest.weights import best_dtype, bundled_minilm

if TYPE_CHECKING:
    import torch


class Products:
    """The products of all layers for sequences of given lengths, on random numbers.

    With `first_only` the last layer is computed for each sequence's first token alone, as the reranker does it.
    """

    def __init__(self, *, first_only: bool) -> None:
        import torch
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(str(bundled_minilm()))
        self._layers: int = config.num_hidden_layers
        self._heads: int = config.num_attention_heads
        self._dim: int = config.hidden_size
        self._inner: int = config.intermediate_size
        self._first_only = first_only
        self._dtype = best_dtype(torch.device("cpu"))
        dim, inner = self._dim, self._inner
        self._weights = {
            shape: torch.randn(shape[1], shape[0]).to(self._dtype)
            for shape in ((dim, 3 * dim), (dim, 2 * dim), (dim, dim), (dim, inner), (inner, dim))
        }

    def flops(self, lengths: Sequence[int]) -> float:
        """Multiplications and additions of all products."""
        tokens, squares = float(sum(lengths)), float(sum(length * length for length in lengths))
        dim, inner = self._dim, self._inner
        layer = 2 * tokens * (4 * dim * dim + 2 * dim * inner) + 4 * squares * dim
        if not self._first_only:
            return self._layers * layer
        firsts = 2.0 * len(lengths) * (2 * dim * dim + 2 * dim * inner) + 4 * tokens * dim
        return (self._layers - 1) * layer + 2 * tokens * 2 * dim * dim + firsts

    def run(self, lengths: Sequence[int]) -> None:
        """Compute them, batch by batch on all threads as the product does."""
        for _ in spread(lambda batch: self._batch([lengths[at] for at in batch]), lengths):
            pass

    def _batch(self, lengths: Sequence[int]) -> None:
        import torch

        with torch.inference_mode():
            x = torch.ones(sum(lengths), self._dim, dtype=self._dtype)
            wide = torch.ones(sum(lengths), self._inner, dtype=self._dtype)
            # one product for all sequences, of a width that makes the multiplications those of their own lengths
            width = round(sum(length * length for length in lengths) / sum(lengths))
            query = torch.ones(len(lengths) * self._heads, width, self._dim // self._heads, dtype=self._dtype)
            for _ in range(self._layers - self._first_only):
                self._products(x, wide, query)
            if self._first_only:
                self._times(x, 2 * self._dim)
                self._products(x[: len(lengths)], wide[: len(lengths)], query[:, :1], key=query)

    def _products(
        self,
        x: torch.Tensor,
        wide: torch.Tensor,
        query: torch.Tensor,
        *,
        key: torch.Tensor | None = None,
    ) -> None:
        import torch

        key = query if key is None else key
        self._times(x, 3 * self._dim if key is query else self._dim)
        torch.bmm(torch.bmm(query, key.transpose(1, 2)), key)
        self._times(x, self._dim)
        self._times(x, self._inner)
        self._times(wide, self._dim)

    def _times(self, x: torch.Tensor, columns: int) -> None:
        from torch.nn.functional import linear

        linear(x, self._weights[x.shape[1], columns])
