from __future__ import annotations

from pathlib import Path

import pytest

import rag.rerank
from ingest.embed import Embedder
from ingest.errors import BadRequest, IndexMismatch, ModelUnavailable
from ingest.store import LOCAL_OWNER
from rag.pipeline import answer, rank
from rag.rerank import Reranker
from rag.services import Lazy, Services
from rag.settings import Settings
from tests.pdfs import text_pdf

PAGES = [["The pump needs fresh oil every 500 hours of work."], ["The lake is deep and cold in winter."]]
QUESTION = "How often does the pump need oil?"


@pytest.fixture
def library(services: Services) -> Services:
    services.queue.add("pump.pdf", text_pdf(PAGES), owner=LOCAL_OWNER)
    services.queue.run_pending()
    return services


def test_a_pdf_becomes_a_cited_answer(library: Services) -> None:
    ranking = rank(QUESTION, library.stages)
    answered = answer(ranking, library.answerer)
    assert "every 500 hours" in answered.answer.text
    assert [(c.number, c.chunk.page) for c in answered.answer.citations] == [(1, 1)]
    assert answered.note


def test_delete_and_undo_restore_document_search_and_file(library: Services) -> None:
    (document,) = library.store.documents()
    path = library.originals.path(document.id, owner=LOCAL_OWNER)
    before, data = rank(QUESTION, library.stages).order, path.read_bytes()
    deleted = library.delete(document.id)
    assert library.store.documents() == []
    assert rank(QUESTION, library.stages).hits == ()
    assert not path.exists()
    assert library.undo(deleted) == document
    assert rank(QUESTION, library.stages).order == before
    assert path.read_bytes() == data


def test_a_forgotten_deletion_leaves_no_file(library: Services, settings: Settings) -> None:
    (document,) = library.store.documents()
    library.forget(library.delete(document.id))
    assert list(settings.data.rglob("*.pdf")) == []


def test_deleting_what_is_not_there_is_told(services: Services) -> None:
    with pytest.raises(BadRequest, match="no document"):
        services.delete("a" * 64)


def test_a_library_survives_a_restart(library: Services, embedder: Embedder, reranker: Reranker) -> None:
    before = rank(QUESTION, library.stages).order
    library.close()
    again = Services(library.settings)
    again.use_models(embedder, reranker)
    assert rank(QUESTION, again.stages).order == before
    again.close()


def test_an_index_made_by_another_embedder_is_not_opened(
    library: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.close()
    monkeypatch.setattr("rag.services.CHUNKER", "another chunker")
    with pytest.raises(IndexMismatch, match="another chunker"):
        _ = Services(library.settings).store


def test_a_reranker_that_cannot_be_loaded_is_said_and_questions_still_work(
    tmp_path: Path, embedder: Embedder
) -> None:
    services = Services(Settings(data=tmp_path, reranker="no/such-model"))
    services._embedder.put(embedder)
    services.queue.add("pump.pdf", text_pdf(PAGES), owner=LOCAL_OWNER)
    services.queue.run_pending()
    ranking = rank(QUESTION, services.stages)
    assert "no/such-model" in ranking.rerank_problem
    answered = answer(ranking, services.answerer)
    assert "every 500 hours" in answered.answer.text
    services.close()


def test_an_embedder_that_is_missing_is_named(tmp_path: Path) -> None:
    services = Services(Settings(data=tmp_path, embedder="no/such-embedder"))
    with pytest.raises(ModelUnavailable, match="no/such-embedder"):
        _ = services.store
    services.close()


def test_the_bundled_reranker_is_used_where_the_hub_cache_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rag.rerank, "cached", lambda _: None)
    assert "second-look" in rag.rerank.load_reranker().name


def test_a_lazy_thing_is_made_once_and_a_failure_is_tried_again() -> None:
    calls: list[int] = []

    def make() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise ModelUnavailable("not yet")
        return "made"

    lazy = Lazy(make)
    with pytest.raises(ModelUnavailable):
        lazy.get()
    assert lazy.made is None
    assert (lazy.get(), lazy.get(), len(calls)) == ("made", "made", 2)
