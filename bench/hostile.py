"""Every PDF of a folder, and thousands of damaged ones, on their whole way into the index.

    python -m bench.hostile ../shared/data/hostile-dev [--mutants 2000] [--seed 1] [--own] [--keep FOLDER] [--json]

Each file takes the way of an upload: its name cleaned, read in the sandbox with the limits of the default
settings, cut, embedded (word counts, because no model is on trial here), every tenth one stored in a real Qdrant
Edge index and deleted again; what could be indexed has its first page drawn with the first passage marked. It must
end as indexed, or as refused with a reason. `--own` mutates the folder's files, too; `--keep` saves the files that
did not end well, and the slow ones. Exits with 1 where a file ended otherwise or was wrongly indexed,
where the app's memory grew, and with a stack trace where it crashed or hung.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import json
import multiprocessing
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import cast, get_args

from bench.mutants import Mutant, mutants, tiny_pdfs
from bench.timing import ROOT, table
from ingest.chunk import CHUNKER, Chunker
from ingest.embed import identify
from ingest.errors import PdfProblem, PdfRefused
from ingest.pdf import MAX_PIXELS, render_page
from ingest.pipeline import Tools, ingest
from ingest.queue import clean_name
from ingest.sandbox import CALLS_PER_FILE, Sandbox
from ingest.store import LOCAL_OWNER, Recipe, Store, Vectors
from ingest.store.edge import open_edge_store
from ingest.types import Chunk, Document
from rag.settings import Settings
from tests.fakes import WordEmbedder

STORED_EVERY = 10
SETTLED = 200
"""From this file on the app's memory may grow by a fifth, or by what the allocator keeps of a flood of text."""
MOST_GROWTH = 1.2
KEPT_MB = 50.0
SLOW_SECONDS = 5.0
"""Files that take longer are told while they run, and kept."""
PIXELS = 1200
"""How wide pages are drawn, as in the source view."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How one file ended: `indexed`, the kind of its refusal, or `defect` with what went wrong.

    `picture` says the same of drawing its first page, and is empty where that was not tried.
    """

    mutant: Mutant
    end: str
    seconds: float
    problem: str = ""
    picture: str = ""

    @property
    def bad(self) -> bool:
        """True where the app did what it must never do."""
        return "defect" in (self.end, self.picture)


class KeepsChunks:
    """The store of files that are not stored: it remembers what it was last given."""

    def __init__(self, inner: Store | None) -> None:
        self._inner = inner
        self.chunks: Sequence[Chunk] = ()

    def add(
        self, document: Document, chunks: Sequence[Chunk], vectors: Vectors, *, owner: str = LOCAL_OWNER
    ) -> None:
        """Keep the chunks in mind, and store them where there is a real store."""
        self.chunks = chunks
        if self._inner is None:
            return
        self._inner.add(document, chunks, vectors, owner=owner)
        stored = self._inner.take(document.id, owner=owner)
        if stored is None or len(stored.chunks) != len(chunks):
            raise AssertionError("what was stored does not come back")
        self._inner.delete(document.id, owner=owner)


