"""The library's trainer and miner against this project's own, on the same questions in the same minutes.

    python -m bench.training PAIRS_FOLDER [--minutes 5] [--questions 6000] [--start ADAPTER] [--cache FOLDER]

Three ways of learning, one after the other, each from the same weights with the same questions, passages, seed,
learning rate, frozen layers and number type, and without dropout:

- LambdaLoss and ListNetLoss through sentence-transformers' CrossEncoderTrainer. They see the logit alone: the
  trainer's losses have no place for what is known beforehand (cosine, BM25).
- ours: `rag.train.learn`, whose loss is on logit + cosine + BM25, with a share on the logit alone.

All are judged by the same code on the same validation lists, read to their ends: nDCG@10 of the logit alone and of
the whole score. Differences are paired, with their 95 % bootstrap interval. The time that counts is that of the
training loop; the library gets a few steps before, from which it is told how many it can make in its time.

Then `mine_hard_negatives` against `rag.train.mine` on the same questions and texts, embedding included.

Needs `pip install accelerate datasets`, which the app itself does not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

from bench.timing import machine, table
from ingest.embed import Embedder, identify, load_embedder
from ingest.weights import best_device, best_dtype, bundled_minilm, dtype_name
from rag.evidence.compare import compare
from rag.train.batch import draw, make_batch
from rag.train.learn import Learner, Material, Team, learning_rate
from rag.train.measure import gains, read
from rag.train.mine import Floats, Listed, find_lists
from rag.train.model import Tensors, Tokenized, load_backbone, with_adapter
from rag.train.options import Options
from rag.train.pairs import Labelled, Pairs, order, read_pairs, sample, split

PROBE = 4
"""Steps that the library makes beforehand, the first of them untimed."""
DEPTH = 50


@dataclass(frozen=True, slots=True)
class Trained:
    """What one way of learning came to; `values` are nDCG@10 of every validation question by kind of score."""

    name: str
    steps: int
    pairs: int
    seconds: float
    values: dict[str, Floats]


class Course:
    """The same groups of passages, step by step, for every way of learning."""

    def __init__(self, material: Material, options: Options) -> None:
        self.options = options
        self.tokenized = Tokenized(bundled_minilm(), material.texts)
        self._texts = material.texts
        self._lists = [one for one in material.training if one.relevant.any() and not one.relevant.all()]
        self._order = order([one.source for one in self._lists], options.seed)

    def lists(self, step: int) -> list[Listed]:
        """The questions of a step."""
        first, count = step * self.options.groups, len(self._order)
        return [self._lists[self._order[(first + k) % count]] for k in range(self.options.groups)]

    def generator(self, step: int) -> np.random.Generator:
        """What draws the passages of a step."""
        return np.random.default_rng([self.options.seed, step, 0])

    def rows(self, steps: int) -> dict[str, list[Any]]:
        """The questions and passages of that many steps, as the library's losses take them."""
        rows: dict[str, list[Any]] = {"query": [], "docs": [], "labels": []}
        for step in range(steps):
            generator = self.generator(step)
            for one in self.lists(step):
                places = draw(one, self.options, generator)
                generator.random()  # `make_batch` draws here whether there will be a heading
                rows["query"].append(one.question)
                rows["docs"].append([self._texts[int(one.numbers[place])] for place in places])
                rows["labels"].append([1.0] + [0.0] * (len(places) - 1))
        return rows


def train_ours(course: Course, weights: Tensors, heads: int, seconds: float) -> tuple[Tensors, int, float]:
    """(weights, steps, seconds of the loop)."""
    device = best_device()
    learner = Learner.start(weights, heads, course.options, device, best_dtype(device))
    team, step, begun = Team(0, 1, 0), 0, perf_counter()
    while (passed := perf_counter() - begun) < seconds:
        batch = make_batch(course.lists(step), course.tokenized, course.options, course.generator(step))
        _, gradients = learner.gradient(batch)
        learner.step(team.mean(gradients), step, learning_rate(passed / seconds, course.options))
        step += 1
    return learner.averaged(), step, perf_counter() - begun


def train_library(loss: str, course: Course, weights: Tensors, seconds: float) -> tuple[Tensors, int, float]:
    """The same through CrossEncoderTrainer with one of the library's losses."""
    probe, _ = _run_library(loss, course, weights, PROBE)
    steps = max(1, int(seconds / float(np.mean(probe[1:]))))
    times, learned = _run_library(loss, course, weights, steps)
    return learned, steps, sum(times)


