"""The Evidence page over a real library and real models, and the runs behind it."""

from __future__ import annotations

import hashlib
import io
import re
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import rag.services
from app_pages.parts.evidence_charts import depth_chart, gains_chart, threshold_chart
from app_pages.parts.evidence_drill import ranks_text
from app_pages.parts.evidence_run import time_left
from app_pages.parts.evidence_sets import (
    MADE_SET,
    describe,
    free_name,
    questions_of,
    read_uploads,
    table_rows,
)
from app_pages.parts.evidence_usage import note_use, usage_log
from app_pages.parts.judge import ASKING_SET, judgement_of, without_mark
from ingest.errors import BadRequest
from ingest.store import LOCAL_OWNER
from ingest.types import Chunk, Document
from rag.evidence.formats import write_beir, write_csv
from rag.evidence.jobs import ALONE, Runs, Wish, alone, runs_of
from rag.evidence.making import makings_of
from rag.evidence.questions import Judgement, Question, QuestionSet, measurable, question_id
from rag.evidence.report import make_report
from rag.evidence.run import corpus_of
from rag.evidence.runfile import Outcome
from rag.evidence.sets import EvidenceStore
from rag.evidence.threshold import ThresholdAdvice, ThresholdPoint
from rag.pipeline import answer, rank
from rag.rerank import PairScores
from rag.services import Lazy, Services
from rag.settings import Settings
from rag.threshold import Threshold, read_threshold, threshold_file
from tests.fake_llm import FakeLlm, fail, say
from tests.fakes import BrokenModel, a_chunk, length_reranker

PAGES = Path(__file__).resolve().parents[1] / "app_pages"
MANUAL = {
    "Changing the oil": "The pump needs fresh oil every 500 hours of work. Use oil of grade 46.",
    "The lake": "The lake is deep and cold in winter. Fish live in it.",
    "Painting": "Paint the housing in colour number 7. Two coats are enough for ten years.",
}
HOSTILE = "[x](http://evil.test) :red[pump] <b>oil</b> $a$"


@pytest.fixture(autouse=True)
def shared(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rag.services, "_SHARED", Lazy(lambda: services))


@pytest.fixture
def library(services: Services) -> Services:
    add(services, "pump.pdf", MANUAL)
    return services


def add(services: Services, name: str, sections: Mapping[str, str]) -> None:
    """A document with a page for each section, put into the index without a PDF."""
    doc_id = hashlib.sha256(name.encode()).hexdigest()
    chunks = [
        Chunk(doc_id, name, page, 0, 99, f"{heading} {text}", f"Pump manual > {heading}")
        for page, (heading, text) in enumerate(sections.items(), start=1)
    ]
    document = Document(doc_id, name, "", len(chunks), len(chunks), 9, "2026-01-01T00:00:00Z", ())
    services.store.add(document, chunks, services.embedder.embed([chunk.passage for chunk in chunks]))


@pytest.fixture
def kept(library: Services) -> EvidenceStore:
    return EvidenceStore(library.settings.data)


def asking(*texts: str, page: int = 1) -> tuple[Question, ...]:
    return tuple(Question(question_id(text), text, (Judgement("pump.pdf", (page,)),)) for text in texts)


def save(kept: EvidenceStore, name: str = "oil", *, count: int = 3) -> QuestionSet:
    made = QuestionSet(name, asking(*(f"How often does pump {n} need oil?" for n in range(count))))
    kept.save(made)
    return made


def run_now(services: Services, name: str = "oil", *depths: int) -> str:
    runs = runs_of(services)
    runs.start(Wish(name, depths or (10,)))
    runs.wait(60)
    assert runs.problem == ""
    return runs.finished


def open_page() -> AppTest:
    page = AppTest.from_file(str(PAGES / "evidence.py"), default_timeout=60).run()
    assert not page.exception
    return page


def view(page: AppTest, name: str) -> AppTest:
    page.segmented_control(key="evidence-view").set_value(name).run()
    assert not page.exception
    return page


