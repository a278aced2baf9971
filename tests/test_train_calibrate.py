"""Calibration on numbers that can be worked out by hand, and a card that the app can load."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from ingest.errors import BadRequest
from rag.lexical import bm25
from rag.rerank import BUNDLED_FOLDER, load_adapter
from rag.train.__main__ import main
from rag.train.calibrate import Asked, ask, calibrate, calibration_error, fit_sigmoid, flagged
from rag.train.mine import Listed
from rag.train.options import Options
from tests.fakes import WordEmbedder, length_reranker
from tests.test_train import write_pairs


def an_asked(best: float, without: float) -> Asked:
    scores = np.array([best, without, without - 1], np.float32)
    return Asked(scores, np.array([True, False, False]), scores[1:])


def test_the_sigmoid_is_fitted_and_its_error_is_zero_where_it_is_right() -> None:
    points = np.repeat(np.array([-1.0, 1.0], np.float32), 100)
    labels = np.array([1] * 25 + [0] * 75 + [1] * 75 + [0] * 25, np.float32)
    scale, offset = fit_sigmoid(points, labels)
    assert scale == pytest.approx(math.log(3), abs=1e-3)  # sigmoid(ln 3) = 3/4
    assert offset == pytest.approx(0, abs=1e-3)
    assert calibration_error(np.full(4, 0.75, np.float32), np.array([1, 1, 1, 0], np.float32)) == 0
    assert calibration_error(np.full(4, 0.75, np.float32), np.zeros(4, np.float32)) == 0.75


def test_the_threshold_lets_one_in_fifty_questions_with_an_answer_fall_below() -> None:
    asked = [an_asked(best, without=1.0) for best in range(101)]  # best scores 0, 1, ... 100
    card = calibrate(asked)
    scale, offset = card["calibration"]["scale"], card["calibration"]["offset"]
    limit = (math.log(card["threshold"] / (1 - card["threshold"])) - offset) / scale
    assert limit == pytest.approx(2, abs=0.3)  # the 2 % point of 0 ... 100; the card rounds
    assert card["threshold_quality"]["false_alarms"] == pytest.approx(0.02, abs=0.02)
    assert card["threshold_quality"]["recall"] == 1  # 1 is below 2, in all
    assert card["threshold_quality"]["questions"] == 101


def test_too_few_questions_are_not_calibrated_on() -> None:
    with pytest.raises(BadRequest, match="too few"):
        calibrate([an_asked(1, 0)])


def test_taking_the_answer_away_counts_the_words_of_the_others_anew() -> None:
    texts = ["an otter", "an otter and a heron", "a heron"]
    numbers = np.arange(3, dtype=np.int32)
    known = np.stack([np.array([0.9, 0.5, 0.1]), bm25("otter", texts)], axis=1).astype(np.float32)
    one = Listed("zoo", "otter", numbers, known, np.array([True, False, False]), 3)
    unanswered = Listed("zoo", "otter", numbers, known, np.zeros(3, bool), 3)
    logits = np.array([3, 2, 1], np.float32)
    (asked,) = ask([one, unanswered], [logits, logits], texts, Options(cosine=10, bm25=2))
    np.testing.assert_allclose(asked.scores, logits + 10 * known[:, 0] + 2 * known[:, 1])
    np.testing.assert_allclose(asked.without, [2 + 5, 1 + 1] + 2 * bm25("otter", texts[1:]), rtol=1e-6)


def write_set(folder: Path) -> None:
    corpus = [{"_id": "1", "title": "", "text": "apple pear plum"}, {"_id": "2", "title": "", "text": "fig"}]
    questions = [
        {"_id": "a", "text": "apple pear plum", "answerability": ["ANSWERABLE"]},
        {"_id": "b", "text": "cherry", "answerability": ["UNANSWERABLE"]},
        {
            "_id": "c",
            "text": "and it",
            "history": [["user", "apple pear plum"]],
            "answerability": ["ANSWERABLE"],
        },
    ]
    for name, rows in (("corpus", corpus), ("queries", questions)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_questions_said_to_be_not_in_the_documents_are_counted_by_kind(tmp_path: Path) -> None:
    write_set(tmp_path)
    # words of the passage + 2 x cosine, at most 3 + 2: the cherry gets 3 + 0, a chance of .953
    reranker = length_reranker(cosine_weight=2.0, threshold=0.96)
    counts = flagged(tmp_path, reranker, WordEmbedder())
    assert counts == {"ANSWERABLE": (2, 0), "UNANSWERABLE": (1, 1)}
    with pytest.raises(BadRequest, match="no threshold"):
        flagged(tmp_path, length_reranker(), WordEmbedder())
    with pytest.raises(BadRequest, match="There is no"):
        flagged(tmp_path / "elsewhere", reranker, WordEmbedder())


def test_an_adapter_is_calibrated_anew_without_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pairs(tmp_path / "pairs")
    out = tmp_path / "out"
    wanted = ["--hold-out", "zoo", "--cosine", "12", "--bm25", "0.25", "--name", "anew"]
    given = [str(tmp_path / "pairs"), "--calibrate-only", "--start", str(BUNDLED_FOLDER), "--out", str(out)]
    assert main([*given, *wanted]) == 0
    assert "nDCG@10 on these 18 lists" in capsys.readouterr().out
    loaded = load_adapter(out)
    assert (loaded.name, loaded.cosine_weight, loaded.bm25_weight) == ("anew", 12, 0.25)
    assert loaded.revision == load_adapter(BUNDLED_FOLDER).revision
    card = json.loads((out / "reranker.json").read_text())
    assert card["score"] == {"logit": 1.0, "cosine": 12.0, "bm25": 0.25}
    assert card["threshold_quality"]["rule"] == "at most 2% false alarms"
    assert loaded.calibration.threshold == card["threshold"]
