"""The command as people run it: in a process of its own, on a library of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ingest.store import Recipe
from ingest.store.edge import open_edge_store
from tests.pdfs import encrypted_pdf, text_pdf, truncated_pdf

COMMAND = Path(sys.executable).with_name("second-look")
PAGES = [["The pump needs fresh oil every 500 hours of work."], ["The lake is deep and cold in winter."]]
QUESTION = "How often does the pump need oil?"


def run(data: Path, *arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("OPENAI", "LLM", "QDRANT"))
    }
    return subprocess.run(
        [COMMAND, *arguments],
        env=kept | {"SECOND_LOOK_DATA": str(data), "HF_HUB_OFFLINE": "1"} | environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of PDFs, one of them broken, and a library made of it."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "pdfs").mkdir()
    (folder / "pdfs" / "pump.pdf").write_bytes(text_pdf(PAGES, title="Pump manual"))
    (folder / "pdfs" / "bad.PDF").write_bytes(truncated_pdf())
    done = run(folder / "data", "ingest", folder / "pdfs")
    assert done.returncode == 1, done.stderr
    assert "pump.pdf: 2 pages, 2 chunks." in done.stdout
    assert "bad.PDF" in done.stderr
    assert "damaged" in done.stderr
    return folder


def printed(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_documents_lists_the_library_as_json(folder: Path) -> None:
    (document,) = printed(run(folder / "data", "documents", "--json"))
    assert (document["source"], document["pages"], document["chunks"]) == ("pump.pdf", 2, 2)
    assert len(document["id"]) == 64


def test_search_prints_both_orders_as_one_object(folder: Path) -> None:
    found = printed(run(folder / "data", "search", "--json", "--sources", "1", QUESTION))
    assert found["question"] == QUESTION
    assert [hit["rank"] for hit in found["hits"]] == [1, 2]
    chunk = found["hits"][0]["chunk"]
    assert set(chunk) == {"id", "doc_id", "source", "page", "start", "end", "heading", "text"}
    (best,) = found["ranked"]
    assert set(best) == {"rank", "logit", "probability", "parts", "moved", "truncated", "hit"}
    assert best["hit"]["chunk"]["page"] == 1
    assert sum(best["parts"].values()) == pytest.approx(best["logit"], abs=1e-4)
    assert 0 < best["probability"] < 1
    assert set(found["seconds"]) == {"embed", "search", "rerank", "total"}
    assert found["models"]["embedder"] == "all-MiniLM-L6-v2"
    assert found["parameters"] == {"depth": 50, "sources": 1, "reranking": True, "doc_ids": None}
    assert found["concerns"] == []


def test_search_without_reranking_has_hits_alone(folder: Path) -> None:
    found = printed(
        run(folder / "data", "search", "--json", "--no-rerank", "--depth", "1", "--sources", "1", "oil")
    )
    assert len(found["hits"]) == 1
    assert found["ranked"] == []
    assert found["models"]["reranker"] is None
    assert [concern["kind"] for concern in found["concerns"]] == ["off"]


def test_ask_answers_with_citations(folder: Path) -> None:
    done = run(folder / "data", "ask", QUESTION)
    assert done.returncode == 0, done.stderr
    assert "every 500 hours" in done.stdout
    assert "[1] pump.pdf, page 1" in done.stdout


def test_a_question_can_be_put_to_chosen_documents(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "lake.pdf").write_bytes(text_pdf([["The pump of the lake needs no oil."]]))
    run(tmp_path / "data", "ingest", folder / "pdfs" / "pump.pdf", tmp_path / "lake.pdf")
    found = printed(run(tmp_path / "data", "ask", "--json", "--document", "lake.pdf", QUESTION))
    assert {hit["chunk"]["source"] for hit in found["hits"]} == {"lake.pdf"}
    assert found["parameters"]["doc_ids"] == [found["hits"][0]["chunk"]["doc_id"]]
    german = "Wie oft muss das Öl der Pumpe gewechselt werden?"
    both = run(tmp_path / "data", "search", "--document", "lake.pdf", "--document", "pump.pdf", german)
    assert "The question seems to be in German" in both.stderr
    assert "lake.pdf, page 1" in both.stdout
    assert "pump.pdf, page 1" in both.stdout
    wrong = run(tmp_path / "data", "search", "--document", "sea.pdf", QUESTION)
    assert (wrong.returncode, "no document 'sea.pdf'" in wrong.stderr) == (1, True)


def test_an_exported_question_is_replayed_and_what_changed_is_said(folder: Path, tmp_path: Path) -> None:
    data, file = tmp_path / "data", tmp_path / "question.json"
    run(data, "ingest", folder / "pdfs" / "pump.pdf")
    asked = run(data, "ask", QUESTION, "--sources", "1", "--export", file)
    assert asked.returncode == 0, asked.stderr
    record = json.loads(file.read_text(encoding="utf-8"))
    assert [answer["reranked"] for answer in record["answers"]] == [True]
    assert record["models"]["embedder"]["revision"].startswith("all-MiniLM-L6-v2@")
    assert len(record["models"]["reranker"]["revision"]) == 64

    same = printed(run(data, "replay", file, "--json"))
    assert (same["same_sources"], same["differences"]) == (True, [])
    assert same["score"]["before"] == pytest.approx(same["score"]["now"], abs=1e-4)

    (tmp_path / "new.pdf").write_bytes(
        text_pdf([["How often does the pump need oil? It needs oil every day."]])
    )
    run(data, "ingest", tmp_path / "new.pdf")
    changed = run(data, "replay", file)
    assert changed.returncode == 3, changed.stderr
    assert "entered: new.pdf, page 1 (not found -> #1)" in changed.stdout
    assert "Documents in scope: 1 -> 2" in changed.stdout


def test_a_foreign_file_is_not_replayed(folder: Path) -> None:
    done = run(folder / "data", "replay", folder / "pdfs" / "pump.pdf")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "pump.pdf is not JSON" in done.stderr


def test_unusable_numbers_are_one_sentence(folder: Path) -> None:
    done = run(folder / "data", "search", "--depth", "3", "--sources", "5", "oil")
    assert done.returncode == 1
    assert done.stderr.strip() == "The number of sources must be from 1 to the depth (3), not 5."


def test_what_is_not_there_is_named(folder: Path) -> None:
    done = run(folder / "data", "ingest", folder / "nowhere")
    assert done.returncode == 1
    assert "There is no file or folder" in done.stderr


def test_a_password_can_be_given(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "locked.pdf").write_bytes(encrypted_pdf(PAGES, password="sesame"))
    refused = run(tmp_path / "data", "ingest", tmp_path / "locked.pdf")
    assert refused.returncode == 1
    assert "password" in refused.stderr
    opened = run(tmp_path / "data", "ingest", "--json", "--password", "sesame", tmp_path / "locked.pdf")
    assert [job["state"] for job in printed(opened)] == ["done"]


def test_delete_removes_by_name(folder: Path, tmp_path: Path) -> None:
    run(tmp_path / "data", "ingest", folder / "pdfs" / "pump.pdf")
    asked = run(tmp_path / "data", "delete", "pump.pdf")
    assert asked.returncode == 1
    done = run(tmp_path / "data", "delete", "pump.pdf", "--yes")
    assert done.stdout.strip() == "Deleted pump.pdf."
    assert printed(run(tmp_path / "data", "documents", "--json")) == []
    assert list((tmp_path / "data").rglob("*.pdf")) == []
    gone = run(tmp_path / "data", "delete", "pump.pdf", "--yes")
    assert "no document" in gone.stderr


def test_while_another_process_holds_the_index_a_command_says_so_in_one_sentence(tmp_path: Path) -> None:
    held = open_edge_store(tmp_path / "index", Recipe("someone", "else", 4))
    done = run(tmp_path, "documents")
    held.close()
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "another process" in done.stderr.lower() or "in use" in done.stderr.lower()


def test_fetch_without_a_hub_names_the_reranker_in_one_line(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        "fetch",
        "--optional",
        "--seconds",
        "2",
        HF_HOME=str(tmp_path),
        HF_ENDPOINT="http://127.0.0.1:9",
    )
    assert done.returncode == 0
    assert len(done.stdout.strip().splitlines()) == 1
    assert "bundled reranker" in done.stdout
