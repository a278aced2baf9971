"""Evidence: whether reranking helps on these documents, by how much, how surely, and at what cost."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from app_pages.parts.account import asking_owner, own_stages
from app_pages.parts.asking import source_to_open
from app_pages.parts.evidence_drill import show_drill
from app_pages.parts.evidence_report import Shown, load_shown, show_report
from app_pages.parts.evidence_run import show_start, watch_run
from app_pages.parts.evidence_runs import choose_run, exports, show_runs
from app_pages.parts.evidence_sets import offer_sets, show_said, show_sets, watch_making
from app_pages.parts.evidence_threshold import show_threshold
from app_pages.parts.evidence_usage import show_usage
from app_pages.parts.samples import offer_samples
from app_pages.parts.source import open_source
from app_pages.parts.text import plain
from ingest.errors import UserError
from ingest.types import Document
from rag.evidence.jobs import Runs, runs_of
from rag.evidence.making import makings_of
from rag.evidence.sets import EvidenceStore
from rag.services import Services, shared_services

VIEWS = ("Verdict", "Question sets", "Runs")


def page() -> None:
    """Draw the page."""
    services = shared_services()
    st.title("Evidence", anchor=False)
    st.markdown(
        "Does reranking help on **your** documents? Questions whose right passages are known are asked in every "
        "order, and counted."
    )
    try:
        documents = services.store.documents(owner=asking_owner(services))
        kept = EvidenceStore(services.settings.data, owner=asking_owner(services))
        if not documents:
            _invite(services)
            return
        runs = runs_of(services, owner=asking_owner(services))
        watch_run(runs)
        watch_making(makings_of(services, owner=asking_owner(services)))
        view = st.segmented_control(
            "View", VIEWS, required=True, default=VIEWS[0], key="evidence-view", label_visibility="collapsed"
        )
        if view == VIEWS[1]:
            show_sets(services, kept, owner=asking_owner(services))
        elif view == VIEWS[2]:
            show_runs(kept)
        else:
            _show_verdict(services, kept, runs, documents)
        opened = source_to_open()
        if opened:
            open_source(services, *opened, owner=asking_owner(services))
    except UserError as error:
        st.error(plain(str(error), limit=1000), icon=":material/error:")


def _invite(services: Services) -> None:
    st.info("Your library is empty: there is nothing to measure yet.", icon=":material/upload_file:")
    st.page_link("documents.py", label="Upload documents", icon=":material/description:")
    offer_samples(services, owner=asking_owner(services))


def _show_verdict(services: Services, kept: EvidenceStore, runs: Runs, documents: Sequence[Document]) -> None:
    show_said()
    names, summaries = kept.names(), kept.runs()
    if not names and not summaries:
        st.subheader("First, questions with known answers", anchor=False)
        st.markdown(
            "Each question needs the passage that answers it. Choose one way; or mark right passages on the "
            "cards of the Ask page, and they are kept as a set."
        )
        offer_sets(services, kept, owner=asking_owner(services))
        return
    if names:
        show_start(services, kept, runs, names)
    if not summaries:
        if not runs.going:
            st.info("Ask the questions, and the verdict stands here.", icon=":material/arrow_upward:")
        show_usage(services)
        return
    chosen = summaries[0]
    with st.container(horizontal=True, vertical_alignment="bottom", key="evidence-shown"):
        chosen = choose_run(summaries)
        exports(kept, chosen)
    shown = load_shown(kept, chosen.id, chosen.asked)
    show_report(shown, changed=_changed(shown, services, documents))
    with st.container(key="evidence-threshold"):
        show_threshold(shown, services, kept)
    with st.container(key="evidence-drill"):
        show_drill(shown)
    show_usage(services)


def _changed(shown: Shown, services: Services, documents: Sequence[Document]) -> list[str]:
    """What is no longer as it was when the run was made."""
    header, reranker = shown.run.header, own_stages(services).reranker
    notes = []
    if header.corpus.fingerprint != services.library_fingerprint(owner=asking_owner(services)):
        notes.append(
            f"The library has changed since this run: it had {header.corpus.documents:,} documents, now there are "
            f"{len(documents):,}. Ask again for numbers about what is there now."
        )
    if reranker and reranker.revision not in {model.revision for model in header.models}:
        notes.append(f"The reranker is another one now ({reranker.name}). Ask again for numbers about it.")
    return notes


if __name__ == "__main__":
    page()