def press(page: AppTest, label: str) -> AppTest:
    next(button for button in page.button if button.label == label).click().run()
    assert not page.exception
    return page


def words(page: AppTest) -> str:
    kinds = ("header", "markdown", "caption", "text", "subheader", "warning", "error", "info", "success")
    return "\n".join(str(getattr(element, "value", "")) for kind in kinds for element in page.get(kind))


# --- The runs --------------------------------------------------------------------------------------------


class Slow:
    """Waits for a sign before each question."""

    device = "cpu, float32"

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.asked = threading.Semaphore(0)

    def logits(self, question: str, passages: Sequence[str]) -> PairScores:
        self.asked.release()
        assert self.go.acquire(timeout=30)
        return length_reranker().model.logits(question, passages)


def slow(services: Services) -> Slow:
    model = Slow()
    services.use_models(services.embedder, replace(length_reranker(), model=model))
    return model


def test_a_run_is_kept_and_nothing_waits_after_it(library: Services, kept: EvidenceStore) -> None:
    save(kept)
    id_ = run_now(library)
    assert [(one.id, one.asked) for one in kept.runs()] == [(id_, 3)]
    assert runs_of(library).waiting is None
    assert list(kept.journals.iterdir()) == []


def test_only_one_run_goes_on_at_a_time_and_every_page_sees_the_same_one(
    library: Services, kept: EvidenceStore
) -> None:
    save(kept)
    model = slow(library)
    runs = runs_of(library)
    runs.start(Wish("oil", (10,)))
    assert model.asked.acquire(timeout=30)
    assert runs_of(library).going is not None
    with pytest.raises(BadRequest, match="going on already"):
        runs.start(Wish("oil", (10,)))
    for _ in range(3):
        model.go.release()
    runs.wait(30)
    assert runs.going is None


def test_a_stopped_run_goes_on_where_it_was_also_in_the_next_process(
    library: Services, kept: EvidenceStore
) -> None:
    save(kept)
    model = slow(library)
    runs = runs_of(library)
    runs.start(Wish("oil", (10,)))
    assert model.asked.acquire(timeout=30)
    runs.stop()
    model.go.release()
    runs.wait(30)
    assert [(one.asked, one.questions) for one in kept.runs()] == [(1, 3)]
    after_restart = Runs(library, LOCAL_OWNER)
    waiting = after_restart.waiting
    assert waiting is not None
    assert (waiting.wish, waiting.asked) == (Wish("oil", (10,)), 1)
    model.go.release()
    model.go.release()
    after_restart.start(waiting.wish)
    after_restart.wait(30)
    assert [(one.asked, one.questions) for one in kept.runs()] == [(3, 3)]
    assert model.go.acquire(blocking=False) is False  # the first question was not asked again
    assert after_restart.waiting is None


def test_a_run_that_is_given_up_does_not_wait_any_more(library: Services, kept: EvidenceStore) -> None:
    save(kept)
    model = slow(library)
    runs = runs_of(library)
    runs.start(Wish("oil", (10,)))
    assert model.asked.acquire(timeout=30)
    runs.stop()
    model.go.release()
    runs.wait(30)
    runs.forget()
    assert runs.waiting is None


def test_a_reranker_that_breaks_is_told_and_the_run_can_be_started_again(
    library: Services, kept: EvidenceStore
) -> None:
    save(kept)
    good = library.stages.reranker
    library.use_models(library.embedder, replace(length_reranker(), model=BrokenModel()))
    runs = runs_of(library)
    runs.start(Wish("oil", (10,)))
    runs.wait(30)
    assert "out of memory" in runs.problem
    assert runs.going is None
    library.use_models(library.embedder, good)
    assert run_now(library) != ""


def test_a_closing_app_waits_for_the_question_that_is_being_asked(
    library: Services, kept: EvidenceStore
) -> None:
    save(kept)
    model = slow(library)
    runs = runs_of(library)
    runs.start(Wish("oil", (10,)))
    assert model.asked.acquire(timeout=30)
    threading.Timer(0.2, model.go.release).start()
    runs.close()
    assert runs.going is None
    assert runs.problem == ""


