"""Learning: the loss, the loop with its team of processes, checkpoints."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ingest.errors import BadRequest
from ingest.weights import best_device, best_dtype, bundled_minilm
from rag.train.batch import Batch, make_batch
from rag.train.measure import gains, losses, read
from rag.train.mine import Listed, Say
from rag.train.model import (
    Tensors,
    Tokenized,
    by_length,
    export,
    load_backbone,
    logits,
    with_adapter,
)
from rag.train.options import Options
from rag.train.pairs import order
from rag.train.record import ADAPTER, write_record

if TYPE_CHECKING:
    import torch

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class Material:
    """What is learned from, and what a run is judged by; `hashes` of the files it comes from are a record."""

    texts: Sequence[str]
    training: Sequence[Listed]
    validation: Sequence[Listed]
    hashes: dict[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """A hash of all questions and candidates, which a checkpoint remembers."""
        digest = hashlib.sha256()
        for one in (*self.training, *self.validation):
            digest.update(one.question.encode() + one.numbers.tobytes() + one.relevant.tobytes())
        return digest.hexdigest()


def listwise_loss(logits: torch.Tensor, known: torch.Tensor, options: Options) -> torch.Tensor:
    """Mean over the groups of -log softmax of the relevant passage, the first one (ListNet).

    The shipped score is what is ranked by, so that the cross-encoder learns what cosine and BM25 miss. A share
    on the logit alone keeps it from leaning on them.
    """
    score = logits + options.cosine * known[..., 0] + options.bm25 * known[..., 1]
    alone, together = (-part.log_softmax(dim=1)[:, 0].mean() for part in (logits, score))
    return options.alone * alone + (1 - options.alone) * together


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
    best: tuple[float, float] = (-1.0, 0.0)
    best_step: int = 0
    worse: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def share(self, options: Options) -> float:
        """How much of the run is done, 0 to 1."""
        by_step = self.step / options.steps if options.steps else 0.0
        by_time = self.seconds / (60 * options.minutes) if options.minutes else 0.0
        return min(1.0, max(by_step, by_time))

    def judge(self, metrics: dict[str, float]) -> None:
        """Take an evaluation into the history, and see whether it is the best so far."""
        self.history.append({"step": self.step, **metrics})
        reached = (metrics["score"], -metrics["loss"])
        if reached > self.best:
            self.best, self.best_step, self.worse = reached, self.step, 0
        else:
            self.worse += 1


def measure(learner: Learner, lists: Sequence[Listed], tokenized: Tokenized, team: Team) -> dict[str, float]:
    """Means over the lists, read to their ends, with the averaged weights: see `measure.gains`, and the loss."""
    import torch

    options = learner.options
    mine = [one.found for one in lists[team.rank :: team.size]]
    read_now = read(mine, learner.averaged(), learner.heads, tokenized, options) if mine else []
    kinds = {**gains(mine, read_now, options), "loss": losses(mine, read_now, options)}
    sums = torch.tensor([len(mine), *(float(values.sum()) for values in kinds.values())], dtype=torch.float64)
    count, *rest = (float(number) for number in team.mean([sums])[0])
    return {name: value / count for name, value in zip(kinds, rest, strict=True)}


def train(
    material: Material,
    folder: Path,
    options: Options,
    *,
    team: Team,
    start: Path | None = None,
    resume: bool = False,
    say: Say = print,
) -> Learner:
    """Train until the steps or minutes are used up or validation gets no better; the best adapter is in `folder`.

    The best is the one with the highest nDCG@10 of the shipped score on the validation lists, of equals the one
    with the lower loss; what was started from takes part. With `resume` go on from the folder's checkpoint, to
    the same result as without the interruption.
    """
    import torch

    training = [one for one in material.training if one.relevant.any() and not one.relevant.all()]
    if not training or not material.validation:
        count = len(material.training) + len(material.validation)
        raise BadRequest(f"{count} questions are too few to train on and to hold some out.")
    sequence = order([one.source for one in training], options.seed)
    tokenized = Tokenized(bundled_minilm(), material.texts)
    base, heads = load_backbone(options.seed)
    device = best_device()
    weights = with_adapter(base, start) if start else base
    learner = Learner.start(weights, heads, options, device, best_dtype(device))
    fingerprint = material.fingerprint
    progress = _restore(folder, learner, fingerprint) if resume else Progress()

    def evaluate() -> None:
        progress.evaluated = progress.seconds
        progress.judge(measure(learner, material.validation, tokenized, team))
        if team.rank == 0:
            say(_line(progress, options))
            if progress.worse == 0:
                export(learner.averages, base, folder / ADAPTER, options.rank)
            _save(folder, learner, progress, fingerprint)
            write_record(folder, material.hashes, options, asdict(progress), start)

    if not resume:
        evaluate()
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
        if progress.share(options) >= 1 or _due(progress, options):
            evaluate()
        elif team.rank == 0 and progress.step % 20 == 0:
            say(f"step {progress.step} loss {float(extra[0]):.3f} {_left(progress, options)}")
    return learner


def _due(progress: Progress, options: Options) -> bool:
    """Evaluate every `every` minutes in a timed run, and `evaluations` times in a counted one."""
    if options.minutes:
        return progress.seconds - progress.evaluated >= 60 * options.every
    return progress.step % max(1, -(-options.steps // options.evaluations)) == 0


def _left(progress: Progress, options: Options) -> str:
    if progress.step == 0:
        return f"about {options.minutes:.1f} min left" if options.minutes else "time left: known after a step"
    share = progress.share(options)
    return f"{progress.seconds / 60:.1f} min, {progress.seconds * (1 - share) / share / 60:.1f} min left"


def _line(progress: Progress, options: Options) -> str:
    numbers = " ".join(
        f"{name} {value:.4f}" for name, value in progress.history[-1].items() if name != "step"
    )
    return f"evaluation at step {progress.step}: {numbers} ({_left(progress, options)})"


def _save(folder: Path, learner: Learner, progress: Progress, fingerprint: str) -> None:
    import torch

    state = {
        "data": fingerprint,
        "options": json.dumps(asdict(learner.options)),
        "progress": json.dumps(asdict(progress)),
        "masters": learner.masters,
        "averages": learner.averages,
        "optimizer": learner.optimizer.state_dict(),
    }
    torch.save(state, folder / "checkpoint.part")
    (folder / "checkpoint.part").replace(folder / CHECKPOINT)


def _restore(folder: Path, learner: Learner, fingerprint: str) -> Progress:
    import torch

    path = folder / CHECKPOINT
    if not path.is_file():
        raise BadRequest(f"Nothing to resume: {path} does not exist. Leave out --resume to start anew.")
    state = torch.load(path, weights_only=True, map_location=next(iter(learner.masters.values())).device)
    if state["options"] != json.dumps(asdict(learner.options)):
        raise BadRequest(f"{path} was made with other options; resume with the same: {state['options']}")
    if state["data"] != fingerprint:
        raise BadRequest(
            f"{path} was made with other pairs; resume with the same, or start anew without --resume."
        )
    learner.optimizer.load_state_dict(state["optimizer"])
    with torch.no_grad():
        for name, master in learner.masters.items():
            master.copy_(state["masters"][name])
            learner.averages[name].copy_(state["averages"][name])
            learner.compute[name].copy_(master)
    kept = json.loads(state["progress"])
    return Progress(**{**kept, "best": tuple(kept["best"])})
