"""A BERT encoder for CPUs that pads no sequence: they lie end to end in one matrix.

Same weights and same numbers as the library's model (a test compares them), less work: one matrix product
for query, key and value, attention over each sequence as it lies there, and, where only the first token's state
is wanted, a last layer for that token alone.

Batches run side by side, each on one thread (`spread`). Threads that share a matrix product wait for each
other after every step, and a core that is busy elsewhere then holds up all of them; these wait for nobody.
"""

from __future__ import annotations

import ctypes
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cache, partial
from itertools import accumulate, count, groupby, islice
from pathlib import Path
from queue import PriorityQueue
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

BATCH_TOKENS = 1536
"""Tokens computed at once: enough for full-speed matrix products, few enough to stay in the cache."""
ROWS = 64
"""A batch's matrix has a multiple of so many rows. Products of few sizes are prepared once and kept by oneDNN, and
their memory fits again from step to step: of any size they take a tenth longer and twice the memory."""
PROMPT_TOKENS = 16_384
"""Tokens of a question with some 70 candidates."""
KEPT_BYTES = 32 << 20
"""What a step computes is smaller than this; the C library then takes its memory from what it holds already."""

COMPUTE = threading.Lock()
"""Held for one batch of a library model. Two of them at once are slower than one after the other, by far."""
_STARTING = threading.Lock()
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""


class Tokens(Protocol):
    """One tokenized sequence, as `tokenizers` gives it."""

    @property
    def ids(self) -> list[int]:
        """Numbers of the vocabulary."""

    @property
    def type_ids(self) -> list[int]:
        """0 for the first text of a pair, 1 for the second."""


class _Linear:
    """x W^T + b, in bfloat16 with the weights laid out once for the processor's matrix unit."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        import torch

        # PyTorch's own compiler calls the same two; the public linear lays the weights out anew each time
        self._ops = torch.ops.mkldnn if weight.dtype == torch.bfloat16 and _has_onednn() else None
        self._weight = self._ops._reorder_linear_weight(weight) if self._ops else weight
        self._bias = bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import linear

        if not self._ops:
            return linear(x, self._weight, self._bias)
        product: torch.Tensor = self._ops._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return product

    def added_to(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The product, added to y."""
        if not self._ops:
            return y + self(x)
        total: torch.Tensor = self._ops._linear_pointwise.binary(x, y, self._weight, self._bias, "add")
        return total


def _has_onednn() -> bool:
    import torch

    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


class _Layer(NamedTuple):
    qkv: _Linear
    attention_out: _Linear
    attention_norm: tuple[torch.Tensor, torch.Tensor]
    up: _Linear
    down: _Linear
    out_norm: tuple[torch.Tensor, torch.Tensor]


class _Run(NamedTuple):
    """Neighbouring sequences of one length: rows `start` to `end`, `sequences` of `length` tokens."""

    start: int
    end: int
    sequences: int
    length: int

    @classmethod
    def split(cls, lengths: Sequence[int]) -> list[_Run]:
        """All runs of a batch."""
        runs: list[_Run] = []
        start = 0
        for length, same in groupby(lengths):
            number = len(list(same))
            runs.append(cls(start, start + number * length, number, length))
            start = runs[-1].end
        return runs


@dataclass(frozen=True, slots=True)
class BertWeights:
    """A plain BERT encoder as it lies in a file: tensors by the library's names, and its few numbers."""

    tensors: Mapping[str, torch.Tensor]
    layers: int
    heads: int
    eps: float

    @classmethod
    def of(cls, model: Any) -> BertWeights:
        """Those of a `transformers.BertModel`."""
        config = model.config
        return cls(
            model.state_dict(), config.num_hidden_layers, config.num_attention_heads, config.layer_norm_eps
        )


def is_plain_bert(config: Mapping[str, Any]) -> bool:
    """Tell from a `config.json` whether it is a model whose numbers `PackedBert` reproduces."""
    return (
        config.get("model_type") == "bert"
        and config.get("hidden_act", "gelu") == "gelu"
        and config.get("position_embedding_type", "absolute") in (None, "absolute")
        and not config.get("is_decoder", False)
    )