def test_a_set_without_anything_to_measure_is_refused(library: Services, kept: EvidenceStore) -> None:
    kept.save(QuestionSet("none", ()))
    wrong = Question("1", "Oil?", (Judgement("pump.pdf", (2,), grade=0),))
    kept.save(QuestionSet("wrong", (wrong,)))
    for name in ("none", "wrong"):
        with pytest.raises(BadRequest, match="can be measured"):
            runs_of(library).start(Wish(name))
    with pytest.raises(BadRequest, match="no question set"):
        runs_of(library).start(Wish("missing"))


def test_questions_of_which_only_wrong_passages_are_known_are_left_out() -> None:
    right, wrong = Judgement("a"), Judgement("b", grade=0)
    questions = (Question("1", "a", (right, wrong)), Question("2", "b", (wrong,)), Question("3", "c", ()))
    assert [one.id for one in measurable(QuestionSet("s", questions)).questions] == ["1", "3"]


def test_the_cross_encoder_alone_is_measured_without_reading_twice(
    library: Services, kept: EvidenceStore
) -> None:
    bundled = library.stages.reranker
    assert bundled is not None
    assert alone(bundled).model is bundled.model
    save(kept, count=1)
    runs = runs_of(library)
    runs.start(Wish("oil", (10,), (ALONE,)))
    runs.wait(60)
    names = [model.name for model in kept.run(runs.finished).header.models]
    assert names == [bundled.name, f"{bundled.name}, logit alone"]


# --- Question sets on the page ---------------------------------------------------------------------------


def test_an_empty_library_says_what_to_do() -> None:
    page = AppTest.from_file(str(PAGES / "main.py"), default_timeout=60).run()
    page.switch_page("evidence.py").run()
    assert not page.exception
    assert "nothing to measure yet" in page.info[0].value


def test_from_nothing_to_a_verdict_in_two_clicks(library: Services, kept: EvidenceStore) -> None:
    page = open_page()
    told = press_and_wait(page, library)
    assert kept.names() == [MADE_SET]
    assert "made from headings and definitions, without an LLM" in told
    asked = len(kept.questions(MADE_SET).questions)
    assert asked >= 3
    press(page, f"Ask {asked} questions")
    runs_of(library).wait(60)
    page.run()
    assert not page.exception
    assert "Too few questions to say" in page.header[0].value
    assert "95 %" in words(page)


@pytest.fixture
def writing(
    settings: Settings, services: Services, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[FakeLlm], Services]]:
    """The manual's library with an LLM that writes."""
    with ExitStack() as stack:

        def start(llm: FakeLlm) -> Services:
            written = Services(replace(settings, llm_base_url=llm.base_url, llm_model="writer"))
            written.use_models(services.embedder, services.stages.reranker)
            services.close()
            monkeypatch.setattr(rag.services, "_SHARED", Lazy(lambda: written))
            add(written, "pump.pdf", MANUAL)
            stack.callback(written.close)
            return written

        yield start


def press_and_wait(page: AppTest, services: Services) -> str:
    """What the page says until the questions are made: that is told once, now or in the next run."""
    told = words(press(page, "Make up to 50 questions"))
    makings_of(services).wait(60)
    return told + words(page.run())


def made_in(services: Services) -> list[str]:
    return [one.text for one in EvidenceStore(services.settings.data).questions(MADE_SET).questions]


def test_with_an_llm_it_writes_the_questions(writing: Callable[[FakeLlm], Services]) -> None:
    with FakeLlm(say("When is the lubricant changed?"), say("NONE"), say("Which colour is it?")) as llm:
        written = writing(llm)
        page = open_page()
        assert "writer reads 50 passages" in words(page)
        told = press_and_wait(page, written)
    assert made_in(written) == ["When is the lubricant changed?", "Which colour is it?"]
    assert "2 questions written by writer from 3 passages" in told
    assert "written by" not in words(open_page())  # told once


