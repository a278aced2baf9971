"""Trains the bundled reranker: `python -m rag.train PAIRS_FOLDER --out FOLDER`.

Pairs of question and passages -> adapter.safetensors, reranker.json, run.json. A BERT cross-encoder learns on
top of what is known before it reads anything (cosine, BM25), so that it learns what those two miss. The
backbone's lower layers stay as they are; what the upper ones learned is written as a low-rank difference.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import multiprocessing
import os
import random
import re
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ingest.embed import Embedder, identify, load_embedder
from ingest.errors import BadRequest, UserError
from ingest.weights import (
    MINILM_SHA256,
    best_device,
    best_dtype,
    bundled_minilm,
    dtype_name,
    quiet_transformers,
    sha256,
)

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]
Tensors = dict[str, "torch.Tensor"]

CLS, SEP = 101, 102
HEADING_SOURCES = ("docs:", "openstax:")
"""Sources whose questions are headings: weaker labels, so only well-ranked positives of theirs are used."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to train. What a checkpoint was made with must be what it is resumed with."""

    seed: int = 11
    steps: int = 0
    minutes: float = 0.0
    groups: int = 16
    negatives: int = 3
    learning_rate: float = 1.5e-4
    warmup: float = 0.03
    weight_decay: float = 0.01
    frozen_layers: int = 2
    average: float = 0.995
    rank: int = 64
    max_tokens: int = 224
    question_tokens: int = 64
    cosine: float = 20.0
    bm25: float = 0.5
    alone: float = 0.6
    headings: float = 0.25
    validation: int = 240
    every: float = 8.0
    patience: int = 4
    workers: int = 1
    easy: float = 0.1
    held_out: tuple[str, ...] = ()


class Group(NamedTuple):
    """One question with its passages, the relevant one first; `known` is (passages, 2): cosine, BM25."""

    source: str
    question: str
    passages: tuple[int, ...]
    known: Floats


@dataclass(frozen=True, slots=True)
class Pairs:
    """All texts and all groups of a pairs folder; `hashes` are the SHA-256 of its files."""

    texts: list[str]
    groups: list[Group]
    hashes: dict[str, str] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------------- reading


def read_pairs(folder: Path) -> Pairs:
    """Read every *.jsonl.gz of a pairs folder: texts ({"t"}) first, then rows that refer to them by number.

    A row: src, q, pos, neg, pc and nc (cosines of question and passages), rank (of the positive, from 0).
    """
    texts: list[str] = []
    rows: list[dict[str, Any]] = []
    hashes: dict[str, str] = {}
    for path in sorted(folder.glob("*.jsonl.gz")):
        hashes[path.name] = sha256(path)
        first = len(texts)
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                item = json.loads(line)
                if "t" in item:
                    texts.append(item["t"])
                else:
                    numbers = (first + item["pos"], *(first + number for number in item["neg"]))
                    rows.append({**item, "passages": numbers})
    if not rows:
        raise BadRequest(f"No pairs in {folder}: expected files named *.jsonl.gz with texts and rows.")
    rows = [row for row in rows if _usable(row)]
    lexical = _bm25_of_rows(texts, rows)
    groups = [
        Group(
            row["src"],
            row["q"],
            row["passages"],
            np.stack([np.array([row["pc"], *row["nc"]], np.float32), scores], axis=1),
        )
        for row, scores in zip(rows, lexical, strict=True)
    ]
    return Pairs(texts, groups, hashes)


def _usable(row: dict[str, Any]) -> bool:
    """False where the bi-encoder puts the positive so far down that the label is more likely wrong than hard."""
    return bool(row["rank"] <= (15 if row["src"].startswith(HEADING_SOURCES) else 60))


def bm25(question: str, passages: Sequence[str]) -> Floats:
    """BM25 of each passage, rare words counted within these passages alone; (passages,) float32."""
    from qdrant_edge import Bm25

    model = Bm25()
    wanted = set(model.embed_query(question).indices)
    found: dict[int, dict[int, float]] = defaultdict(dict)
    for position, passage in enumerate(passages):
        vector = model.embed_document(passage)
        for word, weight in zip(vector.indices, vector.values, strict=True):
            if word in wanted:
                found[word][position] = weight
    return _weigh(found, len(passages), len(passages), range(len(passages)))


def _weigh(found: dict[int, dict[int, float]], total: int, size: int, positions: Iterable[int]) -> Floats:
    """Sum over words of idf x term weight; idf = ln(1 + (N - df + 1/2) / (df + 1/2)), as Qdrant computes it."""
    scores = np.zeros(size, np.float32)
    for weights in found.values():
        idf = math.log(1 + (total - len(weights) + 0.5) / (len(weights) + 0.5))
        for index, position in enumerate(positions):
            scores[index] += idf * weights.get(position, 0.0)
    return scores


