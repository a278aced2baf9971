"""How to train: one frozen object, which a checkpoint was made with and is resumed with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """How to train.

    A step reads `groups` questions with 1 + `negatives` passages each, `uniform` of the negatives drawn from
    the whole list. `cosine` and `bm25` are the weights of the shipped score, `alone` the share of the loss that
    is on the logit alone. The run ends after `steps` or `minutes`, whichever is set and comes first.
    """

    seed: int = 11
    steps: int = 0
    minutes: float = 0.0
    groups: int = 16
    negatives: int = 6
    uniform: int = 2
    depth: int = 50
    learning_rate: float = 1.5e-4
    warmup: float = 0.03
    weight_decay: float = 0.01
    frozen_layers: int = 2
    average: float = 0.995
    rank: int = 64
    max_tokens: int = 224
    question_tokens: int = 64
    cosine: float = 20.0
    bm25: float = 0.4
    alone: float = 0.3
    headings: float = 0.25
    validation: int = 240
    every: float = 8.0
    evaluations: int = 10
    patience: int = 4
    workers: int = 1
    held_out: tuple[str, ...] = ()