def test_a_making_is_watched_from_any_page_and_a_stop_keeps_what_is_written(
    writing: Callable[[FakeLlm], Services],
) -> None:
    with FakeLlm(
        say("When is it changed?"), say("How deep is the lake?", before=1.5), say("No more?")
    ) as llm:
        written = writing(llm)
        press(open_page(), "Make up to 50 questions")  # does not wait for the LLM
        other = view(open_page(), "Question sets")
        making = other.button(key="making-stop")
        assert other.button(key="make-questions").disabled
        with pytest.raises(BadRequest, match="already"):
            makings_of(written).start(MADE_SET, 1)
        making.click().run()
        makings_of(written).wait(60)
        other.run()
        assert len(llm.requests) <= 2
    assert made_in(written) == ["When is it changed?", "How deep is the lake?"][: len(llm.requests)]
    assert "It was stopped then" in words(other)


def test_a_making_that_breaks_off_says_why_and_keeps_what_is_written(
    writing: Callable[[FakeLlm], Services],
) -> None:
    with FakeLlm(say("When is it changed?"), fail(400)) as llm:
        written = writing(llm)
        add(written, "more.pdf", {f"Part {n}": f"{n} {MANUAL['Painting']}" for n in range(4)})
        told = press_and_wait(open_page(), written)
    assert made_in(written) == ["When is it changed?"]
    assert "Kept before: 1 question." in told


def test_documents_without_headings_and_definitions_are_said_to_give_no_question(services: Services) -> None:
    add(services, "plain.pdf", {"": "It is what it is, and this is a long one, and so on and so on."})
    assert "No new question could be made" in press_and_wait(open_page(), services)
    assert EvidenceStore(services.settings.data).names() == []


def test_uploads_are_sets_named_by_their_file_and_beir_files_are_one() -> None:
    questions = asking("How often?", "Which oil?")
    sets = read_uploads({"mine.csv": write_csv(questions), **write_beir(questions)})
    assert set(sets) == {"mine", "BEIR"}
    assert sets["mine"] == questions
    assert [one.text for one in sets["BEIR"]] == [one.text for one in questions]


def test_a_zip_of_a_beir_folder_is_read_wherever_it_lies_in_it() -> None:
    questions = asking("How often?")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in write_beir(questions).items():
            archive.writestr(f"deep/{name}", data)
        archive.writestr("../../evil.py", b"print(1)")
    assert read_uploads({"set.zip": out.getvalue()}) == {"set": questions}


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.zip", b"PK no archive", "no archive"),
        ("queries.jsonl", b'{"_id": "1", "text": "x"}\n', "not in BEIR layout"),
        ("a.csv", b"question,page\nHow?,x\n", "a.csv, line 2: the page must be a number"),
        ("a.txt", b"x", "no question set"),
    ],
)
def test_what_cannot_be_imported_is_told(name: str, data: bytes, told: str) -> None:
    with pytest.raises(BadRequest, match=told):
        read_uploads({name: data})


def test_a_file_is_imported_chosen_and_said(library: Services, kept: EvidenceStore) -> None:
    page = open_page()
    page.file_uploader[0].set_value(("mine.csv", write_csv(asking("How often?")), "text/csv")).run()
    assert not page.exception
    assert kept.questions("mine").questions == asking("How often?")
    assert "Imported 1 question" in words(page)
    assert page.selectbox(key="evidence-set").value == "mine"


def test_a_taken_name_gets_a_number() -> None:
    assert free_name("a", []) == "a"
    assert free_name("a", ["a", "a (2)"]) == "a (3)"


def test_the_editor_gives_back_what_it_was_given() -> None:
    questions = (
        Question("1", "=HYPERLINK(1)", (Judgement("a.pdf", (7, 8)), Judgement("b.pdf", quote="x y")), "42"),
        Question("2", "None of it?", ()),
    )
    assert questions_of(table_rows(questions)) == questions


