"""The `second-look` command."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
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
def search(
    question: Question,
    depth: Depth = 50,
    sources: Sources = 5,
    no_rerank: NoRerank = False,
    as_json: Json = False,
) -> None:
    """Show a question's candidates in both orders, without an answer."""
    from rag.export import ranking_data
    from rag.pipeline import rank
    from rag.services import opened
    from rag.settings import read_settings

    with opened(read_settings()) as services:
        ranking = rank(question, services.stages, depth=depth, sources=sources, reranking=not no_rerank)
    if as_json:
        _print_json(ranking_data(ranking))
        return
    if ranking.rerank_problem:
        typer.secho(f"Not reranked: {ranking.rerank_problem}", fg="yellow", err=True)
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
    no_rerank: NoRerank = False,
    as_json: Json = False,
) -> None:
    """Answer a question from the library, with citations."""
    from rag.export import answered_data, ranking_data
    from rag.pipeline import answer, rank
    from rag.services import opened
    from rag.settings import read_settings

    with opened(read_settings()) as services:
        ranking = rank(question, services.stages, depth=depth, sources=sources, reranking=not no_rerank)
        answered = answer(ranking, services.answerer, reranked=not no_rerank)
    if as_json:
        _print_json({**ranking_data(ranking), "answer": answered_data(answered)})
    else:
        if ranking.rerank_problem:
            typer.secho(f"Not reranked: {ranking.rerank_problem}", fg="yellow", err=True)
        if ranking.confident is False:
            typer.secho("Probably not in your documents: even the best passage scores low.", fg="yellow")
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


def _owner() -> str:
    from ingest.store import LOCAL_OWNER

    return LOCAL_OWNER


def _snippet(text: str, length: int = 240) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def _print_json(data: object) -> None:
    typer.echo(json.dumps(data, ensure_ascii=False, indent=2))
