"""The `second-look` command."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ingest.errors import UserError

app = typer.Typer(
    name="second-look",
    help="Ask your PDFs, and see what a cross-encoder reranker changes.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Question = Annotated[str, typer.Argument(help="What you want to know.", show_default=False)]
Depth = Annotated[int, typer.Option(help="How many candidates the bi-encoder finds.")]
Sources = Annotated[int, typer.Option(help="How many of them are kept.")]
Documents = Annotated[
    list[str] | None,
    typer.Option("--document", help="Ask this document alone: its file name or id. Can be repeated."),
]
Export = Annotated[Path | None, typer.Option(help="Also write the question to this file, for `replay`.")]
NoRerank = Annotated[bool, typer.Option("--no-rerank", help="Leave the bi-encoder's order as it is.")]


def main() -> None:
    """Run the command; a UserError is one sentence on standard error and exit status 1."""
    try:
        app()
    except UserError as error:
        typer.secho(str(error), fg="red", err=True)
        sys.exit(1)


@app.command()
def serve() -> None:
    """Start the app in the browser, and the API under /api."""
    from rag.services import shared_services

    shared_services().open_ahead()  # while Streamlit is imported
    from app import run

    run()


@app.command()
def ingest(
    files: Annotated[list[Path], typer.Argument(help="PDF files, or folders of them.", show_default=False)],
    password: Annotated[str, typer.Option(help="For files that need one.", prompt=False)] = "",
    as_json: Json = False,
) -> None:
    """Read PDFs into the library; exit status 1 when any of them could not be read."""
    from ingest.queue import Job
    from rag.export import job_data
    from rag.services import opened
    from rag.settings import read_settings

    paths = list(_pdfs(files))
    with opened(read_settings()) as services:
        _ = services.store  # a locked index is told before any file is read
        owner = _owner()
        jobs: list[Job] = []
        for path in paths:
            job = services.queue.add(path.name, path.read_bytes(), owner=owner, password=password)
            services.queue.run(job.id, lambda job: None if as_json else _show_progress(job))
            jobs.append(services.queue.job(job.id, owner=owner))
            if not as_json:
                _end_progress(jobs[-1])
            # a command has no list to come back to
            services.queue.dismiss(job.id, owner=owner)
    if as_json:
        _print_json([job_data(job) for job in jobs])
    if any(job.state not in ("done", "unchanged") for job in jobs):
        raise typer.Exit(1)


@app.command()
def documents(*, as_json: Json = False) -> None:
    """List the library."""
    from rag.export import document_data
    from rag.services import opened
    from rag.settings import read_settings

    with opened(read_settings()) as services:
        found = services.store.documents(owner=_owner())
    if as_json:
        _print_json([document_data(document) for document in found])
        return
    for document in found:
        typer.echo(
            f"{document.id[:12]}  {document.pages:5} pages  {document.chunks:6} chunks  {document.source}"
        )
        for warning in document.warnings:
            typer.echo(f"              {warning}")
    if not found:
        typer.echo("The library is empty. Add PDFs with `second-look ingest FILE-OR-FOLDER`.")


@app.command()
def delete(
    document: Annotated[str, typer.Argument(help="Its id (or how the id begins), or its file name.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a document, its chunks and its file."""
    from rag.services import opened
    from rag.settings import read_settings

    with opened(read_settings()) as services:
        found = _find(services.store.documents(owner=_owner()), document)
        if not yes:
            typer.confirm(f"Delete {found.source} ({found.pages} pages, {found.chunks} chunks)?", abort=True)
        services.forget(services.delete(found.id, owner=_owner()))
    typer.echo(f"Deleted {found.source}.")


@app.command()
def rebuild(
    password: Annotated[str, typer.Option(help="For files that need one.", prompt=False)] = "",
    as_json: Json = False,
) -> None:
    """Make the index anew from the kept files; the old one is moved aside. Exit status 1 when any is missing."""
    from rag.export import job_data
    from rag.rebuild import rebuild as make_anew
    from rag.services import opened
    from rag.settings import read_settings

    with opened(read_settings()) as services:
        rebuilt = make_anew(services, password=password, on_job=_ignore if as_json else _show_rebuild)
    if as_json:
        _print_json(
            {
                "aside": str(rebuilt.aside) if rebuilt.aside else None,
                "resumed": rebuilt.resumed,
                "files": [job_data(job) for job in rebuilt.jobs],
                "without_file": [{"source": one.source, "added": one.added} for one in rebuilt.without_file],
                "unnamed": [job.source for job in rebuilt.unnamed],
            }
        )
    else:
        _show_rebuilt(rebuilt)
    if not rebuilt.whole:
        raise typer.Exit(1)


