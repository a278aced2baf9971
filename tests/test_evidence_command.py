"""`second-look eval` and `second-look bench-set`: on a library with the real models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ingest.chunk import Chunker
from ingest.errors import BadRequest
from ingest.weights import bundled_minilm
from rag.evidence.beir import Passage, cut, passages_of, questions_of
from rag.evidence.command import Asked, add_bench_set, compare_files, evaluate, evaluated_data, write_outputs
from rag.evidence.questions import Judgement
from rag.evidence.sets import EvidenceStore
from rag.services import Services

COMMAND = Path(sys.executable).with_name("second-look")
PASSAGES = [
    ("a", "Pumps", "The pump needs fresh oil every 500 hours of work."),
    ("b", "", "The lake is deep and cold in winter."),
    ("c", "Engines", "An engine without oil seizes after a few minutes."),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A BEIR folder of three passages and two questions; a third question wants nothing."""
    made = tmp_path / "machines"
    made.mkdir()
    corpus = [{"_id": id_, "title": title, "text": text} for id_, title, text in PASSAGES]
    queries = [
        {"_id": "1", "text": "How often does the pump need oil?"},
        {"_id": "2", "text": "What happens to an engine without oil?"},
        {"_id": "3", "text": "What is the capital of France?"},
    ]
    for name, rows in (("corpus.jsonl", corpus), ("queries.jsonl", queries)):
        (made / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (made / "qrels.tsv").write_text(
        "query-id\tcorpus-id\tscore\n1\ta\t1\n2\tc\t2\n3\tb\t0\n", encoding="utf-8"
    )
    return made


def test_each_passage_of_a_corpus_becomes_a_page_with_its_title_as_heading() -> None:
    chunker = Chunker(bundled_minilm() / "tokenizer.json")
    long = " ".join(f"Sentence number {n} says nothing new." for n in range(60))
    passages = [Passage("a", "Pumps", "Oil them."), Passage("b", "", "Deep."), Passage("c", "Long", long)]
    chunks = cut(passages, chunker, "d" * 64, "machines")
    assert [(chunk.page, chunk.heading) for chunk in chunks[:3]] == [(1, "Pumps"), (2, ""), (3, "Long")]
    assert len(chunks) > 3
    assert all(chunk.page == 3 and chunk.text in long for chunk in chunks[2:])


def test_the_questions_of_a_corpus_want_its_pages(folder: Path) -> None:
    first, second = questions_of(folder, passages_of(folder), "machines")
    assert first.judgements == (Judgement("machines", (1,)),)
    assert second.judgements == (Judgement("machines", (3,), grade=2),)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        (
            "corpus.jsonl",
            '{"_id": "a", "text": 3}\n',
            r"corpus\.jsonl, line 1: a passage needs `_id` and `text`",
        ),
        (
            "corpus.jsonl",
            '{"_id": "a", "text": "x"}\n' * 2,
            r"corpus\.jsonl, line 2: the passage 'a' is there",
        ),
        ("corpus.jsonl", "", r"corpus\.jsonl holds no passage"),
        ("qrels.tsv", "1\tz\t1\n", "wants passage 'z', and corpus.jsonl has none of that id"),
        ("qrels.tsv", "1\ta\t0\n", "no question of queries.jsonl has a relevant passage"),
    ],
)
def test_a_folder_that_cannot_be_read_leaves_nothing_behind(
    services: Services, folder: Path, name: str, text: str, told: str
) -> None:
    (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(BadRequest, match=told):
        add_bench_set(folder, services)
    assert services.store.documents() == []
    assert EvidenceStore(services.settings.data).names() == []


def test_a_bench_set_is_a_document_and_a_question_set_and_both_can_be_deleted(
    services: Services, folder: Path
) -> None:
    told: list[str] = []
    added = add_bench_set(folder, services, on_progress=told.append)
    assert (added.name, len(added.questions)) == ("machines", 2)
    assert told[-1] == "machines: 3 of 3 chunks embedded"
    (document,) = services.store.documents()
    assert (document.source, document.pages, document.chunks) == ("machines", 3, 3)
    assert "no PDF" in document.warnings[0]
    again: list[str] = []
    add_bench_set(folder, services, on_progress=again.append)
    assert again == []
    assert services.store.documents() == [document]
    with (folder / "corpus.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"_id": "d", "text": "More."}\n')
    with pytest.raises(BadRequest, match="The library has another document 'machines'"):
        add_bench_set(folder, services)
    services.forget(services.delete(document.id))
    assert services.store.documents() == []


def test_a_stored_set_is_evaluated_kept_and_exported(
    services: Services, folder: Path, tmp_path: Path
) -> None:
    add_bench_set(folder, services)
    told: list[str] = []
    done = evaluate(Asked("machines", (2, 3)), services, on_progress=told.append)
    assert told[0] == "machines: 0 of 2 questions"
    assert told[-1].startswith("machines: 2 of 2 questions")
    assert [row.variant.name for row in done.report.rows if row.variant.kind == "reranked"] == [
        "reranked from 2",
        "reranked from 3",
    ]
    assert done.report.ceilings[3] == 1
    kept = EvidenceStore(services.settings.data)
    assert [summary.id for summary in kept.runs()] == [done.id]
    assert kept.run(done.id) == done.run
    assert list(kept.journals.iterdir()) == []
    data = evaluated_data(done)
    assert json.loads(json.dumps(data))["run"] == done.id
    paths = [tmp_path / name for name in ("run.json", "report.md", "report.csv")]
    assert write_outputs(done, out=paths[0], markdown=paths[1], csv=paths[2]) == paths
    assert "# machines" in paths[1].read_text(encoding="utf-8")
    compared = compare_files(paths[0], paths[0])
    assert "2 questions are in both" in str(compared)
    with pytest.raises(BadRequest, match="cannot be written"):
        write_outputs(done, out=tmp_path / "nowhere" / "run.json")


def test_a_file_of_questions_is_evaluated_with_a_limit(
    services: Services, folder: Path, tmp_path: Path
) -> None:
    add_bench_set(folder, services)
    file = tmp_path / "mine.csv"
    file.write_text(
        "question,document,page,quote\nHow often does the pump need oil?,machines,1,\n"
        "What becomes of an engine without oil?,,,An engine without oil seizes\n",
        encoding="utf-8",
    )
    done = evaluate(Asked(str(file), (3,), limit=1), services)
    assert [result.question.text for result in done.run.results] == ["How often does the pump need oil?"]
    whole = evaluate(Asked(str(file), (3,)), services)
    assert whole.report.ceilings[3] == 1
    with pytest.raises(BadRequest, match="from 1, not 0"):
        evaluate(Asked(str(file), limit=0), services)


def test_a_set_that_is_not_there_names_those_that_are(services: Services, folder: Path) -> None:
    add_bench_set(folder, services)
    with pytest.raises(BadRequest, match=r"no stored question set 'boats'\. Stored are: machines\."):
        evaluate(Asked("boats"), services)


def test_the_commands_do_it_all_without_a_browser(folder: Path, tmp_path: Path) -> None:
    def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        kept = {
            name: one for name, one in os.environ.items() if not name.startswith(("OPENAI", "LLM", "QDRANT"))
        }
        return subprocess.run(
            [COMMAND, *arguments],
            env=kept | {"SECOND_LOOK_DATA": str(tmp_path / "data"), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    added = command("bench-set", folder)
    assert added.returncode == 0, added.stderr
    assert "Measure with `second-look eval machines`." in added.stdout
    out = tmp_path / "run.json"
    done = command("eval", "machines", "--depth", "2", "--depth", "3", "--json", "--out", out)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["questions"], report["finished"]) == (2, True)
    compared = command("eval", "--compare", out, out)
    assert compared.returncode == 0, compared.stderr
    assert "2 questions are in both" in compared.stdout
    for wrong, told in (
        (("eval",), "Name the questions"),
        (("eval", "boats"), "no stored question set 'boats'"),
    ):
        refused = command(*wrong)
        assert refused.returncode == 1
        assert told in refused.stderr
        assert "Traceback" not in refused.stderr
