"""Real filings from PDF bytes to searchable: LangChain's usual parts against this project's ingest.

    pip install -r bench/requirements.txt -c requirements.lock
    python -m bench.ingest [PDF ...] [--filings N] [--pages N] [--json] [--quick]

LangChain: PyPDFLoader, RecursiveCharacterTextSplitter(1000, 150), HuggingFaceEmbeddings, langchain-qdrant in
its local mode on disk. Ours: pdfium in its sandbox, sentence chunks, embeddings, Qdrant Edge. The same
bi-encoder weights on both sides, loaded before timing, as is our parser's worker process; every round
writes a new index. One filing (the largest, if none is named) is timed in 3 rounds. Several (`--filings N`) come
in rounds of five: ours go through the app's upload queue, which reads the next file while one is embedded.
`--pages` cuts each to its first pages. Exits with 1 where the goal is missed, with 2 where LangChain is not
installed.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from bench.timing import FILINGS, in_turn, machine, ratio, table
from ingest.chunk import CHUNKER, Chunker
from ingest.embed import Embedder, identify, load_embedder
from ingest.originals import Originals
from ingest.pdf import inspect
from ingest.pipeline import Tools, ingest
from ingest.queue import UploadQueue
from ingest.sandbox import Sandbox
from ingest.store import LOCAL_OWNER, Recipe
from ingest.store.edge import open_edge_store
from ingest.weights import bundled_minilm, sha256

GOAL = 10.0
TOGETHER = 5
MISSING = "LangChain is not installed. Run: pip install -r bench/requirements.txt -c requirements.lock"


class LangChain:
    """The usual parts, put together as their documentation does."""

    def __init__(self) -> None:
        from langchain_huggingface import HuggingFaceEmbeddings  # type: ignore[import-not-found,unused-ignore]

        self._embeddings = HuggingFaceEmbeddings(model_name=str(bundled_minilm()))
        self.chunks = 0

    def ingest(self, pdfs: Sequence[Path], folder: Path) -> None:
        """Make a searchable local collection of these PDFs."""
        from langchain_community.document_loaders import PyPDFLoader  # type: ignore[import-not-found,unused-ignore]
        from langchain_qdrant import QdrantVectorStore  # type: ignore[import-not-found,unused-ignore]
        from langchain_text_splitters import RecursiveCharacterTextSplitter  # type: ignore[import-not-found,unused-ignore]

        pages = [page for pdf in pdfs for page in PyPDFLoader(str(pdf)).load()]
        splitter = RecursiveCharacterTextSplitter(chunk_size=1000, chunk_overlap=150)
        documents = splitter.split_documents(pages)
        store = QdrantVectorStore.from_documents(
            documents, self._embeddings, path=str(folder), collection_name="filing"
        )
        self.chunks = len(documents)
        store.client.close()


class SecondLook:
    """This project's ingest, with the time of each stage as its progress reports tell it."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._identity = identify()
        self._sandbox = sandbox
        self._chunker = Chunker(self._identity.folder / "tokenizer.json")
        self.embedder: Embedder = load_embedder(self._identity)
        self.chunks = 0
        self.stages: defaultdict[str, list[float]] = defaultdict(list)

    def ingest(self, pdfs: Sequence[Path], folder: Path) -> None:
        """Make a searchable index of these PDFs."""
        store = open_edge_store(folder, Recipe(self._identity.id, CHUNKER, self._identity.dimension))
        tools = Tools(self._sandbox, self._chunker, self.embedder, store, 5000)
        if len(pdfs) == 1:
            self._one(pdfs[0], tools)
        else:
            self._all(pdfs, tools, folder)
        store.close()

    def _all(self, pdfs: Sequence[Path], tools: Tools, folder: Path) -> None:
        """Upload them all at once, as people do."""
        queue = UploadQueue(
            folder / "queue.sqlite3",
            Originals(folder / "files", folder / "trash"),
            lambda: tools,
            store=lambda: tools.store,
            max_bytes=2**30,
        )
        for pdf in pdfs:
            queue.add(pdf.name, pdf.read_bytes(), owner=LOCAL_OWNER)
        queue.run_pending()
        unfinished = [job.message for job in queue.jobs(owner=LOCAL_OWNER) if job.state != "done"]
        if unfinished:
            raise RuntimeError(f"Not ingested: {unfinished}")
        self.chunks = sum(document.chunks for document in tools.store.documents())
        queue.close()

    def _one(self, pdf: Path, tools: Tools) -> None:
        begun = perf_counter()
        ends: dict[str, float] = {}

        def note(stage: str, done: int, _: int) -> None:
            ends["chunking" if stage == "embedding" and not done else stage] = perf_counter()

        document = ingest(pdf, tools, doc_id=sha256(pdf), source=pdf.name, owner=LOCAL_OWNER, on_stage=note)
        self.chunks = document.chunks
        ends["storing"] = perf_counter()
        for stage, end in ends.items():
            self.stages[stage].append(end - begun)
            begun = end


