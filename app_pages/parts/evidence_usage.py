"""What ordinary use tells without labels: how often a cited source would have been missed."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app_pages.parts.account import asking_owner, own_stages
from app_pages.parts.text import plain
from rag.evidence.sets import EvidenceStore
from rag.evidence.usage import UsageLog, signal, used
from rag.services import Services
from rag.types import Answered, Ranking

FEW = 20
"""Below so many questions a share says hardly anything."""


def note_use(services: Services, ranking: Ranking, answered: Answered, *, owner: str) -> None:
    """Keep what an answer tells; neither its text nor the question is kept. Raises StoreUnavailable."""
    one = used(ranking, answered)
    if one:
        usage_log(services, owner=owner).add(one)


def show_usage(services: Services) -> None:
    """In how many answers a cited source was brought in by reranking."""
    st.subheader("In ordinary use", anchor=False)
    reranker = own_stages(services).reranker
    told = (
        signal(usage_log(services, owner=asking_owner(services)).read(), reranker.name) if reranker else None
    )
    if told is None:
        st.caption(
            "Nothing yet. Each answer on the Ask page is counted here: whether it cites a passage that would have "
            "been missed without reranking. No label is needed, and no question is kept."
        )
        return
    st.markdown(
        f"**{told.missed} of {told.questions}** answers on the Ask page cite a passage that "
        "would have been missed without reranking "
        f"({told.share:.0%}; 95 % interval {told.low:.0%} to {told.high:.0%})."
    )
    few = "Few answers so far: read the interval, not the share. " if told.questions < FEW else ""
    st.caption(
        f"{few}Counted with {plain(reranker.name if reranker else '')}. It says how often reranking changes what "
        "answers rest on, not whether they get better: for that it takes questions with known passages."
    )


def usage_log(services: Services, *, owner: str) -> UsageLog:
    """The log of ordinary use, beside sets and runs."""
    folder: Path = EvidenceStore(services.settings.data, owner=owner).journals.parent
    return UsageLog(folder)