def _run_library(loss: str, course: Course, weights: Tensors, steps: int) -> tuple[list[float], Tensors]:
    """(seconds of each step, weights)."""
    import torch
    from datasets import Dataset
    from sentence_transformers import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder import losses
    from transformers import TrainerCallback

    options, device = course.options, best_device()
    model = CrossEncoder(
        str(bundled_minilm()),
        num_labels=1,
        max_length=options.max_tokens,
        device=str(device),
        local_files_only=True,
    )
    model.model.load_state_dict(weights)
    for name, parameter in model.model.named_parameters():
        frozen = name.startswith("bert.embeddings.") or any(
            name.startswith(f"bert.encoder.layer.{number}.") for number in range(options.frozen_layers)
        )
        parameter.requires_grad_(not frozen)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    times: list[float] = []

    class Clock(TrainerCallback):
        begun = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.begun = perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(perf_counter() - self.begun)

    with TemporaryDirectory() as scratch:
        arguments = CrossEncoderTrainingArguments(
            output_dir=scratch,
            max_steps=steps,
            per_device_train_batch_size=options.groups,
            learning_rate=options.learning_rate,
            warmup_steps=int(options.warmup * steps),
            weight_decay=options.weight_decay,
            adam_beta2=0.98,
            bf16=best_dtype(device) is torch.bfloat16,
            use_cpu=device.type == "cpu",
            seed=options.seed,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        CrossEncoderTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict(course.rows(steps)),
            loss=getattr(losses, loss)(model, mini_batch_size=options.groups),
            callbacks=[Clock()],
        ).train()
    learned = {name: tensor.detach().float() for name, tensor in model.model.state_dict().items()}
    return times, learned


def compare_training(
    material: Material, options: Options, start: Path | None, say: Callable[[str], None]
) -> list[Trained]:
    """All three, one after the other, each for `options.minutes`."""
    base, heads = load_backbone(options.seed)
    weights = with_adapter(base, start) if start else base
    device, seconds = best_device(), 60 * options.minutes
    lists = [one.found for one in material.validation]
    ways: dict[str, Callable[[Course], tuple[Tensors, int, float]]] = {
        "start": lambda _: (weights, 0, 0.0),
        "LambdaLoss": lambda course: train_library("LambdaLoss", course, weights, seconds),
        "ListNetLoss": lambda course: train_library("ListNetLoss", course, weights, seconds),
        "ours": lambda course: train_ours(course, weights, heads, seconds),
    }
    done = []
    for name, way in ways.items():
        course = Course(material, options)
        learned, steps, passed = way(course)
        used = {key: tensor.detach().to(device, best_dtype(device)) for key, tensor in learned.items()}
        values = gains(lists, read(lists, used, heads, course.tokenized, options), options)
        pairs = steps * options.groups * (1 + options.negatives)
        done.append(Trained(name, steps, pairs, passed, values))
        say(f"{name}: {steps} steps in {passed:.0f} s, nDCG@10 {values['score'].mean():.4f}")
    return done


def training_table(trained: Sequence[Trained]) -> str:
    """Speeds, means, and each way's paired differences from ours."""
    ours = trained[-1]
    rows = [["", "steps", "pairs/s", "nDCG@10 logit", "ours - it", "nDCG@10 score", "ours - it"]]
    for one in trained:
        cells = [one.name, str(one.steps), f"{one.pairs / one.seconds:.1f}" if one.seconds else ""]
        for kind in ("logit", "score"):
            mine, other = (way.values[kind].astype(np.float64) for way in (ours, one))
            cells += [f"{other.mean():.3f}", "" if one is ours else str(compare([(mine, other)])[0])]
        rows.append(cells)
    known = f"without a model on the same lists: cosine {ours.values['cosine'].mean():.3f}, "
    return f"{table(rows)}\n\n{known}cosine + BM25 {ours.values['cosine_bm25'].mean():.3f}"


