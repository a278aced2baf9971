"""What reranking does to each sample question: `python -m samples.measure [--write]`.

The PDFs go through the app's own upload queue into an index of their own, and each question through `rank()` with
the app's defaults. The first right chunk is the first one that lies on a page named as evidence and holds the
words quoted there; "before" is its rank by the bi-encoder, "after" its rank by the reranker. Then reranking

    helps   where the first right chunk enters the first 5, or rises by 3 places or more within them
    hurts   where it leaves the first 5, or falls by 3 places or more within them
    same    everywhere else: also where it moves far below the first 5, or was never found

5 is the number of sources that an answer rests on. A question is flagged where the reranker's threshold would have
it "probably not in your documents", which is wrong for all of them. `--write` puts kinds, ranks and flags into
questions.jsonl.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from bench.quality import Countdown
from bench.timing import machine, table
from ingest.store import LOCAL_OWNER
from ingest.types import Chunk
from rag.pipeline import DEPTH, SOURCES, rank
from rag.rerank import BUNDLED
from rag.samples import FOLDER, Evidence, Kind, SampleQuestion, load_samples, loaded_samples, sample_questions
from rag.services import Services, opened
from rag.settings import Settings
from rag.types import Ranking

FAR = 3
"""Places within the first 5 that count as a change."""
QUESTIONS = FOLDER / "questions.jsonl"


@dataclass(frozen=True, slots=True)
class Measured:
    """Where the first right chunk of a question stood in both orders; None: not among the candidates."""

    question: SampleQuestion
    before: int | None
    after: int | None
    flagged: bool

    @property
    def kind(self) -> Kind:
        """What reranking did."""
        return judge(self.before, self.after)


def judge(before: int | None, after: int | None) -> Kind:
    """The kind of a question from both ranks of its first right chunk, counted from 1."""
    first = before or sys.maxsize
    second = after or sys.maxsize
    if second <= SOURCES and (first > SOURCES or first - second >= FAR):
        return "helps"
    if first <= SOURCES and (second > SOURCES or second - first >= FAR):
        return "hurts"
    return "same"


def first_right(chunks: Sequence[Chunk], evidence: Sequence[Evidence]) -> int | None:
    """Rank, from 1, of the first chunk that holds the words of some evidence on its page."""
    return next((place for place, chunk in enumerate(chunks, start=1) if is_right(chunk, evidence)), None)


def is_right(chunk: Chunk, evidence: Sequence[Evidence]) -> bool:
    """True where the chunk holds words that answer the question, on the page named."""
    words = " ".join(chunk.text.split())
    return any(
        (item.source, item.page) == (chunk.source, chunk.page) and item.words in words for item in evidence
    )


def look(question: SampleQuestion, ranking: Ranking) -> Measured:
    """Both ranks of a question's first right chunk, and whether it is doubted.

    Raises ValueError for a ranking without a second look.
    """
    if not ranking.order:
        raise ValueError(f"Not reranked, so there is nothing to measure: {ranking.rerank_problem}")
    before = first_right([hit.chunk for hit in ranking.hits], question.evidence)
    after = first_right([ranked.hit.chunk for ranked in ranking.order], question.evidence)
    return Measured(question, before, after, ranking.confident is False)


def load(services: Services) -> float:
    """Put all samples into the library, in this thread; returns the seconds it took.

    Raises ValueError where one of them did not arrive.
    """
    begun = monotonic()
    wanted = load_samples(services, owner=LOCAL_OWNER)
    services.queue.run_pending()
    seconds = monotonic() - begun
    there = len(loaded_samples(services, owner=LOCAL_OWNER))
    if there < wanted:
        problems = [f"{job.source}: {job.message}" for job in services.queue.jobs(owner=LOCAL_OWNER)]
        raise ValueError(f"Only {there} of {wanted} sample PDFs were loaded: {'; '.join(problems)}")
    return seconds


def measure(services: Services, questions: Sequence[SampleQuestion]) -> list[Measured]:
    """Ask every question of the loaded library."""
    stages, report, measured = services.stages, Countdown("measuring"), []
    for done, question in enumerate(questions, start=1):
        measured.append(look(question, rank(question.text, stages)))
        report(done, len(questions))
    return measured


def write(measured: Sequence[Measured], path: Path) -> None:
    """Put kinds, ranks and flags into the file of questions; everything else stays as it is."""
    found = {item.question.id: item for item in measured}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        item = found[row["id"]]
        row |= {"kind": item.kind, "ranks": [item.before, item.after], "flagged": item.flagged}
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def main(arguments: Iterable[str] | None = None) -> int:
    """Load, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--write", action="store_true", help="put kinds, ranks and flags into questions.jsonl"
    )
    parser.add_argument(
        "--reranker", default=BUNDLED, metavar="NAME", help="bundled, a folder, or a cached model"
    )
    options = parser.parse_args(None if arguments is None else list(arguments))
    with (
        TemporaryDirectory() as scratch,
        opened(Settings(Path(scratch), reranker=options.reranker)) as services,
    ):
        services.warm_up()
        seconds = load(services)
        documents = services.store.documents(owner=LOCAL_OWNER)
        measured = measure(services, sample_questions())
        reranker = services.stages.reranker
    pages = sum(document.pages for document in documents)
    chunks = sum(document.chunks for document in documents)
    print(machine())
    print(
        f"{len(documents)} documents, {pages} pages, {chunks} chunks, loaded in {seconds:.1f} s (models warm)"
    )
    print(f"reranker {reranker.name if reranker else 'none'}, {DEPTH} candidates, {SOURCES} sources\n")
    rows = [["kind", "before", "after", "flagged", "question"]]
    for item in sorted(measured, key=lambda item: (item.kind, item.question.id)):
        ranks = [str(item.before or "-"), str(item.after or "-")]
        rows.append([item.kind, *ranks, "yes" if item.flagged else "", item.question.text])
    print(table(rows))
    counts = Counter(item.kind for item in measured)
    print("\n" + ", ".join(f"{count} x {kind}" for kind, count in sorted(counts.items())))
    print(f"{sum(item.flagged for item in measured)} wrongly taken for not in the documents")
    if options.write:
        write(measured, QUESTIONS)
        print(f"written to {QUESTIONS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
