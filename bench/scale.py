"""Search as the library grows: `python -m bench.scale [--chunks N ...] [--json] [--quick]`.

One index of the product's own store grows to each size in turn, in documents of 2,500 chunks. The texts are real
passages where ../shared has them; the vectors are mixtures of the vectors of two of them with some noise, so that
they have neighbours as real ones do; the questions and their vectors are real. At each size: chunks written a
second; the longest pause, in which the index let no other thread of the process do anything; searches for the 50
nearest chunks; how many of the truly nearest they found, against all products computed by numpy; and what a
process holds in memory that only opens the index and searches it. The rival is qdrant-client's local mode, up to
50,000 chunks. Exits with 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import numpy as np
import numpy.typing as npt

from bench.library import paragraphs, questions
from bench.timing import machine, table
from ingest.chunk import CHUNKER
from ingest.embed import identify, load_embedder
from ingest.store import Recipe, Store
from ingest.store.edge import open_edge_store
from ingest.types import Chunk, Document

SIZES = (5_000, 50_000, 500_000, 1_000_000)
QUICK = (5_000, 100_000, 125_000)
DEPTH = 50
ASKED = 100
REAL = 3_000
PER_DOCUMENT = 2_500
LOCAL_MODE_UP_TO = 50_000
GOAL_MS = 20.0
GOAL_RECALL = 0.99
GOAL_MB = 4096

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Size:
    """What was measured at one size; times in milliseconds, `local` of qdrant-client's local mode."""

    chunks: int
    written_a_second: float
    longest_pause: float
    p50: float
    p95: float
    recall: float
    resident_mb: float
    local: float | None

    @property
    def good(self) -> bool:
        """True where every goal is met, which is set for a million chunks and so for fewer."""
        return self.p50 <= GOAL_MS and self.recall >= GOAL_RECALL and self.resident_mb <= GOAL_MB