@app.command()
def search(
    question: Question,
    depth: Depth = 50,
    sources: Sources = 5,
    document: Documents = None,
    no_rerank: NoRerank = False,
    export: Export = None,
    as_json: Json = False,
) -> None:
    """Show a question's candidates in both orders, without an answer."""
    from rag.services import opened
    from rag.settings import read_settings

    with opened(read_settings()) as services:
        record, data = _look(question, services, document, depth, sources, reranking=not no_rerank)
    _write_export(export, record)
    if as_json:
        _print_json(data)
        return
    ranking = record.ranking
    _show_concerns(data)
    for ranked in ranking.ranked:
        chunk = ranked.hit.chunk
        typer.secho(
            f"#{ranked.rank} (was #{ranked.hit.rank})  {chunk.source}, page {chunk.page}  "
            f"logit {ranked.logit:.2f}, sigmoid {ranked.probability:.2f}, cosine {ranked.hit.cosine:.3f}",
            bold=True,
        )
        typer.echo(f"   {_snippet(chunk.text)}")
    for hit in () if ranking.order else ranking.hits[:sources]:
        chunk = hit.chunk
        typer.secho(f"#{hit.rank}  {chunk.source}, page {chunk.page}  cosine {hit.cosine:.3f}", bold=True)
        typer.echo(f"   {_snippet(chunk.text)}")
    if not ranking.hits:
        typer.echo("Nothing found: the library is empty.")


@app.command()
def ask(
    question: Question,
    depth: Depth = 50,
    sources: Sources = 5,
    document: Documents = None,
    no_rerank: NoRerank = False,
    export: Export = None,
    as_json: Json = False,
) -> None:
    """Answer a question from the library, with citations."""
    from rag.export import answered_data
    from rag.pipeline import answer
    from rag.services import opened
    from rag.settings import read_settings

    with opened(read_settings()) as services:
        record, data = _look(question, services, document, depth, sources, reranking=not no_rerank)
        answered = answer(record.ranking, services.answerer, reranked=not no_rerank)
    _write_export(export, replace(record, answers=(answered,)))
    if as_json:
        _print_json({**data, "answer": answered_data(answered)})
    else:
        _show_concerns(data)
        if answered.note:
            typer.secho(answered.note, dim=True)
        typer.echo(answered.answer.text)
        for citation in answered.answer.citations:
            typer.secho(f"[{citation.number}] {citation.chunk.source}, page {citation.chunk.page}", dim=True)
        for problem in answered.answer.problems:
            typer.secho(problem, fg="yellow", err=True)
    if answered.error:
        typer.secho(answered.error, fg="red", err=True)
        raise typer.Exit(1)


@app.command("train-reranker")
def train_reranker(
    questions: Annotated[Path, typer.Argument(help="A question set: .csv, .jsonl, or a BEIR folder.")],
    out: Annotated[Path, typer.Option(help="Where the new reranker goes.")],
    epochs: Annotated[int, typer.Option(help="How often each question is learned from.", min=1)] = 4,
    as_json: Json = False,
) -> None:
    """Train the present reranker on your own questions; exit status 2 when it is not certain to be better."""
    from rag.evidence.formats import read_questions
    from rag.services import opened
    from rag.settings import read_settings
    from rag.train.own import report_data, report_lines, start_folder, train_own

    settings = read_settings()
    with opened(settings) as services:
        report = train_own(
            read_questions(questions),
            services.embedder,
            services.store,
            start=start_folder(settings.reranker),
            out=out,
            epochs=epochs,
            owner=_owner(),
            say=lambda line: typer.echo(line, err=True),
        )
    if as_json:
        _print_json(report_data(report))
    else:
        typer.echo("\n".join(report_lines(report)))
    if not report.recommended:
        raise typer.Exit(2)


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="A question exported as JSON.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Run an exported question again, on the library and models of today, and say what changed.

    Exit status: 0 when the same sources are chosen, 3 when others are, 1 when it could not be run.
    """
    from rag.export import provenance
    from rag.pipeline import rank
    from rag.replay import DIFFERENT, changes, changes_data, changes_text, parameters, read_record
    from rag.services import opened
    from rag.settings import read_settings

    record = read_record(file)
    wanted = parameters(record)
    with opened(read_settings()) as services:
        ranking = rank(
            wanted.question,
            services.stages,
            depth=wanted.depth,
            sources=wanted.sources,
            reranking=wanted.reranking,
            doc_ids=wanted.doc_ids,
        )
        found = changes(
            record,
            ranking,
            now=provenance(services.stages, owner=_owner(), doc_ids=wanted.doc_ids),
            documents=[document.id for document in services.store.documents(owner=_owner())],
        )
    if as_json:
        _print_json(changes_data(found))
    else:
        typer.echo(changes_text(found))
    if not found.same_sources:
        raise typer.Exit(DIFFERENT)


@app.command("eval")
def evaluate(
    questions: Annotated[
        str,
        typer.Argument(help="A .csv or .jsonl file, a BEIR folder, or the name of a stored question set."),
    ] = "",
    depth: Annotated[
        list[int] | None, typer.Option(help="Rerank from this many candidates. Can be repeated.")
    ] = None,
    against: Annotated[
        list[str] | None, typer.Option(help="Also run this reranker, a name or a folder. Can be repeated.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Ask so many questions, spread over the set.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the run to this file, for --compare.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the report to this file.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the report's table to this file.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Compare two runs instead: files that --out wrote.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure whether reranking helps on the library's documents, with questions whose passages are known.

    What was asked is on the disk at once: a run that was stopped goes on when the same command is given again.
    """
    from rag.evidence.command import Asked, compare_files, evaluated_data, write_outputs
    from rag.evidence.command import evaluate as evaluate_questions
    from rag.evidence.export import report_markdown
    from rag.evidence.variants import DEPTHS
    from rag.services import opened
    from rag.settings import read_settings

    if compare:
        compared = compare_files(*compare, as_json=as_json)
        typer.echo(compared) if isinstance(compared, str) else _print_json(compared)
        return
    if not questions:
        raise UserError("Name the questions: a file, a folder, or a stored question set.")
    asked = Asked(questions, tuple(depth or DEPTHS), tuple(against or ()), limit)
    with opened(read_settings()) as services:
        done = evaluate_questions(asked, services, owner=_owner(), on_progress=_show_line)
    _end_line()
    written = write_outputs(done, out=out, markdown=markdown, csv=csv)
    if as_json:
        _print_json(evaluated_data(done))
        return
    typer.echo(report_markdown(done.report))
    for path in written:
        typer.echo(f"Written: {path}", err=True)


