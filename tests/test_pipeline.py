from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from ingest.errors import AnswerFailed, BadRequest
from ingest.store import Recipe, Store
from ingest.store.edge import open_edge_store
from ingest.types import Chunk, Document
from rag.pipeline import Stages, answer, rank
from rag.rerank import Calibration, PairScores, Reranker
from rag.types import Ranking
from tests.fakes import BrokenModel, WordEmbedder, a_chunk, length_reranker

TEXTS = [f"apple {'filler ' * n}".strip() for n in range(12)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    embedder = WordEmbedder()
    opened = open_edge_store(tmp_path, Recipe(embedder.id, "by hand", embedder.dimension))
    chunks = [a_chunk(text, start=100 * n) for n, text in enumerate(TEXTS)]
    document = Document("d" * 64, "fruit.pdf", "Fruit", 1, len(chunks), 1, "2026-01-01T00:00:00+00:00", ())
    opened.add(document, chunks, embedder.embed([chunk.passage for chunk in chunks]))
    yield opened
    opened.close()


@pytest.fixture
def stages(store: Store) -> Stages:
    return Stages(WordEmbedder(), store, length_reranker(threshold=0.5))


def test_the_second_look_reorders_the_bi_encoders_candidates(stages: Stages) -> None:
    ranking = rank("apple", stages, depth=10, sources=3)
    assert [hit.chunk.text for hit in ranking.hits] == TEXTS[:10]
    assert [hit.rank for hit in ranking.hits] == list(range(1, 11))
    assert [ranked.hit.rank for ranked in ranking.ranked] == [10, 9, 8]
    assert [ranked.moved for ranked in ranking.ranked] == [9, 7, 5]
    assert len(ranking.order) == 10


def test_fewer_chunks_than_the_depth_are_all_candidates(stages: Stages) -> None:
    assert len(rank("apple", stages, depth=50).hits) == len(TEXTS)


def test_without_reranking_the_bi_encoders_order_is_chosen(stages: Stages) -> None:
    ranking = rank("apple", stages, depth=10, sources=3, reranking=False)
    assert ranking.order == ()
    assert ranking.rerank_problem == ""
    assert ranking.reranker == ""
    assert [chunk.text for chunk in ranking.chosen()] == TEXTS[:3]


def test_the_first_order_is_told_before_the_second_look_and_only_where_there_is_one(store: Store) -> None:
    events: list[str] = []

    class Noting:
        device = "cpu"

        def logits(self, question: str, passages: Sequence[str]) -> PairScores:
            events.append("second look")
            return PairScores(np.zeros(len(passages), np.float32), (False,) * len(passages))

    def note(first: Ranking) -> None:
        events.append(f"{len(first.hits)} in the first order, {len(first.order)} in the second")

    stages = Stages(WordEmbedder(), store, Reranker("noting", Noting(), 0.0, Calibration()))
    rank("apple", stages, depth=10, on_first=note)
    assert events == ["10 in the first order, 0 in the second", "second look"]
    rank("apple", stages, depth=10, reranking=False, on_first=note)
    assert len(events) == 2


def test_one_retrieval_serves_both_answers(stages: Stages) -> None:
    ranking = rank("apple", stages, depth=10, sources=2)
    assert [chunk.text for chunk in ranking.chosen(reranked=True)] == [TEXTS[9], TEXTS[8]]
    assert [chunk.text for chunk in ranking.chosen(reranked=False)] == TEXTS[:2]


def test_a_reranker_that_breaks_is_said_and_the_question_survives(store: Store) -> None:
    broken = Reranker("sick", BrokenModel(), 0, Calibration())
    ranking = rank("apple", Stages(WordEmbedder(), store, broken), sources=3)
    assert "sick failed" in ranking.rerank_problem
    assert [chunk.text for chunk in ranking.chosen()] == TEXTS[:3]


def test_a_reranker_that_could_not_be_loaded_is_said(store: Store) -> None:
    ranking = rank("apple", Stages(WordEmbedder(), store, None, "weights are missing"))
    assert ranking.rerank_problem == "weights are missing"


def test_confidence_follows_the_threshold_of_the_model(store: Store) -> None:
    def confident(threshold: float | None) -> bool | None:
        return rank("apple", Stages(WordEmbedder(), store, length_reranker(threshold=threshold))).confident

    assert confident(0.99) is True  # sigmoid(12) is above
    assert confident(0.9999999) is False
    assert confident(None) is None


def test_chosen_documents_alone_are_searched(stages: Stages) -> None:
    assert rank("apple", stages, doc_ids=["e" * 64]).hits == ()
    assert len(rank("apple", stages, doc_ids=["d" * 64]).hits) == len(TEXTS)


def test_nothing_found_is_an_empty_ranking(stages: Stages) -> None:
    ranking = rank("apple", stages, doc_ids=[])
    assert (ranking.hits, ranking.order, ranking.chosen(), ranking.confident) == ((), (), (), None)


@pytest.mark.parametrize(
    ("question", "depth", "sources", "word"),
    [("  ", 50, 5, "empty"), ("x" * 2001, 50, 5, "2001"), ("q", 0, 5, "depth"), ("q", 10, 11, "sources")],
)
def test_unusable_questions_and_numbers_are_told(
    stages: Stages, question: str, depth: int, sources: int, word: str
) -> None:
    with pytest.raises(BadRequest, match=word):
        rank(question, stages, depth=depth, sources=sources)


class Scripted:
    """An answerer that says what it is told to say, and may break off."""

    note = ""
    name = "scripted"

    def __init__(self, *pieces: str, error: str = "") -> None:
        self.pieces, self.error = pieces, error

    def stream(self, question: str, sources: Sequence[Chunk]) -> Iterator[str]:
        yield from self.pieces
        if self.error:
            raise AnswerFailed(self.error)


def test_an_answer_streams_and_its_citations_are_the_chosen_chunks(stages: Stages) -> None:
    ranking = rank("apple", stages, depth=10, sources=2)
    seen: list[str] = []
    answered = answer(ranking, Scripted("It is [2]", " and [9]."), on_text=seen.append)
    assert seen == ["It is [2]", "It is [2] and [9]."]
    assert [(c.number, c.chunk.text) for c in answered.answer.citations] == [(2, TEXTS[8])]
    assert any("[9]" in problem for problem in answered.answer.problems)
    assert answered.reranked
    assert answered.error == ""


def test_what_came_before_a_failure_is_kept(stages: Stages) -> None:
    answered = answer(rank("apple", stages, sources=2), Scripted("So far [1]", error="The stream was cut."))
    assert answered.answer.text == "So far [1]"
    assert answered.error == "The stream was cut."


def test_an_answer_from_the_bi_encoders_order_says_so(stages: Stages) -> None:
    answered = answer(rank("apple", stages, sources=2), Scripted("x [1]"), reranked=False)
    assert not answered.reranked
    assert [chunk.text for chunk in answered.sources] == TEXTS[:2]


def test_a_question_longer_than_the_bi_encoder_reads_is_marked(stages: Stages) -> None:
    assert not rank("apple", stages).question_cut
    assert rank("apple " * 101, stages).question_cut
