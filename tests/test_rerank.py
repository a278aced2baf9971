from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sentence_transformers import CrossEncoder

from ingest.errors import ModelUnavailable, RerankFailed
from ingest.weights import bundled_minilm
from rag.lexical import bm25
from rag.rerank import (
    BUNDLED,
    BUNDLED_FOLDER,
    Calibration,
    LibraryCrossEncoder,
    PackedCrossEncoder,
    PairScores,
    Reranker,
    load_adapter,
    load_reranker,
    merge_adapter,
    rerank,
    self_test,
    windows,
)
from rag.types import Hit
from tests.fakes import BrokenModel, LengthModel, a_chunk, length_reranker

TEXTS = ["pear", "pear pear pear", "pear pear", "plum plum plum"]
HITS = [Hit(a_chunk(text, start=n), 0.9 - n / 10, n + 1) for n, text in enumerate(TEXTS)]


def test_the_order_is_by_logit_and_ties_keep_the_order_of_the_hits() -> None:
    order = rerank("q", HITS, length_reranker())
    assert [ranked.hit.rank for ranked in order] == [2, 4, 3, 1]
    assert [ranked.rank for ranked in order] == [1, 2, 3, 4]
    assert [ranked.moved for ranked in order] == [1, 2, 0, -3]


def test_reranking_is_a_permutation_of_the_hits() -> None:
    order = rerank("q", HITS, length_reranker())
    assert sorted(ranked.hit.rank for ranked in order) == [1, 2, 3, 4]
    assert {ranked.hit for ranked in order} == set(HITS)


def test_the_score_is_the_logit_plus_the_weighted_cosine_and_its_parts_are_kept() -> None:
    best = rerank("q", HITS, length_reranker(cosine_weight=10))[0]
    assert best.logit == pytest.approx(3 + 10 * 0.8)
    assert [(part.name, part.value) for part in best.parts] == [
        ("cross-encoder logit", 3.0),
        ("10 x cosine", pytest.approx(8.0)),
    ]


def test_bm25_is_a_part_of_the_score_where_it_has_a_weight() -> None:
    best = rerank("plum", HITS, length_reranker(bm25_weight=0.5))[0]
    assert best.hit.chunk.text == "plum plum plum"
    words = float(bm25("plum", TEXTS)[3])
    assert [(part.name, part.value) for part in best.parts] == [
        ("cross-encoder logit", 3.0),
        ("0.5 x BM25", pytest.approx(0.5 * words)),
    ]
    assert best.logit == pytest.approx(3 + 0.5 * words)


def test_the_parts_of_a_score_add_up_to_it(reranker: Reranker) -> None:
    for ranked in rerank("how many pears and plums?", HITS, reranker):
        assert sum(part.value for part in ranked.parts) == pytest.approx(ranked.logit, abs=1e-4)


def test_no_hits_give_an_empty_order() -> None:
    assert rerank("q", [], length_reranker()) == ()


def test_a_model_that_breaks_is_told_with_its_name() -> None:
    with pytest.raises(RerankFailed, match="sick failed: out of memory"):
        rerank("q", HITS, Reranker("sick", BrokenModel(), 0, Calibration()))


def test_a_score_that_is_not_a_number_is_not_ranked() -> None:
    nan_cosine = [Hit(HITS[0].chunk, float("nan"), 1)]
    with pytest.raises(RerankFailed, match="not a number"):
        rerank("q", nan_cosine, length_reranker(cosine_weight=1))


@pytest.mark.parametrize(("score", "expected"), [(0.0, 0.5), (1000.0, 1.0), (-1000.0, 0.0), (1.0, 0.7310586)])
def test_the_probability_is_a_sigmoid(score: float, expected: float) -> None:
    assert Calibration().probability(score) == pytest.approx(expected)