@app.command()
def bench_set(
    folder: Annotated[
        Path, typer.Argument(help="corpus.jsonl, queries.jsonl, qrels.tsv.", show_default=False)
    ],
) -> None:
    """Put a public test set in BEIR layout into the library: its corpus as a document, its questions as a set."""
    from rag.evidence.command import add_bench_set
    from rag.services import opened
    from rag.settings import read_settings

    with opened(read_settings()) as services:
        added = add_bench_set(folder, services, owner=_owner(), on_progress=_show_line)
    _end_line()
    typer.echo(
        f"{added.name}: {len(added.questions):,} questions, each passage of the corpus a page of the document "
        f"{added.name!r}. Measure with `second-look eval {added.name}`."
    )


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="Name of a reranker or bi-encoder on the model hub.")] = "",
    seconds: Annotated[float, typer.Option(help="How long to wait for the hub.")] = 15.0,
    optional: Annotated[
        bool, typer.Option("--optional", help="Say so and go on when no hub answers.")
    ] = False,
) -> None:
    """Download a model into the local cache; the only command that reaches a network for one."""
    from ingest.errors import ModelUnavailable
    from ingest.weights import HUB_RERANKER, cached, fetch

    wanted = name or HUB_RERANKER
    try:
        fetch(wanted, seconds=seconds)
    except ModelUnavailable as error:
        if not optional:
            raise
        used = HUB_RERANKER if cached(HUB_RERANKER) else "the bundled reranker"
        typer.echo(f"{error} The app will use {used}.")
        return
    how = "the app will use it" if wanted == HUB_RERANKER else "name it in RERANKER or EMBEDDER to use it"
    typer.echo(f"{wanted} is in the local cache; {how}.")


@app.command()
def token(
    user: Annotated[
        str, typer.Argument(help="Whose documents it opens: an id from the Account page, or `local`.")
    ] = "local",
) -> None:
    """Make a token for the API, and print it with the line that lets it in."""
    from rag.access import make_token, token_line

    made = make_token()
    line = token_line(user, made)
    typer.secho("The token. It is kept nowhere: this is the only time it is shown.", dim=True, err=True)
    typer.echo(made)
    typer.secho(
        "Let it in with this line, in SECOND_LOOK_API_TOKENS (with commas) or in SECOND_LOOK_API_TOKENS_FILE, "
        "and start the app again:",
        dim=True,
        err=True,
    )
    typer.echo(line)


def _pdfs(paths: Iterable[Path]) -> Iterator[Path]:
    """All files named, and the PDFs in all folders named. Raises UserError for what is not there."""
    for path in paths:
        if path.is_dir():
            inside = sorted(
                file for file in path.rglob("*") if file.suffix.lower() == ".pdf" and file.is_file()
            )
            if not inside:
                raise UserError(f"There is no PDF in {path}.")
            yield from inside
        elif path.is_file():
            yield path
        else:
            raise UserError(f"There is no file or folder {path}.")


