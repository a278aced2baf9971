"""What `second-look eval` and `second-look bench-set` do; the command line only prints it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ingest.errors import BadRequest, ModelUnavailable
from ingest.store import LOCAL_OWNER
from rag.evidence.beir import ingest_corpus, passages_of, questions_of
from rag.evidence.export import comparison_markdown, report_csv, report_data, report_markdown
from rag.evidence.formats import read_questions
from rag.evidence.questions import Question, QuestionSet, measurable
from rag.evidence.report import Report, make_report
from rag.evidence.run import Progress, run
from rag.evidence.runfile import Run, read_run, run_text
from rag.evidence.sets import EvidenceStore, clean_set_name
from rag.evidence.variants import DEPTHS, make_plan
from rag.evidence.versus import compare_runs
from rag.rerank import Reranker, load_reranker
from rag.services import Services

OnProgress = Callable[[str], None]
"""Called with a line on how far it is."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What `eval` was asked for; `questions` is a file, a folder or the name of a stored set."""

    questions: str
    depths: tuple[int, ...] = DEPTHS
    against: tuple[str, ...] = ()
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A run, what follows from it, and its id among the kept runs."""

    run: Run
    report: Report
    id: str


def evaluate(
    asked: Asked, services: Services, *, owner: str = LOCAL_OWNER, on_progress: OnProgress = lambda _: None
) -> Evaluated:
    """Run a question set on the library. Raises a UserError where it cannot be."""
    kept = EvidenceStore(services.settings.data, owner=owner)
    questions = measurable(find_questions(asked.questions, kept))
    if asked.limit is not None:
        questions = replace(questions, questions=spaced(questions, asked.limit))
    rerankers = [_reranker_of(services), *map(load_reranker, asked.against)]
    plan = make_plan(rerankers, asked.depths)

    def tell(progress: Progress) -> None:
        left = "" if progress.seconds_left is None else f", about {progress.seconds_left:.0f} s left"
        on_progress(f"{questions.name}: {progress.done:,} of {progress.total:,} questions{left}")

    made = run(
        questions,
        services.embedder,
        services.store,
        plan,
        owner=owner,
        journals=kept.journals,
        on_progress=tell,
    )
    report = make_report(made)
    return Evaluated(made, report, kept.keep(made))


def find_questions(name: str, kept: EvidenceStore) -> QuestionSet:
    """A question set by the path of a file or folder, or by the name of a stored one. Raises BadRequest."""
    path = Path(name)
    if path.exists():
        return QuestionSet(clean_set_name(path.resolve().name), read_questions(path))
    names = kept.names()
    if name in names:
        return kept.questions(name)
    stored = f" Stored are: {', '.join(names)}." if names else ""
    raise BadRequest(f"There is no file, no folder and no stored question set {name!r}.{stored}")


def spaced(questions: QuestionSet, limit: int) -> tuple[Question, ...]:
    """At most `limit` questions at even distances: sets are often sorted by document. Raises BadRequest."""
    if limit < 1:
        raise BadRequest(f"The number of questions must be from 1, not {limit}.")
    every = questions.questions
    if limit >= len(every):
        return every
    return tuple(every[number * len(every) // limit] for number in range(limit))


def write_outputs(
    evaluated: Evaluated, *, out: Path | None = None, markdown: Path | None = None, csv: Path | None = None
) -> list[Path]:
    """Write what was asked for, and return where. Raises BadRequest where a file cannot be written."""
    texts: list[tuple[Path | None, Callable[[], str]]] = [
        (out, lambda: run_text(evaluated.run)),
        (markdown, lambda: report_markdown(evaluated.report)),
        (csv, lambda: report_csv(evaluated.report)),
    ]
    written = []
    for path, text in texts:
        if path is None:
            continue
        try:
            path.write_text(text(), encoding="utf-8")
        except OSError as error:
            raise BadRequest(f"{path} cannot be written: {error.strerror}.") from error
        written.append(path)
    return written


def evaluated_data(evaluated: Evaluated) -> dict[str, Any]:
    """The report as JSON data, with the id of the run."""
    return {"run": evaluated.id, **report_data(evaluated.report)}


def compare_files(first: Path, second: Path, *, as_json: bool = False) -> str | dict[str, Any]:
    """How much better the second run is than the first, as Markdown or as JSON data. Raises BadRequest."""
    comparison = compare_runs(_load(first), _load(second))
    return asdict(comparison) if as_json else comparison_markdown(comparison, first.name, second.name)


def add_bench_set(
    folder: Path,
    services: Services,
    *,
    owner: str = LOCAL_OWNER,
    on_progress: OnProgress = lambda _: None,
) -> QuestionSet:
    """Put a BEIR folder's corpus into the library and its questions among the question sets.

    Raises BadRequest, naming file and line of what cannot be read; nothing is stored then.
    """
    name = clean_set_name(folder.resolve().name)
    passages = passages_of(folder)
    questions = QuestionSet(name, questions_of(folder, passages, folder.resolve().name))
    tools = services.tools
    ingest_corpus(
        folder,
        passages,
        tools.chunker,
        tools.embedder,
        tools.store,
        owner=owner,
        originals=services.originals,
        on_progress=lambda done, total: on_progress(f"{name}: {done:,} of {total:,} chunks embedded"),
    )
    EvidenceStore(services.settings.data, owner=owner).save(questions)
    return questions


def _load(path: Path) -> Run:
    try:
        return read_run(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"{path} cannot be read: {error}.") from error


def _reranker_of(services: Services) -> Reranker:
    stages = services.stages
    if stages.reranker is None:
        raise ModelUnavailable(f"There is no reranker to evaluate: {stages.reranker_problem}")
    return stages.reranker
