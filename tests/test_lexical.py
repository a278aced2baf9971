from __future__ import annotations

import math

import numpy as np
import pytest
from qdrant_edge import Bm25

from rag.lexical import bm25


def test_a_rare_word_weighs_its_idf_times_its_term_weight() -> None:
    passages = ["pump oil", "pump water", "pump sand"]
    weight = Bm25().embed_document("pump oil").values[0]  # both words occur once: equal weights
    expected = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5)) * weight
    assert bm25("oil", passages).tolist() == [pytest.approx(expected), 0.0, 0.0]


def test_a_word_that_all_passages_hold_counts_little() -> None:
    scores = bm25("pump oil", ["pump oil", "pump water", "pump sand"])
    assert scores[0] > 3 * scores[1] > 0
    assert scores[1] == pytest.approx(scores[2])


def test_inflected_words_are_the_same_word() -> None:
    assert bm25("warranties", ["The warranty ends.", "The lake is deep."])[0] > 0


def test_no_shared_word_and_no_passage_score_nothing() -> None:
    assert bm25("violin", ["pump oil", "pump water"]).tolist() == [0.0, 0.0]
    assert bm25("violin", []).shape == (0,)
    assert bm25("", ["pump oil"]).tolist() == [0.0]


def test_scores_are_float32_and_do_not_depend_on_the_order_of_the_passages() -> None:
    passages = ["oil every 500 hours", "oil of grade 46", "clean the filter"]
    scores = bm25("which oil grade", passages)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(bm25("which oil grade", passages[::-1]), scores[::-1], rtol=1e-6)