def _look(
    question: str, services: Any, names: list[str] | None, depth: int, sources: int, *, reranking: bool
) -> tuple[Any, dict[str, Any]]:
    """A question ranked among the documents named, as a record and as data."""
    from rag.export import QuestionRecord, provenance, search_data
    from rag.pipeline import rank

    doc_ids = None
    if names:
        known = services.store.documents(owner=_owner())
        doc_ids = tuple(dict.fromkeys(_find(known, name).id for name in names))
    stages = services.stages
    ranking = rank(question, stages, depth=depth, sources=sources, reranking=reranking, doc_ids=doc_ids)
    made = provenance(stages, owner=_owner(), doc_ids=doc_ids)
    record = QuestionRecord(question, ranking, (), depth, doc_ids, "On" if reranking else "Off", made)
    data = search_data(
        ranking,
        depth=depth,
        reranking=reranking,
        doc_ids=doc_ids,
        reranker_problem=stages.reranker_problem,
    )
    return record, data


def _write_export(path: Path | None, record: Any) -> None:
    from rag.export import question_data

    if path:
        try:
            path.write_text(json.dumps(question_data(record), ensure_ascii=False, indent=2), encoding="utf-8")
        except OSError as error:
            raise UserError(f"Cannot write {path}: {error.strerror}.") from error


def _show_concerns(data: dict[str, Any]) -> None:
    for concern in data["concerns"]:
        if concern["kind"] != "off":  # whoever gave --no-rerank knows
            typer.secho(_snippet(concern["text"], 1000), fg="yellow", err=True)


def _find(documents: Iterable[Any], wanted: str) -> Any:
    matches = [doc for doc in documents if doc.source == wanted or doc.id.startswith(wanted.lower())]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise UserError(f"There is no document {wanted!r}; `second-look documents` lists them.")
    raise UserError(
        f"{wanted!r} names {len(matches)} documents; give the id that `second-look documents` shows."
    )


def _show_progress(job: Any) -> None:
    if not sys.stdout.isatty():
        return
    unit = "pages read" if job.state == "reading" else "chunks embedded"
    left = f", about {job.seconds_left:.0f} s left" if job.seconds_left else ""
    typer.echo(f"\r\x1b[K{job.source}: {job.done} of {job.total} {unit}{left}", nl=False)


def _end_progress(job: Any) -> None:
    good = job.state in ("done", "unchanged")
    start = "\r\x1b[K" if sys.stdout.isatty() else ""
    typer.secho(f"{start}{job.source}: {job.message}", fg=None if good else "red", err=not good)


def _ignore(*_: object) -> None:
    pass


def _show_rebuild(number: int, total: int, job: Any) -> None:
    if job.open:
        _show_progress(replace(job, source=f"{number} of {total}: {job.source}"))
    else:
        _end_progress(replace(job, source=f"{number} of {total}: {job.source}"))


def _show_rebuilt(rebuilt: Any) -> None:
    read = sum(job.state in ("done", "unchanged") for job in rebuilt.jobs)
    typer.echo(
        f"{read} of {len(rebuilt.jobs)} kept files are in the index{' again' if rebuilt.jobs else ''}."
    )
    if rebuilt.resumed:
        typer.echo("This went on with a rebuild that was begun earlier.")
    if rebuilt.aside:
        typer.echo(f"The old index is in {rebuilt.aside}: delete it when all is well.")
    for job in rebuilt.unnamed:
        typer.echo(f"{job.source}: its name is lost, this one is made from its hash.")
    for job in rebuilt.jobs:
        if job.state == "password":
            typer.echo(
                f"{job.source} needs its password: give it on the Documents page, or with --password.",
                err=True,
            )
        elif job.state not in ("done", "unchanged"):
            typer.echo(f"{job.source} could not be read and is kept: {job.message}", err=True)
    for record in rebuilt.without_file:
        typer.echo(_without_file(record), err=True)


def _without_file(record: Any) -> str:
    if record.pdf:
        return f"{record.source} is not in the index any more: its file is gone. Ingest it again."
    return (
        f"{record.source} is not in the index any more: it was never a PDF and cannot be made from one. A BEIR "
        "corpus comes back with `second-look bench-set FOLDER`."
    )


def _show_line(line: str) -> None:
    """How far a long command is, on one line of a terminal."""
    if sys.stderr.isatty():
        typer.echo(f"\r\x1b[K{line}", nl=False, err=True)


def _end_line() -> None:
    if sys.stderr.isatty():
        typer.echo("\r\x1b[K", nl=False, err=True)


def _owner() -> str:
    from ingest.store import LOCAL_OWNER

    return LOCAL_OWNER


def _snippet(text: str, length: int = 240) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def _print_json(data: object) -> None:
    typer.echo(json.dumps(data, ensure_ascii=False, indent=2))