class Trial:
    """Takes files in, one after the other, with what an app keeps loaded."""

    def __init__(self, folder: Path, *, settings: Settings | None = None) -> None:
        settings = settings or Settings()
        limits = {"seconds": settings.parse_seconds, "memory_mb": settings.parse_memory_mb}
        self._sandbox = Sandbox(workers=1, **limits)  # type: ignore[arg-type]
        self._viewer = Sandbox(workers=1, **limits)  # type: ignore[arg-type]
        self._embedder = WordEmbedder()
        self._chunker = Chunker(identify().folder / "tokenizer.json")
        recipe = Recipe(self._embedder.id, CHUNKER, self._embedder.dimension)
        self._store = open_edge_store(folder / "index", recipe)
        self._path = folder / "upload.pdf"
        self._max_pages = settings.max_pages
        self._count = 0
        # a file has all of its calls, the first and the last of which may take their whole time, and its picture
        self.longest = (CALLS_PER_FILE + 4) * (settings.parse_seconds + 5)

    def close(self) -> None:
        """Stop the workers and let go of the index."""
        self._sandbox.close()
        self._viewer.close()
        self._store.close()

    def take(self, mutant: Mutant) -> Ended:
        """One file, from its bytes to the picture of its first page."""
        self._count += 1
        self._path.write_bytes(mutant.data)
        store = KeepsChunks(self._store if self._count % STORED_EVERY == 0 else None)
        tools = Tools(self._sandbox, self._chunker, self._embedder, cast(Store, store), self._max_pages)
        begun = perf_counter()
        faulthandler.dump_traceback_later(self.longest, exit=True)
        try:
            document = ingest(
                self._path,
                tools,
                doc_id=hashlib.sha256(mutant.data).hexdigest(),
                source=clean_name(mutant.name),
                owner=LOCAL_OWNER,
            )
            problem = _wrong(document, store.chunks)
            end = "defect" if problem else "indexed"
        except PdfRefused as refused:
            end, problem = (refused.kind, str(refused)) if str(refused) else ("defect", "no reason given")
        except Exception:  # noqa: BLE001 - it is what this looks for
            end, problem = "defect", traceback.format_exc()
        finally:
            faulthandler.cancel_dump_traceback_later()
        seconds = perf_counter() - begun
        picture = ""
        if end == "indexed":
            picture, why = self._draw(store.chunks[0])
            problem = problem or why
        return Ended(mutant, end, seconds, problem, picture)

    def _draw(self, chunk: Chunk) -> tuple[str, str]:
        """How drawing the page with a chunk marked ended, and what went wrong."""
        faulthandler.dump_traceback_later(self.longest, exit=True)
        try:
            spans = ((chunk.start, chunk.end),)
            image = self._viewer.call(render_page, self._path, chunk.page, PIXELS, spans, "")
            if not image.png.startswith(b"\x89PNG") or image.width * image.height > MAX_PIXELS:
                return "defect", f"a picture of {image.width} x {image.height}"
            return "drawn", ""
        except PdfRefused as refused:
            return refused.kind, ""
        except Exception:  # noqa: BLE001 - it is what this looks for
            return "defect", traceback.format_exc()
        finally:
            faulthandler.cancel_dump_traceback_later()


def _wrong(document: Document, chunks: Sequence[Chunk]) -> str:
    """What is wrong with an indexed document, or ""."""
    if document.chunks != len(chunks) or not chunks:
        return "the number of chunks is wrong"
    for text in (document.source, document.title, *document.warnings, *(chunk.heading for chunk in chunks)):
        if not text.isprintable() and "\ud800" <= max(text) <= "\udfff":
            return f"a lone surrogate in {text!r}"
    if "/" in document.source or "\\" in document.source or not document.source:
        return f"a folder in the name {document.source!r}"
    for chunk in chunks:
        if not any(map(str.isalnum, chunk.text)) or chunk.end - chunk.start != len(chunk.text):
            return f"the chunk at page {chunk.page}, {chunk.start}"
        chunk.passage.encode()
    return ""


# --- Memory -----------------------------------------------------------------------------------------------


def memory_mb(process: str = "self", *, what: str = "RssAnon") -> float:
    """Memory of a process in MB; 0 where it is gone or the system does not tell.

    RssAnon is what the process itself holds, without the files of the index that the kernel maps into it and
    takes away again as it likes; VmHWM is all that it ever had in memory at once.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{what}:")), 0.0)


class Watch(threading.Thread):
    """Looks at the workers' memory, twenty times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0.0
        self._over = threading.Event()

    def run(self) -> None:
        """Keep the highest."""
        while not self._over.wait(0.05):
            for worker in multiprocessing.active_children():
                self.peak = max(self.peak, memory_mb(str(worker.pid), what="VmHWM"))

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self.join()


# --- The table --------------------------------------------------------------------------------------------


@dataclass
class Group:
    """The files of a folder, or the mutants, and how they ended."""

    name: str
    ended: list[Ended] = field(default_factory=list)

    def row(self) -> list[str]:
        """What the table says of them."""
        ends = Counter(one.end for one in self.ended)
        pictures = Counter(one.picture for one in self.ended if one.picture)
        seconds = sorted(one.seconds for one in self.ended) or [0.0]
        cuts = quantiles(seconds, n=20) if len(seconds) > 1 else seconds * 19
        cells = [str(len(self.ended)), str(ends["indexed"])]
        cells += [str(ends[kind]) for kind in KINDS]
        cells += [str(sum(one.bad for one in self.ended)), str(pictures["drawn"])]
        cells += [", ".join(f"{n} {kind}" for kind, n in pictures.most_common() if kind != "drawn") or "0"]
        return [self.name, *cells, f"{cuts[9]:.2f} / {cuts[18]:.2f} / {seconds[-1]:.1f}"]


