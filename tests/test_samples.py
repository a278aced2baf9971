"""The sample library: its PDFs, its questions, what loads and removes it, and what the pages show of it."""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from streamlit.testing.v1 import AppTest

import rag.samples
import rag.services
from bench.quality import Collection, load_collection
from ingest.chunk import Chunker
from ingest.pdf import Outline, inspect, read_outline, read_pages
from ingest.store import LOCAL_OWNER
from ingest.weights import bundled_minilm
from rag.samples import (
    FOLDER,
    Evidence,
    Kind,
    SampleQuestion,
    known_question,
    load_samples,
    loaded_samples,
    remove_samples,
    sample_files,
    sample_questions,
    suggestions,
)
from rag.services import Lazy, Services
from samples.build import Block, blocks, draw, fill, sources
from samples.measure import Measured, first_right, is_right, judge, write
from tests.fakes import a_chunk


def question(
    number: int, kind: Kind, source: str, before: int | None, after: int | None, *, flagged: bool = False
) -> SampleQuestion:
    return SampleQuestion(
        f"q{number}", f"Question {number}?", "", (Evidence(source, 1, ""),), kind, before, after, flagged
    )


@pytest.fixture
def two_sheets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sample library of two data sheets."""
    folder = tmp_path / "samples"
    (folder / "pdfs").mkdir(parents=True)
    for name in ("velanta-vp110-datasheet.pdf", "velanta-vp150-datasheet.pdf"):
        shutil.copy(FOLDER / "pdfs" / name, folder / "pdfs")
    shutil.copy(FOLDER / "questions.jsonl", folder)
    monkeypatch.setattr(rag.samples, "FOLDER", folder)
    return folder


@pytest.fixture
def no_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rag.samples, "FOLDER", tmp_path / "nowhere")


@pytest.fixture(scope="module")
def collection() -> Collection:
    """All samples, read and cut as the app does it."""
    return load_collection(FOLDER, Chunker(bundled_minilm() / "tokenizer.json"))


def contents(path: Path) -> tuple[list[str], Outline]:
    pages = read_pages(path, 1, inspect(path, ""), "")
    return [page.text for page in pages], read_outline(path, "")


def test_the_pdfs_in_the_repository_are_what_the_sources_give(tmp_path: Path) -> None:
    made = {source.file: source for source in sources()}
    assert sorted(path.name for path in (FOLDER / "pdfs").iterdir()) == sorted(made)
    for name, source in made.items():
        (tmp_path / name).write_bytes(draw(source))
        # not the bytes: another release of zlib packs the same page into others
        assert contents(tmp_path / name) == contents(FOLDER / "pdfs" / name), (
            f"run `python -m samples.build`: {name}"
        )


def test_a_document_is_drawn_to_the_same_bytes_each_time() -> None:
    source = sources()[0]
    assert draw(source) == draw(source)


def test_every_pdf_has_a_title_an_outline_and_words_on_every_page() -> None:
    pages = 0
    for file in sample_files():
        texts, outline = contents(file.path)
        pages += len(texts)
        assert outline.title
        assert len(outline.sections) >= 5
        assert all(len(text.split()) >= 40 for text in texts), file.name
        assert all(f"Page {number}" in text for number, text in enumerate(texts, start=1))
    assert len(sample_files()) >= 12
    assert pages >= 150
    assert sum(file.path.stat().st_size for file in sample_files()) < 3_000_000


def test_no_page_is_printed_twice() -> None:
    texts = Counter(text for file in sample_files() for text in contents(file.path)[0])
    assert [text[:80] for text, count in texts.items() if count > 1] == []


def test_the_words_of_every_evidence_stand_whole_in_a_chunk_of_the_page_named(collection: Collection) -> None:
    lost = [
        (asked.id, item)
        for asked in sample_questions()
        for item in asked.evidence
        if not any(is_right(chunk, [item]) for chunk in collection.chunks)
    ]
    assert lost == []


def test_the_quality_benchmark_reads_every_question(collection: Collection) -> None:
    assert [asked.text for asked in collection.questions.questions] == [
        asked.text for asked in sample_questions()
    ]


def test_there_are_enough_questions_of_each_kind_and_none_twice() -> None:
    asked = sample_questions()
    assert len(asked) >= 60
    assert len({item.text for item in asked}) == len({item.id for item in asked}) == len(asked)
    kinds = Counter(item.kind for item in asked)
    # kinds are measured, not wished for: a better reranker leaves fewer that it hurts
    assert all(kinds[kind] >= 2 for kind in get_args(Kind)), kinds


def test_every_kind_is_what_its_ranks_say() -> None:
    assert [item.id for item in sample_questions() if item.kind != judge(item.before, item.after)] == []


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (6, 5, "helps"),
        (None, 1, "helps"),
        (4, 1, "helps"),
        (3, 1, "same"),
        (1, 1, "same"),
        (40, 6, "same"),
        (None, None, "same"),
        (None, 30, "same"),
        (1, 3, "same"),
        (1, 4, "hurts"),
        (5, 6, "hurts"),
        (5, None, "hurts"),
    ],
)
def test_a_kind_is_decided_by_both_ranks_of_the_first_right_chunk(
    before: int | None, after: int | None, kind: Kind
) -> None:
    assert judge(before, after) == kind


def test_the_first_right_chunk_holds_the_words_on_the_page_named() -> None:
    chunks = [
        a_chunk("Oil\nevery 500 hours", page=1),
        a_chunk("nothing", page=2),
        a_chunk("every 500\nhours", page=2),
    ]
    evidence = [Evidence(chunks[0].source, 2, "every 500 hours")]
    assert first_right(chunks, evidence) == 3
    assert first_right(chunks[:2], evidence) is None


def test_writing_changes_kinds_and_ranks_alone(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    row = {
        "id": "q1",
        "text": "Größe?",
        "kind": "same",
        "ranks": [None, None],
        "flagged": False,
        "evidence": [],
        "answer": "1",
    }
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    write([Measured(question(1, "same", "a.pdf", None, None), 9, 1, flagged=True)], path)
    changed = {"kind": "helps", "ranks": [9, 1], "flagged": True}
    assert json.loads(path.read_text(encoding="utf-8")) == row | changed


def test_values_and_conditions_make_a_document_of_a_family() -> None:
    text = "The ${model}.\n@if dryer\nDry.\n@end\n@if not dryer\nWet.\n@end\nEnd."
    assert fill(text, {"model": "K1", "dryer": True}) == "The K1.\nDry.\nEnd."
    assert fill(text, {"model": "K1", "dryer": False}) == "The K1.\nWet.\nEnd."
    with pytest.raises(KeyError, match="model"):
        fill(text, {"dryer": True})
    with pytest.raises(ValueError, match="@end"):
        fill("@if dryer\nDry.", {"dryer": True})


def test_markup_becomes_blocks() -> None:
    text = "# One\nA line\nand more.\n\nNext.\n| a | b |\n| 1 | 2 |\n1. do\n2. done\n- item\n> mind"
    assert list(blocks(text)) == [
        Block("chapter", ("One",)),
        Block("paragraph", ("A line", "and more.")),
        Block("paragraph", ("Next.",)),
        Block("table", ("| a | b |", "| 1 | 2 |")),
        Block("step", ("do",)),
        Block("step", ("done",)),
        Block("item", ("item",)),
        Block("box", ("mind",)),
    ]


def test_samples_are_loaded_through_the_queue_removed_and_brought_back(
    services: Services, two_sheets: Path
) -> None:
    assert load_samples(services, owner=LOCAL_OWNER) == 2
    assert [job.state for job in services.queue.jobs(owner=LOCAL_OWNER)] == ["queued", "queued"]
    services.queue.run_pending()
    assert loaded_samples(services, owner=LOCAL_OWNER) == sample_files()
    assert load_samples(services, owner=LOCAL_OWNER) == 0
    before = services.store.count(owner=LOCAL_OWNER)

    gone = remove_samples(services, owner=LOCAL_OWNER)
    assert loaded_samples(services, owner=LOCAL_OWNER) == ()
    assert services.store.count(owner=LOCAL_OWNER) == 0
    assert services.queue.jobs(owner=LOCAL_OWNER) == []

    for item in gone:
        services.undo(item)
    assert services.store.count(owner=LOCAL_OWNER) == before
    assert all(services.originals.path(file.id, owner=LOCAL_OWNER).is_file() for file in sample_files())


def test_where_the_samples_are_missing_nothing_is_offered_and_the_log_says_so(
    services: Services, no_samples: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert (sample_files(), sample_questions()) == ((), ())
    assert "no sample library" in caplog.text
    assert load_samples(services, owner=LOCAL_OWNER) == 0


def test_suggestions_show_each_kind_and_are_about_loaded_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [rag.samples.SampleFile(name, name, Path(name)) for name in ("a.pdf", "b.pdf", "c.pdf")]
    asked = (
        question(1, "helps", "a.pdf", 7, 1),
        question(2, "helps", "b.pdf", 30, 1),
        question(3, "helps", "absent.pdf", 50, 1),
        question(4, "same", "b.pdf", 1, 1),
        question(5, "same", "c.pdf", 2, 2),
        question(6, "hurts", "c.pdf", 1, 4),
        question(7, "hurts", "c.pdf", 3, 9),
        question(8, "helps", "c.pdf", 50, 1, flagged=True),
    )
    monkeypatch.setattr(rag.samples, "sample_questions", lambda: asked)
    # of each kind the largest move first, what left the sources before what stayed in them; each document once at
    # first; none with a false alarm
    assert [item.id for item in suggestions(files, count=4)] == ["q2", "q1", "q5", "q7"]
    assert [item.id for item in suggestions(files[:1])] == ["q1"]
    assert suggestions([]) == ()


def test_the_shipped_suggestions_begin_with_help_and_bring_no_false_alarm() -> None:
    offered = suggestions(sample_files())
    assert 4 <= len(offered) <= 6
    # a better reranker may leave none that it hurts
    assert {"helps", "same"} <= {item.kind for item in offered}
    assert offered[0].kind == "helps"
    assert not any(item.flagged for item in offered)


def test_a_labelled_question_is_known_by_its_text() -> None:
    first = sample_questions()[0]
    assert known_question(f"  {first.text.upper()} ") == first
    assert known_question("Who is the pope?") is None


def test_a_measurement_is_told_as_a_sentence() -> None:
    said = question(1, "hurts", "a.pdf", 2, None).measured
    assert "reranking hurts here" in said
    assert "#2 before, not among the candidates after" in said


@pytest.fixture
def page(services: Services, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], AppTest]:
    """Runs one function of the part on a page of its own, over the services of the test."""
    monkeypatch.setattr(rag.services, "_SHARED", Lazy(lambda: services))

    def run(call: str) -> AppTest:
        script = (
            "import streamlit as st\n"
            "from app_pages.parts import samples as part\n"
            "from app_pages.parts.deletions import deleted\n"
            "from rag.services import shared_services\n"
            "services = shared_services()\n"
            f"{call}\n"
        )
        made = AppTest.from_string(script, default_timeout=60).run()
        assert not made.exception
        return made

    return run


def test_one_click_queues_the_samples_and_shows_their_progress(
    services: Services, two_sheets: Path, page: Callable[[str], AppTest]
) -> None:
    shown = page("part.offer_samples(services, owner='local')")
    shown.button(key="samples-load").click().run()
    assert not shown.exception
    assert len(services.queue.jobs(owner=LOCAL_OWNER)) == 2
    assert not shown.button
    assert "0 of 2 documents" in shown.get("progress")[0].proto.text


def test_where_the_queue_has_no_room_none_is_loaded_and_the_page_says_why(
    services: Services, two_sheets: Path, page: Callable[[str], AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services.queue, "_max_open", 1)  # the samples are two
    for call in ("part.offer_samples(services, owner='local')", "part.sample_row(services, owner='local')"):
        shown = page(call)
        shown.button(key="samples-load").click().run()
        assert not shown.exception
        assert services.queue.jobs(owner=LOCAL_OWNER) == []
        assert "not loaded. These are 2 files, and of yours at most 1 may wait" in shown.error[0].value
        shown.run()
        assert not shown.error


def test_samples_that_arrived_leave_the_list_of_uploads_and_their_questions_are_suggested(
    services: Services, two_sheets: Path, page: Callable[[str], AppTest]
) -> None:
    shown = page(
        "part.offer_samples(services, owner='local'); part.suggested_questions(services, owner='local')"
    )
    shown.button(key="samples-load").click().run()
    services.queue.run_pending()
    rag.samples.tidy_uploads(services, owner=LOCAL_OWNER)
    assert services.queue.jobs(owner=LOCAL_OWNER) == []
    shown.run()
    assert not shown.exception
    assert not shown.get("progress")
    assert [button.key for button in shown.button if button.key != "samples-load"]


def test_a_click_on_a_suggestion_returns_its_text(
    services: Services, two_sheets: Path, page: Callable[[str], AppTest]
) -> None:
    call = "st.text(f\"asked: {part.suggested_questions(services, owner='local')}\")"
    assert page(call).text[0].value == "asked: None"
    load_samples(services, owner=LOCAL_OWNER)
    services.queue.run_pending()
    shown = page(call)
    first = suggestions(sample_files())[0]
    button = shown.button(key=f"samples-{first.id}")
    assert "Measured on the sample library" in button.help.replace("\\", "")
    button.click().run()
    assert shown.text[0].value == f"asked: {first.text}"


def test_the_documents_page_removes_all_samples_with_one_click_and_undoes_it_with_one(
    services: Services, two_sheets: Path, page: Callable[[str], AppTest]
) -> None:
    load_samples(services, owner=LOCAL_OWNER)
    services.queue.run_pending()
    shown = page("part.undo_samples(services); part.sample_row(services, owner='local')")
    shown.button(key="samples-remove").click().run()
    assert not shown.exception
    assert loaded_samples(services, owner=LOCAL_OWNER) == ()
    assert "Deleted **2 documents of the sample library**" in shown.markdown[0].value
    shown.button(key="undo-samples-button").click().run()
    assert not shown.exception
    assert loaded_samples(services, owner=LOCAL_OWNER) == sample_files()
    assert "2 of 2 documents loaded" in shown.markdown[0].value


def test_without_samples_the_pages_show_nothing_of_them(
    no_samples: None, page: Callable[[str], AppTest]
) -> None:
    for call in ("offer_samples", "suggested_questions", "sample_row"):
        shown = page(f"part.{call}(services, owner='local')")
        assert not shown.button
        assert not shown.markdown
