"""Runs over a small library: the same orders as `rank`, one reading of each question, stop and resume, reports."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import log2
from pathlib import Path
from typing import Any

import pytest

from ingest.embed import Embedder, Progress, Vectors
from ingest.errors import BadRequest, RerankFailed
from ingest.store import Recipe, Store
from ingest.store.edge import EdgeStore, open_edge_store
from ingest.types import Chunk, Document
from rag.evidence.export import questions_csv, report_csv, report_data, report_markdown
from rag.evidence.questions import Judgement, Question, QuestionSet
from rag.evidence.report import changed, make_report
from rag.evidence.run import Progress as RunProgress
from rag.evidence.run import corpus_of, end_journal, run, unfinished
from rag.evidence.runfile import Run, read_run, run_text
from rag.evidence.variants import BI_ENCODER, BM25, Plan, find_candidates, make_orders, make_plan
from rag.evidence.versus import compare_runs
from rag.lexical import bm25
from rag.pipeline import Stages, rank
from rag.rerank import PairScores, Reranker
from tests.fakes import BrokenModel, LengthModel, WordEmbedder, a_chunk, length_reranker

ROOT = Path(__file__).parents[1]
SECOND = 1 / log2(3)


class CountingModel(LengthModel):
    """Remembers every passage that it read."""

    def __init__(self) -> None:
        self.read: list[tuple[str, str]] = []

    def logits(self, question: str, passages: Sequence[str]) -> PairScores:
        self.read += [(question, passage) for passage in passages]
        return super().logits(question, passages)


class CountingEmbedder(WordEmbedder):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str], *, on_progress: Progress | None = None) -> Vectors:
        self.texts += texts
        return super().embed(texts, on_progress=on_progress)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EdgeStore]:
    opened = open_edge_store(tmp_path / "index", Recipe(WordEmbedder.id, "test", WordEmbedder.dimension))
    yield opened
    opened.close()


def put(store: Store, texts: Sequence[str], doc_id: str = "d" * 64) -> list[Chunk]:
    """A document with one page and one chunk for each text."""
    chunks = [a_chunk(text, page=page, doc_id=doc_id) for page, text in enumerate(texts, start=1)]
    document = Document(doc_id, "fruit.pdf", "Fruit", len(texts), len(texts), 9, "2026-01-01T00:00:00Z", ())
    store.add(document, chunks, WordEmbedder().embed([chunk.passage for chunk in chunks]))
    return chunks


def asking(*questions: tuple[str, Sequence[int]]) -> QuestionSet:
    return QuestionSet(
        "fruit",
        tuple(
            Question(f"q{number}", text, tuple(Judgement("fruit.pdf", (page,)) for page in pages))
            for number, (text, pages) in enumerate(questions)
        ),
    )


TEXTS = [
    "apple",
    "apple pear",
    "plum",
    "plum fig fig",
    "apple fig fig fig fig",
    "quince house",
    "cherry " * 3,
]


def test_every_order_is_that_of_rank_at_the_same_depth(store: EdgeStore) -> None:
    put(store, TEXTS)
    reranker = length_reranker(cosine_weight=3.0, bm25_weight=2.0)
    plan = make_plan([reranker], [1, 2, 4, 200])
    for question in ("apple fig", "plum", "a house"):
        found = find_candidates(question, WordEmbedder(), store, plan)
        orders = {order.variant.name: order for order in make_orders(found, plan)}
        for depth in (1, 2, 4, 200):
            ranking = rank(question, Stages(WordEmbedder(), store, reranker), depth=depth, sources=1)
            order = orders[f"reranked from {depth}"]
            assert order.chunks == tuple(ranked.hit.chunk for ranked in ranking.order)
            assert order.scores == pytest.approx([ranked.logit for ranked in ranking.order])
        assert orders[BI_ENCODER].chunks == tuple(hit.chunk for hit in ranking.hits)


def test_the_orders_are_those_of_the_real_models_too(
    tmp_path: Path, embedder: Embedder, reranker: Reranker
) -> None:
    real = open_edge_store(tmp_path / "real", Recipe(embedder.id, "test", embedder.dimension))
    texts = [
        "The pump needs fresh oil every 500 hours.",
        "Oil is sold by the litre in most shops.",
        "The lake is deep and cold in winter.",
        "Every 500 hours the driver takes a rest.",
        "Pumps move water uphill.",
    ]
    chunks = [a_chunk(text, page=page) for page, text in enumerate(texts, start=1)]
    document = Document("d" * 64, "pump.pdf", "Pump", 5, 5, 9, "2026-01-01T00:00:00Z", ())
    real.add(document, chunks, embedder.embed([chunk.passage for chunk in chunks]))
    plan = make_plan([reranker], [2, 5])
    question = "How often does the pump need oil?"
    orders = {
        order.variant.name: order
        for order in make_orders(find_candidates(question, embedder, real, plan), plan)
    }
    for depth in (2, 5):
        ranking = rank(question, Stages(embedder, real, reranker), depth=depth, sources=1)
        order = orders[f"reranked from {depth}"]
        assert order.chunks == tuple(ranked.hit.chunk for ranked in ranking.order)
        # other batches round differently in bfloat16
        assert order.scores == pytest.approx([ranked.logit for ranked in ranking.order], abs=0.25)
    real.close()


def test_each_question_is_embedded_once_and_each_candidate_read_once_by_each_model(store: EdgeStore) -> None:
    put(store, TEXTS)
    model, embedder = CountingModel(), CountingEmbedder()
    reranker = replace(length_reranker(bm25_weight=1.0), model=model)
    plan = make_plan([reranker, replace(reranker, bm25_weight=0.0)], [2, 3, 50])
    run(asking(("apple", [2]), ("plum", [4])), embedder, store, plan)
    assert embedder.texts == ["apple", "plum"]
    assert len(model.read) == len(set(model.read)) == 2 * len(TEXTS)


def test_bm25_alone_finds_what_the_bi_encoder_does_not(store: EdgeStore) -> None:
    put(store, TEXTS)
    plan = make_plan([length_reranker()], [2])
    orders = {
        order.variant.name: order
        for order in make_orders(find_candidates("house", WordEmbedder(), store, plan), plan)
    }
    assert [chunk.text for chunk in orders[BM25].chunks] == ["quince house"]


def test_the_fused_orders_are_sums_worked_out_by_hand(store: EdgeStore) -> None:
    chunks = put(store, TEXTS)
    plan = make_plan([length_reranker()], [2])
    found = find_candidates("apple fig", WordEmbedder(), store, plan)
    orders = {order.variant.name: order for order in make_orders(found, plan)}
    raw = {chunk.id: score for chunk, score in store.search_words("apple fig", 99)}
    expected = sorted(
        ((hit.cosine + 0.03 * raw.get(hit.chunk.id, 0.0), hit.chunk.id) for hit in found.hits), reverse=True
    )
    fused = orders["cosine + 0.03 x BM25"]
    assert list(fused.scores) == pytest.approx([score for score, _ in expected])
    assert fused.chunks[0].id == expected[0][1]
    rrf = orders["RRF of cosine and BM25 (k = 60)"]
    ranks = [[hit.chunk.id for hit in found.hits], [chunk.id for chunk, _ in found.words]]
    sums = {
        chunk.id: sum(1 / (60 + own.index(chunk.id) + 1) for own in ranks if chunk.id in own)
        for chunk in chunks
    }
    assert dict(zip((chunk.id for chunk in rrf.chunks), rrf.scores, strict=True)) == pytest.approx(sums)
    assert list(rrf.scores) == sorted(rrf.scores, reverse=True)


def test_the_bm25_part_of_a_score_is_counted_among_the_candidates_of_its_depth(store: EdgeStore) -> None:
    put(store, TEXTS)
    plan = make_plan([length_reranker(bm25_weight=1.0)], [2, 5])
    found = find_candidates("apple", WordEmbedder(), store, plan)
    for depth in (2, 5):
        passages = [hit.chunk.passage for hit in found.hits[:depth]]
        assert found.scored[f"reranked from {depth}"].words == pytest.approx(bm25("apple", passages))


def test_a_depth_that_cannot_be_used_is_told() -> None:
    with pytest.raises(BadRequest, match="from 1 to 500, not 501"):
        make_plan([length_reranker()], [501])


def test_two_rerankers_have_variants_of_their_own() -> None:
    one, two = length_reranker(), replace(length_reranker(), name="other")
    assert [variant.name for variant in make_plan([one, two], [50]).reranked] == [
        "reranked from 50, word lengths",
        "reranked from 50, other",
    ]
    assert {variant.curve for variant in make_plan([one, one], [50]).reranked} == {
        "word lengths (1)",
        "word lengths (2)",
    }


FRUIT = ("apple", "pear", "plum", "cherry", "fig", "quince")


def planted(store: Store, *wanted: int, repeats: int = 10) -> QuestionSet:
    """Eight passages on each fruit, each a word longer than the one before, and questions on each fruit.

    By cosine they come in that order, by length the other way round: the passage at `wanted` (from 0) is at rank
    wanted + 1 and, reranked from 8, at rank 8 - wanted.
    """
    texts = [fruit + " house" * length for fruit in FRUIT for length in range(8)]
    put(store, texts)
    asked = [
        (" ".join([fruit] * repeat), [texts.index(fruit + " house" * one) + 1 for one in wanted])
        for repeat in range(1, repeats + 1)
        for fruit in FRUIT
    ]
    return asking(*asked)


def ran(questions: QuestionSet, store: Store, plan: Plan | None = None, **options: Any) -> Run:
    return run(questions, WordEmbedder(), store, plan or make_plan([length_reranker()], [4, 8]), **options)


def test_a_planted_set_gives_what_can_be_worked_out_by_hand(store: EdgeStore) -> None:
    report = make_report(ran(planted(store, 6, 1, repeats=1), store))
    means = {row.variant.name: {name: one.mean for name, one in row.means.items()} for row in report.rows}
    # ranks 7 and 2 by cosine, 2 and 7 by length
    both = {"recall@1": 0, "recall@5": 1 / 2, "recall@10": 1, "MRR@10": 1 / 2}
    both["nDCG@10"] = (SECOND + 1 / log2(8)) / (1 + SECOND)
    assert means[BI_ENCODER] == pytest.approx(both)
    assert means["reranked from 8"] == pytest.approx(both)
    # of the first four only the one at rank 2 is there, and comes third
    assert means["reranked from 4"] == pytest.approx(
        {
            "recall@1": 0,
            "recall@5": 1 / 2,
            "recall@10": 1 / 2,
            "MRR@10": 1 / 3,
            "nDCG@10": 1 / log2(4) / (1 + SECOND),
        }
    )
    assert report.ceilings == pytest.approx({4: 1 / 2, 5: 1 / 2, 8: 1, 50: 1})
    rows = {row.variant.name: row for row in report.rows}
    assert rows["reranked from 8"].headroom == pytest.approx(0)
    assert rows[BI_ENCODER].headroom is None


@pytest.mark.parametrize(("wanted", "word"), [(7, "helps"), (0, "hurts"), (3, "no difference seen")], ids=str)
def test_the_verdict_on_a_planted_set_is_what_was_planted(store: EdgeStore, wanted: int, word: str) -> None:
    report = make_report(ran(planted(store, wanted), store))
    (conclusion,) = report.conclusions
    assert (conclusion.variant, conclusion.verdict.word) == ("reranked from 8", word)
    counts = conclusion.verdict.difference
    assert (counts.won, counts.tied, counts.lost) == {
        "helps": (60, 0, 0),
        "hurts": (0, 0, 60),
        "no difference seen": (0, 60, 0),
    }[word]


def test_a_handful_of_questions_is_too_few(store: EdgeStore) -> None:
    report = make_report(ran(QuestionSet("few", planted(store, 7, repeats=1).questions[:4]), store))
    assert report.conclusions[0].verdict.word == "too few questions to say"
    assert "About 60 questions like these would do" in report.conclusions[0].sentences[0]


def test_whether_the_cheap_fusion_would_have_done_as_well_is_told(store: EdgeStore) -> None:
    helps = make_report(ran(planted(store, 7), store)).conclusions[0]
    assert helps.against_rival.word == "helps"
    assert "would not have done as well" in helps.sentences[1]
    same = make_report(ran(planted(store, 3), store)).conclusions[0]
    assert "would have done as well" in same.sentences[1]


def test_the_depth_that_is_worth_it_is_the_smallest_within_a_hundredth_of_the_best(store: EdgeStore) -> None:
    plan = make_plan([length_reranker()], [4, 6, 8])
    (curve,) = make_report(ran(planted(store, 5), store, plan)).curves
    assert [(point.depth, point.quality.mean, point.ceiling) for point in curve.points] == [
        (4, 0, 0),
        (6, 1, 1),
        (8, 1, 1),
    ]
    assert curve.worth == 6
    assert curve.why.startswith("From 6: recall@5 1.000 in ")
    assert "; from 4 it is 0.000 in " in curve.why
    (hurt,) = make_report(ran(planted(store, 0), store, plan)).curves
    assert hurt.worth is None
    assert hurt.why.startswith("No depth is worth its time")
    few = QuestionSet("few", planted(store, 7, repeats=1).questions[:4])
    (open_,) = make_report(ran(few, store, plan)).curves
    assert open_.worth is None
    assert open_.why.startswith("Too few questions to say which depth is worth its time")


def test_the_times_of_a_curve_rise_with_its_depth(store: EdgeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    read = LengthModel.logits

    def now() -> float:
        nonlocal clock
        clock += 1e-6
        return clock

    def a_second_each(model: LengthModel, question: str, passages: Sequence[str]) -> PairScores:
        nonlocal clock
        clock += len(passages)
        return read(model, question, passages)

    monkeypatch.setattr("rag.evidence.variants.perf_counter", now)
    monkeypatch.setattr(LengthModel, "logits", a_second_each)
    made = ran(planted(store, 3, repeats=1), store)
    for result in made.results:
        seconds = result.timing.rerank["word lengths"]
        assert seconds[4] == pytest.approx(4, abs=0.01)
        assert seconds[8] == pytest.approx(8, abs=0.01)
    stages = {stage.name: stage for stage in make_report(made).stages}
    assert set(stages) == {
        "embed the question",
        "search by cosine",
        "search by BM25",
        "rerank 8 (word lengths)",
    }
    assert all(0 < stage.p50 <= stage.p95 for stage in stages.values())


def test_questions_won_and_lost_can_be_opened_with_both_orders(store: EdgeStore) -> None:
    questions = planted(store, 7, repeats=1)
    lost = planted(store, 0, repeats=1).questions[1]
    made = ran(QuestionSet("mixed", (questions.questions[0], lost)), store)
    worst, best = changed(made, "reranked from 8")
    assert (worst.question.text, worst.difference) == ("pear", -1)
    assert (best.question.text, best.difference) == ("apple", 1)
    assert best.outcome.ranks == (1,)
    assert best.rival.ranks == (8,)
    assert made.chunks[best.outcome.shown[0]].text == "apple" + " house" * 7
    assert made.chunks[best.rival.shown[0]].text == "apple"
    assert best.outcome.scores[:2] == (8.0, 7.0)


def test_questions_without_a_relevant_passage_are_not_measured(store: EdgeStore) -> None:
    questions = planted(store, 7, repeats=1).questions
    nowhere = (
        Question("n", "apple ?", ()),
        Question("z", "pear ?", (Judgement("fruit.pdf", (1,), grade=0),)),
    )
    report = make_report(ran(QuestionSet("some", (*questions, *nowhere)), store))
    assert (report.questions, report.unanswerable) == (6, 2)
    with pytest.raises(BadRequest, match="nothing to measure"):
        make_report(ran(QuestionSet("none", nowhere), store))


def test_passages_that_the_library_does_not_have_are_told_and_count_as_missed(store: EdgeStore) -> None:
    put(store, TEXTS)
    wanted = (Judgement("fruit.pdf", (1,)), Judgement("lost.pdf", (1,)), Judgement("fruit.pdf", (99,)))
    made = ran(QuestionSet("some", (Question("q", "apple", wanted),)), store)
    assert made.notes[0].startswith(
        "Relevant passages are in documents, or on pages, that the library does not have"
    )
    assert "(fruit.pdf, lost.pdf)" in made.notes[0]
    assert make_report(made).ceilings[8] == pytest.approx(1 / 3)


def test_nothing_to_ask_or_to_search_is_told(store: EdgeStore) -> None:
    with pytest.raises(BadRequest, match="The library is empty"):
        ran(asking(("apple", [1])), store)
    put(store, TEXTS)
    with pytest.raises(BadRequest, match="The question set 'fruit' is empty"):
        ran(asking(), store)


def test_a_reranker_that_breaks_ends_the_run_and_is_told(store: EdgeStore, tmp_path: Path) -> None:
    plan = make_plan([replace(length_reranker(), model=BrokenModel())], [4])
    with pytest.raises(RerankFailed, match="out of memory"):
        ran(planted(store, 3), store, plan, journals=tmp_path / "journals")


def same(run_: Run) -> Any:
    """A run without its times, which are never the same."""
    return [(result.question, result.outcomes) for result in run_.results], run_.chunks, run_.header


def test_a_run_that_was_stopped_goes_on_where_it_was(store: EdgeStore, tmp_path: Path) -> None:
    questions, journals = planted(store, 7, repeats=2), tmp_path / "journals"
    model = CountingModel()
    plan = make_plan([replace(length_reranker(), model=model)], [4, 8])
    told: list[RunProgress] = []
    first = ran(
        questions, store, plan, journals=journals, on_progress=told.append, stop=lambda: len(told) > 5
    )
    assert (len(first.results), first.finished) == (5, False)
    assert (told[-1].done, told[-1].total) == (5, 12)
    assert make_report(first).finished is False
    assert unfinished(journals, first.header) == 5

    read = len(model.read)
    second = ran(questions, store, plan, journals=journals)
    assert second.finished
    assert len(model.read) == len(set(model.read)) > read
    assert second.begun == first.begun
    assert same(second) == same(ran(questions, store, plan))
    end_journal(journals, second.header)
    assert list(journals.iterdir()) == []
    assert unfinished(journals, second.header) == 0


def test_a_journal_that_was_cut_in_a_line_goes_on_with_the_whole_lines(
    store: EdgeStore, tmp_path: Path
) -> None:
    questions, journals = planted(store, 7, repeats=1), tmp_path / "journals"
    whole = ran(questions, store, journals=journals)
    (file,) = journals.iterdir()
    data = file.read_bytes()
    lines = data.splitlines(keepends=True)
    for cut in (0, 10, len(lines[0]) - 1, len(lines[0]), len(data) - 5):
        file.write_bytes(data[:cut])
        assert same(ran(questions, store, journals=journals)) == same(whole)
        assert len(file.read_bytes().splitlines()) == 7


def test_another_library_other_questions_or_another_model_begin_a_new_run(
    store: EdgeStore, tmp_path: Path
) -> None:
    questions, journals = planted(store, 7, repeats=1), tmp_path / "journals"
    plan = make_plan([length_reranker()], [4, 8])
    ran(questions, store, plan, journals=journals)
    ran(questions, store, make_plan([length_reranker(cosine_weight=1.0)], [4, 8]), journals=journals)
    ran(QuestionSet("fruit", questions.questions[1:]), store, plan, journals=journals)
    put(store, ["a new document"], doc_id="e" * 64)
    ran(questions, store, plan, journals=journals)
    assert len(list(journals.iterdir())) == 4


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from ingest.store import Recipe
from ingest.store.edge import open_edge_store
from rag.evidence.run import run
from rag.evidence.variants import make_plan
from tests.fakes import WordEmbedder, length_reranker
from tests.test_evidence_run import asking

store = open_edge_store(Path(sys.argv[1]), Recipe(WordEmbedder.id, "test", WordEmbedder.dimension))
def tell(progress):
    if progress.done == 3:
        os.kill(os.getpid(), signal.SIGKILL)
questions = asking(*((" ".join(["apple"] * n), [8]) for n in range(1, 7)))
run(questions, WordEmbedder(), store, make_plan([length_reranker()], [4, 8]), journals=Path(sys.argv[2]),
    on_progress=tell)
"""


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    recipe = Recipe(WordEmbedder.id, "test", WordEmbedder.dimension)
    store = open_edge_store(tmp_path / "library", recipe)
    planted(store, 7)
    store.close()
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "library", tmp_path / "journals"], cwd=ROOT, check=False
    )
    assert done.returncode == -signal.SIGKILL
    store = open_edge_store(tmp_path / "library", recipe)
    questions = asking(*((" ".join(["apple"] * n), [8]) for n in range(1, 7)))
    model = CountingModel()
    plan = make_plan([replace(length_reranker(), model=model)], [4, 8])
    made = ran(questions, store, plan, journals=tmp_path / "journals")
    assert made.finished
    assert {question for question, _ in model.read} == {" ".join(["apple"] * n) for n in (4, 5, 6)}
    store.close()


