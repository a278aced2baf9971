"""Training on a few planted pairs: small enough to run in seconds, with the real backbone."""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingest.errors import BadRequest
from ingest.weights import bundled_minilm
from rag import train as t

ANIMALS = (
    "otter",
    "heron",
    "badger",
    "lynx",
    "newt",
    "wren",
    "stoat",
    "carp",
    "ibex",
    "moth",
    "toad",
    "swan",
)
PLACES = (
    "river",
    "marsh",
    "forest",
    "ridge",
    "pond",
    "hedge",
    "field",
    "lake",
    "cliff",
    "lamp",
    "ditch",
    "bay",
)
OPTIONS = t.Options(
    steps=4, groups=4, negatives=2, learning_rate=1e-4, validation=4, headings=0.0, average=0.5, rank=384
)


def write_pairs(folder: Path, *, repeat: int = 1) -> None:
    """Who sleeps where, and two questions a passage; every other animal's passage is a negative."""
    texts = [
        f"At night the {animal} sleeps near the {place}."
        for animal, place in zip(ANIMALS, PLACES, strict=True)
    ]
    rows: list[dict[str, Any]] = []
    for number, animal in enumerate(ANIMALS):
        negatives = [(number + step) % len(texts) for step in (1, 2, 3)]
        for question in (f"Where does the {animal} sleep?", f"The {animal} at night"):
            rows.append(
                {
                    "src": "zoo",
                    "q": question,
                    "pos": number,
                    "neg": negatives,
                    "pc": 0.5,
                    "nc": [0.5] * 3,
                    "rank": 0,
                }
            )
    with gzip.open(folder / "pairs.jsonl.gz", "wt", encoding="utf-8") as file:
        for item in [*({"t": text} for text in texts), *rows * repeat]:
            file.write(json.dumps(item) + "\n")


@pytest.fixture
def pairs(tmp_path: Path) -> t.Pairs:
    write_pairs(tmp_path)
    found = t.read_pairs(tmp_path)
    # half of the animals, by name, are held out: too few texts for the hash alone to pick some
    groups = [g._replace(source="held" if g.passages[0] >= 8 else "zoo") for g in found.groups]
    return t.Pairs(found.texts, groups, found.hashes)


@pytest.fixture
def options() -> t.Options:
    return replace(OPTIONS, held_out=("held",))


def alone() -> t.Team:
    return t.Team(0, 1, 0)


def quiet(_: str) -> None:
    pass


def test_reads_texts_rows_and_hashes(pairs: t.Pairs) -> None:
    assert len(pairs.texts) == 12
    assert len(pairs.groups) == 24
    assert pairs.groups[0].passages == (0, 1, 2, 3)
    assert pairs.groups[0].known.shape == (4, 2)
    assert list(pairs.hashes) == ["pairs.jsonl.gz"]
    assert len(pairs.hashes["pairs.jsonl.gz"]) == 64


def test_bm25_counts_rare_words_within_the_passages_given() -> None:
    found = t.bm25("the otter", ["an otter", "a heron and an eel", "a newt"])
    assert found[0] > 0
    assert found[1] == found[2] == 0
    assert t.bm25("otter", []).shape == (0,)


def test_a_folder_without_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="No pairs"):
        t.read_pairs(tmp_path)


def test_no_question_and_no_answer_is_on_both_sides_of_the_split(pairs: t.Pairs, options: t.Options) -> None:
    training, validation = t.split(pairs, options)
    assert len(validation) == 4
    assert training
    assert not {t.plain(g.question) for g in training} & {t.plain(g.question) for g in validation}
    assert not {g.passages[0] for g in training} & {g.passages[0] for g in validation}


def test_the_split_does_not_depend_on_the_order_of_the_rows(pairs: t.Pairs, options: t.Options) -> None:
    turned = t.Pairs(pairs.texts, pairs.groups[::-1], pairs.hashes)
    everything = replace(options, validation=100)
    assert {g.question for g in t.split(pairs, everything)[1]} == {
        g.question for g in t.split(turned, everything)[1]
    }


def test_loss_goes_down(pairs: t.Pairs, options: t.Options, tmp_path: Path) -> None:
    lines: list[str] = []
    t.train(pairs, tmp_path, replace(options, steps=8), team=alone(), say=lines.append)
    record = json.loads((tmp_path / "run.json").read_text())
    losses = [evaluation["loss"] for evaluation in record["evaluations"]]
    assert min(losses[1:]) < losses[0]
    assert record["options"]["steps"] == 8
    assert "min left" in lines[-1]


