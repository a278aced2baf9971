"""Trains the bundled reranker: `python -m rag.train PAIRS_FOLDER --out FOLDER`.

Pairs of question and passages -> adapter.safetensors, reranker.json, run.json. Every question gets the 50
passages that the bi-encoder would find for it, and the cross-encoder learns on top of what is known before it
reads anything (cosine, BM25), so that it learns what those two miss. The backbone's lower layers stay as they
are; what the upper ones learned is written as a low-rank difference.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from ingest.errors import BadRequest, UserError
from rag.train.options import Options
from rag.train.record import ADAPTER
from rag.train.run import Request, recalibrate, start


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see --help."""
    given = _parser().parse_args(arguments)
    try:
        request = _request(given)
        if given.calibrate_only:
            recalibrate(request)
        else:
            start(request)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _request(given: argparse.Namespace) -> Request:
    """Raises BadRequest for what does not fit together."""
    values = {
        field.name: getattr(given, field.name) for field in fields(Options) if hasattr(given, field.name)
    }
    if not given.steps and not given.minutes:
        values["minutes"] = 60.0
    options = Options(**{**values, "held_out": tuple(given.held_out)})
    if options.groups % options.workers:
        raise BadRequest(f"{options.groups} groups a step cannot be shared by {options.workers} workers.")
    if not 0 <= options.uniform <= options.negatives:
        raise BadRequest(f"--uniform must be from 0 to the number of negatives, {options.negatives}.")
    adapter = given.start / ADAPTER if given.start and given.start.is_dir() else given.start
    if adapter and not adapter.is_file():
        raise BadRequest(f"There is no adapter {adapter}.")
    cache = given.cache or given.out / "cache"
    return Request(
        given.pairs,
        given.out,
        cache,
        given.name,
        adapter,
        given.resume,
        given.questions,
        given.calibration,
        options,
    )


def _parser() -> argparse.ArgumentParser:
    defaults = Options()
    parser = argparse.ArgumentParser(
        prog="python -m rag.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("pairs", type=Path, metavar="PAIRS_FOLDER", help="folder of *.jsonl.gz files of texts and rows")
    add("--out", type=Path, required=True, metavar="FOLDER", help="where adapter, card and record go")
    add("--cache", type=Path, metavar="FOLDER", help="where vectors and candidates are kept (OUT/cache)")
    add("--start", type=Path, metavar="ADAPTER", help="go on from this adapter (a file, or its folder)")
    add("--resume", action="store_true", help="go on from the checkpoint in --out")
    add(
        "--calibrate-only",
        action="store_true",
        help="train nothing: write the card of --start anew into --out",
    )
    add("--name", default="second-look-minilm", help="name in the interface")
    add("--questions", type=int, default=0, metavar="N", help="train on N questions drawn at random (0: all)")
    add("--calibration", type=int, default=300, metavar="N", help="held-out questions to calibrate on")
    add("--hold-out", dest="held_out", nargs="*", default=[], metavar="SOURCE", help="sources held out whole")
    for name, kind, text in (
        ("steps", int, "how many steps"),
        ("minutes", float, "how long (60 where neither is given)"),
        ("seed", int, "of every draw"),
        ("groups", int, "questions a step"),
        ("negatives", int, "passages that do not answer, a question"),
        ("uniform", int, "of them drawn from the whole list alike"),
        ("depth", int, "candidates a question"),
        ("learning-rate", float, "at its highest"),
        ("rank", int, "of the low-rank differences"),
        ("cosine", float, "weight of the cosine in the score"),
        ("bm25", float, "weight of BM25 in the score"),
        ("alone", float, "share of the loss on the logit alone"),
        ("validation", int, "held-out questions that a run is judged by"),
        ("every", float, "minutes between evaluations"),
        ("patience", int, "evaluations without gain before the stop"),
        ("workers", int, "processes that share the work; one a core on a busy CPU"),
    ):
        add(
            f"--{name}",
            type=kind,
            default=getattr(defaults, name.replace("-", "_")),
            help=f"{text} (%(default)s)",
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
