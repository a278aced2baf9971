from __future__ import annotations

import json
from collections.abc import Sequence
from math import log, log2
from pathlib import Path

import numpy as np
import pytest
import qdrant_edge

from bench.quality import (
    Collection,
    Countdown,
    Gain,
    Lexical,
    Question,
    Report,
    Variant,
    Weights,
    best_first,
    bootstrap,
    compare,
    embed_cached,
    find_reranker,
    found,
    headroom,
    judge,
    load_beir,
    load_collection,
    main,
    markdown,
    measure,
    orders,
    spaced,
)
from ingest.chunk import Chunker
from ingest.embed import Progress, Vectors
from ingest.store import BM25
from ingest.weights import bundled_minilm
from rag.rerank import BUNDLED_FOLDER, Reranker
from rag.types import Hit
from tests.fakes import WordEmbedder, a_chunk, length_reranker
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
    judged = ["query-id\tcorpus-id\tscore", "1\tb\t1", "2\td\t2", "3\te\t0", ""]
    (folder / "qrels.tsv").write_text("\n".join(judged), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("places", "wanted", "expected"),
    [
        ("xay", ["a"], [None, 0, None]),
        ("aab", ["a", "b"], [0, None, 1]),
        ("cb", ["a", "b"], [None, 1]),
        ("b", ["ab"], [0]),  # the page after the named one
        ("bcb", ["ab", "bc"], [1, None, 0]),  # each chunk for one page, first for the one it is named for
        ("", ["a"], []),
    ],
)
def test_a_place_finds_a_wanted_item_once(places: str, wanted: list[str], expected: list[int | None]) -> None:
    assert found(list(places), [list(options) for options in wanted]) == expected


def test_measures_are_those_worked_out_by_hand() -> None:
    first: list[int | None] = [None, 0, None, None, None, 1]
    missed: list[int | None] = [None] * 3
    late: list[int | None] = [None] * 20 + [0]
    values = judge([first, missed, late], [2, 1, 1])
    assert values["recall@1"].tolist() == [0, 0, 0]
    assert values["recall@5"].tolist() == [1 / 2, 0, 0]
    assert values["recall@10"].tolist() == [1, 0, 0]
    assert values["recall@50"].tolist() == [1, 0, 1]
    assert values["MRR@10"].tolist() == [1 / 2, 0, 0]
    assert values["nDCG@10"] == pytest.approx([(SECOND + 1 / log2(7)) / (1 + SECOND), 0, 0])


def test_wanted_items_that_are_not_found_lower_the_ndcg() -> None:
    assert judge([[0]], [2])["nDCG@10"] == pytest.approx([1 / (1 + SECOND)])


def test_the_interval_of_equal_differences_is_a_point() -> None:
    assert bootstrap(np.full(7, 0.25)) == Gain(0.25, 0.25, 0.25)


def test_the_interval_of_two_questions_holds_all_that_resampling_can_give() -> None:
    assert bootstrap(np.array([0.0, 1.0])) == Gain(0.5, 0.0, 1.0)  # means 0 and 1 in a quarter each


def test_the_interval_is_near_the_normal_one_and_the_same_every_time() -> None:
    differences = np.array([0.0, 1.0] * 200)
    gain = bootstrap(differences)
    error = 1.96 * 0.5 / 400**0.5
    assert (gain.mean, gain.low, gain.high) == pytest.approx((0.5, 0.5 - error, 0.5 + error), abs=0.005)
    assert gain == bootstrap(differences)


def test_headroom_is_the_share_won_between_recall_at_5_and_the_ceiling() -> None:
    assert headroom(0.7, 0.6, 0.9) == pytest.approx(1 / 3)
    assert headroom(0.5, 0.6, 0.9) == pytest.approx(-1 / 3)
    assert headroom(0.9, 0.9, 0.9) is None


def test_gains_are_over_each_rival_but_itself() -> None:
    zero, one = np.zeros(4), np.ones(4)
    low = dict.fromkeys(("recall@1", "recall@5", "recall@10", "MRR@10", "nDCG@10"), zero)
    high = dict.fromkeys(low, one)
    judged = {"bi-encoder": low | {"recall@50": one}, "reranked": high | {"recall@50": one}}
    bi_encoder, reranked = compare(judged, ["bi-encoder"])
    assert bi_encoder == Variant("bi-encoder", dict.fromkeys(low, 0.0), None, {})
    gains = {"recall@5": Gain(1, 1, 1), "nDCG@10": Gain(1, 1, 1)}
    assert reranked == Variant("reranked", dict.fromkeys(low, 1.0), 1.0, {"bi-encoder": gains})


