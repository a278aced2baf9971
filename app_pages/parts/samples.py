"""The sample library on the pages: load it, watch it load, ask what it suggests, remove it with an undo."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from app_pages.parts.deletions import deleted
from app_pages.parts.text import plain
from ingest.errors import UserError
from ingest.queue import Job
from rag.samples import (
    SampleFile,
    load_samples,
    loaded_samples,
    remove_samples,
    sample_files,
    sample_jobs,
    suggestions,
    tidy_uploads,
)
from rag.services import Deleted, Services

_PROBLEM = "samples-problem"


def offer_samples(services: Services, *, owner: str) -> None:
    """For an empty library: what the sample library is, and one button that loads it; then its progress.

    Nothing where this installation has no samples. Raises StoreUnavailable.
    """
    files = sample_files()
    if not files:
        return
    with st.container(border=True, key="samples-offer"):
        st.subheader("Or try the sample library", anchor=False)
        st.markdown(
            f"{len(files)} PDFs that came with this app, about invented companies: manuals of five machines that "
            "look alike, a travel policy in four editions, a handbook, contracts, data sheets. In such families "
            "the nearest passage is often the one from the wrong document. It loads in about a minute, needs no "
            "key, and one click removes it again."
        )
        if _loading(services, owner):
            _watch(services, owner)
            return
        _tell_problem()
        _tell_failures(services, owner)
        st.button(
            "Load the sample library",
            key="samples-load",
            type="primary",
            icon=":material/library_books:",
            on_click=_load,
            args=(services, owner),
        )


def suggested_questions(services: Services, *, owner: str) -> str | None:
    """Questions that the loaded samples answer, as buttons; the one that was clicked.

    What reranking was measured to do with each of them is told by its tooltip. Nothing is drawn where no sample
    is loaded. Raises StoreUnavailable.
    """
    loaded = loaded_samples(services, owner=owner)
    loading = _loading(services, owner)
    if not loaded and not loading:
        return None
    clicked = None
    with st.container(key="samples-questions"):
        if loading:
            _watch(services, owner)
        offered = suggestions(loaded)
        if offered:
            st.caption("Questions to try on the sample library")
        with st.container(horizontal=True, gap="small"):
            for question in offered:
                label = plain(question.text)
                if st.button(label, key=f"samples-{question.id}", help=plain(question.measured), wrap=True):
                    clicked = question.text
    return clicked


def sample_row(services: Services, *, owner: str) -> None:
    """For the Documents page: one line that says whether the samples are loaded, and a button for the contrary.

    Nothing where this installation has no samples. Raises StoreUnavailable.
    """
    files = sample_files()
    if not files:
        return
    loaded = loaded_samples(services, owner=owner)
    loading = _loading(services, owner)
    _tell_problem()
    with st.container(horizontal=True, vertical_alignment="center", key="samples-row"):
        state = f"{len(loaded)} of {len(files)} documents loaded" if loaded or loading else "not loaded"
        st.markdown(f"**Sample library** · {state}", width="content")
        if len(loaded) < len(files):
            st.button(
                "Load",
                key="samples-load",
                icon=":material/library_books:",
                disabled=loading,
                help="PDFs that came with this app, to try it on.",
                on_click=_load,
                args=(services, owner),
            )
        if loaded:
            st.button(
                "Remove",
                key="samples-remove",
                icon=":material/delete:",
                disabled=loading,
                help="Delete all of its documents; you can undo that on this page.",
                on_click=_remove,
                args=(services, owner),
            )


def undo_samples(services: Services) -> list[Deleted]:
    """One row with one undo for all samples that were deleted; returns those which the row stands for.

    A single one is left to the rows of single documents.
    """
    ids = {file.id for file in sample_files()}
    gone = [item for item in deleted() if item.stored.document.id in ids]
    if len(gone) < 2:
        return []
    with st.container(border=True, horizontal=True, vertical_alignment="center", key="undo-samples"):
        st.markdown(
            f"Deleted **{len(gone)} documents of the sample library**. This page keeps them until you leave."
        )
        st.button(
            "Undo", icon=":material/undo:", key="undo-samples-button", on_click=_undo, args=(services, gone)
        )
    return gone


def _load(services: Services, owner: str) -> None:
    try:
        load_samples(services, owner=owner)
    except UserError as error:  # such as a full queue; a button's callback has no page to say it on
        st.session_state[_PROBLEM] = str(error)


def _remove(services: Services, owner: str) -> None:
    deleted().extend(remove_samples(services, owner=owner))


def _undo(services: Services, gone: Sequence[Deleted]) -> None:
    kept = deleted()
    for item in gone:
        services.undo(item)
        kept[:] = [other for other in kept if other is not item]


def _loading(services: Services, owner: str) -> bool:
    return any(job.open for job in sample_jobs(services, owner=owner))


def _watch(services: Services, owner: str) -> None:
    st.fragment(_show_progress, run_every=1.0)(services, owner, sample_files())


def _show_progress(services: Services, owner: str, files: Sequence[SampleFile]) -> None:
    waiting = [job for job in sample_jobs(services, owner=owner) if job.open]
    if not waiting:
        # seen to the end here; on the Documents page they would be a long list
        tidy_uploads(services, owner=owner)
        st.rerun()
    done = len(files) - len(waiting)
    st.progress(
        (done + _part(waiting[0])) / len(files),
        text=f"Loading the sample library: {done} of {len(files)} documents · {_now(waiting[0], services)}",
    )


def _part(job: Job) -> float:
    """How far a document is, from 0 to 1; embedding takes nearly all of its time."""
    return job.done / job.total if job.state == "embedding" and job.total else 0.0


def _now(job: Job, services: Services) -> str:
    if not services.warm:
        return "loading the models first"
    return plain(job.source, limit=60)


def _tell_problem() -> None:
    problem = st.session_state.pop(_PROBLEM, None)
    if problem:
        st.error(f"The sample library was not loaded. {plain(problem, limit=400)}", icon=":material/error:")


def _tell_failures(services: Services, owner: str) -> None:
    problems = [job for job in sample_jobs(services, owner=owner) if job.state in ("failed", "refused")]
    if problems:
        st.error(
            f"{len(problems)} of the sample PDFs could not be loaded. {plain(problems[0].message, limit=400)}",
            icon=":material/error:",
        )
