"""All kept runs: shown, compared two by two, exported, deleted with undo."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from app_pages.parts.evidence_report import load_shown, when
from app_pages.parts.evidence_words import count, signed
from app_pages.parts.text import plain
from rag.evidence.export import questions_csv, report_csv, report_markdown
from rag.evidence.report import COMPARED, MEASURE
from rag.evidence.runfile import Run, run_text
from rag.evidence.sets import EvidenceStore, RunSummary
from rag.evidence.verdict import Word
from rag.evidence.versus import RunComparison, compare_runs

NEXT_RUN = "evidence-next-run"
CHOSEN_RUN = "evidence-run"
_GONE = "evidence-gone-run"
CHANGE: dict[Word, str] = {
    "helps": "better",
    "hurts": "worse",
    "no difference seen": "no difference seen",
    "too few questions to say": "too few questions to say",
}


def run_label(summary: RunSummary) -> str:
    """A run on one line."""
    asked = (
        f"{summary.asked} of {summary.questions}" if summary.asked < summary.questions else str(summary.asked)
    )
    return f"{summary.question_set} · {asked} questions · {when(summary.begun)}"


def choose_run(summaries: Sequence[RunSummary]) -> RunSummary:
    """The chooser, and the run that it says; the newest where nothing was chosen."""
    by_id = {summary.id: summary for summary in summaries}
    wanted = st.session_state.pop(NEXT_RUN, st.session_state.get(CHOSEN_RUN))
    st.session_state[CHOSEN_RUN] = wanted if wanted in by_id else summaries[0].id
    chosen = st.selectbox(
        "Run shown",
        list(by_id),
        key=CHOSEN_RUN,
        format_func=lambda id_: run_label(by_id[id_]),
        persist_state="session",
    )
    return by_id[chosen]


def show_runs(kept: EvidenceStore) -> None:
    """The view of all runs."""
    _show_undo(kept)
    summaries = kept.runs()
    if not summaries:
        st.info("No run yet. Choose a question set under Verdict and ask it.", icon=":material/info:")
        return
    st.dataframe(
        [
            {
                "question set": one.question_set,
                "begun": when(one.begun),
                "asked": one.asked,
                "of": one.questions,
                "library": one.corpus[:12],
                "rerankers": ", ".join(one.models),
                "run": one.id,
            }
            for one in summaries
        ],
        hide_index=True,
        alt="Table of all runs",
    )
    chosen = choose_run(summaries)
    with st.container(horizontal=True, key="run-actions"):
        exports(kept, chosen)
        if st.button("Delete this run", icon=":material/delete:", key="delete-run"):
            st.session_state[_GONE] = kept.run(chosen.id)
            kept.delete_run(chosen.id)
            st.rerun()
    _show_compare(kept, summaries)


def exports(kept: EvidenceStore, chosen: RunSummary) -> None:
    """Everything that a run can be written as; made when it is asked for."""

    def shown_run() -> Run:
        return kept.run(chosen.id)

    def report_of(write: str) -> str:
        report = load_shown(kept, chosen.id, chosen.asked).report
        return report_markdown(report) if write == "md" else report_csv(report)

    with st.popover("Export", icon=":material/download:"):
        st.caption("The JSON holds corpus fingerprint, models, parameters and every question's result.")
        st.download_button(
            "JSON", lambda: run_text(shown_run()), f"{chosen.id}.json", "application/json", on_click="ignore"
        )
        st.download_button(
            "Markdown", lambda: report_of("md"), f"{chosen.id}.md", "text/markdown", on_click="ignore"
        )
        st.download_button(
            "CSV, orders", lambda: report_of("csv"), f"{chosen.id}.csv", "text/csv", on_click="ignore"
        )
        st.download_button(
            "CSV, questions",
            lambda: questions_csv(shown_run()),
            f"{chosen.id}-questions.csv",
            "text/csv",
            on_click="ignore",
        )


def _show_compare(kept: EvidenceStore, summaries: Sequence[RunSummary]) -> None:
    st.subheader("Compare two runs", anchor=False)
    if len(summaries) < 2:
        st.caption(
            "With a second run (another model, another library, other settings) the two are compared here."
        )
        return
    by_id = {summary.id: summary for summary in summaries}
    left, right = st.columns(2)
    first = left.selectbox(
        "Before", list(by_id), index=1, format_func=lambda id_: run_label(by_id[id_]), key="compare-first"
    )
    second = right.selectbox(
        "After", list(by_id), index=0, format_func=lambda id_: run_label(by_id[id_]), key="compare-second"
    )
    if first == second:
        st.caption("Choose two different runs.")
        return
    show_comparison(compare_runs(kept.run(first), kept.run(second)))


def show_comparison(comparison: RunComparison) -> None:
    """What is different between two runs, and what it did."""
    left_out = (
        f" {count(comparison.left_out, 'other')} are in one of them alone." if comparison.left_out else ""
    )
    st.markdown(f"{count(comparison.questions, 'question')} are in both.{left_out}")
    for line in comparison.changed or ("Nothing that the runs record is different.",):
        st.text(line)
    st.dataframe(
        [
            {
                "order": name,
                **{one: f"{signed(g.mean)} [{signed(g.low)}, {signed(g.high)}]" for one, g in gains.items()},
                "won": gains[MEASURE].won,
                "tied": gains[MEASURE].tied,
                "lost": gains[MEASURE].lost,
                "verdict": CHANGE[comparison.verdicts[name].word],
            }
            for name, gains in comparison.gains.items()
        ],
        hide_index=True,
        height="content",
        alt="Table of the differences between the two runs",
    )
    st.caption(f"After minus before, {' and '.join(map(plain, COMPARED))}, with 95 % intervals.")


def _show_undo(kept: EvidenceStore) -> None:
    gone: Run | None = st.session_state.get(_GONE)
    if gone is None:
        return
    with st.container(border=True, horizontal=True, vertical_alignment="center", key="undo-run"):
        st.markdown(f"Deleted a run of **{plain(gone.header.question_set)}**.")
        if st.button("Undo", icon=":material/undo:", key="undo-run-button"):
            st.session_state[NEXT_RUN] = kept.keep(gone)
            del st.session_state[_GONE]
            st.rerun()