def test_equal_values_keep_their_order_and_what_lies_deeper_is_left_out() -> None:
    assert best_first("abcd", [1, 2, 2, 9], depth=3) == ["b", "c", "a"]


def test_every_order_is_derived_from_one_reading() -> None:
    hits = [Hit(a_chunk("word", start=n), 0.9 - n / 100, n + 1) for n in range(60)]
    ids = [hit.chunk.id for hit in hits]
    scores = np.zeros(60)
    scores[[15, 55]] = 1, 2
    words = {"elsewhere": 3.0, ids[40]: 20.0, ids[59]: 90.0}
    made = orders(hits, words, scores, scores, Weights())
    assert made["bi-encoder"] == ids
    assert made["BM25"] == [ids[59], ids[40], "elsewhere"]
    assert made["cosine + 0.03 x BM25"] == [ids[40], *ids[:40], *ids[41:50]]  # 0.5 + 0.6
    assert made["reranked from 10"] == ids[:10]
    assert made["reranked from 20"] == [ids[15], *ids[:15], *ids[16:20]]
    assert made["reranked from 50"][:2] == [ids[15], ids[0]]
    assert made["reranked from 100"][:3] == [ids[55], ids[15], ids[0]]
    assert made["reranked from 50, + 0.6 x BM25"][:3] == [ids[40], ids[15], ids[0]]
    assert "reranked from 50, without cosine" not in made


def test_the_cross_encoder_without_its_cosine_is_an_order_of_its_own() -> None:
    hits = [Hit(a_chunk("word", start=n), 0.9, n + 1) for n in range(2)]
    made = orders(hits, {}, np.array([2.0, 1.0]), np.array([1.0, 2.0]), Weights())
    assert made["reranked from 50, without cosine"] == [hits[1].chunk.id, hits[0].chunk.id]


def test_limited_questions_are_spread_over_the_set() -> None:
    questions = [Question(str(n), ()) for n in range(10)]
    assert [question.text for question in spaced(questions, 4)] == ["0", "2", "5", "7"]
    assert spaced(questions, 11) == spaced(questions, None) == tuple(questions)


def test_bm25_is_the_terms_of_the_index_times_their_idf() -> None:
    passages = ["apple", "apple pear", "plum", "..."]
    scores = Lexical(passages).scores("an apple or a quince")
    idf = log((4 - 2 + 0.5) / (2 + 0.5) + 1)
    values = [qdrant_edge.Bm25().embed_document(passage).values[0] for passage in passages[:2]]
    assert scores == pytest.approx([idf * values[0], idf * values[1], 0, 0])


def test_bm25_is_what_an_index_would_score(tmp_path: Path) -> None:
    passages = ["apple", "apple pear", "plum plum apple", "fig", "a pear, a plum and a fig"]
    shard = qdrant_edge.EdgeShard.load(
        str(tmp_path),
        qdrant_edge.EdgeConfig(
            sparse_vectors={BM25: qdrant_edge.EdgeSparseVectorParams(modifier=qdrant_edge.Modifier.Idf)}
        ),
    )
    bm25 = qdrant_edge.Bm25()
    points = [qdrant_edge.Point(n, {BM25: bm25.embed_document(text)}, {}) for n, text in enumerate(passages)]
    shard.update(qdrant_edge.UpdateOperation.upsert_points(points))
    query = qdrant_edge.Query.Nearest(bm25.embed_query("apple and plum"), using=BM25)
    expected = {int(str(p.id)): p.score for p in shard.query(qdrant_edge.QueryRequest(limit=9, query=query))}
    shard.close()
    scores = Lexical(passages).scores("apple and plum")
    assert {int(row): scores[row] for row in np.flatnonzero(scores)} == pytest.approx(expected, rel=1e-5)


def test_vectors_are_kept_for_the_same_texts_and_embedder(tmp_path: Path) -> None:
    class Counting(WordEmbedder):
        calls = 0

        def embed(self, texts: Sequence[str], *, on_progress: Progress | None = None) -> Vectors:
            self.calls += 1
            return super().embed(texts, on_progress=on_progress)

    embedder = Counting()
    first = embed_cached(["pear", "plum"], embedder, tmp_path / "cache", Countdown("test"))
    again = embed_cached(["pear", "plum"], embedder, tmp_path / "cache", Countdown("test"))
    assert np.array_equal(first, again)
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
    assert [collection.places[chunk.id] for chunk in collection.chunks] == ["a", "b", "c", "d", "e"]
    assert collection.questions == (Question("apple", (("b",),)), Question("plum", (("d",),)))


