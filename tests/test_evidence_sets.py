"""Question sets, runs and the threshold on the disk; and the log of ordinary use."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ingest.errors import BadRequest, StoreUnavailable
from rag.evidence.questions import Judgement, Question, QuestionSet
from rag.evidence.runfile import Corpus, Header, Model, Run
from rag.evidence.sets import EvidenceStore, RunSummary, clean_set_name
from rag.evidence.usage import UsageLog, Used, signal, used
from rag.evidence.variants import BI_ENCODER, Fusion, Variant
from rag.threshold import Threshold
from rag.types import Answer, Answered, Citation, Hit, Ranked, Ranking, Seconds
from tests.fakes import a_chunk

SET = QuestionSet("pumps", (Question("1", "How old?", (Judgement("a.pdf", (3,), grade=2),), "nine"),))


@pytest.fixture
def kept(tmp_path: Path) -> EvidenceStore:
    return EvidenceStore(tmp_path)


def test_a_set_is_kept_changed_and_deleted(kept: EvidenceStore, tmp_path: Path) -> None:
    assert kept.names() == []
    kept.save(SET)
    kept.save(QuestionSet("../../Etc: passwd", ()))
    assert kept.names() == ["../../Etc: passwd", "pumps"]
    assert EvidenceStore(tmp_path).questions("pumps") == SET
    kept.save(QuestionSet("pumps", ()))
    assert kept.questions("pumps").questions == ()
    kept.delete("pumps")
    kept.delete("pumps")
    assert kept.names() == ["../../Etc: passwd"]
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json"}


def test_an_owner_has_sets_of_its_own(tmp_path: Path) -> None:
    EvidenceStore(tmp_path, owner="ann").save(SET)
    assert EvidenceStore(tmp_path, owner="bob").names() == []
    assert EvidenceStore(tmp_path, owner="../ann").names() == []


@pytest.mark.parametrize("name", ["", " a", "a\nb", "x" * 81])
def test_a_name_that_cannot_be_used_is_refused_and_can_be_cleaned(kept: EvidenceStore, name: str) -> None:
    with pytest.raises(BadRequest, match="A question set's name is 1 to 80"):
        kept.save(QuestionSet(name, ()))
    kept.save(QuestionSet(clean_set_name(name), ()))


def test_a_set_with_a_question_that_cannot_be_used_is_refused_and_changes_nothing(
    kept: EvidenceStore,
) -> None:
    kept.save(SET)
    twice = replace(SET, questions=SET.questions * 2)
    with pytest.raises(BadRequest, match="Question 2: the id '1' is there twice"):
        kept.save(twice)
    assert kept.questions("pumps") == SET
    with pytest.raises(BadRequest, match="There is no question set 'boats'"):
        kept.questions("boats")


def test_the_right_passage_and_not_this_are_kept_with_the_question(kept: EvidenceStore) -> None:
    right, other = Judgement("a.pdf", (3,), "nine", "id"), Judgement("a.pdf", (4,), "ten", "other")
    kept.mark("pumps", " How old? ", right)
    kept.mark("pumps", "How old?", replace(other, grade=0))
    kept.mark("pumps", "Who?", right)
    first, second = kept.questions("pumps").questions
    assert first.judgements == (right, replace(other, grade=0))
    assert second.relevant == (right,)
    kept.mark("pumps", "How old?", replace(right, grade=0))
    assert kept.questions("pumps").questions[0].judgements == (
        replace(other, grade=0),
        replace(right, grade=0),
    )


def test_marks_of_many_threads_are_all_kept(kept: EvidenceStore) -> None:
    threads = [
        threading.Thread(target=kept.mark, args=("pumps", f"Question {n}?", Judgement("a.pdf", (1,))))
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept.questions("pumps").questions) == 20


def test_a_damaged_file_is_told(kept: EvidenceStore, tmp_path: Path) -> None:
    kept.save(SET)
    (file,) = tmp_path.rglob("*.json")
    file.write_text("{")
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        kept.names()


def a_run(begun: str = "2026-11-24T10:00:00+00:00", questions: int = 0) -> Run:
    header = Header(
        "pumps",
        "print",
        questions,
        Corpus("f" * 64, 1, 2),
        "embedder@1",
        "cpu",
        (Model("m", "m", "abc", "cpu", 0.0, 0.5),),
        (Variant(BI_ENCODER, "bi-encoder", 50),),
        Fusion(),
        "a machine",
    )
    return Run(header, begun, (), {})


def test_runs_are_kept_listed_newest_first_and_deleted(kept: EvidenceStore) -> None:
    older, newer = a_run(), a_run("2026-11-25T10:00:00+00:00", questions=4)
    first, second = kept.keep(older), kept.keep(newer)
    assert kept.runs() == [
        RunSummary(second, "pumps", newer.begun, 0, 4, "f" * 64, ("m",)),
        RunSummary(first, "pumps", older.begun, 0, 0, "f" * 64, ("m",)),
    ]
    assert kept.run(first) == older
    assert first.startswith("20261124T100000-")
    kept.delete_run(first)
    assert [summary.id for summary in kept.runs()] == [second]
    for gone in (first, "../sets/x", ""):
        with pytest.raises(BadRequest, match="There is no run"):
            kept.run(gone)


def test_the_journal_of_a_finished_run_is_forgotten_and_that_of_a_stopped_one_stays(
    kept: EvidenceStore,
) -> None:
    kept.journals.mkdir(parents=True)
    done, stopped = a_run(), a_run(questions=4)
    for one in (done, stopped):
        (kept.journals / f"{one.header.key}.jsonl").touch()
        kept.keep(one)
    assert [path.stem for path in kept.journals.iterdir()] == [stopped.header.key]


def test_a_threshold_is_kept_and_taken_away(kept: EvidenceStore) -> None:
    chosen = Threshold(1.5, "m", "abc", "corpus")
    seen = [kept.threshold]
    for choice in (chosen, None, None):
        kept.choose_threshold(choice)
        seen.append(kept.threshold)
    assert seen == [None, chosen, None, None]


def answered(cited: list[int], *, reranked: bool = True) -> tuple[Ranking, Answered]:
    """Ten hits, reranked backwards, of which five are sources; the answer cites chunks by their rank as a hit."""
    hits = tuple(Hit(a_chunk("word", start=n), 1 - n / 10, n + 1) for n in range(10))
    order = tuple(
        Ranked(hit, 1.0, 0.5, rank, (), truncated=False) for rank, hit in enumerate(reversed(hits), start=1)
    )
    ranking = Ranking("?", hits, order, 5, Seconds(0, 0, 0), "e", "m", "", confident=None)
    citations = tuple(Citation(n, hits[rank - 1].chunk) for n, rank in enumerate(cited, start=1))
    answer = Answer("text", citations, ())
    return ranking, Answered(answer, (), reranked, "a", "", 0.1, 0.2, "")


def test_a_cited_passage_that_the_bi_encoder_had_not_among_its_first_would_have_been_missed() -> None:
    one = used(*answered([10, 9, 9, 5]))
    assert one is not None
    assert (one.reranker, one.cited, one.missed) == ("m", 3, 2)


def test_an_answer_without_reranking_or_citations_says_nothing() -> None:
    assert used(*answered([10], reranked=False)) is None
    assert used(*answered([])) is None


def test_ordinary_use_gives_a_share_with_an_exact_interval(tmp_path: Path) -> None:
    log = UsageLog(tmp_path / "data")
    assert log.read() == []
    assert signal(log.read(), "m") is None
    for missed in (0, 1, 0, 2):
        log.add(Used("2026-11-24T10:00:00+00:00", "m", 3, missed))
    log.add(Used("2026-11-24T10:00:00+00:00", "other", 3, 3))
    with (tmp_path / "data" / "usage.jsonl").open("ab") as file:
        file.write(b'{"at": "2026')  # a crash
    found = signal(log.read(), "m")
    assert found is not None
    assert (found.questions, found.missed, found.share) == (4, 2, 0.5)
    # Clopper and Pearson for 2 of 4
    assert (found.low, found.high) == pytest.approx((0.0676, 0.9324), abs=1e-4)
