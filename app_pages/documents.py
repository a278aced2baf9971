"""Documents: upload, queue with progress, library, delete with undo."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from app_pages.parts.account import asking_owner, asking_user
from app_pages.parts.deletions import deleted
from app_pages.parts.samples import sample_row, undo_samples
from app_pages.parts.text import plain, size_text
from app_pages.parts.uploads import forget_uploads
from ingest.errors import LimitReached, UserError
from ingest.queue import Job, State
from ingest.types import Document
from rag.services import Services, shared_services

ICONS: dict[State, str] = {
    "done": ":material/check_circle:",
    "unchanged": ":material/content_copy:",
    "refused": ":material/error:",
    "failed": ":material/error:",
    "password": ":material/lock:",
}
PAGE_ROWS = 25


def page() -> None:
    """Draw the page."""
    services = shared_services()
    st.title("Documents", anchor=False)
    try:
        _upload(services)
        _queue(services)
        _undo(services)
        sample_row(services, owner=asking_owner(services))
        _library(services)
    except UserError as error:
        st.error(plain(str(error), limit=1000), icon=":material/error:")


def _upload(services: Services) -> None:
    # a new key empties the widget, so that a rerun does not queue the same files again
    generation = st.session_state.setdefault("uploads", 0)
    files = st.file_uploader(
        "Add PDFs",
        type="pdf",
        accept_multiple_files=True,
        key=f"upload-{generation}",
        help=f"Up to {services.settings.max_upload_mb} MB and {services.settings.max_pages} pages each.",
    )
    if files:
        st.session_state["uploads"] = generation + 1
        st.session_state["upload-problem"] = _take(files, services)
        forget_uploads(files)
        st.rerun()
    problem = st.session_state.get("upload-problem")
    if problem:
        st.error(plain(problem, limit=600), icon=":material/error:")


def _take(files: Sequence[UploadedFile], services: Services) -> str:
    """Queue the files, all or none; returns why none was, "" where they are queued."""
    owner = asking_owner(services)
    try:
        services.limits.request(asking_user(services))
        services.queue.check_room(len(files), owner=owner)
        for file in files:
            services.queue.add(file.name, file.getvalue(), owner=owner)
    except LimitReached as error:
        return str(error)
    return ""


def _queue(services: Services) -> None:
    jobs = services.queue.jobs(owner=asking_owner(services))
    if not jobs:
        return
    busy = any(job.open for job in jobs)
    st.fragment(_show_queue, run_every=1.0 if busy else None)(services, busy)


def _show_queue(services: Services, was_busy: bool) -> None:
    jobs = services.queue.jobs(owner=asking_owner(services))
    with st.container(border=True, key="queue"):
        open_jobs = sum(job.open for job in jobs)
        title, button = st.columns([4, 1], vertical_alignment="center")
        title.subheader(f"Uploads: {open_jobs} in work" if open_jobs else "Uploads", anchor=False)
        if open_jobs < len(jobs) and button.button("Clear finished", key="clear"):
            for job in jobs:
                if not job.open and job.state not in ("password", "failed"):
                    services.queue.dismiss(job.id, owner=asking_owner(services))
            st.rerun()
        for job in jobs:
            _show_job(job, services)
    if was_busy and not any(job.open for job in jobs):
        # the library below has grown; at the end, or a click that came with this run would be lost
        st.rerun()


def _show_job(job: Job, services: Services) -> None:
    name = plain(job.source, limit=80)
    if job.state == "queued":
        st.progress(0.0, text=f"**{name}** · queued, {size_text(job.size)}")
    elif job.open:
        st.progress(job.done / job.total if job.total else 0.0, text=f"**{name}** · {_progress(job)}")
    else:
        color = {"refused": "red", "failed": "red", "password": "orange"}.get(job.state, "green")
        st.markdown(f":{color}[{ICONS[job.state]}] **{name}** · {plain(job.message, limit=600)}")
        if job.state == "password":
            _ask_password(job, services)
        if job.state == "failed":
            _offer_retry(job, services)


def _progress(job: Job) -> str:
    what = "read" if job.state == "reading" else "embedded"
    unit = "pages" if job.state == "reading" else "chunks"
    left = f", about {job.seconds_left:.0f} s left" if job.seconds_left is not None else ""
    return f"{job.done} of {job.total} {unit} {what}{left}" if job.total else "opening"


def _ask_password(job: Job, services: Services) -> None:
    with st.form(f"password-{job.id}", border=False):
        field, unlock, leave = st.columns([3, 1, 1], vertical_alignment="bottom")
        password = field.text_input("Password", type="password", autocomplete="off")
        if unlock.form_submit_button("Unlock", type="primary") and password:
            services.queue.retry(job.id, owner=asking_owner(services), password=password)
            st.rerun()
        if leave.form_submit_button("Remove"):
            services.queue.dismiss(job.id, owner=asking_owner(services))
            st.rerun()


def _offer_retry(job: Job, services: Services) -> None:
    again, leave, _ = st.columns([1, 1, 4])
    if again.button("Try again", key=f"retry-{job.id}"):
        services.queue.retry(job.id, owner=asking_owner(services))
        st.rerun()
    if leave.button("Remove", key=f"remove-{job.id}"):
        services.queue.dismiss(job.id, owner=asking_owner(services))
        st.rerun()


def _undo(services: Services) -> None:
    together = {id(item) for item in undo_samples(services)}
    for item in [item for item in deleted() if id(item) not in together]:
        document = item.stored.document
        with st.container(
            border=True, horizontal=True, vertical_alignment="center", key=f"undo-{document.id}"
        ):
            st.markdown(
                f"Deleted **{plain(document.source, limit=80)}**. This page keeps it until you leave."
            )
            if st.button("Undo", icon=":material/undo:", key=f"undo-button-{document.id}"):
                services.undo(item)
                deleted().remove(item)
                st.rerun()


def _library(services: Services) -> None:
    documents = services.store.documents(owner=asking_owner(services))
    if not documents:
        if not services.queue.jobs(owner=asking_owner(services)):
            st.info(
                "No documents yet. Drop PDFs on the field above, or load the sample library.",
                icon=":material/upload_file:",
            )
        return
    pages = sum(document.pages for document in documents)
    chunks = sum(document.chunks for document in documents)
    count = "1 document" if len(documents) == 1 else f"{len(documents):,} documents"
    st.subheader(f"Library: {count}, {pages:,} pages, {chunks:,} chunks", anchor=False)
    if len(documents) > PAGE_ROWS:
        documents = _filtered(documents)
    for document in documents[:PAGE_ROWS]:
        _show_document(document, services)
    if len(documents) > PAGE_ROWS:
        st.caption(f"{len(documents) - PAGE_ROWS} more: type part of a name above to find them.")


def _filtered(documents: list[Document]) -> list[Document]:
    wanted = st.text_input("Find by name", key="find").strip().lower()
    return [document for document in documents if wanted in f"{document.source} {document.title}".lower()]


def _show_document(document: Document, services: Services) -> None:
    with st.container(
        border=True, horizontal=True, vertical_alignment="center", key=f"document-{document.id}"
    ):
        with st.container(gap=None):
            st.markdown(f"**{plain(document.source, limit=120)}**")
            st.caption(
                f"{document.pages} pages · {document.chunks} chunks · {size_text(document.size)} · "
                f"added {_when(document.added)} · {plain(document.title)}"
            )
            for warning in document.warnings:
                st.caption(f":orange[:material/warning: {plain(warning, limit=400)}]")
        if st.button(
            "Delete", icon=":material/delete:", key=f"delete-{document.id}", type="tertiary", width="content"
        ):
            _confirm(document, services)


@st.dialog("Delete this document?")
def _confirm(document: Document, services: Services) -> None:
    st.markdown(
        f"**{plain(document.source, limit=120)}**, {document.pages} pages, {document.chunks} chunks: "
        "the document, its chunks and its file are removed."
    )
    delete, keep = st.columns(2)
    if delete.button("Delete", type="primary", key="confirm-delete", width="stretch"):
        deleted().append(services.delete(document.id, owner=asking_owner(services)))
        st.rerun()
    if keep.button("Keep", key="confirm-keep", width="stretch"):
        st.rerun()


def _when(added: str) -> str:
    return datetime.fromisoformat(added).astimezone().strftime("%Y-%m-%d %H:%M")


if __name__ == "__main__":
    page()