KINDS: tuple[str, ...] = get_args(PdfProblem)
LABELS = {
    "crashed": "worker crashed (isolated, refused)",
    "timed_out": "timed out (refused)",
    "out_of_memory": "out of memory (refused)",
}
HEADS = [
    "",
    "files",
    "indexed",
    *(LABELS.get(kind, f"refused: {kind.replace('_', ' ')}") for kind in KINDS),
    "**defects of the app**",
    "pictures drawn",
    "pictures refused",
    "seconds a file: p50 / p95 / most",
]


def run(groups: Sequence[tuple[str, Iterable[Mutant]]], trial: Trial) -> tuple[list[Group], float, float]:
    """Every file; also the app's memory in MB after SETTLED files of the last group, and at the end."""
    done: list[Group] = []
    settled = 0.0
    for name, files in groups:
        group = Group(name)
        done.append(group)
        for number, mutant in enumerate(files, start=1):
            one = trial.take(mutant)
            keep = one.bad or one.seconds > SLOW_SECONDS
            # without the bytes, which would look like a growing app
            group.ended.append(one if keep else replace(one, mutant=replace(mutant, data=b"")))
            if one.bad:
                print(f"DEFECT {mutant.kind}, {mutant.name!r}: {one.problem}", file=sys.stderr)
            if one.seconds > SLOW_SECONDS:
                print(f"{one.seconds:.0f} s: {mutant.kind}, {mutant.name[:60]!r}", file=sys.stderr)
            if number == SETTLED:
                settled = memory_mb()
            if number % 100 == 0:
                print(f"{name}: {number} files, {memory_mb():.0f} MB", file=sys.stderr)
    return done, settled, memory_mb()


def _keep(folder: Path, groups: Sequence[Group]) -> None:
    """Save the files that did not end well, and the slow ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in (one for group in groups for one in group.ended if one.mutant.data):
        name = (
            f"{one.end}-{one.mutant.kind.replace(' ', '-')}-{hashlib.sha256(one.mutant.data).hexdigest()[:8]}"
        )
        (folder / f"{name}.pdf").write_bytes(one.mutant.data)


def _files(folder: Path) -> list[Mutant]:
    return [Mutant(path.name, "file", path.read_bytes()) for path in sorted(folder.glob("*.pdf"))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mutants", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--own", action="store_true", help="mutate the folder's files, too")
    parser.add_argument("--keep", type=Path, help="save files that did not end well, and the slow ones")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="300 mutants")
    options = parser.parse_args()
    files = _files(options.folder)
    if not files:
        print(f"There is no PDF in {options.folder}.", file=sys.stderr)
        return 2
    faulthandler.enable()
    count = 300 if options.quick else options.mutants
    good = tiny_pdfs() + [path.read_bytes() for path in sorted((ROOT / "samples" / "pdfs").glob("*.pdf"))]
    good += [file.data for file in files] if options.own else []

    begun = perf_counter()
    watch = Watch()
    watch.start()
    with TemporaryDirectory() as scratch:
        trial = Trial(Path(scratch))
        try:
            sources: list[tuple[str, Iterable[Mutant]]] = [
                (options.folder.name, files),
                (f"mutants, seed {options.seed}", mutants(good, count, options.seed)),
            ]
            groups, settled, end = run(sources, trial)
        finally:
            trial.close()
            watch.stop()
    if options.keep:
        _keep(options.keep, groups)
    grown = bool(settled) and end > MOST_GROWTH * settled and end > settled + KEPT_MB
    took, peak = perf_counter() - begun, memory_mb(what="VmHWM")
    if options.json:
        result = {
            "groups": [
                dict(zip(HEADS[1:], group.row()[1:], strict=True)) | {"name": group.name} for group in groups
            ],
            "app_mb": {"settled": settled, "end": end, "peak": peak},
            "worker_mb": watch.peak,
            "seconds": took,
        }
        print(json.dumps(result, indent=1))
    else:
        print(table([list(row) for row in zip(HEADS, *(group.row() for group in groups), strict=True)]))
        print(
            f"\n{took:.0f} s in all. Crashes and hangs of the app: 0, or this would not be here. "
            f"Memory of the app: {peak:.0f} MB at most; without mapped files {settled:.0f} MB after {SETTLED} "
            f"mutants and {end:.0f} MB at the end. Of a worker: {watch.peak:.0f} MB at most."
        )
    bad = sum(one.bad for group in groups for one in group.ended)
    return 1 if bad or grown else 0


if __name__ == "__main__":
    sys.exit(main())