def _bm25_of_rows(texts: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[Floats]:
    """BM25 of each row's passages, rare words counted within the row's source."""
    from qdrant_edge import Bm25

    model = Bm25()
    inverted: dict[str, dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    members: dict[str, set[int]] = defaultdict(set)
    for row in rows:
        members[row["src"]].update(row["passages"])
    for source, numbers in members.items():
        for number in numbers:
            vector = model.embed_document(texts[number])
            for word, weight in zip(vector.indices, vector.values, strict=True):
                inverted[source][word][number] = weight
    scores = []
    for row in rows:
        words = inverted[row["src"]]
        found = {word: words[word] for word in model.embed_query(row["q"]).indices if word in words}
        scores.append(_weigh(found, len(members[row["src"]]), len(row["passages"]), row["passages"]))
    return scores


# ------------------------------------------------------------------------------------------------- splitting


def split(pairs: Pairs, options: Options) -> tuple[list[Group], list[Group]]:
    """(train, validation): no question and no relevant passage of one is in the other.

    A passage's hash decides, so the split does not depend on order or seed. Sources named in
    `options.held_out` go to validation whole. Validation takes turns between the sources.
    """
    aside: dict[str, list[Group]] = defaultdict(list)
    rest: list[Group] = []
    for group in pairs.groups:
        number = hashlib.sha256(plain(pairs.texts[group.passages[0]]).encode()).digest()[0]
        if group.source in options.held_out or number < 8:
            aside[group.source].append(group)
        else:
            rest.append(group)
    shuffler = random.Random(options.seed)  # noqa: S311 - reproducible, not secret
    for source in sorted(aside):
        shuffler.shuffle(aside[source])
    turns = [group for source in sorted(aside) for group in enumerate(aside[source])]
    turns.sort(key=lambda turn: turn[0])
    validation = [group for _, group in turns][: options.validation]
    questions = {plain(group.question) for group in validation}
    relevant = {plain(pairs.texts[group.passages[0]]) for group in validation}
    train = [
        group
        for group in rest
        if plain(group.question) not in questions and plain(pairs.texts[group.passages[0]]) not in relevant
    ]
    return train, validation


def plain(text: str) -> str:
    """Lower case, words only: two texts that differ in form alone are one text."""
    return " ".join(re.findall(r"\w+", text.lower()))


def order(train: Sequence[Group], options: Options) -> list[int]:
    """Positions of the groups in a reproducible random order in which small sources come more often early.

    Each group draws u ** (1 / w) with w = size of its source ** -0.3; the largest come first
    (Efraimidis and Spirakis, 2006). Of the groups that cosine and BM25 already solve, two in three of all,
    a share of `easy` stays: they teach next to nothing and cost as much. Those where cosine and BM25 speak
    strongly against the label are left out: it is more likely wrong than they.
    """
    sizes: dict[str, int] = defaultdict(int)
    for group in train:
        sizes[group.source] += 1
    generator = np.random.default_rng(options.seed)
    draws = generator.random(len(train))
    lots = generator.random(len(train))
    surprise = np.array([known_loss(group, options) for group in train])
    kept = ((surprise > 0.02) & (surprise < 8.0)) | ((surprise <= 0.02) & (lots < options.easy))
    powers = np.array([sizes[group.source] ** 0.3 for group in train])
    ranked = np.argsort(-(draws**powers), kind="stable")
    return [int(position) for position in ranked if kept[position]] or [int(position) for position in ranked]


def known_loss(group: Group, options: Options) -> float:
    """-log softmax of the relevant passage by cosine and BM25 alone."""
    scores = options.cosine * group.known[:, 0] + options.bm25 * group.known[:, 1]
    top = float(scores.max())
    return top + math.log(float(np.exp(scores - top).sum())) - float(scores[0])


# -------------------------------------------------------------------------------------------------- the model


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


# --------------------------------------------------------------------------------------------------- training


class Batch(NamedTuple):
    """`pairs` holds the groups one after the other, the relevant passage first in each."""

    pairs: list[Pair]
    known: Floats
    """(groups, passages a group, 2): cosine, BM25."""


def make_batch(
    groups: Sequence[Group], tokenized: Tokenized, options: Options, generator: np.random.Generator
) -> Batch:
    """Draw negatives, the ones that look relevant to cosine and BM25 more often, and put headings on some."""
    pairs: list[Pair] = []
    known: list[Floats] = []
    for group in groups:
        looks = options.cosine * group.known[1:, 0] + options.bm25 * group.known[1:, 1]
        noise = generator.gumbel(size=len(looks)) * 2.0
        drawn = np.argsort(-(looks + noise))
        if len(drawn) < options.negatives:
            drawn = np.resize(drawn, options.negatives)
        chosen = [0, *(1 + int(number) for number in drawn[: options.negatives])]
        question = tokenized.encode(group.question)[: options.question_tokens]
        passages = [tokenized.passage(group.passages[number]) for number in chosen]
        if generator.random() < options.headings:
            passages = _with_headings(group, passages, tokenized, generator)
        pairs.extend(Pair(question, passage) for passage in passages)
        known.append(group.known[chosen])
    return Batch(pairs, np.stack(known))


def _with_headings(
    group: Group, passages: Sequence[Tokens], tokenized: Tokenized, generator: np.random.Generator
) -> list[Tokens]:
    """Put a heading before every passage, as retrieved passages have one.

    It names the source, which says nothing, and half of the time also some of the passage's own words; not
    where the question is itself a heading, or the answer would be given away.
    """
    title = re.sub(r"\W+|_", " ", group.source.split(":")[-1].split("/")[-1]).strip()
    name = tokenized.encode(title)
    own = generator.random() < 0.5 and not group.source.startswith(HEADING_SOURCES)
    headed = []
    for passage in passages:
        length = int(generator.integers(2, 7))
        start = int(generator.integers(0, max(1, len(passage) - length)))
        words = passage[start : start + length] if own else passage[:0]
        headed.append(np.concatenate([name, words, passage]))
    return headed


def listwise_loss(scores: torch.Tensor, known: torch.Tensor, options: Options) -> torch.Tensor:
    """Mean over the groups of -log softmax of the relevant passage (ListNet with one relevant passage).

    The cross-encoder is asked three times: alone, on top of the cosine, on top of cosine and BM25. The
    three share one forward pass.
    """
    with_cosine = scores + options.cosine * known[..., 0]
    with_both = with_cosine + options.bm25 * known[..., 1]
    shares = (options.alone, (1 - options.alone) / 2, (1 - options.alone) / 2)
    losses = [-part.log_softmax(dim=1)[:, 0].mean() for part in (scores, with_cosine, with_both)]
    return sum((share * loss for share, loss in zip(shares, losses, strict=True)), scores.new_zeros(()))


@dataclass(slots=True)
class Learner:
    """Weights being trained: float32 originals, a copy in the number type that computes, a running average."""

    options: Options
    heads: int
    masters: Tensors
    compute: Tensors
    averages: Tensors
    optimizer: Any

    @classmethod
    def start(
        cls, weights: Tensors, heads: int, options: Options, device: torch.device, dtype: torch.dtype
    ) -> Learner:
        """Freeze the embeddings and the lowest layers; put an optimizer on the rest."""
        import torch

        learned = [name for name in weights if _learned(name, options.frozen_layers)]
        masters = {name: weights[name].to(device).clone() for name in learned}
        compute = {name: tensor.to(device, dtype) for name, tensor in weights.items()}
        for name in learned:
            compute[name].requires_grad_()
        decayed = [masters[name] for name in learned if masters[name].dim() > 1]
        others = [masters[name] for name in learned if masters[name].dim() <= 1]
        optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": options.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=options.learning_rate,
            betas=(0.9, 0.98),
        )
        return cls(options, heads, masters, compute, {n: t.clone() for n, t in masters.items()}, optimizer)

    def gradient(self, batch: Batch) -> tuple[float, list[torch.Tensor]]:
        """(loss, gradients in the order of `masters`)."""
        import torch

        options = self.options
        device = next(iter(self.masters.values())).device
        scores = torch.empty(len(batch.pairs), device=device)
        room = 2048 if device.type == "cpu" else 32768  # what the cache holds; what fills a GPU
        for positions in by_length(batch.pairs, options.max_tokens, room):
            part = [batch.pairs[position] for position in positions]
            got = logits(self.compute, self.heads, part, options.max_tokens, options.frozen_layers)
            scores = scores.index_copy(0, torch.tensor(positions, device=device), got)
        known = torch.from_numpy(batch.known).to(device)
        loss = listwise_loss(scores.view(known.shape[:2]), known, options)
        tensors = [self.compute[name] for name in self.masters]
        gradients = torch.autograd.grad(loss, tensors, allow_unused=True)
        filled = (torch.zeros_like(t) if g is None else g for g, t in zip(gradients, tensors, strict=True))
        return float(loss.detach()), [gradient.float() for gradient in filled]

    def step(self, gradients: Sequence[torch.Tensor], number: int, rate: float) -> None:
        """Clip, step, update the average, copy the new weights to where they compute."""
        import torch

        norm = torch.sqrt(sum((gradient.square().sum() for gradient in gradients), torch.zeros(())))
        factor = min(1.0, 1.0 / (float(norm) + 1e-6))
        for master, gradient in zip(self.masters.values(), gradients, strict=True):
            master.grad = gradient * factor
        for part in self.optimizer.param_groups:
            part["lr"] = rate
        self.optimizer.step()
        keep = min(self.options.average, (number + 1) / (number + 10))
        with torch.no_grad():
            for name, master in self.masters.items():
                self.averages[name].lerp_(master, 1 - keep)
                self.compute[name].copy_(master)

    def averaged(self) -> Tensors:
        """All weights with the running average in place of the learned ones, in the computing number type."""
        changed = {name: tensor.to(self.compute[name].dtype) for name, tensor in self.averages.items()}
        return {name: changed.get(name, tensor.detach()) for name, tensor in self.compute.items()}


def _learned(name: str, frozen_layers: int) -> bool:
    if name.startswith("bert.embeddings."):
        return False
    parts = name.split(".")
    return not (parts[1:3] == ["encoder", "layer"] and int(parts[3]) < frozen_layers)


def learning_rate(progress: float, options: Options) -> float:
    """Linear up during the warm-up, then linear down to nothing; `progress` is between 0 and 1."""
    up = progress / options.warmup if options.warmup else 1.0
    return options.learning_rate * max(0.0, min(up, (1 - progress) / (1 - options.warmup)))


class Team:
    """The processes that train together, each with its share of every step; their gradients are averaged.

    Processes with one thread each lose less than threads do when others use the same cores.
    """

    def __init__(self, rank: int, size: int, port: int) -> None:
        self.rank, self.size = rank, size
        if size > 1:
            import torch.distributed as dist

            dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)

    def mean(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The mean of every tensor over the processes."""
        if self.size == 1:
            return list(tensors)
        import torch
        import torch.distributed as dist

        flat = torch.cat([tensor.reshape(-1).cpu() for tensor in tensors])
        dist.all_reduce(flat)
        parts = torch.split_with_sizes(flat / self.size, [tensor.numel() for tensor in tensors])
        return [
            part.view(tensor.shape).to(tensor.device) for part, tensor in zip(parts, tensors, strict=True)
        ]

    def close(self) -> None:
        """Leave."""
        if self.size > 1:
            import torch.distributed as dist

            dist.destroy_process_group()


@dataclass(slots=True)
class Progress:
    """Where a run is: what a checkpoint keeps beside the weights."""

    step: int = 0
    seconds: float = 0.0
    evaluated: float = 0.0
    best: float = math.inf
    worse: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def share(self, options: Options) -> float:
        """How much of the run is done, 0 to 1."""
        by_step = self.step / options.steps if options.steps else 0.0
        by_time = self.seconds / (60 * options.minutes) if options.minutes else 0.0
        return min(1.0, max(by_step, by_time))


def measure(
    learner: Learner, validation: Sequence[Group], tokenized: Tokenized, team: Team
) -> dict[str, float]:
    """Loss and nDCG@10 on all passages of the validation groups, with the averaged weights."""
    import torch

    options = learner.options
    mine = validation[team.rank :: team.size]
    pairs = [
        Pair(tokenized.encode(group.question)[: options.question_tokens], tokenized.passage(number))
        for group in mine
        for number in group.passages
    ]
    scores = predict(learner.averaged(), learner.heads, pairs, 256)
    sums = np.zeros(7)
    begin = 0
    for group in mine:
        part = scores[begin : begin + len(group.passages)]
        begin += len(group.passages)
        cosine, lexical = group.known[:, 0], group.known[:, 1]
        loss = listwise_loss(torch.from_numpy(part)[None], torch.from_numpy(group.known)[None], options)
        kinds = (
            cosine,
            cosine + 0.02 * lexical,
            part,
            part + options.cosine * cosine,
            part + options.cosine * cosine + options.bm25 * lexical,
        )
        sums += [1.0, float(loss), *(gain(kind) for kind in kinds)]
    count, *rest = (float(number) for number in team.mean([torch.from_numpy(sums)])[0])
    names = ("loss", "cosine", "cosine_bm25", "logit", "logit_cosine", "logit_cosine_bm25")
    return {name: value / max(count, 1e-9) for name, value in zip(names, rest, strict=True)}


def gain(scores: Floats) -> float:
    """nDCG@10 where the first passage alone is relevant: 1 / log2(1 + rank), 0 from rank 11 on; ties lose."""
    rank = int((scores[1:] >= scores[0]).sum()) + 1
    return 1 / math.log2(1 + rank) if rank <= 10 else 0.0


def train(
    pairs: Pairs,
    folder: Path,
    options: Options,
    *,
    team: Team,
    start: Path | None = None,
    resume: bool = False,
    say: Callable[[str], None] = print,
) -> Learner:
    """Train until the steps or minutes are used up or validation gets worse; the best adapter is in `folder`.

    With `resume` go on from the folder's checkpoint, to the same result as without the interruption.
    """
    import torch

    training, validation = split(pairs, options)
    if not training or not validation:
        raise BadRequest(f"{len(pairs.groups)} questions are too few to train on and to hold some out.")
    sequence = order(training, options)
    tokenized = Tokenized(bundled_minilm(), pairs.texts)
    base, heads = load_backbone(options.seed)
    weights = with_adapter(base, start) if start else base
    device = best_device()
    learner = Learner.start(weights, heads, options, device, best_dtype(device))
    progress = _restore(folder, learner) if resume else Progress()
    if not resume:
        progress.history.append({"step": 0, **measure(learner, validation, tokenized, team)})
        if team.rank == 0:
            say(_line(progress, options))
    began = time.monotonic() - progress.seconds
    share = options.groups // team.size
    while progress.share(options) < 1 and progress.worse < options.patience:
        first = progress.step * options.groups + team.rank * share
        chosen = [training[sequence[(first + k) % len(sequence)]] for k in range(share)]
        generator = np.random.default_rng([options.seed, progress.step, team.rank])
        loss, gradients = learner.gradient(make_batch(chosen, tokenized, options, generator))
        extra = torch.tensor([loss, time.monotonic() - began], device=device)
        *gradients, extra = team.mean([*gradients, extra])
        learner.step(gradients, progress.step, learning_rate(progress.share(options), options))
        progress.step += 1
        progress.seconds = float(extra[1])
        ended = progress.share(options) >= 1
        if ended or _due(progress, options):
            progress.evaluated = progress.seconds
            metrics = measure(learner, validation, tokenized, team)
            _judge(progress, metrics)
            if team.rank == 0:
                say(_line(progress, options))
                _save(folder, learner, progress)
                if progress.worse == 0:
                    export(learner.averages, base, folder / "adapter.safetensors", options.rank)
                    write_record(folder, pairs, options, progress, start)
        elif team.rank == 0 and progress.step % 20 == 0:
            say(f"step {progress.step} loss {float(extra[0]):.3f} {_left(progress, options)}")
    return learner


def _due(progress: Progress, options: Options) -> bool:
    """Evaluate every `every` minutes in a timed run, and ten times in a counted one."""
    if options.minutes:
        return progress.seconds - progress.evaluated >= 60 * options.every
    return progress.step % max(1, options.steps // 10) == 0


def _judge(progress: Progress, metrics: dict[str, float]) -> None:
    progress.history.append({"step": progress.step, **metrics})
    better = metrics["loss"] < progress.best
    progress.best = min(progress.best, metrics["loss"])
    progress.worse = 0 if better else progress.worse + 1


def _left(progress: Progress, options: Options) -> str:
    share = max(progress.share(options), 1e-6)
    return f"{progress.seconds / 60:.1f} min, {progress.seconds * (1 - share) / share / 60:.1f} min left"


def _line(progress: Progress, options: Options) -> str:
    numbers = " ".join(
        f"{name} {value:.4f}" for name, value in progress.history[-1].items() if name != "step"
    )
    return f"evaluation at step {progress.step}: {numbers} ({_left(progress, options)})"


def _save(folder: Path, learner: Learner, progress: Progress) -> None:
    import torch

    state = {
        "options": json.dumps(asdict(learner.options)),
        "progress": json.dumps(asdict(progress)),
        "masters": learner.masters,
        "averages": learner.averages,
        "optimizer": learner.optimizer.state_dict(),
    }
    torch.save(state, folder / "checkpoint.part")
    (folder / "checkpoint.part").replace(folder / "checkpoint.pt")


def _restore(folder: Path, learner: Learner) -> Progress:
    import torch

    path = folder / "checkpoint.pt"
    if not path.is_file():
        raise BadRequest(f"Nothing to resume: {path} does not exist. Leave out --resume to start anew.")
    state = torch.load(path, weights_only=True, map_location=next(iter(learner.masters.values())).device)
    if state["options"] != json.dumps(asdict(learner.options)):
        raise BadRequest(f"{path} was made with other options; resume with the same: {state['options']}")
    learner.optimizer.load_state_dict(state["optimizer"])
    with torch.no_grad():
        for name, master in learner.masters.items():
            master.copy_(state["masters"][name])
            learner.averages[name].copy_(state["averages"][name])
            learner.compute[name].copy_(master)
    return Progress(**json.loads(state["progress"]))


# ---------------------------------------------------------------------------------------------------- writing


def export(learned: Tensors, base: Tensors, path: Path, rank: int) -> None:
    """Write what changed as float16 safetensors: matrices of the encoder as low-rank differences, others whole.

    `NAME.lora_B @ NAME.lora_A` is the best approximation of the difference of that rank (Eckart and Young).
    """
    import torch
    from safetensors.torch import save_file

    tensors: Tensors = {}
    for name, value in learned.items():
        tensor = value.detach().float().cpu()
        if name.startswith("bert.encoder.") and tensor.dim() == 2:
            left, sizes, right = torch.linalg.svd(tensor - base[name].float(), full_matrices=False)
            root = sizes[:rank].sqrt()
            target = name.removesuffix(".weight")
            tensors[f"{target}.lora_A"] = root[:, None] * right[:rank]
            tensors[f"{target}.lora_B"] = left[:, :rank] * root
        else:
            tensors[name] = tensor
    save_file({name: tensor.half().contiguous() for name, tensor in tensors.items()}, path)


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


def write_record(
    folder: Path, pairs: Pairs, options: Options, progress: Progress, start: Path | None
) -> None:
    """Write run.json: what was trained on, how, with which versions, and every evaluation."""
    import platform
    from importlib.metadata import version

    device = best_device()
    record = {
        "data": pairs.hashes,
        "base_sha256": MINILM_SHA256,
        "start_sha256": sha256(start) if start else None,
        "options": asdict(options),
        "steps": progress.step,
        "pairs": progress.step * options.groups * (1 + options.negatives),
        "minutes": round(progress.seconds / 60, 1),
        "device": f"{device.type}, {dtype_name(best_dtype(device))}",
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "tokenizers", "qdrant-edge-py")},
        },
        "evaluations": progress.history,
    }
    (folder / "run.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


# ------------------------------------------------------------------------------------------------ calibrating


@dataclass(frozen=True, slots=True)
class Candidates:
    """What retrieval finds for one question: text numbers, (n, 2) cosine and BM25, which are relevant."""

    question: str
    numbers: tuple[int, ...]
    known: Floats
    relevant: npt.NDArray[np.bool_]


def find_candidates(
    pairs: Pairs, validation: Sequence[Group], embedder: Embedder, *, depth: int = 50, pool: int = 4000
) -> list[Candidates]:
    """The bi-encoder's best `depth` texts for each validation question.

    The pool is all passages of the validation groups and texts drawn from the sources they come from, `pool`
    in all. Questions whose relevant passage is not among the best are left out.
    """
    sources = {group.source for group in validation}
    numbers = list(dict.fromkeys(number for group in validation for number in group.passages))
    others = list(
        dict.fromkeys(n for group in pairs.groups if group.source in sources for n in group.passages)
    )
    random.Random(0).shuffle(others)  # noqa: S311 - reproducible, not secret
    seen: set[str] = set()
    chosen: list[int] = []
    for number in [*numbers, *others[: max(0, pool - len(numbers))]]:
        if plain(pairs.texts[number]) not in seen:
            seen.add(plain(pairs.texts[number]))
            chosen.append(number)
    vectors = embedder.embed([pairs.texts[number] for number in chosen])
    questions = embedder.embed([group.question for group in validation])
    answers: dict[str, set[str]] = defaultdict(set)
    for group in pairs.groups:
        answers[plain(group.question)].add(plain(pairs.texts[group.passages[0]]))
    found = []
    for group, vector in zip(validation, questions, strict=True):
        cosines = vectors @ vector
        best = np.argsort(-cosines, kind="stable")[:depth]
        texts = [pairs.texts[chosen[position]] for position in best]
        right = answers[plain(group.question)]
        relevant = np.array([plain(text) in right for text in texts])
        known = np.stack([cosines[best], bm25(group.question, texts)], axis=1).astype(np.float32)
        if relevant.any():
            chosen_here = tuple(chosen[position] for position in best)
            found.append(Candidates(group.question, chosen_here, known, relevant))
    return found


def score_candidates(
    found: Sequence[Candidates], weights: Tensors, heads: int, tokenized: Tokenized, options: Options
) -> list[Floats]:
    """Cross-encoder logit + cosine weight x cosine + BM25 weight x BM25 of every candidate."""
    pairs = [
        Pair(tokenized.encode(one.question)[: options.question_tokens], tokenized.passage(number))
        for one in found
        for number in one.numbers
    ]
    scores = predict(weights, heads, pairs, 256)
    ends = np.cumsum([len(one.numbers) for one in found])[:-1]
    return [
        (part + one.known @ np.array([options.cosine, options.bm25], np.float32)).astype(np.float32)
        for one, part in zip(found, np.split(scores, ends), strict=True)
    ]


def calibrate(found: Sequence[Candidates], scores: Sequence[Floats], *, shown: int = 5) -> dict[str, Any]:
    """Scale and offset of the shown probability, and the threshold of "probably not in your documents".

    The probability is fitted on the `shown` best candidates of each question, which are the ones that people
    see. For the threshold every question is asked twice, with its relevant passages and with them taken away.
    Errors and rates are measured on the half of the questions that was not fitted on, both ways.
    """
    halves = (range(0, len(found), 2), range(1, len(found), 2))
    errors, rates = [], []
    for fitted, other in (halves, halves[::-1]):
        scale, offset = fit_sigmoid(*_best(found, scores, fitted, shown))
        points, labels = _best(found, scores, other, shown)
        errors.append(calibration_error(_sigmoid(scale * points + offset), labels))
        limit = _limit(*_extremes(found, scores, fitted))
        rates.append(_rates(*_extremes(found, scores, other), limit))
    scale, offset = fit_sigmoid(*_best(found, scores, range(len(found)), shown))
    limit = _limit(*_extremes(found, scores, range(len(found))))
    names = ("precision", "recall", "false_alarms")
    means = np.mean(rates, axis=0)
    return {
        "calibration": {
            "scale": scale,
            "offset": offset,
            "expected_calibration_error": round(float(np.mean(errors)), 4),
        },
        "threshold": round(float(_sigmoid(np.array([scale * limit + offset]))[0]), 4),
        "threshold_quality": {name: round(float(m), 3) for name, m in zip(names, means, strict=True)},
        "questions": len(found),
    }


def _best(
    found: Sequence[Candidates], scores: Sequence[Floats], which: Iterable[int], count: int
) -> tuple[Floats, Floats]:
    """(scores, labels) of the best candidates of the questions at `which`."""
    points: list[Floats] = []
    labels: list[Floats] = []
    for position in which:
        best = np.argsort(-scores[position], kind="stable")[:count]
        points.append(scores[position][best])
        labels.append(found[position].relevant[best].astype(np.float32))
    return np.concatenate(points), np.concatenate(labels)


def _extremes(
    found: Sequence[Candidates], scores: Sequence[Floats], which: Iterable[int]
) -> tuple[Floats, Floats]:
    """Best score of every question as it is, and with its relevant passages taken away."""
    chosen = [p for p in which if not found[p].relevant.all()]
    answerable = [scores[p].max() for p in chosen]
    not_answerable = [scores[p][~found[p].relevant].max() for p in chosen]
    return np.array(answerable, np.float32), np.array(not_answerable, np.float32)


def _limit(answerable: Floats, not_answerable: Floats) -> float:
    """The score that separates the two best: most of (share below among the one, share above of the other)."""
    values = np.unique(np.concatenate([answerable, not_answerable]))
    candidates = (values[1:] + values[:-1]) / 2 if len(values) > 1 else values
    balance = [(not_answerable < c).mean() + (answerable >= c).mean() for c in candidates]
    return float(candidates[int(np.argmax(balance))])


def _rates(answerable: Floats, not_answerable: Floats, limit: float) -> tuple[float, float, float]:
    """Precision and recall of "not in your documents", and how often it is said of an answerable question."""
    right, wrong = int((not_answerable < limit).sum()), int((answerable < limit).sum())
    return right / max(1, right + wrong), right / len(not_answerable), wrong / len(answerable)


def fit_sigmoid(points: Floats, labels: Floats) -> tuple[float, float]:
    """(scale, offset) that make sigmoid(scale * point + offset) likeliest; Newton's method (Platt, 1999)."""
    middle, spread = float(points.mean()), float(points.std()) or 1.0
    design = np.stack([(points - middle) / spread, np.ones_like(points)], axis=1).astype(np.float64)
    solution = np.zeros(2)
    for _ in range(50):
        chance = _sigmoid(design @ solution)
        slope = design.T @ (chance - labels) + 1e-3 * solution
        curve = (design * (chance * (1 - chance))[:, None]).T @ design + 1e-3 * np.eye(2)
        solution = solution - np.linalg.solve(curve, slope)
    scale = float(solution[0]) / spread
    return scale, float(solution[1]) - scale * middle


def calibration_error(chances: Floats, labels: Floats, *, bins: int = 10) -> float:
    """Expected calibration error: mean over bins of |stated chance - share that came true|, by size."""
    which = np.minimum((chances * bins).astype(int), bins - 1)
    parts = [which == number for number in range(bins) if (which == number).any()]
    return float(sum(part.mean() * abs(chances[part].mean() - labels[part].mean()) for part in parts))


def _sigmoid(values: npt.NDArray[Any]) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -60, 60))), np.float32)