def test_rows_that_cannot_be_used_are_told_and_empty_ones_left_out() -> None:
    row = {"question": "How?", "document": "a.pdf", "page": "7", "grade": float("nan")}
    (question,) = questions_of([row, dict.fromkeys(row)])
    assert question.relevant == (Judgement("a.pdf", (7,)),)
    with pytest.raises(BadRequest, match="The table, line 2: the page"):
        questions_of([row | {"page": "seven"}])


def test_a_set_is_deleted_and_brought_back(library: Services, kept: EvidenceStore) -> None:
    made = save(kept)
    page = view(open_page(), "Question sets")
    press(page, "Delete this set")
    assert kept.names() == []
    press(page, "Undo")
    assert kept.questions("oil") == made


def test_a_set_is_described_with_what_it_copies_from_its_passages() -> None:
    quoted = Question("1", "pump oil", (Judgement(quote="the pump"),))
    wrong = Question("3", "b", (Judgement("b", grade=0),))
    text = describe(QuestionSet("s", (quoted, Question("2", "moon", ()), wrong)))
    for part in (
        "3 questions",
        "1 with a right passage",
        "1 that the documents do not answer",
        "50%",
        "left out",
    ):
        assert part in text


# --- Verdict, drill-down, runs ---------------------------------------------------------------------------


def test_the_report_has_the_verdict_first_the_table_and_the_depths(
    library: Services, kept: EvidenceStore
) -> None:
    save(kept)
    run_now(library, "oil", 10, 20)
    page = open_page()
    assert "Too few questions to say" in page.header[0].value
    table = page.dataframe[0].value
    assert list(table["order"])[:2] == ["bi-encoder", "BM25"]
    assert {"recall@5", "headroom", "won", "tied", "lost", "p50", "p95"} <= set(table.columns)
    assert "How many candidates are worth reading again" in words(page)
    assert "No threshold is suggested" in words(page)


def test_lost_and_won_questions_open_with_both_orders(library: Services, kept: EvidenceStore) -> None:
    save(kept)
    id_ = run_now(library)
    run = kept.run(id_)
    # planted: the reranked order loses one question, and wins another
    results = list(run.results)
    for number, name, ranks in ((0, "reranked from 10", (7,)), (1, "bi-encoder", (None,))):
        outcome = replace(results[number].outcomes[name], ranks=ranks)
        results[number] = replace(results[number], outcomes={**results[number].outcomes, name: outcome})
    kept.keep(replace(run, results=tuple(results)))
    page = open_page()
    labels = [one.label for one in page.expander]
    assert any("pump 0" in label for label in labels)
    assert not any("pump 1" in label for label in labels)
    page.segmented_control(key=f"drill-which-{id_}").set_value("won").run()
    assert not page.exception
    assert any("pump 1" in one.label for one in page.expander)


def test_ranks_are_told_in_words() -> None:
    assert ranks_text(Outcome((3,), (), ())) == "right passage at \\#3"
    assert ranks_text(Outcome((None,), (), ())) == "not found"
    assert ranks_text(Outcome((9, None, 2), (), ())) == "right passages at \\#2, \\#9 · 1 not found"


def test_runs_are_listed_compared_deleted_and_brought_back(library: Services, kept: EvidenceStore) -> None:
    save(kept)
    first = run_now(library)
    library.use_models(library.embedder, length_reranker())
    second = run_now(library)
    page = view(open_page(), "Runs")
    assert set(page.dataframe[0].value["run"]) == {first, second}
    assert "3 questions are in both" in words(page)
    assert "Reranker: " in words(page)
    press(page, "Delete this run")
    assert len(kept.runs()) == 1
    press(page, "Undo")
    assert {one.id for one in kept.runs()} == {first, second}


def test_a_changed_library_and_another_reranker_are_said(library: Services, kept: EvidenceStore) -> None:
    save(kept)
    run_now(library)
    assert "has changed since" not in words(open_page())
    add(library, "other.pdf", {"Bridges": "Another document about a bridge."})
    library.use_models(library.embedder, replace(length_reranker(), revision="f" * 64))
    shown = words(open_page())
    assert "The library has changed since this run" in shown
    assert "The reranker is another one now" in shown


