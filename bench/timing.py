"""What the speed benchmarks share: rounds in turn, medians, ratios with their spread, the printed table."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

ROOT = Path(__file__).resolve().parents[1]
FILINGS = ROOT.parent / "shared" / "data" / "financebench-dev"


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times faster: the median over rounds, and the lowest and the highest round."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} x ({self.low:.2f} to {self.high:.2f})"


def in_turn(
    runs: Mapping[str, Callable[[], object]], rounds: int, *, warm: bool = True
) -> dict[str, list[float]]:
    """Seconds of each run in each round; every round times all runs once, every second one backwards.

    `warm` runs everything once before, untimed.
    """
    names = list(runs)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    if warm:
        for run in runs.values():
            run()
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            begun = perf_counter()
            runs[name]()
            seconds[name].append(perf_counter() - begun)
    return seconds


def ratio(slow: Sequence[float], fast: Sequence[float]) -> Ratio:
    """Round by round, so that what else the machine does weighs on both sides of each quotient."""
    quotients = [a / b for a, b in zip(slow, fast, strict=True)]
    return Ratio(median(quotients), min(quotients), max(quotients))


def machine() -> str:
    """Processor, cores and versions, on one line."""
    import torch

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        cpu = names[0] if names else cpu
    has = [
        name
        for name, there in {
            "AVX512-BF16": torch.cpu._is_avx512_bf16_supported(),
            "AMX": torch.cpu._is_amx_tile_supported(),
        }.items()
        if there
    ]
    return (
        f"{cpu} ({', '.join(has) or 'no bfloat16'}), {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows, the first of them the head, as a Markdown table."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
