from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from math import log2
from pathlib import Path

import pytest

from bench.quality import (
    Countdown,
    embed_cached,
    load_beir,
    load_collection,
    main,
    measure,
    plan_of,
    spaced,
)
from ingest.chunk import Chunker
from ingest.embed import Progress, Vectors
from ingest.errors import BadRequest
from ingest.weights import bundled_minilm
from rag.evidence.questions import Judgement, Question
from rag.evidence.report import make_report
from rag.evidence.runfile import read_run
from tests.fakes import WordEmbedder, length_reranker
from tests.pdfs import text_pdf

SECOND = 1 / log2(3)
"""Gain of a wanted item at rank 2."""


@pytest.fixture(scope="module")
def chunker() -> Chunker:
    return Chunker(bundled_minilm() / "tokenizer.json")


def write_rows(path: Path, rows: Sequence[object]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def fruit(tmp_path: Path) -> Path:
    """Five passages and three questions; the longer passage is the wanted one, and one question wants nothing."""
    folder = tmp_path / "fruit"
    folder.mkdir()
    passages = [
        ("a", "apple"),
        ("b", "apple apple apple pear"),
        ("c", "plum"),
        ("d", "plum plum plum fig"),
        ("e", "quince"),
    ]
    write_rows(
        folder / "corpus.jsonl", [{"_id": id_, "title": "Fruit", "text": text} for id_, text in passages]
    )
    write_rows(
        folder / "queries.jsonl",
        [
            {"_id": "1", "text": "apple"},
            {"_id": "2", "text": "plum"},
            {"_id": "3", "text": "cherry"},
        ],
    )
    judged = ["query-id\tcorpus-id\tscore", "1\tb\t1", "2\td\t1", "3\te\t0", ""]
    (folder / "qrels.tsv").write_text("\n".join(judged), encoding="utf-8")
    return folder


def test_limited_questions_are_spread_over_the_set() -> None:
    questions = [Question(str(n), str(n), ()) for n in range(10)]
    assert [question.text for question in spaced(questions, 4)] == ["0", "2", "5", "7"]
    assert spaced(questions, 11) == spaced(questions, None) == tuple(questions)


def test_vectors_are_kept_for_the_same_texts_and_embedder(tmp_path: Path) -> None:
    class Counting(WordEmbedder):
        calls = 0

        def embed(self, texts: Sequence[str], *, on_progress: Progress | None = None) -> Vectors:
            self.calls += 1
            return super().embed(texts, on_progress=on_progress)

    embedder = Counting()
    first = embed_cached(["pear", "plum"], embedder, tmp_path / "cache", Countdown("test"))
    again = embed_cached(["pear", "plum"], embedder, tmp_path / "cache", Countdown("test"))
    assert (first == again).all()
    assert embedder.calls == 1
    embed_cached(["pear plum"], embedder, tmp_path / "cache", Countdown("test"))
    embed_cached(["pear plum"], embedder, None, Countdown("test"))
    assert embedder.calls == 3


def test_a_beir_folder_gives_one_chunk_a_passage_with_its_title_as_heading(fruit: Path) -> None:
    collection = load_beir(fruit)
    assert [chunk.passage for chunk in collection.chunks][:2] == [
        "Fruit\napple",
        "Fruit\napple apple apple pear",
    ]
    assert [(chunk.source, chunk.page) for chunk in collection.chunks[:2]] == [("fruit", 1), ("fruit", 2)]
    assert collection.questions.questions == (
        Question("1", "apple", (Judgement("fruit", (2,)),)),
        Question("2", "plum", (Judgement("fruit", (4,)),)),
    )


def test_headings_can_be_left_out(fruit: Path, chunker: Chunker) -> None:
    collection = load_collection(fruit, chunker, headings=False)
    assert collection.chunks[0].passage == "apple"
    assert collection.questions == load_beir(fruit).questions


def test_pdfs_give_the_chunks_of_the_app_and_wanted_pages(tmp_path: Path, chunker: Chunker) -> None:
    (tmp_path / "pdfs").mkdir()
    pages = [["Apples are red."], ["Pears are green."]]
    (tmp_path / "pdfs" / "fruit.pdf").write_bytes(text_pdf(pages, title="All about fruit"))
    rows = [
        {"_id": "1", "text": "What is red?", "evidence": [{"doc": "fruit.pdf", "page": 1}]},
        {
            "id": "2",
            "question": "What is green?",
            "evidence": [{"file": "fruit.pdf", "page": 2, "text": "Pears"}],
        },
        {"id": "3", "question": "What is blue?", "evidence": []},
    ]
    write_rows(tmp_path / "questions.jsonl", rows)
    collection = load_collection(tmp_path, chunker)
    assert [chunk.passage for chunk in collection.chunks] == [
        "All about fruit\nApples are red.",
        "All about fruit\nPears are green.",
    ]
    assert collection.questions.questions == (
        Question("1", "What is red?", (Judgement("fruit.pdf", (1, 2)),)),
        Question("2", "What is green?", (Judgement("fruit.pdf", (2,), "Pears"),)),
    )


def test_a_folder_of_neither_kind_is_told(tmp_path: Path, chunker: Chunker) -> None:
    with pytest.raises(FileNotFoundError, match=r"neither corpus\.jsonl nor pdfs/"):
        load_collection(tmp_path, chunker)


def test_a_planted_folder_gives_what_can_be_worked_out_by_hand(fruit: Path, chunker: Chunker) -> None:
    collection = load_collection(fruit, chunker, headings=False)
    report = make_report(measure(collection, WordEmbedder(), plan_of(length_reranker(), {})))
    assert (report.questions, report.header.corpus.chunks, report.ceilings[50]) == (2, 5, 1.0)
    rows = {row.variant.name: row for row in report.rows}
    # "apple" has cosine 1 with itself and 3 / sqrt(10) with the wanted passage, which is the longer one
    second = {"recall@1": 0.0, "recall@5": 1.0, "recall@10": 1.0, "MRR@10": 0.5, "nDCG@10": SECOND}
    assert {name: one.mean for name, one in rows["bi-encoder"].means.items()} == pytest.approx(second)
    reranked = rows["reranked from 50"]
    assert {name: one.mean for name, one in reranked.means.items()} == dict.fromkeys(second, 1.0)
    assert reranked.gains["bi-encoder"]["nDCG@10"].low == pytest.approx(1 - SECOND)
    assert reranked.headroom is None


def test_a_score_is_taken_apart_into_what_it_is_made_of() -> None:
    def names(**weights: float) -> list[str]:
        plan = plan_of(length_reranker(**weights), {}, [50])
        return [variant.name for variant in plan.reranked]

    assert names() == ["reranked from 50", "reranked from 50, + 0.6 x BM25"]
    assert names(cosine_weight=20.0) == [
        "reranked from 50",
        "reranked from 50, without cosine",
        "reranked from 50, + 0.6 x BM25",
    ]
    assert names(cosine_weight=20.0, bm25_weight=0.6)[2] == "reranked from 50, without BM25"


def test_what_the_parts_of_a_score_bring_is_compared_question_by_question(
    fruit: Path, chunker: Chunker
) -> None:
    """The cosine is worth more than any length here: without it the longer, wanted passage comes first."""
    collection = load_collection(fruit, chunker, headings=False)
    plan = plan_of(length_reranker(cosine_weight=1000.0), {"other": length_reranker()})
    rows = {row.variant.name: row for row in make_report(measure(collection, WordEmbedder(), plan)).rows}
    for name in ("reranked from 50, without cosine", "reranked from 50, other"):
        assert rows[name].gains["reranked from 50"]["nDCG@10"].mean == pytest.approx(1 - SECOND)


def test_a_collection_without_questions_is_told(fruit: Path) -> None:
    collection = load_beir(fruit)
    none = replace(collection, questions=replace(collection.questions, questions=()))
    with pytest.raises(BadRequest, match="The question set 'fruit' is empty"):
        measure(none, WordEmbedder(), plan_of(length_reranker(), {}))


def test_the_command_prints_one_object_a_folder(
    fruit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        str(fruit),
        str(fruit),
        "--json",
        "--limit",
        "1",
        "--dtype",
        "float32",
        "--max-tokens",
        "256",
    ]
    assert main([*arguments, "--runs", str(tmp_path / "runs")]) == 0
    reports = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [report["questions"] for report in reports] == [1, 1]
    assert [report["rows"] for report in reports[:1]] == [report["rows"] for report in reports[1:]]
    names = [row["variant"]["name"] for row in reports[0]["rows"]]
    assert {"reranked from 50, float32", "reranked from 50, 256 tokens"} <= set(names)
    kept = tmp_path / "runs" / "fruit.json"
    assert len(read_run(kept.read_text(encoding="utf-8"), kept.name).results) == 1


def test_the_command_prints_a_table_a_folder(fruit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(fruit), "--no-headings", "--depth", "2", "50"]) == 0
    printed = capsys.readouterr().out
    assert "# fruit (without headings)" in printed
    assert "| bi-encoder " in printed
    assert "| reranked from 2 " in printed


def test_what_cannot_be_used_is_told_before_anything_is_measured(
    fruit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong, told in (("--limit=0", "takes a number from 1"), ("--reranker=nowhere", "There is no model")):
        with pytest.raises(SystemExit):
            main([str(fruit), wrong])
        assert told in capsys.readouterr().err