def test_a_model_that_cannot_tell_passages_apart_is_refused() -> None:
    class Coin(LengthModel):
        def logits(self, question: str, passages: Sequence[str]) -> PairScores:
            return PairScores(np.zeros(len(passages), np.float32), (False,) * len(passages))

    with pytest.raises(ModelUnavailable, match="self-test"):
        self_test(Reranker("coin", Coin(), 0, Calibration()))


def test_the_bundled_reranker_prefers_the_answer(reranker: Reranker) -> None:
    hits = [
        Hit(a_chunk("The plan does not cover eyeglasses."), 0.5, 1),
        Hit(a_chunk("The standard plan covers dental cleaning twice a year.", start=1), 0.5, 2),
    ]
    assert rerank("How often is dental cleaning covered?", hits, reranker)[0].hit.rank == 2


def test_logits_are_those_of_the_library_in_float32() -> None:
    model = CrossEncoder(str(bundled_minilm()), num_labels=1, device="cpu", local_files_only=True)
    merge_adapter(model.model, BUNDLED_FOLDER / "adapter.safetensors")
    model.eval()
    passages = [
        "Short.",
        "The pump needs oil every 500 hours. " * 20,
        "Short again.",
        "Another one of words.",
    ]
    pairs = [("How often does the pump need oil?", passage) for passage in passages]
    expected = model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    packed = PackedCrossEncoder(bundled_minilm(), model.model.state_dict(), torch.float32)
    np.testing.assert_allclose(packed.logits(pairs[0][0], passages).logits, expected, atol=2e-4)


def test_a_passage_beyond_the_limit_is_said_to_be_truncated(reranker: Reranker) -> None:
    scores = reranker.model.logits("oil?", ["short", "word " * 600])
    assert scores.truncated == (False, True)
    assert reranker.model.logits("why " * 200, ["short"]).truncated == (True,)


def test_a_chunk_of_200_tokens_with_its_heading_is_never_truncated(reranker: Reranker) -> None:
    passage = f"{'heading ' * 40}\n{'word ' * 200}"
    assert reranker.model.logits("question " * 120, [passage]).truncated == (False,)


