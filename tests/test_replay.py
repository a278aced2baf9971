from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingest.errors import BadRequest
from rag.export import Provenance, QuestionRecord, question_data
from rag.replay import (
    Changes,
    Difference,
    Moved,
    Parameters,
    changes,
    changes_data,
    changes_text,
    parameters,
    read_record,
)
from rag.types import Answer, Answered, Hit, Ranked, Ranking, ScorePart, Seconds
from tests.fakes import a_chunk

THEN = Provenance("c" * 64, 2, "words@1", "cpu, float32", "f" * 64, "cpu, float32")
CHUNKS = {name: a_chunk(f"{name} text", start=100 * n, page=n) for n, name in enumerate("ABCDE", start=1)}
DOC = "d" * 64


def a_ranking(first: str, second: str, *, sources: int = 2, add: float = 0.0) -> Ranking:
    """Chunks by letter in both orders; cosines .9, .8, ... and logits 9, 8, ... with something added to A's."""
    hits = tuple(Hit(CHUNKS[name], 1 - rank / 10, rank) for rank, name in enumerate(first, start=1))
    at = dict(zip(first, hits, strict=True))
    order = tuple(
        Ranked(
            at[name],
            10.0 - rank + (add if name == "A" else 0.0),
            0.5,
            rank,
            (ScorePart("logit", 10.0 - rank),),
            truncated=False,
        )
        for rank, name in enumerate(second, start=1)
    )
    return Ranking(
        question="Which one?",
        hits=hits,
        order=order,
        sources=sources,
        seconds=Seconds(0.1, 0.1, 0.3),
        embedder="words",
        reranker="lengths" if second else "",
        rerank_problem="",
        confident=None,
    )


def a_record(ranking: Ranking, *, mode: str = "On", **more: Any) -> dict[str, Any]:
    """An export as it comes back from a file."""
    record = QuestionRecord("Which one?", ranking, (), 50, None, mode, THEN)
    data: dict[str, Any] = json.loads(json.dumps(question_data(replace(record, **more))))
    return data


def compared(
    record: dict[str, Any], ranking: Ranking, now: Provenance = THEN, documents: tuple[str, ...] = (DOC,)
) -> Changes:
    return changes(record, ranking, now=now, documents=documents)


def test_the_same_question_on_the_same_library_changes_nothing() -> None:
    ranking = a_ranking("ABCD", "CABD")
    found = compared(a_record(ranking), ranking)
    assert found.same_sources
    assert (found.kept, found.entered, found.left, found.moved) == (2, (), (), ())
    assert (found.compared, found.ranks_changed) == (4, 0)
    assert (found.differences, found.not_reproducible) == ((), ())
    assert found.score is not None
    assert found.score.before == found.score.now
    assert found.seconds_before == pytest.approx(0.5)


def test_sources_that_enter_leave_and_move_are_named_with_both_ranks() -> None:
    found = compared(a_record(a_ranking("ABCD", "CABD")), a_ranking("ABDE", "AEBD"))
    assert not found.same_sources
    assert found.entered == (Moved("fruit.pdf", 5, None, 2),)
    assert found.left == (Moved("fruit.pdf", 3, 1, None),)
    assert found.moved == (Moved("fruit.pdf", 1, 2, 1),)
    assert found.kept == 1
    assert (found.compared, found.ranks_changed) == (3, 1)  # A, B, D: only A stands elsewhere


def test_another_order_of_the_same_sources_counts_as_the_same() -> None:
    found = compared(a_record(a_ranking("ABCD", "CABD")), a_ranking("ABCD", "ACBD"))
    assert found.same_sources
    assert found.moved == (Moved("fruit.pdf", 1, 2, 1), Moved("fruit.pdf", 3, 1, 2))


def test_the_largest_score_difference_is_told_with_its_candidate() -> None:
    found = compared(a_record(a_ranking("ABCD", "CABD")), a_ranking("ABCD", "CABD", add=0.25))
    assert found.score is not None
    assert (found.score.score, found.score.page) == ("logit", 1)
    assert (found.score.before, found.score.now) == (8.0, 8.25)


def test_without_reranking_the_bi_encoders_order_and_cosines_are_compared() -> None:
    # the page keeps the reranked order of a question after reranking was switched off
    found = compared(a_record(a_ranking("ABCD", "DCBA"), mode="Off"), a_ranking("BACD", ""))
    assert found.same_sources
    assert found.moved == (Moved("fruit.pdf", 2, 2, 1), Moved("fruit.pdf", 1, 1, 2))
    assert found.score is not None
    assert found.score.score == "cosine"
    assert found.score.now - found.score.before == pytest.approx(-0.1)  # A's 0.9 is 0.8; B's change is equal


