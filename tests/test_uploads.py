from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.testing.v1 import AppTest

import rag.services
from rag.services import Lazy, Services
from rag.settings import Settings
from tests.pdfs import text_pdf

DOCUMENTS = Path(__file__).resolve().parents[1] / "app_pages" / "documents.py"


def test_an_upload_that_was_queued_is_no_longer_kept_by_streamlit(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[MemoryUploadedFileManager] = []
    make = MemoryUploadedFileManager.__init__

    def note(manager: MemoryUploadedFileManager, endpoint: str) -> None:
        make(manager, endpoint)
        kept.append(manager)

    monkeypatch.setattr(MemoryUploadedFileManager, "__init__", note)
    services = Services(settings)
    monkeypatch.setattr(rag.services, "_SHARED", Lazy(lambda: services))
    page = AppTest.from_file(str(DOCUMENTS), default_timeout=60).run()
    page.file_uploader[0].set_value(("pump.pdf", text_pdf([["The pump"]]), "application/pdf")).run()
    assert not page.exception
    assert [job.source for job in services.queue.jobs(owner="local")] == ["pump.pdf"]
    assert kept
    assert [file for manager in kept for files in manager.file_storage.values() for file in files] == []
    services.close()