def compare_mining(pairs: Pairs, questions: Sequence[Labelled], embedder: Embedder, texts: int) -> str:
    """Both miners on these questions and a pool of that many texts, and what the library's leaves in."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    small = cut(pairs, questions, texts)
    with TemporaryDirectory() as scratch:
        begun = perf_counter()
        lists = find_lists(
            small, small.questions, embedder, cache=Path(scratch), depth=DEPTH, say=lambda _: None
        )
        ours = perf_counter() - begun
    rows = {
        "anchor": [one.question for one in small.questions],
        "positive": [small.texts[one.relevant[0]] for one in small.questions],
    }
    model = SentenceTransformer(str(bundled_minilm()), device=str(best_device()), local_files_only=True)
    begun = perf_counter()
    mined = mine_hard_negatives(
        Dataset.from_dict(rows),
        model,
        corpus=small.texts,
        num_negatives=DEPTH - 1,
        range_max=DEPTH + 16,
        output_format="n-tuple",
        verbose=False,
    )
    theirs = perf_counter() - begun
    asked = {one.question: one for one in small.questions}
    place = {text: number for number, text in enumerate(small.texts)}
    left_in = [
        _doubtful(
            [place[text] for name, text in row.items() if name.startswith("negative")],
            asked[row["anchor"]],
            small,
        )
        for row in mined
    ]
    return (
        f"mining {DEPTH} candidates for {len(small.questions):,} questions among {len(small.texts):,} texts, "
        f"embedding included: mine_hard_negatives {theirs:.1f} s ({len(mined):,} questions came back), "
        f"ours {ours:.1f} s ({len(lists):,}, with BM25). Of the library's lists {np.mean(left_in):.1%} hold a "
        "negative that is another labelled answer, or contains the answer or is contained in it."
    )


def cut(pairs: Pairs, questions: Sequence[Labelled], texts: int) -> Pairs:
    """A smaller folder: these questions, their texts, and others up to that many."""
    needed = [number for one in questions for number in (*one.relevant, *one.doubtful)]
    numbers = list(dict.fromkeys([*needed, *pairs.pool]))[: max(texts, len(set(needed)))]
    place = {number: position for position, number in enumerate(numbers)}
    moved = [
        replace(
            one,
            relevant=tuple(place[number] for number in one.relevant),
            doubtful=tuple(place[number] for number in one.doubtful),
        )
        for one in questions
    ]
    kept = [pairs.texts[number] for number in numbers]
    return Pairs(kept, [pairs.plain[number] for number in numbers], moved)


def _doubtful(negatives: Sequence[int], question: Labelled, pairs: Pairs) -> bool:
    """True where one of these texts is surely or perhaps right."""
    right = [pairs.plain[number] for number in question.relevant]
    return any(
        number in (*question.relevant, *question.doubtful)
        or any(form in pairs.plain[number] or pairs.plain[number] in form for form in right)
        for number in negatives
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs", type=Path, metavar="PAIRS_FOLDER")
    parser.add_argument("--minutes", type=float, default=5.0, help="of training, each way (%(default)s)")
    parser.add_argument("--questions", type=int, default=6000, help="to learn from (%(default)s)")
    parser.add_argument("--validation", type=int, default=200, help="questions to judge by (%(default)s)")
    parser.add_argument(
        "--mining", type=int, default=1000, help="questions to mine for (%(default)s; 0: none)"
    )
    parser.add_argument("--texts", type=int, default=5000, help="in the pool that is mined (%(default)s)")
    parser.add_argument("--groups", type=int, default=16, help="questions a step (%(default)s)")
    parser.add_argument("--start", type=Path, metavar="ADAPTER", help="instead of the bare backbone")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep vectors and candidates here")
    given = parser.parse_args(None if arguments is None else list(arguments))
    options = Options(minutes=given.minutes, groups=given.groups, headings=0.0)
    print(f"{machine()}; {dtype_name(best_dtype(best_device()))}", flush=True)
    embedder = load_embedder(identify())
    pairs = read_pairs(given.pairs)
    training, held = split(pairs)
    training, held = sample(training, given.questions, options.seed), held[: given.validation]
    if given.mining:
        print(f"\n{compare_mining(pairs, training[: given.mining], embedder, given.texts)}", flush=True)
    if given.minutes:
        with TemporaryDirectory() as scratch:
            cache = given.cache or Path(scratch)
            lists = find_lists(pairs, [*training, *held], embedder, cache=cache, depth=DEPTH, say=_say)
        material = Material(pairs.texts, lists[: len(training)], lists[len(training) :])
        trained = compare_training(material, options, given.start, _say)
        print(
            f"\n{given.minutes:g} minutes each, {len(training):,} questions, judged on {len(held):,} others\n\n"
            f"{training_table(trained)}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