def test_other_models_and_another_library_are_told() -> None:
    now = replace(THEN, corpus="e" * 64, documents=3, reranker="a" * 64, embedder_device="cuda, float16")
    found = compared(a_record(a_ranking("AB", "AB")), replace(a_ranking("AB", "AB"), embedder="other"), now)
    assert found.differences == (
        Difference("Embedder", "words", "other"),
        Difference("Embedder device", "cpu, float32", "cuda, float16"),
        Difference("Reranker revision", "f" * 64, "a" * 64),
        Difference("Documents in scope", "2", "3"),
        Difference("Corpus fingerprint", "c" * 64, "e" * 64),
    )


def test_what_cannot_be_run_again_is_told() -> None:
    answered = Answered(Answer("A.", (), ()), (), True, "a model", "", None, 0.1, "")
    record = a_record(a_ranking("AB", "AB"), doc_ids=(DOC, "0" * 64), answers=(answered,))
    now = replace(a_ranking("AB", ""), reranker="lengths", rerank_problem="It ran out of memory.")
    assert compared(record, now).not_reproducible == (
        "1 of the 2 chosen documents are gone: 000000000000....",
        "the second look: It ran out of memory.",
        "the answers: they are not written again.",
    )
    failed = a_record(now)
    assert compared(failed, a_ranking("AB", "AB")).not_reproducible == (
        "the failure of the reranker at the export: It ran out of memory.",
    )


def test_an_empty_library_has_lost_all_sources() -> None:
    found = compared(a_record(a_ranking("AB", "AB")), a_ranking("", ""), documents=())
    assert (found.kept, len(found.left), found.score) == (0, 2, None)


def test_the_text_says_all_of_it_and_steers_no_terminal() -> None:
    record = a_record(a_ranking("ABCD", "CABD"))
    record["candidates"][2]["chunk"]["source"] = "evil\x1b[2J.pdf"
    text = changes_text(compared(record, a_ranking("ABDE", "AEBD", add=1.0), replace(THEN, documents=9)))
    assert text == (
        "1 of 2 sources left, 1 entered.\n"
        "  entered: fruit.pdf, page 5 (not found -> #2)\n"
        "  left: evil[2J.pdf, page 3 (#1 -> not found)\n"
        "  moved: fruit.pdf, page 1 (#2 -> #1)\n"
        "Ranks: 1 of 3 candidates found both times changed theirs.\n"
        "Largest score difference: logit 8.0000 -> 10.0000 (+2.0000), fruit.pdf, page 1.\n"
        "Documents in scope: 2 -> 9\n"
        "Time: 0.500 s -> 0.500 s."
    )


def test_changes_are_json() -> None:
    data = json.loads(
        json.dumps(changes_data(compared(a_record(a_ranking("AB", "AB")), a_ranking("AB", "AB"))))
    )
    assert data["same_sources"] is True
    assert set(data) == {"same_sources", *Changes.__dataclass_fields__}


def test_a_record_comes_back_from_its_file_with_its_parameters(tmp_path: Path) -> None:
    record = a_record(a_ranking("AB", "AB"), doc_ids=(DOC,))
    (tmp_path / "q.json").write_text(json.dumps(record), encoding="utf-8")
    assert read_record(tmp_path / "q.json") == record
    assert parameters(record) == Parameters("Which one?", 50, 2, True, (DOC,))


def damaged(change: Callable[[dict[str, Any]], object]) -> bytes:
    record = a_record(a_ranking("AB", "AB"))
    change(record)
    return json.dumps(record).encode()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not JSON"),
        (b"%PDF-1.7", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"format": NaN}', "is not JSON"),
        (b"[]", "is not an exported question"),
        (b'{"question": "q"}', "is not an exported question"),
        (damaged(lambda r: r.update(version=2)), "has version 2 of the format; this app reads version 1"),
        (damaged(lambda r: r.pop("question")), "damaged export: question is missing"),
        (damaged(lambda r: r["parameters"].update(depth="50")), "parameters.depth"),
        (damaged(lambda r: r["parameters"].update(doc_ids=[1])), "parameters.doc_ids"),
        (damaged(lambda r: r["parameters"].update(depth=501)), "more than 500 candidates"),
        (damaged(lambda r: r.update(models=[])), "models"),
        (damaged(lambda r: r["candidates"].append(1)), "candidates"),
        (damaged(lambda r: r["candidates"][1]["chunk"].pop("id")), "candidates.chunk.id"),
        (damaged(lambda r: r["candidates"][0].update(logit="high")), "candidates.logit"),
    ],
)
def test_wrong_and_foreign_files_are_refused_with_the_reason(
    tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "q.json").write_bytes(content)
    with pytest.raises(BadRequest, match=said):
        read_record(tmp_path / "q.json")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"Cannot read .*nowhere\.json"):
        read_record(tmp_path / "nowhere.json")