def test_a_library_that_changes_during_the_run_is_told(store: EdgeStore) -> None:
    questions = planted(store, 7, repeats=1)

    def change(progress: RunProgress) -> None:
        if progress.done == 3:
            put(store, ["a new document"], doc_id="e" * 64)

    made = ran(questions, store, on_progress=change)
    assert any("changed during the run" in note for note in made.notes)


def test_the_fingerprint_of_a_library_is_that_of_its_documents(store: EdgeStore) -> None:
    embedder = WordEmbedder()
    empty = corpus_of(store, embedder)
    put(store, TEXTS)
    first = corpus_of(store, embedder)
    put(store, TEXTS)
    assert corpus_of(store, embedder) == first != empty
    assert (first.documents, first.chunks) == (1, len(TEXTS))
    put(store, ["more"], doc_id="e" * 64)
    assert corpus_of(store, embedder).fingerprint != first.fingerprint


def test_a_run_is_a_file_that_is_read_back_as_it_was(store: EdgeStore) -> None:
    made = ran(planted(store, 7, 1, repeats=1), store)
    again = read_run(run_text(made), "run.json")
    assert again == made
    assert make_report(again) == make_report(made)
    header = json.loads(run_text(made))["header"]
    assert header["models"][0]["name"] == "word lengths"
    assert len(header["corpus"]["fingerprint"]) == 64


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "run.json is not JSON"),
        ("[]", "run.json is not a run"),
        ("{}", "run.json is not a run"),
        ('{"format": 99}', "run.json is a run of format '99'; this version reads format 1"),
        ('{"format": 1, "chunks": [], "header": 3}', "run.json is not a run"),
    ],
)
def test_a_file_that_is_no_run_is_told(text: str, told: str) -> None:
    with pytest.raises(BadRequest, match=told):
        read_run(text, "run.json")