def filings(count: int) -> list[Path]:
    """The largest filings of the test data, largest first."""
    found = sorted((FILINGS / "pdfs").glob("*.pdf"), key=lambda path: path.stat().st_size, reverse=True)
    return found[:count]


def first_pages(pdf: Path, pages: int, folder: Path) -> Path:
    """A copy of the first pages of a PDF, under the same name."""
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter()
    writer.append(PdfReader(pdf), pages=(0, min(pages, len(PdfReader(pdf).pages))))
    copy = folder / pdf.name
    writer.write(copy)
    return copy


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pdfs", nargs="*", type=Path, metavar="PDF", help="default: of the test data")
    parser.add_argument("--filings", type=int, default=1, metavar="N", help="the N largest of the test data")
    parser.add_argument("--pages", type=int, metavar="N", help="only the first N pages of each")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="the first 20 pages of one filing, once")
    options = parser.parse_args()
    try:
        theirs = LangChain()
    except ImportError:
        print(MISSING, file=sys.stderr)
        return 2
    logging.disable(logging.WARNING)

    with Sandbox(seconds=60, memory_mb=2000) as sandbox, TemporaryDirectory() as scratch:
        pdfs = options.pdfs or filings(1 if options.quick else options.filings)
        wanted = 20 if options.quick else options.pages
        if wanted:
            pdfs = [first_pages(pdf, wanted, Path(scratch)) for pdf in pdfs]
        pages = sum(sandbox.call(inspect, pdf, "") for pdf in pdfs)
        ours = SecondLook(sandbox)
        fresh = (Path(scratch) / str(number) for number in count())
        seconds: defaultdict[str, list[float]] = defaultdict(list)
        chunks = {"LangChain": 0, "second-look": 0}
        rounds = 3 if len(pdfs) == 1 and not options.quick else 1
        batches = [pdfs[start : start + TOGETHER] for start in range(0, len(pdfs), TOGETHER)]
        for batch in batches:
            runs: dict[str, Callable[[], object]] = {
                "LangChain": partial(lambda some: theirs.ingest(some, next(fresh)), batch),
                "second-look": partial(lambda some: ours.ingest(some, next(fresh)), batch),
            }
            for name, times in in_turn(runs, rounds, warm=False).items():
                seconds[name] += times
            chunks["LangChain"] += theirs.chunks
            chunks["second-look"] += ours.chunks
    faster = ratio(seconds["LangChain"], seconds["second-look"])
    taken = {name: sum(times) / rounds for name, times in seconds.items()}
    stages = {stage: sum(times) / rounds for stage, times in ours.stages.items()}
    if options.json:
        result = {
            "machine": machine(),
            "pdfs": [pdf.name for pdf in pdfs],
            "pages": pages,
            "chunks": chunks,
            "seconds": seconds,
            "stages": stages,
            "ratio": [faster.median, faster.low, faster.high],
            "goal": GOAL,
        }
        print(json.dumps(result, indent=1))
    else:
        print(machine())
        named = pdfs[0].name if len(pdfs) == 1 else f"{len(pdfs)} filings"
        turns = rounds if len(pdfs) == 1 else len(batches)
        print(f"{named}, {pages} pages, PDF bytes to searchable, {turns} rounds, in turn\n")
        rows = [["ingest", "chunks", "seconds", "pages/s", "times faster (lowest to highest)"]]
        for name, took in taken.items():
            shown = str(faster) if name == "second-look" else "1"
            label = f"second-look ({ours.embedder.device})" if name == "second-look" else name
            rows.append([label, str(chunks[name]), f"{took:.1f}", f"{pages / took:.1f}", shown])
        print(table(rows))
        if stages:
            print("\nours, seconds: " + ", ".join(f"{stage} {took:.2f}" for stage, took in stages.items()))
        print(f"goal: {GOAL:g} x")
    return 0 if faster.median >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