@dataclass(slots=True)
class Growing:
    """The index with all vectors that went into it, in the order of their numbers."""

    store: Store
    texts: Sequence[str]
    real: Rows
    vectors: Rows
    count: int = 0

    def grow(self, size: int) -> float:
        """Add documents until there are `size` chunks; returns the seconds of writing."""
        seconds = 0.0
        while self.count < size:
            document, chunks = self._document(self.count // PER_DOCUMENT)
            vectors = mixtures(self.real, PER_DOCUMENT, seed=self.count)
            self.vectors[self.count : self.count + PER_DOCUMENT] = vectors
            begun = perf_counter()
            self.store.add(document, chunks, vectors)
            seconds += perf_counter() - begun
            self.count += PER_DOCUMENT
        return seconds

    def _document(self, number: int) -> tuple[Document, list[Chunk]]:
        doc_id = sha256(str(number).encode()).hexdigest()
        source = f"volume-{number:04}.pdf"
        chunks = []
        for i in range(PER_DOCUMENT):
            text = self.texts[(number * 7 + i) % len(self.texts)]
            chunks.append(Chunk(doc_id, source, i + 1, 0, len(text), text, f"Volume {number}"))
        day = f"2026-01-01T00:00:{number % 60:02}+00:00"
        document = Document(doc_id, source, source, PER_DOCUMENT, len(chunks), 1, day, ())
        return document, chunks


def mixtures(real: Rows, count: int, *, seed: int) -> Rows:
    """(count, dim) unit rows near the real ones, each three quarters of one and a quarter of another."""
    chance = np.random.default_rng(seed)
    one, other = (real[chance.integers(0, len(real), count)] for _ in range(2))
    mixed = 0.75 * one + 0.25 * other + 0.02 * chance.standard_normal(one.shape, np.float32)
    unit: Rows = (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)
    return unit


def nearest(asked: Rows, vectors: Rows) -> list[set[int]]:
    """Numbers of the truly nearest vectors of each question."""
    best = np.zeros((len(asked), 0), np.float32)
    numbers = np.zeros((len(asked), 0), np.int64)
    for start in range(0, len(vectors), 50_000):
        cosines = asked @ vectors[start : start + 50_000].T
        best = np.hstack([best, cosines])
        numbers = np.hstack([numbers, np.tile(np.arange(start, start + cosines.shape[1]), (len(asked), 1))])
        kept = np.argsort(-best, axis=1)[:, :DEPTH]
        best = np.take_along_axis(best, kept, axis=1)
        numbers = np.take_along_axis(numbers, kept, axis=1)
    return [set(row) for row in numbers.tolist()]


def number_of(chunk: Chunk) -> int:
    """Its row among all vectors, told from the names that `Growing` gives."""
    return int(chunk.source.removeprefix("volume-").removesuffix(".pdf")) * PER_DOCUMENT + chunk.page - 1


@contextmanager
def watching() -> Iterator[list[float]]:
    """The longest time, in seconds, in which another thread of this process could not run."""
    longest = [0.0]
    done = threading.Event()

    def watch() -> None:
        last = perf_counter()
        while not done.is_set():
            sleep(0.005)
            now = perf_counter()
            longest[0] = max(longest[0], now - last)
            last = now

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield longest
    finally:
        done.set()
        thread.join()


def search_times(store: Store, asked: Rows) -> tuple[list[float], list[list[Chunk]]]:
    """Seconds and chunks found of each question, after some that are not counted."""
    for vector in asked[:5]:
        store.search(vector, DEPTH)
    seconds, found = [], []
    for vector in asked:
        begun = perf_counter()
        got = store.search(vector, DEPTH)
        seconds.append(perf_counter() - begun)
        found.append([chunk for chunk, _ in got])
    return seconds, found


def resident_mb() -> float:
    """Memory that this process holds now, mapped files that it has read included."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def only_search(folder: Path) -> float:
    """Megabytes that a fresh process holds after it has opened the index and asked everything once."""
    command = [sys.executable, "-m", "bench.scale", "--only-search", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def local_mode(vectors: Rows, asked: Rows) -> float:
    """Median milliseconds of the same searches in qdrant-client's local mode, in memory."""
    from qdrant_client import QdrantClient
    from qdrant_client.models import Distance, PointStruct, VectorParams

    client = QdrantClient(":memory:")
    config = VectorParams(size=vectors.shape[1], distance=Distance.COSINE)
    client.create_collection("rival", vectors_config=config)
    for start in range(0, len(vectors), 1000):
        rows = vectors[start : start + 1000].tolist()
        client.upsert(
            "rival", [PointStruct(id=start + i, vector=row, payload={}) for i, row in enumerate(rows)]
        )
    seconds = []
    for vector in asked[:20]:
        begun = perf_counter()
        client.query_points("rival", query=vector.tolist(), limit=DEPTH)
        seconds.append(perf_counter() - begun)
    client.close()
    return 1000 * median(seconds)


def measure(growing: Growing, size: int, asked: Rows, folder: Path, recipe: Recipe) -> Size:
    """Grow to the size and measure there; closed for a moment, for another process."""
    before = growing.count
    with watching() as longest:
        seconds = growing.grow(size)
    took, found = search_times(growing.store, asked)
    truth = nearest(asked, growing.vectors[: growing.count])
    hits = [len(true & {number_of(chunk) for chunk in got}) for true, got in zip(truth, found, strict=True)]
    growing.store.close()
    resident = only_search(folder)
    growing.store = open_edge_store(folder / "index", recipe)
    small = size <= LOCAL_MODE_UP_TO
    return Size(
        chunks=growing.count,
        written_a_second=(growing.count - before) / seconds,
        longest_pause=1000 * longest[0],
        p50=1000 * median(took),
        p95=1000 * float(np.percentile(took, 95)),
        recall=sum(hits) / (DEPTH * len(asked)),
        resident_mb=resident,
        local=local_mode(growing.vectors[: growing.count], asked) if small else None,
    )


def show(sizes: Sequence[Size]) -> str:
    """The table."""
    head = ["chunks", "written a second", "longest pause, ms", "search p50, ms", "p95, ms", f"recall@{DEPTH}"]
    rows = [[*head, "resident, MB", "local mode p50, ms"]]
    for size in sizes:
        cells = [f"{size.chunks:,}", f"{size.written_a_second:,.0f}", f"{size.longest_pause:.0f}"]
        cells += [f"{size.p50:.1f}", f"{size.p95:.1f}", f"{size.recall:.4f}", f"{size.resident_mb:,.0f}"]
        rows.append([*cells, "" if size.local is None else f"{size.local:.1f}"])
    return table(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--chunks", nargs="+", type=int, default=SIZES, help="sizes, multiples of 2,500")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help=f"sizes {', '.join(f'{n:,}' for n in QUICK)}")
    parser.add_argument("--only-search", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    identity = identify()
    recipe = Recipe(identity.id, CHUNKER, identity.dimension)
    if options.only_search:
        store = open_edge_store(options.only_search / "index", recipe)
        search_times(store, np.load(options.only_search / "asked.npy"))
        print(resident_mb())
        store.close()
        return 0

    sizes = sorted(QUICK if options.quick else options.chunks)
    folder = Path(tempfile.mkdtemp(prefix="second-look-scale-"))
    try:
        embedder = load_embedder(identity)
        texts = list(islice(paragraphs(), REAL))
        asked = embedder.embed(questions(ASKED)[:ASKED])
        np.save(folder / "asked.npy", asked)
        room = np.lib.format.open_memmap(
            folder / "vectors.npy", mode="w+", dtype=np.float32, shape=(sizes[-1], identity.dimension)
        )
        store = open_edge_store(folder / "index", recipe)
        growing = Growing(store, texts, embedder.embed(texts), room)
        done = []
        for size in sizes:
            done.append(measure(growing, size, asked, folder, recipe))
            print(f"{size:,} chunks measured", file=sys.stderr)
        growing.store.close()
    finally:
        shutil.rmtree(folder)
    if options.json:
        print(json.dumps({"machine": machine(), "sizes": [asdict(size) for size in done]}, indent=1))
    else:
        print(machine())
        print(f"{len(asked)} questions, {DEPTH} nearest chunks of one owner\n")
        print(show(done))
        print(
            f"\ngoals at a million chunks: p50 at most {GOAL_MS:g} ms, recall at least {GOAL_RECALL}, "
            f"at most {GOAL_MB:,} MB"
        )
    return 0 if all(size.good for size in done) else 1


if __name__ == "__main__":
    sys.exit(main())