def test_headings_can_be_left_out(fruit: Path, chunker: Chunker) -> None:
    collection = load_collection(fruit, chunker, headings=False)
    assert collection.chunks[0].passage == "apple"
    assert collection.places[collection.chunks[0].id] == "a"


def test_pdfs_give_the_chunks_of_the_app_and_pages_as_places(tmp_path: Path, chunker: Chunker) -> None:
    (tmp_path / "pdfs").mkdir()
    pages = [["Apples are red."], ["Pears are green."]]
    (tmp_path / "pdfs" / "fruit.pdf").write_bytes(text_pdf(pages, title="All about fruit"))
    rows = [
        {"text": "What is red?", "evidence": [{"doc": "fruit.pdf", "page": 1}]},
        {"question": "What is green?", "evidence": [{"file": "fruit.pdf", "page": 2, "text": "Pears"}]},
    ]
    write_rows(tmp_path / "questions.jsonl", rows)
    collection = load_collection(tmp_path, chunker)
    assert [chunk.passage for chunk in collection.chunks] == [
        "All about fruit\nApples are red.",
        "All about fruit\nPears are green.",
    ]
    assert list(collection.places.values()) == ["fruit.pdf, page 1", "fruit.pdf, page 2"]
    assert collection.questions == (
        Question("What is red?", (("fruit.pdf, page 1", "fruit.pdf, page 2"),)),
        Question("What is green?", (("fruit.pdf, page 2",),)),
    )


def test_a_folder_of_neither_kind_is_told(tmp_path: Path, chunker: Chunker) -> None:
    with pytest.raises(FileNotFoundError, match=r"neither corpus\.jsonl nor pdfs/"):
        load_collection(tmp_path, chunker)


def test_a_planted_folder_gives_what_can_be_worked_out_by_hand(fruit: Path, chunker: Chunker) -> None:
    report = measure(load_collection(fruit, chunker, headings=False), WordEmbedder(), length_reranker())
    assert (report.questions, report.chunks, report.headings, report.ceiling) == (2, 5, False, 1.0)
    by_name = {variant.name: variant for variant in report.variants}
    # "apple" has cosine 1 with itself and 3 / sqrt(10) with the wanted passage, which is the longer one
    second = {"recall@1": 0.0, "recall@5": 1.0, "recall@10": 1.0, "MRR@10": 0.5, "nDCG@10": SECOND}
    assert by_name["bi-encoder"].means == pytest.approx(second)
    reranked = by_name["reranked from 50"]
    assert reranked.means == dict.fromkeys(second, 1.0)
    assert reranked.gains["bi-encoder"]["nDCG@10"].low == pytest.approx(1 - SECOND)
    assert reranked.headroom is None


def test_a_collection_without_questions_is_told() -> None:
    with pytest.raises(ValueError, match="no passages or no questions"):
        measure(Collection("empty", (), {}, ()), WordEmbedder(), length_reranker())


def test_the_table_has_a_row_for_each_order() -> None:
    means = dict.fromkeys(("recall@1", "recall@5", "recall@10", "MRR@10", "nDCG@10"), 0.5)
    gains = {"bi-encoder": {"recall@5": Gain(0.1, -0.05, 0.25), "nDCG@10": Gain(0, 0, 0)}}
    variants = (Variant("bi-encoder", means, None, {}), Variant("reranked", means, 0.4, gains))
    shown = markdown(Report("docs", 9, 1234, False, "e", "r", "cpu", 0.75, variants)).splitlines()
    assert (
        shown[0]
        == "docs: 9 questions, 1,234 chunks without headings, reranker r (cpu), ceiling recall@50 0.750"
    )
    cells = [cell.strip() for cell in shown[-1].strip("|").split("|")]
    assert cells == [
        "reranked", *["0.500"] * 5, "40%", "+0.100 [-0.050, +0.250]", "+0.000 [+0.000, +0.000]"
    ]  # fmt: skip


def test_a_folder_with_an_adapter_is_a_reranker(reranker: Reranker) -> None:
    assert find_reranker(str(BUNDLED_FOLDER)).name == reranker.name


def test_the_command_prints_one_object_a_folder(fruit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(fruit), str(fruit), "--json", "--limit", "1"]) == 0
    reports = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(report["folder"], report["questions"]) for report in reports] == [("fruit", 1)] * 2
    assert reports[0] == reports[1]
    assert "reranked from 50, without cosine" in [variant["name"] for variant in reports[0]["variants"]]


def test_the_command_prints_a_table_a_folder(fruit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(fruit), "--no-headings"]) == 0
    printed = capsys.readouterr().out
    assert "fruit: 2 questions, 5 chunks without headings" in printed
    assert "| bi-encoder " in printed