def test_an_altered_adapter_is_refused(tmp_path: Path) -> None:
    shutil.copytree(BUNDLED_FOLDER, tmp_path / "r")
    with (tmp_path / "r" / "adapter.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelUnavailable, match="altered"):
        load_adapter(tmp_path / "r")


def test_the_weights_of_an_adapters_card_are_those_of_its_score(tmp_path: Path) -> None:
    shutil.copytree(BUNDLED_FOLDER, tmp_path / "r")
    card = json.loads((tmp_path / "r" / "reranker.json").read_text())
    card["score"] = {"logit": 1.0, "cosine": 7.0, "bm25": 0.25}
    (tmp_path / "r" / "reranker.json").write_text(json.dumps(card))
    loaded = load_reranker(str(tmp_path / "r"))
    assert (loaded.cosine_weight, loaded.bm25_weight, loaded.revision) == (7.0, 0.25, card["adapter_sha256"])


def test_a_broken_card_is_refused(tmp_path: Path) -> None:
    (tmp_path / "reranker.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(ModelUnavailable, match="cannot be read"):
        load_adapter(tmp_path)


def test_a_model_without_one_output_is_no_reranker(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="no/such"):
        load_reranker("no/such")
    folder = tmp_path / "two-labels"
    model = CrossEncoder(str(bundled_minilm()), num_labels=2, device="cpu", local_files_only=True)
    model.save_pretrained(str(folder))
    with pytest.raises(ModelUnavailable, match="2 numbers"):
        load_reranker(str(folder))


def test_a_merged_adapter_adds_the_low_rank_product(tmp_path: Path) -> None:
    linear = torch.nn.Linear(2, 2)
    before = linear.weight.detach().clone()
    tensors = {
        "a.lora_A": torch.tensor([[1.0, 2.0]]),
        "a.lora_B": torch.tensor([[3.0], [4.0]]),
        "a.bias": torch.tensor([7.0, 8.0]),
    }
    save_file(tensors, tmp_path / "a.safetensors")
    merge_adapter(torch.nn.ModuleDict({"a": linear}), tmp_path / "a.safetensors")
    added = linear.weight.detach() - before
    torch.testing.assert_close(added, torch.tensor([[3.0, 6.0], [4.0, 8.0]]))
    assert linear.bias.tolist() == [7.0, 8.0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder saved as a folder of its own, as people download or train them."""
    model = CrossEncoder(str(bundled_minilm()), num_labels=1, device="cpu", local_files_only=True)
    merge_adapter(model.model, BUNDLED_FOLDER / "adapter.safetensors")
    saved = tmp_path_factory.mktemp("rerankers") / "mine"
    model.save_pretrained(str(saved))
    return saved


def test_a_folder_with_a_cross_encoder_is_a_reranker_without_a_cosine_term(folder: Path) -> None:
    mine = load_reranker(str(folder))
    assert (mine.name, mine.cosine_weight, mine.bm25_weight) == (str(folder), 0.0, 0.0)
    assert mine.calibration.threshold is None
    hits = [Hit(a_chunk("Preheat the oven."), 0.9, 1), Hit(a_chunk("Oil the pump daily.", start=1), 0.1, 2)]
    best = rerank("How often is the pump oiled?", hits, mine)[0]
    assert best.hit.rank == 2
    assert [part.name for part in best.parts] == ["cross-encoder logit"]


def test_the_librarys_way_gives_the_same_logits_and_says_what_it_cut(folder: Path) -> None:
    model = CrossEncoder(str(folder), device="cpu", local_files_only=True)
    library = LibraryCrossEncoder(model, torch.device("cpu"), torch.float32)
    packed = PackedCrossEncoder(folder, model.model.state_dict(), torch.float32)
    passages = ["Oil the pump daily.", "Preheat the oven to 200 degrees before you bake."]
    question = "How often is the pump oiled?"
    np.testing.assert_allclose(
        library.logits(question, passages).logits, packed.logits(question, passages).logits, atol=2e-4
    )
    assert library.logits(question, ["short", "word " * 900]).truncated == (False, True)
    assert library.logits(question, []).logits.shape == (0,)


def test_a_long_passage_is_read_in_windows_that_leave_nothing_out_and_its_best_one_counts() -> None:
    words = [f"w{number}" for number in range(400)]
    passage = "  ".join(words)
    parts = windows(passage, 160)
    read = [part.split() for part in parts]
    assert {len(one) for one in read} == {160}
    assert len(parts) == 3
    assert sorted({word for one in read for word in one}) == sorted(words)
    assert all(len({*one} & {*other}) == 40 for one, other in pairwise(read))
    assert windows(passage, 400) == [passage] == windows(passage, 0)

    class Places:
        """The number of the first word is the logit; a window that begins late was cut."""

        device = "none"

        def logits(self, question: str, passages: Sequence[str]) -> PairScores:
            first = [float(passage.split()[0][1:]) for passage in passages]
            return PairScores(np.array(first, np.float32), tuple(number > 200 for number in first))

    reranker = Reranker("places", Places(), 0.0, Calibration(), window_words=160)
    scored = reranker.score("q", ["w7", passage, "w5 w6"], [0.0] * 3)
    assert scored.logits.tolist() == [7.0, 240.0, 5.0]
    assert scored.truncated == (False, True, False)


def test_the_bundled_reranker_finds_the_answer_behind_the_512th_token() -> None:
    reranker = load_reranker(BUNDLED)
    filler = "The lake is deep and cold in winter, and its shores are quiet. " * 60
    scored = reranker.score(
        "How long is the warranty?", [filler, f"{filler}The warranty lasts 24 months."], [0.0] * 2
    )
    assert scored.truncated == (False, False)
    assert scored.logits[1] > scored.logits[0] + 1
