"""One real filing from PDF bytes to searchable: LangChain's usual parts against this project's ingest.

    pip install -r bench/requirements.txt -c requirements.lock
    python -m bench.ingest [PDF] [--json] [--quick]

LangChain: PyPDFLoader, RecursiveCharacterTextSplitter(1000, 150), HuggingFaceEmbeddings, langchain-qdrant in
its local mode on disk. Ours: pdfium in its sandbox, sentence chunks, embeddings, Qdrant Edge. The same
bi-encoder weights on both sides, loaded before timing, as is our parser's worker process; every round
writes a new index. Exits with 1 where the goal is missed, with 2 where LangChain is not installed.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections import defaultdict
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from bench.timing import FILINGS, in_turn, machine, ratio, table
from ingest.chunk import CHUNKER, Chunker
from ingest.embed import Embedder, identify, load_embedder
from ingest.pdf import inspect
from ingest.pipeline import Tools, ingest
from ingest.sandbox import Sandbox
from ingest.store import LOCAL_OWNER, Recipe
from ingest.store.edge import open_edge_store
from ingest.weights import bundled_minilm, sha256

GOAL = 6.0
MISSING = "LangChain is not installed. Run: pip install -r bench/requirements.txt -c requirements.lock"


class LangChain:
    """The usual parts, put together as their documentation does."""

    def __init__(self) -> None:
        from langchain_huggingface import HuggingFaceEmbeddings  # type: ignore[import-not-found,unused-ignore]

        self._embeddings = HuggingFaceEmbeddings(model_name=str(bundled_minilm()))
        self.chunks = 0

    def ingest(self, pdf: Path, folder: Path) -> None:
        """Make a searchable local collection of one PDF."""
        from langchain_community.document_loaders import PyPDFLoader  # type: ignore[import-not-found,unused-ignore]
        from langchain_qdrant import QdrantVectorStore  # type: ignore[import-not-found,unused-ignore]
        from langchain_text_splitters import RecursiveCharacterTextSplitter  # type: ignore[import-not-found,unused-ignore]

        pages = PyPDFLoader(str(pdf)).load()
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

    def ingest(self, pdf: Path, folder: Path) -> None:
        """Make a searchable index of one PDF."""
        begun = perf_counter()
        store = open_edge_store(folder, Recipe(self._identity.id, CHUNKER, self._identity.dimension))
        tools = Tools(self._sandbox, self._chunker, self.embedder, store, 5000)
        ends: dict[str, float] = {}

        def note(stage: str, done: int, _: int) -> None:
            ends["chunking" if stage == "embedding" and not done else stage] = perf_counter()

        document = ingest(pdf, tools, doc_id=sha256(pdf), source=pdf.name, owner=LOCAL_OWNER, on_stage=note)
        self.chunks = document.chunks
        store.close()
        ends["storing"] = perf_counter()
        for stage, end in ends.items():
            self.stages[stage].append(end - begun)
            begun = end


def largest(folder: Path) -> Path:
    return max(folder.glob("*.pdf"), key=lambda path: path.stat().st_size)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pdf", nargs="?", type=Path, help="default: the largest filing of the test data")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="1 round instead of 3")
    options = parser.parse_args()
    pdf = options.pdf or largest(FILINGS / "pdfs")
    try:
        theirs = LangChain()
    except ImportError:
        print(MISSING, file=sys.stderr)
        return 2
    logging.disable(logging.WARNING)

    with Sandbox(seconds=60, memory_mb=2000) as sandbox, TemporaryDirectory() as scratch:
        pages = sandbox.call(inspect, pdf, "")
        ours = SecondLook(sandbox)
        fresh = (Path(scratch) / str(number) for number in count())
        runs: dict[str, Callable[[], object]] = {
            "LangChain": lambda: theirs.ingest(pdf, next(fresh)),
            "second-look": lambda: ours.ingest(pdf, next(fresh)),
        }
        seconds = in_turn(runs, 1 if options.quick else 3, warm=False)
    faster = ratio(seconds["LangChain"], seconds["second-look"])
    stages = {stage: median(times) for stage, times in ours.stages.items()}
    chunks = {"LangChain": theirs.chunks, "second-look": ours.chunks}
    if options.json:
        result = {
            "machine": machine(),
            "pdf": pdf.name,
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
        print(
            f"{pdf.name}, {pages} pages, PDF bytes to searchable, {len(seconds['LangChain'])} rounds in turn\n"
        )
        rows = [["ingest", "chunks", "seconds, median", "pages/s", "times faster (lowest to highest)"]]
        for name, times in seconds.items():
            shown = str(faster) if name == "second-look" else "1"
            label = f"second-look ({ours.embedder.device})" if name == "second-look" else name
            middle = median(times)
            rows.append([label, str(chunks[name]), f"{middle:.1f}", f"{pages / middle:.1f}", shown])
        print(table(rows))
        print("\nours, seconds: " + ", ".join(f"{stage} {took:.2f}" for stage, took in stages.items()))
        print(f"goal: {GOAL:g} x")
    return 0 if faster.median >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