def read_bert(folder: Path, tensors: Mapping[str, torch.Tensor], *, prefix: str = "") -> BertWeights:
    """A plain BERT of a model folder, its tensors read already; `prefix` is what their names begin with.

    Reading them by themselves takes a tenth of the time that the libraries need, most of it to be imported.
    """
    config = read_config(folder)
    named = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return BertWeights(
        named,
        int(config["num_hidden_layers"]),
        int(config["num_attention_heads"]),
        float(config["layer_norm_eps"]),
    )


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a model; empty where there is none that can be read."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


class PackedBert:
    """The weights of a plain BERT encoder, laid out for computing without padding a sequence."""

    def __init__(self, weights: BertWeights, dtype: torch.dtype) -> None:
        self._tensors = weights.tensors
        self._heads = weights.heads
        self._eps = weights.eps
        self._dtype = dtype
        self._words = self._cast("embeddings.word_embeddings.weight")
        self._positions = self._cast("embeddings.position_embeddings.weight")
        self._types = self._cast("embeddings.token_type_embeddings.weight")
        self._norm = self._pair("embeddings.LayerNorm")
        self.dim: int = self._words.shape[1]
        self._layers = [self._layer(f"encoder.layer.{number}") for number in range(weights.layers)]
        self._tensors = {}

    def states(self, encodings: Sequence[Tokens], *, first_only: bool = False) -> torch.Tensor:
        """Last hidden states, (all tokens, dim), sequences one after the other.

        Neighbours of the same length share a step of the attention. With `first_only`, only each sequence's first
        token: (sequences, dim).
        """
        import torch

        with torch.inference_mode():
            lengths = [len(encoding.ids) for encoding in encodings]
            runs = _Run.split(lengths)
            x = self._embed(encodings, lengths)
            for layer in self._layers[:-1]:
                x = self._block(layer, x, self._attend(layer, x, runs))
            last = self._layers[-1]
            if not first_only:
                return self._block(last, x, self._attend(last, x, runs))[: sum(lengths)]
            firsts = torch.tensor([0, *accumulate(lengths[:-1])])
            return self._block(last, x[firsts], self._attend(last, x, runs, first_only=True))

    def _embed(self, encodings: Sequence[Tokens], lengths: Sequence[int]) -> torch.Tensor:
        import torch
        from torch.nn.functional import layer_norm

        ids = torch.tensor([token for encoding in encodings for token in encoding.ids])
        types = torch.tensor([kind for encoding in encodings for kind in encoding.type_ids])
        positions = torch.cat([self._positions[:length] for length in lengths])
        x = self._words[ids] + self._types[types] + positions
        x = torch.cat([x, x.new_zeros(-len(x) % ROWS, self.dim)])
        return layer_norm(x, (self.dim,), *self._norm, eps=self._eps)

    def _attend(
        self, layer: _Layer, x: torch.Tensor, runs: Sequence[_Run], *, first_only: bool = False
    ) -> torch.Tensor:
        import torch
        from torch.nn.functional import scaled_dot_product_attention

        qkv = layer.qkv(x)
        head = self.dim // self._heads
        parts = []
        for start, end, sequences, length in runs:
            rows = qkv[start:end].view(sequences, length, 3, self._heads, head)
            query, key, value = rows.permute(2, 0, 3, 1, 4)
            if first_only:
                query = query[:, :, :1]
            attended = scaled_dot_product_attention(query, key, value, scale=1.0)
            parts.append(attended.transpose(1, 2).reshape(-1, self.dim))
        if not first_only:
            parts.append(qkv.new_zeros(len(qkv) - runs[-1].end, self.dim))
        return torch.cat(parts)

    def _block(self, layer: _Layer, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import gelu, layer_norm

        shape = (self.dim,)
        x = layer_norm(layer.attention_out.added_to(x, attended), shape, *layer.attention_norm, self._eps)
        return layer_norm(layer.down.added_to(x, gelu(layer.up(x))), shape, *layer.out_norm, self._eps)

    def _layer(self, name: str) -> _Layer:
        import torch

        attention = f"{name}.attention.self"
        weights, biases = (
            [
                self._tensors[f"{attention}.{part}.{kind}"].detach().float()
                for part in ("query", "key", "value")
            ]
            for kind in ("weight", "bias")
        )
        scale = (self.dim // self._heads) ** -0.5  # folded into the query, so that no step has to scale
        return _Layer(
            qkv=_Linear(
                *(
                    torch.cat([query * scale, key, value]).to(self._dtype).contiguous()
                    for query, key, value in (weights, biases)
                )
            ),
            attention_out=_Linear(*self._pair(f"{name}.attention.output.dense")),
            attention_norm=self._pair(f"{name}.attention.output.LayerNorm"),
            up=_Linear(*self._pair(f"{name}.intermediate.dense")),
            down=_Linear(*self._pair(f"{name}.output.dense")),
            out_norm=self._pair(f"{name}.output.LayerNorm"),
        )

    def _pair(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        return self._cast(f"{name}.weight"), self._cast(f"{name}.bias")

    def _cast(self, name: str) -> torch.Tensor:
        return self._tensors[name].detach().to(self._dtype).contiguous()


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


def spread(
    compute: Callable[[list[int]], T], lengths: Sequence[int], *, prompt: int = PROMPT_TOKENS
) -> Iterator[tuple[list[int], T]]:
    """Each batch of these sequences and what `compute` makes of it, as they get done, on all threads.

    Calls are served in the order in which they come, so that of many questions the first is answered first. What
    fits into one batch, as a question alone does, need not wait in line. Batches after the first `prompt` tokens
    of a call let pass what comes within the next `PROMPT_TOKENS`: a question is not kept waiting by a document
    that is embedded, nor is the document put off for ever by questions.
    """
    with _STARTING:
        line = _line()
    total = sum(lengths)
    tokens = max(1, min(BATCH_TOKENS, total // (4 * line.threads)))
    todo = iter(list(batches(lengths, tokens=tokens))[::-1])  # the longest first: they would end last
    came = line.computed if total > BATCH_TOKENS else 0
    place = line.place()
    handed = 0
    running: dict[Future[T], list[int]] = {}
    try:
        while True:
            # few at a time: where the later ones stand depends on what has been computed by then
            for batch in islice(todo, line.threads + 1 - len(running)):
                turn = came if handed < prompt else line.computed + PROMPT_TOKENS
                size = sum(lengths[position] for position in batch)
                running[line.submit(partial(compute, batch), size, turn, place)] = batch
                handed += size
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    finally:
        for future in running:
            future.cancel()


class _Line:
    """Batches that wait for the next idle thread: the one with the lowest turn goes first, then by place."""

    def __init__(self, threads: int, pool: ThreadPoolExecutor) -> None:
        self.threads = threads
        self.computed = 0
        """Tokens so far: the clock by which turns are told."""
        self._pool = pool
        self._numbers = count()
        self._waiting: PriorityQueue[tuple[int, int, int, Callable[[], None]]] = PriorityQueue()
        self._counting = threading.Lock()

    def place(self) -> int:
        """A number for a call, higher than those of all calls before it."""
        return next(self._numbers)

    def submit(self, compute: Callable[[], T], tokens: int, turn: int, place: int) -> Future[T]:
        """Let a batch of so many tokens be computed in its turn."""
        future: Future[T] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                _settle(future, compute)
                with self._counting:
                    self.computed += tokens

        self._waiting.put((turn, place, next(self._numbers), run))
        self._pool.submit(self._run_first)
        return future

    def _run_first(self) -> None:
        self._waiting.get_nowait()[-1]()


def _settle(future: Future[T], compute: Callable[[], T]) -> None:
    try:
        future.set_result(compute())
    except BaseException as error:  # noqa: BLE001 - raised where the result is taken, as in any executor
        future.set_exception(error)


@cache
def _line() -> _Line:
    """The line in front of as many threads as PyTorch would use."""
    import torch

    _keep_memory()
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "compute", initializer=_compute_alone)
    started = threading.Barrier(threads + 1)
    for _ in range(threads):
        pool.submit(started.wait)
    started.wait()
    torch.set_num_threads(threads)  # what one thread sets is also the default of later ones
    return _Line(threads, pool)


def _keep_memory() -> None:
    """Let the C library hold on to the memory of one step for the next.

    By itself glibc gives it back after each step, and the system clears every page of it anew: a quarter of the
    time of an embedding. Other C libraries have no such numbers to set.
    """
    set_number = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_number:
        set_number(M_MMAP_THRESHOLD, KEPT_BYTES)
        set_number(M_TRIM_THRESHOLD, 4 * KEPT_BYTES)


def _compute_alone() -> None:
    """Let PyTorch use one thread for what this thread computes.

    A thread takes the process's default at its first operation, whatever was set before: asking for the number
    is such an operation.
    """
    import torch

    torch.set_num_threads(1)
    torch.get_num_threads()