def test_hostile_names_and_questions_stay_text(library: Services, kept: EvidenceStore) -> None:
    kept.save(QuestionSet(HOSTILE, asking(HOSTILE)))
    run_now(library, HOSTILE)
    page = open_page()
    for name in ("Question sets", "Runs", "Verdict"):
        view(page, name)
        for kind in ("markdown", "caption", "header", "subheader", "warning", "info", "success"):
            for element in page.get(kind):
                live = re.sub("`[^`]*`", "", str(getattr(element, "value", "")))  # code spans show letters
                assert "evil.test" not in live
                assert ":red[pump]" not in live


# --- Threshold -------------------------------------------------------------------------------------------


def test_a_chosen_threshold_is_used_until_library_or_reranker_change(
    library: Services, kept: EvidenceStore
) -> None:
    reranker = length_reranker(threshold=0.5)
    library.use_models(library.embedder, replace(reranker, revision="a" * 64))
    corpus = library.library_fingerprint()
    kept.choose_threshold(Threshold(1000.0, reranker.name, "a" * 64, corpus))
    question = "How often does the pump need oil?"
    assert rank(question, library.stages).confident is False
    assert "Applied: logit 1000.00" in page_with_run(library, kept)
    library.use_models(library.embedder, replace(reranker, revision="b" * 64))
    assert rank(question, library.stages).confident is True
    library.use_models(library.embedder, replace(reranker, revision="a" * 64))
    add(library, "other.pdf", {"Bridges": "Another document about a bridge."})
    assert rank(question, library.stages).confident is True
    page = open_page()
    assert "not applied" in words(page)
    press(page, "Take it away")
    assert library.threshold(owner=LOCAL_OWNER) is None


def page_with_run(library: Services, kept: EvidenceStore) -> str:
    save(kept)
    run_now(library)
    return words(open_page())


def test_services_and_runs_agree_on_the_library_and_the_file(library: Services, kept: EvidenceStore) -> None:
    assert library.library_fingerprint() == corpus_of(library.store, library.embedder).fingerprint
    kept.choose_threshold(Threshold(1.5, "r", "a" * 64, "c"))
    chosen = read_threshold(threshold_file(library.settings.data, LOCAL_OWNER))
    assert chosen is not None
    assert (chosen.logit, chosen.reranker, chosen.revision, chosen.corpus) == (1.5, "r", "a" * 64, "c")


def test_a_suggested_threshold_is_applied_on_request(library: Services, kept: EvidenceStore) -> None:
    answerable = asking(*(f"How often does pump {n} need oil?" for n in range(12)))
    others = tuple(Question(f"x{n}", f"Who won chess championship number {n}?", ()) for n in range(12))
    kept.save(QuestionSet("both", (*answerable, *others)))
    run_now(library, "both")
    page = open_page()
    button = next(one for one in page.button if one.label.startswith("Apply "))
    button.click().run()
    assert not page.exception
    assert kept.threshold is not None
    assert library.stages.reranker is not None
    assert rank("How often does pump 3 need oil?", library.stages).confident is True
    assert rank("Who won chess championship number 4?", library.stages).confident is False


# --- Marks and ordinary use ------------------------------------------------------------------------------


def judging(tmp: Path) -> AppTest:
    script = tmp / "cards.py"
    script.write_text(
        "from app_pages.parts.judge import judge_of\n"
        "from tests.fakes import a_chunk\n"
        "judge = judge_of('Which fruit?')\n"
        "judge(a_chunk('apple pear'), '1')\n"
        "judge(a_chunk('plum', page=2), '2')\n",
        encoding="utf-8",
    )
    return AppTest.from_file(str(script), default_timeout=30).run()


