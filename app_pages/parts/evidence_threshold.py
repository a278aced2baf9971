"""The threshold on the Evidence page: what the labels suggest, applied on request, gone when it no longer fits."""

from __future__ import annotations

import streamlit as st

from app_pages.parts.account import asking_owner, own_stages
from app_pages.parts.evidence_charts import threshold_chart
from app_pages.parts.evidence_report import Shown
from app_pages.parts.text import plain
from rag.evidence.sets import EvidenceStore
from rag.evidence.threshold import ThresholdAdvice, choose
from rag.services import Services
from rag.threshold import fits


def show_threshold(shown: Shown, services: Services, kept: EvidenceStore) -> None:
    """Precision and recall of answering at all, the suggestion, and the button that applies it."""
    st.subheader("When not to answer at all", anchor=False)
    st.markdown(
        "Where even the best passage scores below a threshold, the Ask page says that your documents probably do "
        "not answer the question."
    )
    _show_state(services, kept)
    advice = shown.report.thresholds[0]
    st.markdown(plain(advice.why, limit=600))
    if advice.points:
        st.altair_chart(threshold_chart(advice), alt=_alt(advice))
        st.caption(
            "Precision: of the questions that would be answered, how many have a right passage among the first 5. "
            "Recall: of the questions that have one, how many would be answered. A higher threshold keeps more "
            "wrong answers out, and some right ones with them."
        )
    _offer(shown, advice, services, kept)


def _show_state(services: Services, kept: EvidenceStore) -> None:
    threshold, reranker = services.threshold(owner=asking_owner(services)), own_stages(services).reranker
    if threshold is None:
        own = reranker.calibration.threshold if reranker else None
        st.caption(
            "Now: the reranker's own threshold."
            if own is not None
            else "Now: no threshold; nothing is doubted."
        )
        return
    applied = reranker is not None and fits(
        threshold, reranker, services.library_fingerprint(owner=asking_owner(services))
    )
    with st.container(border=True, horizontal=True, vertical_alignment="center", key="threshold-state"):
        if applied:
            st.markdown(
                f":green[:material/check:] Applied: logit {threshold.logit:.2f}, chosen for this library."
            )
        else:
            st.markdown(
                f":orange[:material/warning:] The threshold you chose (logit {threshold.logit:.2f}) is **not "
                "applied**: the library or the reranker has changed since. Ask again and choose anew."
            )
        if st.button("Take it away", icon=":material/close:", key="threshold-remove"):
            kept.choose_threshold(None)
            st.rerun()


def _offer(shown: Shown, advice: ThresholdAdvice, services: Services, kept: EvidenceStore) -> None:
    header, reranker = shown.run.header, own_stages(services).reranker
    variant = next(one for one in header.variants if one.name == advice.variant)
    model = next(one for one in header.models if one.curve == variant.curve)
    threshold = choose(advice, model, header.corpus.fingerprint)
    if threshold is None:
        return
    now = services.threshold(owner=asking_owner(services))
    if now and (now.logit, now.revision, now.corpus) == (
        threshold.logit,
        threshold.revision,
        threshold.corpus,
    ):
        return
    suits = reranker is not None and (model.name, model.revision, header.corpus.fingerprint) == (
        reranker.name,
        reranker.revision,
        services.library_fingerprint(owner=asking_owner(services)),
    )
    if not suits:
        st.caption("This run was made with another library or reranker: its threshold cannot be applied.")
    if st.button(f"Apply {threshold.logit:.2f}", key="threshold-apply", type="primary", disabled=not suits):
        kept.choose_threshold(threshold)
        st.rerun()


def _alt(advice: ThresholdAdvice) -> str:
    return f"Precision and recall of answering at all, by the best passage's logit. {advice.why}"
