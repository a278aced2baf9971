"""Question sets on the Evidence page: made, imported, edited, deleted with undo, exported."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from statistics import mean
from typing import Any

import streamlit as st

from app_pages.parts.evidence_words import count
from app_pages.parts.text import plain
from ingest.errors import BadRequest, UserError
from rag.conversation import writer_of
from rag.evidence.formats import (
    BEIR_QRELS,
    COLUMNS,
    CORPUS,
    QRELS,
    QUERIES,
    plain_cell,
    read_beir,
    read_csv,
    read_file,
    read_jsonl,
    safe_cell,
    write_beir,
    write_csv,
    write_jsonl,
)
from rag.evidence.generate import copied_share
from rag.evidence.making import Making, Makings, makings_of
from rag.evidence.questions import Question, QuestionSet
from rag.evidence.sets import EvidenceStore, clean_set_name
from rag.samples import FOLDER, loaded_samples, sample_files, sample_questions
from rag.services import Services

SAMPLE_SET = "Sample library"
MADE_SET = "Made from my documents"
CHOSEN = "evidence-set"
MADE = 50
"""So many questions are made at once."""
MOST_BYTES = 100_000_000
"""A file inside an uploaded archive is at most this large."""
_GONE, _SAID, _TABLE = "evidence-gone", "evidence-said", "evidence-table"
_UPLOADS, _NEXT = "evidence-uploads", "evidence-next-set"


def choose_set(name: str) -> None:
    """Have a set chosen from the next run of the page on."""
    st.session_state[_NEXT] = name  # not CHOSEN: a widget that is drawn already cannot be changed in this run


def chosen_set(kept: EvidenceStore, names: Sequence[str]) -> QuestionSet:
    """The chooser, and the set that it says; the first one where nothing was chosen yet."""
    wanted = st.session_state.pop(_NEXT, st.session_state.get(CHOSEN))
    st.session_state[CHOSEN] = wanted if wanted in names else names[0]
    name = st.selectbox("Question set", names, key=CHOSEN, persist_state="session")
    return kept.questions(name)


def offer_sets(services: Services, kept: EvidenceStore, *, owner: str) -> None:
    """The ways to a question set: the samples' own, made from the documents, imported."""
    columns = st.columns(3)
    with columns[0].container(border=True, height="stretch", key="offer-samples"):
        _offer_samples(services, kept, owner)
    with columns[1].container(border=True, height="stretch", key="offer-made"):
        _offer_made(services, owner)
    with columns[2].container(border=True, height="stretch", key="offer-import"):
        _offer_import(kept)


def _offer_samples(services: Services, kept: EvidenceStore, owner: str) -> None:
    asked, loaded = len(sample_questions()), len(loaded_samples(services, owner=owner))
    st.markdown("**The sample library's questions**")
    if not asked:
        st.caption("This installation has no sample library.")
        return
    st.caption(f"{asked} questions with their right passages, about the {len(sample_files())} sample PDFs.")
    if SAMPLE_SET in kept.names():
        st.caption(":green[:material/check:] They are a question set already.")
        return
    everything = loaded == len(sample_files())
    if not everything:
        st.caption(f":orange[{loaded} of the sample PDFs are loaded: load them on the Documents page first.]")
    if st.button("Use these questions", key="use-samples", type="primary", disabled=not everything):
        path = FOLDER / "questions.jsonl"
        kept.save(QuestionSet(SAMPLE_SET, read_jsonl(path.read_bytes(), path.name)))
        choose_set(SAMPLE_SET)
        st.rerun()


def _offer_made(services: Services, owner: str) -> None:
    writer = writer_of(services.answerer)
    st.markdown("**Made from your documents**")
    if writer:
        st.caption(
            f"{plain(writer.name)} reads {MADE} passages spread over all documents and writes a question to each. "
            "The passages go to the LLM that also writes your answers."
        )
    else:
        st.caption(
            "By a plain rule from headings and definitions, because no LLM is configured. Such questions repeat "
            "the documents' words: good for a first look, weak as evidence."
        )
    makings = makings_of(services, owner=owner)
    if st.button(
        f"Make up to {MADE} questions",
        key="make-questions",
        type="primary",
        disabled=makings.going is not None,
    ):
        makings.start(MADE_SET, MADE)
        st.rerun()


