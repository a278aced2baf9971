"""A run from a folder of pairs to an adapter with its card, in one process or several.

Not in `__main__`: what a spawned process is to call must be in a module that it can import.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.embed import identify, load_embedder
from ingest.errors import BadRequest
from ingest.weights import best_device, best_dtype, bundled_minilm
from rag.train.calibrate import ask, calibrate
from rag.train.learn import Material, Team, train
from rag.train.measure import gains, read
from rag.train.mine import Listed, find_lists
from rag.train.model import Tokenized, load_backbone, with_adapter
from rag.train.options import Options
from rag.train.pairs import read_pairs, sample, split
from rag.train.record import ADAPTER, write_card


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for."""

    pairs: Path
    out: Path
    cache: Path
    name: str
    start: Path | None
    resume: bool
    questions: int
    calibration: int
    options: Options


def prepare(request: Request) -> tuple[Material, list[Listed]]:
    """(what is trained on, the lists to calibrate on). Slow the first time, then from the cache folder."""
    pairs = read_pairs(request.pairs)
    training, held = split(pairs, held_out=request.options.held_out)
    if request.questions:
        training = sample(training, request.questions, request.options.seed)
    held = held[: max(request.options.validation, request.calibration)]
    lists = find_lists(
        pairs,
        [*training, *held],
        load_embedder(identify()),
        cache=request.cache,
        depth=request.options.depth,
        say=_say,
    )
    validation = lists[len(training) :]
    material = Material(
        pairs.texts, lists[: len(training)], validation[: request.options.validation], pairs.hashes
    )
    return material, [one.found for one in validation[: request.calibration]]


def learn(request: Request, rank: int, port: int, threads: int) -> None:
    """One process of a run: train, then (the first process alone) calibrate and write reranker.json."""
    import torch

    torch.set_num_threads(threads)
    material, lists = prepare(request)
    team = Team(rank, request.options.workers, port)
    train(
        material,
        request.out,
        request.options,
        team=team,
        start=request.start,
        resume=request.resume,
        say=_say,
    )
    team.close()
    if rank == 0:
        calibrate_adapter(material.texts, lists, request)


def calibrate_adapter(texts: Sequence[str], lists: Sequence[Listed], request: Request) -> dict[str, Any]:
    """Calibrate the adapter in the request's folder on these lists and write its reranker.json."""
    options = request.options
    device = best_device()
    base, heads = load_backbone(options.seed)
    merged = with_adapter(base, request.out / ADAPTER)
    weights = {key: tensor.to(device, best_dtype(device)) for key, tensor in merged.items()}
    _say(f"reading {len(lists)} lists to calibrate on")
    logits = read(lists, weights, heads, Tokenized(bundled_minilm(), texts), options)
    card = calibrate(ask(lists, logits, texts, options))
    write_card(request.out, request.name, options, card)
    means = {name: round(float(values.mean()), 4) for name, values in gains(lists, logits, options).items()}
    _say(f"nDCG@10 on these {len(lists)} lists: {json.dumps(means)}")
    _say(f"written to {request.out / 'reranker.json'}: {json.dumps(card)}")
    return card


def recalibrate(request: Request) -> None:
    """Copy an adapter into the folder and write its card anew, without training it."""
    if request.start is None:
        raise BadRequest("Which adapter is to be calibrated? Name it with --start.")
    request.out.mkdir(parents=True, exist_ok=True)
    if request.start.resolve() != (request.out / ADAPTER).resolve():
        shutil.copyfile(request.start, request.out / ADAPTER)
    pairs = read_pairs(request.pairs)
    held = split(pairs, held_out=request.options.held_out)[1][: request.calibration]
    embedder = load_embedder(identify())
    lists = find_lists(pairs, held, embedder, cache=request.cache, depth=request.options.depth, say=_say)
    calibrate_adapter(pairs.texts, [one.found for one in lists], request)


def start(request: Request) -> None:
    """Train with as many processes as are asked for."""
    request.out.mkdir(parents=True, exist_ok=True)
    count = request.options.workers
    threads = max(1, (os.cpu_count() or 1) // count)
    port = _free_port() if count > 1 else 0
    if count > 1:
        prepare(request)  # once, so that the others find it in the cache
    context = multiprocessing.get_context("spawn")
    members = [
        context.Process(target=learn, args=(request, rank, port, threads), daemon=True)
        for rank in range(1, count)
    ]
    for member in members:
        member.start()
    learn(request, 0, port, threads)
    for member in members:
        member.join()


def _say(line: str) -> None:
    print(line, flush=True)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