def write_card(folder: Path, name: str, options: Options, calibration: dict[str, Any]) -> None:
    """Write reranker.json, which the reranker is loaded by."""
    card = {
        "name": name,
        "base_sha256": MINILM_SHA256,
        "adapter_sha256": sha256(folder / "adapter.safetensors"),
        "max_tokens": 256,
        "question_tokens": options.question_tokens,
        "score": {"logit": 1.0, "cosine": options.cosine, "bm25": options.bm25},
        **calibration,
    }
    (folder / "reranker.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


# --------------------------------------------------------------------------------------------------- starting


def run(
    pairs_folder: Path, out: Path, name: str, options: Options, start: Path | None, resume: bool, seat: Seat
) -> None:
    """One process of a run: train, then (the first process alone) calibrate and write reranker.json."""
    import torch

    torch.set_num_threads(seat.threads)
    pairs = read_pairs(pairs_folder)
    team = Team(seat.rank, options.workers, seat.port)
    train(pairs, out, options, team=team, start=start, resume=resume, say=_say)
    team.close()
    if seat.rank == 0:
        calibrate_adapter(pairs, out, name, options, load_embedder(identify()))


def calibrate_adapter(
    pairs: Pairs, folder: Path, name: str, options: Options, embedder: Embedder
) -> dict[str, Any]:
    """Calibrate the adapter in `folder` on the validation questions and write its reranker.json."""
    device = best_device()
    base, heads = load_backbone(options.seed)
    merged = with_adapter(base, folder / "adapter.safetensors")
    weights = {key: tensor.to(device, best_dtype(device)) for key, tensor in merged.items()}
    found = find_candidates(pairs, split(pairs, options)[1], embedder)
    scores = score_candidates(found, weights, heads, Tokenized(bundled_minilm(), pairs.texts), options)
    calibration = calibrate(found, scores)
    write_card(folder, name, options, calibration)
    _say(f"calibrated on {len(found)} questions: {json.dumps(calibration)}")
    return calibration


class Seat(NamedTuple):
    """A process's place in the team."""

    rank: int
    port: int
    threads: int


def _say(line: str) -> None:
    print(line, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see --help."""
    given = _parse(arguments)
    if not given.steps and not given.minutes:
        given.minutes = 60.0
    options = Options(
        seed=given.seed,
        steps=given.steps,
        minutes=given.minutes,
        learning_rate=given.learning_rate,
        negatives=given.negatives,
        rank=given.rank,
        easy=given.easy,
        cosine=given.cosine,
        bm25=given.bm25,
        validation=given.validation,
        every=given.every,
        patience=given.patience,
        workers=given.workers,
        held_out=tuple(given.hold_out),
    )
    given.out.mkdir(parents=True, exist_ok=True)
    members: list[Any] = []
    threads = max(1, (os.cpu_count() or 1) // options.workers)
    port = _free_port() if options.workers > 1 else 0
    fixed = (given.pairs, given.out, given.name, options, given.start, given.resume)
    context = multiprocessing.get_context("spawn")
    for rank in range(1, options.workers):
        member = context.Process(target=run, args=(*fixed, Seat(rank, port, threads)), daemon=True)
        member.start()
        members.append(member)
    try:
        run(*fixed, Seat(0, port, threads))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    for member in members:
        member.join()
    return 0


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    defaults = Options()
    parser = argparse.ArgumentParser(prog="python -m rag.train", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("pairs", type=Path, metavar="PAIRS_FOLDER", help="folder of *.jsonl.gz files of texts and rows")
    add("--out", type=Path, required=True, metavar="FOLDER", help="where adapter, card and record go")
    add("--start", type=Path, metavar="ADAPTER", help="go on from this adapter instead of the bare backbone")
    add("--resume", action="store_true", help="go on from the checkpoint in --out")
    add("--steps", type=int, default=0, help="how many steps")
    add("--minutes", type=float, default=0.0, help="how long (60 where neither is given)")
    add("--name", default="second-look-minilm", help="name in the interface")
    add("--seed", type=int, default=defaults.seed)
    add("--learning-rate", type=float, default=defaults.learning_rate)
    add("--negatives", type=int, default=defaults.negatives, help="passages that do not answer, a question")
    add("--easy", type=float, default=defaults.easy, help="share kept of what cosine and BM25 solve already")
    add("--rank", type=int, default=defaults.rank, help="of the low-rank differences")
    add("--cosine", type=float, default=defaults.cosine, help="weight of the cosine in the score")
    add("--bm25", type=float, default=defaults.bm25, help="weight of BM25 in the score")
    add("--validation", type=int, default=defaults.validation, help="questions held out")
    add("--hold-out", nargs="*", default=[], metavar="SOURCE", help="sources held out whole")
    add("--every", type=float, default=defaults.every, help="minutes between evaluations")
    add("--patience", type=int, default=defaults.patience, help="evaluations without gain before the stop")
    add("--workers", type=int, default=1, help="processes that share the work; one a core on a busy CPU")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