def watch_making(makings: Makings) -> None:
    """The making that is going on with its progress; how the last one ended, told once."""
    if makings.going:
        st.fragment(_show_making, run_every=1.0)(makings)
        return
    end = makings.take_end()
    if end:
        _tell_end(end)


def _show_making(makings: Makings) -> None:
    going = makings.going
    if going is None:
        st.rerun()
    with st.container(border=True, key="evidence-making"):
        if going.stopping:
            text = f"stopping after this passage, {count(going.made, 'question')} kept"
        elif going.total:
            text = f"{going.read} of {going.total} passages read, {count(going.made, 'question')} written"
        else:
            text = "looking through the documents"
        st.progress(going.read / going.total if going.total else 0.0, text=f"**{MADE_SET}** · {text}")
        with st.container(horizontal=True, vertical_alignment="center"):
            if st.button("Stop", key="making-stop", icon=":material/stop:", disabled=going.stopping):
                makings.stop()
            st.caption("It goes on if you leave this page. Each question is kept as soon as it is written.")


def _tell_end(end: Making) -> None:
    if end.made:
        choose_set(end.question_set)
    stopped = " It was stopped then." if end.stopping else ""
    if end.problem:
        kept = f" Kept before: {count(end.made, 'question')}." if end.made else ""
        problem = plain(end.problem, limit=600)
        st.error(f"The making of questions broke off.{kept} {problem}", icon=":material/error:")
    elif end.made and end.writer:
        _say(f"{count(end.made, 'question')} written by {end.writer} from {end.read} passages.{stopped}")
    elif end.made:
        _say(
            f"{count(end.made, 'question')} made from headings and definitions, without an LLM. They repeat the "
            "documents' words: look through them, and reword or delete what nobody would ask."
        )
    elif end.writer:
        st.warning(
            f"No new question came of {end.read} passages.{stopped}"
            if end.read
            else "The documents have no passage that is long enough to be asked about.",
            icon=":material/warning:",
        )
    else:
        st.warning(
            "No new question could be made from section headings or definitions. Import questions, or mark right "
            "passages on the Ask page.",
            icon=":material/warning:",
        )


# --- Import ----------------------------------------------------------------------------------------------


def _offer_import(kept: EvidenceStore) -> None:
    st.markdown("**Your own questions**")
    # a new key empties the widget, so that a rerun does not import the same files again
    generation = st.session_state.setdefault(_UPLOADS, 0)
    files = st.file_uploader(
        "CSV, JSONL, or the files of a BEIR folder",
        type=["csv", "jsonl", "ndjson", "tsv", "zip"],
        accept_multiple_files=True,
        key=f"evidence-upload-{generation}",
        help="CSV: columns question, document, page, quote, answer; a row for each right passage. JSONL: objects "
        "with question and relevant. BEIR: corpus.jsonl, queries.jsonl and qrels.tsv together, or as a zip. "
        "The formats are described in the README.",
    )
    if not files:
        return
    try:
        sets = read_uploads({file.name: file.getvalue() for file in files})
    except BadRequest as error:
        for line in str(error).splitlines():
            st.error(plain(line, limit=400), icon=":material/error:")
        return
    for wanted, questions in sets.items():
        name = free_name(wanted, kept.names())
        kept.save(QuestionSet(name, questions))
        choose_set(name)
        _say(f"Imported {count(len(questions), 'question')} as “{name}”.")
    st.session_state[_UPLOADS] = generation + 1
    st.rerun()


def read_uploads(files: Mapping[str, bytes]) -> dict[str, tuple[Question, ...]]:
    """Questions by the name of their set. Raises BadRequest, naming file and line; nothing is read then.

    The files of a BEIR folder, side by side or in a zip, are one set.
    """
    sets: dict[str, tuple[Question, ...]] = {}
    loose: dict[str, bytes] = {}
    for name, data in files.items():
        if PurePath(name).suffix.lower() == ".zip":
            stem = PurePath(name).stem
            sets[clean_set_name(stem)] = _read_beir(_unzipped(name, data), stem)
        else:
            loose[PurePath(name).name] = data
    if QUERIES in loose:
        beir = {name: loose.pop(name) for name in (CORPUS, QUERIES, QRELS, "test.tsv") if name in loose}
        sets["BEIR"] = _read_beir(beir, "BEIR")
    for name, data in loose.items():
        sets[clean_set_name(PurePath(name).stem)] = read_file(name, data)
    return sets