def test_two_runs_are_compared_on_the_questions_that_both_have(store: EdgeStore) -> None:
    questions = planted(store, 7)
    plain = ran(questions, store)
    # a reranker that goes by the cosine alone
    other = replace(length_reranker(cosine_weight=1000.0), name="cosine", revision="abc")
    fewer = ran(QuestionSet("fruit", questions.questions[10:]), store, make_plan([other], [4, 8]))
    comparison = compare_runs(fewer, plain)
    assert (comparison.questions, comparison.left_out) == (50, 10)
    assert comparison.gains["reranked from 8"]["recall@5"].mean == 1
    assert comparison.verdicts["reranked from 8"].word == "helps"
    assert comparison.gains[BI_ENCODER]["recall@5"].mean == 0
    assert [change.split(":")[0] for change in comparison.changed] == ["Reranker"]
    assert compare_runs(plain, fewer).verdicts["reranked from 8"].word == "hurts"


def test_runs_without_a_question_or_an_order_in_common_are_told(store: EdgeStore) -> None:
    questions = planted(store, 7, repeats=1)
    one = ran(questions, store)
    other_passages = ran(planted(store, 6, repeats=1), store)
    with pytest.raises(BadRequest, match="no question with the same relevant passages in common"):
        compare_runs(one, other_passages)


