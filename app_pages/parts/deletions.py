"""Deleted documents: kept for an undo while their page is open, gone when it is left."""

from __future__ import annotations

import streamlit as st

from rag.services import Deleted, shared_services

_KEY = "deleted"


def deleted() -> list[Deleted]:
    """What this session deleted and can still bring back, oldest first."""
    kept: list[Deleted] = st.session_state.setdefault(_KEY, [])
    return kept


def finish_deletions(*, here: str) -> None:
    """Make deletions final once another page than Documents is shown."""
    if here != "documents" and deleted():
        for item in deleted():
            shared_services().forget(item)
        st.session_state[_KEY] = []