def _read_beir(files: Mapping[str, bytes], folder: str) -> tuple[Question, ...]:
    known = {BEIR_QRELS[1] if name == "test.tsv" else name: data for name, data in files.items()}
    if QUERIES not in known or not set(BEIR_QRELS) & set(known):
        raise BadRequest(
            f"{folder} is not in BEIR layout: it needs {QUERIES} and {QRELS} (or qrels/test.tsv)."
        )
    return read_beir(known, folder)


def _unzipped(name: str, data: bytes) -> dict[str, bytes]:
    """The files that matter of an archive, by their bare names."""
    found = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                bare = PurePath(entry.filename).name
                if bare not in (CORPUS, QUERIES, QRELS, "test.tsv"):
                    continue
                with archive.open(entry) as file:
                    found[bare] = file.read(MOST_BYTES + 1)
                if len(found[bare]) > MOST_BYTES:
                    raise BadRequest(
                        f"{name}: {bare} is larger than {MOST_BYTES // 1_000_000} MB. Import it with the "
                        "command line."
                    )
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError) as error:
        raise BadRequest(f"{name} is no archive that can be read: {error}.") from error
    return found


def free_name(name: str, taken: Iterable[str]) -> str:
    """The name, with a number behind it where it is taken."""
    there, number, free = set(taken), 2, name
    while free in there:
        free = f"{name[:70]} ({number})"
        number += 1
    return free


# --- One set ---------------------------------------------------------------------------------------------


def show_sets(services: Services, kept: EvidenceStore, *, owner: str) -> None:
    """The view of all question sets."""
    show_said()
    _show_undo(kept)
    names = kept.names()
    if names:
        shown = chosen_set(kept, names)
        _show_set(shown, kept)
        st.subheader("More questions", anchor=False, divider="gray")
    offer_sets(services, kept, owner=owner)


def _show_set(shown: QuestionSet, kept: EvidenceStore) -> None:
    st.caption(describe(shown))
    edited = st.data_editor(
        table_rows(shown.questions),
        key=f"{_TABLE}-{st.session_state.setdefault(_TABLE, 0)}-{shown.name}",
        num_rows="dynamic",
        hide_index=True,
        height=420,
        column_order=("question", "document", "page", "quote", "grade", "answer", "copied"),
        column_config=_columns(),
        alt="Table of the questions of this set; each row is a question with one passage.",
    )
    with st.container(horizontal=True, vertical_alignment="center", key="set-actions"):
        if st.button("Save changes", key="save-set", type="primary", icon=":material/save:"):
            _save(shown, edited, kept)
        _exports(shown)
        if st.button("Delete this set", key="delete-set", icon=":material/delete:"):
            kept.delete(shown.name)
            st.session_state[_GONE] = shown
            st.rerun()


def describe(shown: QuestionSet) -> str:
    """How many questions, how many can be measured, and how much they copy from their passages."""
    questions = shown.questions
    wanting = sum(bool(question.relevant) for question in questions)
    parts = [count(len(questions), "question"), f"{wanting:,} with a right passage"]
    unanswerable = sum(not question.judgements for question in questions)
    if unanswerable:
        parts.append(f"{unanswerable:,} that the documents do not answer (for the threshold)")
    if wanting + unanswerable < len(questions):
        parts.append(f"{len(questions) - wanting - unanswerable:,} with wrong passages only (left out)")
    shares = [share for share in map(copied_share, questions) if share is not None]
    if shares:
        parts.append(
            f"on average {mean(shares):.0%} of a question's own words stand in its quoted passage: the more, the "
            "more it flatters a search by likeness"
        )
    return " · ".join(parts)


