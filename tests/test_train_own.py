"""One's own reranker on a small real library in which people call a pump a zorb."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from typer.testing import CliRunner, Result

from ingest.embed import Embedder
from ingest.errors import BadRequest
from ingest.store import LOCAL_OWNER
from rag.cli import app
from rag.evidence.formats import write_questions
from rag.evidence.questions import Judgement, Question, question_id
from rag.rerank import BUNDLED_FOLDER, Reranker, load_reranker
from rag.services import opened
from rag.settings import Settings
from rag.train.own import divide, find, start_folder, train_own
from tests.pdfs import text_pdf

HALLS = [first + last for first in ("Alder", "Birch", "Cedar", "Elm", "Hazel", "Maple", "Oak") for last in
         ("brook", "field", "ford", "gate", "mill", "moor")]  # fmt: skip
PARTS = ("lamp", "pump", "fan")
PUMP = PARTS.index("pump")


def page_of(hall: int, part: int) -> int:
    return hall * len(PARTS) + part + 1


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, embedder: Embedder, reranker: Reranker) -> Path:
    """Data folder of a library: one page for each part in each hall."""
    pages = [[f"The {part} in the {hall} hall was made by Miller."] for hall in HALLS for part in PARTS]
    data = tmp_path_factory.mktemp("own")
    with opened(Settings(data=data)) as services:
        services.use_models(embedder, reranker)
        job = services.queue.add("halls.pdf", text_pdf(pages), owner=LOCAL_OWNER)
        services.queue.run(job.id, lambda _: None)
        assert services.queue.job(job.id, owner=LOCAL_OWNER).state == "done"
    return data


def a_question(hall: int, part: int) -> Question:
    text = f"Who made the zorb in the {HALLS[hall]} hall?"
    return Question(question_id(text), text, (Judgement("halls.pdf", (page_of(hall, part),)),))


def run(data: Path, questions: Sequence[Question], out: Path, *more: str) -> Result:
    file = out.parent / "questions.csv"
    write_questions(questions, file)
    environment = {"SECOND_LOOK_DATA": str(data), "RERANKER": "bundled"}
    return CliRunner(env=environment).invoke(
        app, ["train-reranker", str(file), "--out", str(out), "--epochs", "1", *more]
    )


def test_a_word_that_only_these_people_use_is_learned(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "own"
    done = run(data, [a_question(hall, PUMP) for hall in range(len(HALLS))], out, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    gained = report["differences"]["nDCG@10"]
    assert gained["low"] > 0
    assert report["means"]["after"]["nDCG@10"] - report["means"]["before"]["nDCG@10"] == pytest.approx(
        gained["mean"]
    )
    assert report["recommended"]
    assert "min left" in done.stderr
    assert {file.name for file in out.iterdir()} == {"adapter.safetensors", "reranker.json", "run.json"}
    learned, present = load_reranker(str(out)), load_reranker("bundled")
    assert learned.cosine_weight == present.cosine_weight
    assert learned.revision != present.revision
    assert "note" not in json.loads((out / "reranker.json").read_text())


def test_labels_at_random_are_not_recommended(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "own"
    random = Random(1)
    questions = [a_question(hall, random.randrange(len(PARTS))) for hall in range(len(HALLS))]
    done = run(data, questions, out)
    assert done.exit_code == 2, done.output
    assert "It is not certain that it is better: keep the present reranker." in done.stdout
    assert f"To use it all the same, set RERANKER={out.resolve()}" in done.stdout
    assert json.loads((out / "reranker.json").read_text())["note"].startswith("Not recommended.")
    assert load_reranker(str(out)).name == f"{load_reranker('bundled').name}, trained on own questions"


def test_too_few_questions_are_refused_with_the_number_needed(data: Path, tmp_path: Path) -> None:
    done = run(data, [a_question(hall, PUMP) for hall in range(10)], tmp_path / "own")
    assert isinstance(done.exception, BadRequest)
    assert "At least 40 such questions are needed" in str(done.exception)
    assert not (tmp_path / "own").exists()


def test_no_passage_is_on_both_sides(data: Path, embedder: Embedder, reranker: Reranker) -> None:
    questions = [a_question(hall, PUMP) for hall in range(len(HALLS))]
    again = [
        Question(f"again {number}", question.text.replace("made", "built"), question.judgements)
        for number, question in enumerate(questions)
    ]
    with opened(Settings(data=data)) as services:
        services.use_models(embedder, reranker)
        found = find([*questions, *again], embedder, services.store, say=lambda _: None)
        parts = divide(found)
        pages = [
            {page for one in part for judgement in one.question.relevant for page in judgement.pages}
            for part in (parts.training, parts.judging, parts.kept_out)
        ]
        assert sum(len(part) for part in (parts.training, parts.judging, parts.kept_out)) == 84
        assert all(pages)
        assert not pages[0] & pages[1] | pages[0] & pages[2] | pages[1] & pages[2]
        assert len(parts.kept_out) >= 0.35 * 84


def test_questions_that_are_all_about_one_passage_are_refused(
    data: Path, embedder: Embedder, reranker: Reranker
) -> None:
    one = a_question(3, PUMP)
    questions = [Question(str(number), f"{one.text} {number}", one.judgements) for number in range(50)]
    with opened(Settings(data=data)) as services:
        services.use_models(embedder, reranker)
        found = find(questions, embedder, services.store, say=lambda _: None)
        with pytest.raises(BadRequest, match="about too few passages"):
            divide(found)


def test_a_reranker_that_is_there_is_not_overwritten(
    data: Path, embedder: Embedder, reranker: Reranker
) -> None:
    with opened(Settings(data=data)) as services:
        services.use_models(embedder, reranker)
        with pytest.raises(BadRequest, match="name another folder"):
            train_own([], embedder, services.store, start=BUNDLED_FOLDER, out=BUNDLED_FOLDER)


def test_only_adapters_are_trained(tmp_path: Path) -> None:
    assert start_folder("bundled") == BUNDLED_FOLDER
    with pytest.raises(BadRequest, match="RERANKER=bundled"):
        start_folder(str(tmp_path))


def test_an_empty_library_is_told(settings: Settings, embedder: Embedder, reranker: Reranker) -> None:
    with opened(settings) as services:
        services.use_models(embedder, reranker)
        with pytest.raises(BadRequest, match="The library is empty"):
            find([a_question(0, PUMP)], embedder, services.store)