def test_resuming_gives_the_same_as_not_being_interrupted(
    pairs: t.Pairs, options: t.Options, tmp_path: Path
) -> None:
    class Unplugged(Exception):
        pass

    def unplug(line: str) -> None:
        if line.startswith("evaluation at step 3"):
            raise Unplugged

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    expected = t.train(pairs, whole, options, team=alone(), say=quiet)
    with pytest.raises(Unplugged):
        t.train(pairs, broken, options, team=alone(), say=unplug)
    found = t.train(pairs, broken, options, team=alone(), resume=True, say=quiet)
    for name, tensor in expected.masters.items():
        assert tensor.equal(found.masters[name]), name
        assert expected.averages[name].equal(found.averages[name]), name


def test_other_options_cannot_resume(pairs: t.Pairs, options: t.Options, tmp_path: Path) -> None:
    t.train(pairs, tmp_path, replace(options, steps=1), team=alone(), say=quiet)
    with pytest.raises(BadRequest, match="other options"):
        t.train(pairs, tmp_path, options, team=alone(), resume=True, say=quiet)


def test_the_adapter_written_is_the_adapter_loaded(tmp_path: Path) -> None:
    import torch
    from transformers import BertForSequenceClassification

    from rag.rerank import merge_adapter

    base, heads = t.load_backbone(1)
    generator = torch.Generator().manual_seed(2)
    changed = {
        name: tensor + 0.01 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in base.items()
        if name.startswith(("bert.encoder.layer.5.", "bert.pooler.", "classifier."))
    }
    path = tmp_path / "adapter.safetensors"
    t.export(changed, base, path, rank=384)
    loaded = t.with_adapter(base, path)
    for name, tensor in {**base, **changed}.items():
        torch.testing.assert_close(loaded[name], tensor, atol=2e-3, rtol=2e-3)

    model: Any = BertForSequenceClassification.from_pretrained(str(bundled_minilm()), num_labels=1)
    model.eval()
    merge_adapter(model, path)
    words = t.Tokenized(
        bundled_minilm(), ["The otter sleeps.", "A much longer text about a heron and a lake."]
    )
    pairs = [t.Pair(words.encode("Who sleeps?"), words.passage(number)) for number in (0, 1)]
    ids, types, mask = t._pad(pairs, 64)
    with torch.no_grad():
        expected = model(input_ids=ids, token_type_ids=types, attention_mask=mask).logits[:, 0].numpy()
    np.testing.assert_allclose(t.predict(loaded, heads, pairs, 64), expected, atol=1e-4)


def test_gain_is_one_at_the_top_and_ties_lose() -> None:
    assert t.gain(np.array([3, 1, 2], np.float32)) == 1
    assert t.gain(np.array([2, 3, 1], np.float32)) == 1 / math.log2(3)
    assert t.gain(np.array([1, 1], np.float32)) == 1 / math.log2(3)


def test_learning_rate_rises_then_falls_to_nothing() -> None:
    options = t.Options(learning_rate=1.0, warmup=0.5)
    assert [t.learning_rate(share, options) for share in (0.0, 0.25, 0.5, 0.75, 1.0)] == [0, 0.5, 1, 0.5, 0]


def test_groups_that_cosine_and_bm25_solve_are_mostly_left_out() -> None:
    known = np.array([[0.9, 0], [0.1, 0]], np.float32)  # 20 x 0.8 apart: loss e**-16
    solved = [t.Group("a", str(number), (0, 1), known) for number in range(50)]
    open_ones = [t.Group("a", "q", (0, 1), np.zeros((2, 2), np.float32))]
    assert t.order([*solved, *open_ones], t.Options(easy=0.0)) == [50]


def test_the_sigmoid_is_fitted_and_its_error_is_zero_where_it_is_right() -> None:
    points = np.repeat(np.array([-1.0, 1.0], np.float32), 100)
    labels = np.array([1] * 25 + [0] * 75 + [1] * 75 + [0] * 25, np.float32)
    scale, offset = t.fit_sigmoid(points, labels)
    assert scale == pytest.approx(math.log(3), abs=1e-3)  # sigmoid(ln 3) = 3/4
    assert offset == pytest.approx(0, abs=1e-3)
    assert t.calibration_error(np.full(4, 0.75, np.float32), np.array([1, 1, 1, 0], np.float32)) == 0


def test_the_threshold_separates_answerable_from_unanswerable() -> None:
    relevant = np.array([True, False])
    found = [t.Candidates(str(n), (0, 1), np.zeros((2, 2), np.float32), relevant) for n in range(8)]
    scores = [np.array([5 + n / 8, -5 - n / 8], np.float32) for n in range(8)]
    card = t.calibrate(found, scores, shown=2)
    assert card["threshold_quality"] == {"precision": 1, "recall": 1, "false_alarms": 0}
    assert 0 < card["threshold"] <= 1