def _columns() -> dict[str, Any]:
    config = st.column_config
    return {
        "question": config.TextColumn("Question", width="large", required=True),
        "document": config.TextColumn("Right document", help="File name, as in the library"),
        "page": config.TextColumn("Page", help="From 1; or like 7-8 or 7,9", width="small"),
        "quote": config.TextColumn("Quoted words", help="Words of the right passage", width="medium"),
        "grade": config.TextColumn(
            "Grade", help="1: right passage. 2 and more: better still. 0: not this one", width="small"
        ),
        "answer": config.TextColumn("Answer", help="Not used for measuring", width="medium"),
        "copied": config.NumberColumn(
            "Copied",
            format="percent",
            disabled=True,
            width="small",
            help="Share of the question's own words that stand in the quoted passage",
        ),
    }


def table_rows(questions: Sequence[Question]) -> list[dict[str, Any]]:
    """The rows of the editor: those of the CSV format, and what each question copies."""
    text = write_csv(questions).decode()
    shares = {question.id: copied_share(question) for question in questions}
    rows: list[dict[str, Any]] = []
    for row in csv.DictReader(io.StringIO(text, newline="")):
        plain_row: dict[str, Any] = {name: plain_cell(cell) for name, cell in row.items()}
        rows.append(plain_row | {"copied": shares[plain_row["id"]]})
    return rows or [dict.fromkeys((*COLUMNS, "copied"))]


def questions_of(rows: Iterable[Mapping[str, Any]]) -> tuple[Question, ...]:
    """Questions from the rows of the editor. Raises BadRequest, naming the row."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        cells = ["" if _missing(row.get(name)) else str(row[name]) for name in COLUMNS]
        if any(cell.strip() for cell in cells):
            writer.writerow([safe_cell(cell) for cell in cells])
    return read_csv(out.getvalue().encode("utf-8", "replace"), "The table")


def _missing(value: object) -> bool:
    return value is None or value != value  # noqa: PLR0124 - NaN is what an empty cell comes back as


def _save(shown: QuestionSet, edited: Any, kept: EvidenceStore) -> None:
    rows = edited if isinstance(edited, list) else edited.to_dict("records")
    try:
        questions = questions_of(rows)
        kept.save(QuestionSet(shown.name, questions))
    except UserError as error:
        for line in str(error).splitlines():
            st.error(plain(line, limit=400), icon=":material/error:")
        return
    st.session_state[_TABLE] += 1
    st.session_state[_GONE] = shown
    _say(f"Saved {count(len(questions), 'question')}.")
    st.rerun()


def _exports(shown: QuestionSet) -> None:
    name = "".join(ch if ch.isalnum() or ch in "-_" else "-" for ch in shown.name)[:60] or "questions"
    with st.popover("Export", icon=":material/download:"):
        st.download_button("CSV", write_csv(shown.questions), f"{name}.csv", "text/csv", on_click="ignore")
        st.download_button(
            "JSONL", write_jsonl(shown.questions), f"{name}.jsonl", "application/jsonl", on_click="ignore"
        )
        st.download_button(
            "BEIR (zip)", _zipped(shown.questions), f"{name}.zip", "application/zip", on_click="ignore"
        )


def _zipped(questions: Sequence[Question]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in write_beir(questions).items():
            archive.writestr(name, data)
    return out.getvalue()


def _show_undo(kept: EvidenceStore) -> None:
    gone: QuestionSet | None = st.session_state.get(_GONE)
    if gone is None:
        return
    deleted = gone.name not in kept.names()
    with st.container(border=True, horizontal=True, vertical_alignment="center", key="undo-set"):
        what = "Deleted" if deleted else "Changed"
        st.markdown(f"{what} **{plain(gone.name)}**. This page remembers how it was until you close it.")
        if st.button("Undo", icon=":material/undo:", key="undo-set-button"):
            kept.save(gone)
            del st.session_state[_GONE]
            st.session_state[_TABLE] = st.session_state.get(_TABLE, 0) + 1
            choose_set(gone.name)
            st.rerun()


def _say(text: str) -> None:
    st.session_state[_SAID] = text


def show_said() -> None:
    """What was just done, said once."""
    said = st.session_state.pop(_SAID, "")
    if said:
        st.success(plain(said, limit=600), icon=":material/check:")