def test_marks_are_kept_with_the_question_and_taken_back(services: Services, tmp_path: Path) -> None:
    kept = EvidenceStore(services.settings.data)
    page = judging(tmp_path)
    page.button(key="judge-1-1").click().run()
    page.button(key="judge-0-2").click().run()
    (question,) = kept.questions(ASKING_SET).questions
    assert question.text == "Which fruit?"
    assert [(one.quote, one.grade) for one in question.judgements] == [("apple pear", 1), ("plum", 0)]
    assert page.button(key="judge-1-1").label == "Right passage"
    page.button(key="judge-0-1").click().run()  # the other way round: the mark is changed, not added
    (question,) = kept.questions(ASKING_SET).questions
    assert sorted((one.quote, one.grade) for one in question.judgements) == [("apple pear", 0), ("plum", 0)]
    for key in ("judge-0-1", "judge-0-2"):
        page.button(key=key).click().run()
    assert kept.questions(ASKING_SET).questions == ()
    assert not page.exception


def test_taking_a_mark_back_leaves_the_others() -> None:
    one, two = a_chunk("apple"), a_chunk("plum", page=2)
    question = Question("1", "Which?", (judgement_of(one, 1), judgement_of(two, 0)))
    left = without_mark(QuestionSet("s", (question,)), "Which?", one.id)
    assert left.questions[0].judgements == (judgement_of(two, 0),)


def test_ordinary_use_is_counted_without_words(library: Services, kept: EvidenceStore) -> None:
    ranking = rank("How often does the pump need oil?", library.stages)
    note_use(library, ranking, answer(ranking, library.answerer), owner=LOCAL_OWNER)
    (one,) = usage_log(library, owner=LOCAL_OWNER).read()
    assert (one.missed, one.reranker) == (0, ranking.reranker)
    text = next(library.settings.data.rglob("usage.jsonl")).read_text(encoding="utf-8")
    assert "pump" not in text
    save(kept)
    assert "**0 of 1**" in words(open_page())


def test_the_ask_page_counts_its_answers_and_takes_marks(library: Services, kept: EvidenceStore) -> None:
    reranker = library.stages.reranker
    assert reranker is not None
    corpus = library.library_fingerprint()
    kept.choose_threshold(Threshold(-1000.0, reranker.name, reranker.revision, corpus))
    page = AppTest.from_file(str(PAGES / "main.py"), default_timeout=60).run()
    page.chat_input[0].set_value("How often does the pump need oil?").run()
    assert not page.exception
    shown = words(page)
    assert "doubted below logit -1000.00, as chosen under Evidence" in shown
    assert len(usage_log(library, owner=LOCAL_OWNER).read()) == 1
    press(page, "This is the right passage")
    (question,) = kept.questions(ASKING_SET).questions
    assert question.text == "How often does the pump need oil?"
    assert question.relevant[0].document == "pump.pdf"
    assert len(usage_log(library, owner=LOCAL_OWNER).read()) == 1  # looking again is not another answer
    add(library, "other.pdf", {"Bridges": "Another document about a bridge."})
    page.run()
    assert "not applied: library or reranker changed since" in words(page)


# --- Pictures and words ----------------------------------------------------------------------------------


def test_the_pictures_can_be_drawn_of_any_report(library: Services, kept: EvidenceStore) -> None:
    save(kept, count=1)
    report = make_report(kept.run(run_now(library, "oil", 10)))
    gains = [(row.variant.name, row.gains["bi-encoder"]["recall@5"]) for row in report.rows[1:]]
    assert len(gains_chart(gains).to_dict()["layer"]) == 4
    for by in ("depth", "ms"):
        assert depth_chart(report.curves[0], 1.0, by=by).to_dict()["layer"]
    advice = ThresholdAdvice("v", (ThresholdPoint(1.0, 0.5, 1.0, 2),), 1, 1, 1.0, "why")
    assert len(threshold_chart(advice).to_dict()["layer"]) == 3


@pytest.mark.parametrize(
    ("seconds", "said"), [(5, "about 5 s left"), (300, "about 5 min left"), (7200, "about 2.0 h left")]
)
def test_the_time_left_is_said_as_people_say_it(seconds: float, said: str) -> None:
    assert time_left(seconds) == said