def test_a_report_is_exported_as_data_markdown_and_csv(store: EdgeStore) -> None:
    questions = replace(planted(store, 7), name="=fruit | `<b>` [a](http://b)")
    made = ran(questions, store)
    report = make_report(made)
    data = json.loads(json.dumps(report_data(report)))
    assert data["conclusions"][0]["verdict"]["word"] == "helps"
    shown = report_markdown(report)
    assert shown.startswith(r"# =fruit \| \`\<b>\` [a\](http://b)")
    assert "| reranked from 8 " in shown
    assert "Reranking with word lengths from 8 candidates helps on these documents" in shown
    assert "worth it" in shown
    lines = report_csv(report).splitlines()
    assert lines[0].startswith("order,kind,depth,questions,recall@1,recall@1 low,recall@1 high")
    assert [line.split(",")[0] for line in lines[1:]] == [row.variant.name for row in report.rows]
    rows = questions_csv(made).splitlines()
    assert len(rows) == 1 + 60 * len(report.rows)
    assert rows[1].split(",")[:4] == ["q0", "apple", "bi-encoder", "8"]
    assert rows[5].split(",")[:4] == ["q0", "apple", "reranked from 4", "none"]
    assert rows[1].split(",")[4:] == ["0.0"] * 2 + ["1.0", "0.125", str(1 / log2(9))]


def test_the_order_of_a_second_reranker_is_compared_with_the_first(store: EdgeStore) -> None:
    cosine = replace(length_reranker(cosine_weight=1000.0), name="cosine")
    report = make_report(ran(planted(store, 7), store, make_plan([length_reranker(), cosine], [4, 8])))
    rows = {row.variant.name: row for row in report.rows}
    assert rows["reranked from 8, cosine"].gains["reranked from 8, word lengths"]["recall@5"].mean == -1
    assert [conclusion.verdict.word for conclusion in report.conclusions] == ["helps", "no difference seen"]
