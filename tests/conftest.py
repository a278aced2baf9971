"""Things that many tests need: real models (loaded once), and settings in a folder of their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.embed import Embedder, identify, load_embedder
from rag.rerank import Reranker, load_reranker
from rag.services import Services
from rag.settings import Settings

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def own_main_module() -> Iterator[None]:
    """Take the main module back: Streamlit makes a page it, and spawned workers would then run the page."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    return load_embedder(identify())


@pytest.fixture(scope="session")
def reranker() -> Reranker:
    return load_reranker("bundled")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path / "data")


@pytest.fixture
def services(settings: Settings, embedder: Embedder, reranker: Reranker) -> Iterator[Services]:
    """Real services over an empty library; the models are those of the session."""
    made = Services(settings)
    made.use_models(embedder, reranker)
    yield made
    made.close()


@pytest.fixture
def filings() -> Path:
    folder = SHARED / "data" / "financebench-dev"
    if not folder.is_dir():
        pytest.skip("the folder of real filings is not on this machine")
    return folder
