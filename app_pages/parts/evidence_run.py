"""Start a run on the Evidence page, watch it from any page load, stop it, take it up again."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from app_pages.parts.evidence_sets import chosen_set, describe
from app_pages.parts.evidence_words import count
from app_pages.parts.text import plain
from ingest.weights import HUB_RERANKER, cached
from rag.evidence.jobs import ALONE, Going, Runs, Waiting, Wish
from rag.evidence.sets import EvidenceStore
from rag.evidence.variants import DEPTHS
from rag.rerank import BUNDLED
from rag.services import Services

OTHERS = {BUNDLED: "the bundled one", ALONE: "the same one, cross-encoder alone"}
_SEEN = "evidence-seen-run"


def show_start(services: Services, kept: EvidenceStore, runs: Runs, names: Sequence[str]) -> None:
    """Question set, depths and rerankers, and the button that starts the run."""
    with st.container(border=True, key="evidence-start"):
        left, right = st.columns([3, 2], vertical_alignment="bottom")
        with left:
            questions = chosen_set(kept, names)
            st.caption(describe(questions))
        with right:
            depths = st.pills(
                "Candidates to read again",
                DEPTHS,
                selection_mode="multi",
                default=DEPTHS,
                key="evidence-depths",
                persist_state="session",
                help="How many of the bi-encoder's passages the reranker reads. Each question is searched once "
                "and its deepest list read once; the shallower ones follow from it.",
            )
            others = _other_rerankers(services)
            against = st.multiselect(
                "Measure another reranker too",
                others,
                key="evidence-against",
                persist_state="session",
                format_func=lambda name: OTHERS.get(name, name),
                help="Any model in a folder or in the local cache: `second-look eval QUESTIONS --against MODEL`.",
            )
        with st.container(horizontal=True, vertical_alignment="center"):
            asked = len(questions.questions)
            if st.button(
                f"Ask {count(asked, 'question')}",
                type="primary",
                icon=":material/play_arrow:",
                key="evidence-run-button",
                disabled=runs.going is not None or not depths or not asked,
            ):
                runs.start(Wish(questions.name, tuple(sorted(depths)), tuple(against)))
                st.rerun()
            st.caption(
                "Side by side: the bi-encoder alone, BM25 (word search) alone, both fused without a model, and "
                "reranked from each depth."
            )


def _other_rerankers(services: Services) -> list[str]:
    """Rerankers that can be loaded on this machine besides the app's own; more with `second-look eval`."""
    hub = bool(cached(HUB_RERANKER))
    own = services.settings.reranker or (HUB_RERANKER if hub else BUNDLED)
    known = [BUNDLED, *([HUB_RERANKER] if hub else [])]
    return [*(name for name in known if name != own), *([ALONE] if own == BUNDLED else [])]


def watch_run(runs: Runs) -> None:
    """The run that is going on with its progress, or the one that waits to be taken up again."""
    finished = runs.finished
    if finished and st.session_state.get(_SEEN) != finished and not runs.going:
        st.session_state[_SEEN] = finished
        st.session_state["evidence-next-run"] = finished
    if runs.going:
        st.fragment(_show_going, run_every=1.0)(runs)
        return
    if runs.problem:
        st.error(f"The run broke off. {plain(runs.problem, limit=600)}", icon=":material/error:")
    waiting = runs.waiting
    if waiting:
        _show_waiting(waiting, runs)


def _show_going(runs: Runs) -> None:
    going = runs.going
    if going is None:
        st.rerun()
    with st.container(border=True, key="evidence-going"):
        done, text = _progress(going)
        st.progress(done, text=text)
        with st.container(horizontal=True, vertical_alignment="center"):
            if st.button("Stop", key="evidence-stop", icon=":material/stop:", disabled=going.stopping):
                runs.stop()
            st.caption(
                "It goes on if you leave this page. What was asked is on the disk: it can be stopped and taken "
                "up again."
            )


def _progress(going: Going) -> tuple[float, str]:
    name, progress = plain(going.wish.question_set), going.progress
    if going.stopping:
        return (progress.done / progress.total if progress else 0.0), f"**{name}** · stopping"
    if progress is None:
        return 0.0, f"**{name}** · loading the models"
    left = "" if progress.seconds_left is None else f" · {time_left(progress.seconds_left)}"
    return (
        progress.done / progress.total,
        f"**{name}** · {progress.done:,} of {progress.total:,} questions{left}",
    )


def time_left(seconds: float) -> str:
    """How long it still takes, as people say it."""
    if seconds < 90:
        return f"about {seconds:.0f} s left"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} min left"
    return f"about {seconds / 3600:.1f} h left"


def _show_waiting(waiting: Waiting, runs: Runs) -> None:
    wish = waiting.wish
    with st.container(border=True, horizontal=True, vertical_alignment="center", key="evidence-waiting"):
        st.markdown(
            f":material/pause_circle: A run of **{plain(wish.question_set)}** was stopped after "
            f"{count(waiting.asked, 'question')}."
        )
        if st.button("Go on", key="evidence-resume", type="primary", icon=":material/play_arrow:"):
            runs.start(wish)
            st.rerun()
        if st.button("Give it up", key="evidence-forget", icon=":material/close:"):
            runs.forget()
            st.rerun()
