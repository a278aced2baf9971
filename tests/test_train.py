"""Training on a few planted pairs: small enough to run in seconds, with the real backbone."""

from __future__ import annotations

import gzip
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingest.embed import Embedder
from ingest.errors import BadRequest
from ingest.weights import bundled_minilm
from rag import lexical
from rag.rerank import load_adapter
from rag.train.__main__ import main
from rag.train.batch import draw
from rag.train.learn import Material, Team, learning_rate, train
from rag.train.measure import gain
from rag.train.mine import Lexicon, Listed, find_lists
from rag.train.model import (
    Pair,
    Tokenized,
    _pad,
    export,
    load_backbone,
    low_rank,
    predict,
    with_adapter,
)
from rag.train.options import Options
from rag.train.pairs import Labelled, Pairs, gather, order, plain, read_pairs, sample, split

ROOT = Path(__file__).resolve().parents[1]

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
TEXTS = [
    f"At night the {animal} sleeps near the {place}." for animal, place in zip(ANIMALS, PLACES, strict=True)
]
OPTIONS = Options(
    steps=4,
    groups=4,
    negatives=3,
    uniform=1,
    learning_rate=1e-4,
    headings=0.5,
    average=0.5,
    rank=384,
    alone=0.6,
)


def a_row(question: str, position: int, **other: Any) -> dict[str, Any]:
    return {"src": "zoo", "q": question, "pos": position, "rank": 0} | other


def write_pairs(folder: Path) -> None:
    """Who sleeps where, two questions a passage; the last four animals are in a source of their own."""
    rows = [
        a_row(question, number, src="zoo" if number < 8 else "wild")
        for number, animal in enumerate(ANIMALS)
        for question in (f"Where does the {animal} sleep?", f"The {animal} at night")
    ]
    folder.mkdir(exist_ok=True)
    with gzip.open(folder / "pairs.jsonl.gz", "wt", encoding="utf-8") as file:
        for item in [*({"t": text} for text in TEXTS), *rows]:
            file.write(json.dumps(item) + "\n")


@pytest.fixture
def pairs(tmp_path: Path) -> Pairs:
    write_pairs(tmp_path / "pairs")
    return read_pairs(tmp_path / "pairs")


def a_list(question: str, relevant: int, *, source: str = "zoo") -> Listed:
    """All texts as candidates, all of them equally near, the right one in its place."""
    numbers = np.arange(len(TEXTS), dtype=np.int32)
    known = np.zeros((len(TEXTS), 2), np.float32)
    return Listed(source, question, numbers, known, numbers == relevant, len(TEXTS))


@pytest.fixture
def material() -> Material:
    lists = [a_list(f"Where does the {animal} sleep?", number) for number, animal in enumerate(ANIMALS)]
    return Material(TEXTS, lists[:8], lists[8:])


def alone() -> Team:
    return Team(0, 1, 0)


def quiet(_: str) -> None:
    pass


def test_reads_texts_rows_and_hashes(pairs: Pairs) -> None:
    assert pairs.texts == TEXTS
    assert len(pairs.questions) == 24
    assert pairs.questions[0] == Labelled("zoo", "Where does the otter sleep?", (0,))
    assert list(pairs.hashes) == ["pairs.jsonl.gz"]
    assert len(pairs.hashes["pairs.jsonl.gz"]) == 64


def test_a_folder_without_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="No pairs"):
        read_pairs(tmp_path)


def test_a_question_of_several_rows_has_all_their_answers_and_never_one_as_a_wrong_one() -> None:
    rows = [
        a_row("Who eats?", 0),
        a_row("who eats", 1),
        a_row("Who eats?", 2, rank=61),  # too far down to be trusted, perhaps right all the same
        a_row("Who drinks?", 2, rank=61),
    ]
    (only,) = gather(["The cat eats.", "A dog eats.", "Eating is done by hens."], rows, {}).questions
    assert only == Labelled("zoo", "Who eats?", (0, 1), (2,))


def test_texts_that_differ_in_form_alone_are_one() -> None:
    pairs = gather(["The cat eats.", "the CAT eats", "A dog."], [a_row("Who?", 1)], {})
    assert pairs.questions[0].relevant == (0,)
    assert pairs.pool == [0, 2]


def many_pairs() -> Pairs:
    """400 questions on 200 texts, a third of them in a source of its own."""
    rows = [a_row(f"Question {n}?", n % 200, src="a" if n % 3 else "b") for n in range(400)]
    rows += [a_row("Question 1?", 5)]  # an answer that another question has as well
    return gather([f"Text number {n}." for n in range(200)], rows, {})


def test_no_question_and_no_answer_is_on_both_sides_of_the_split() -> None:
    pairs = many_pairs()
    training, held = split(pairs)
    assert training
    assert held
    assert not {plain(one.question) for one in training} & {plain(one.question) for one in held}
    assert not {n for one in training for n in one.relevant} & {n for one in held for n in one.relevant}


def test_the_split_does_not_depend_on_the_order_of_the_rows() -> None:
    pairs = many_pairs()
    turned = replace(pairs, questions=pairs.questions[::-1])
    assert split(turned)[1] == split(pairs)[1]
    assert {one.question for one in split(turned)[0]} == {one.question for one in split(pairs)[0]}


def test_sources_held_out_are_held_out_whole_and_take_turns() -> None:
    training, held = split(many_pairs(), held_out=["b"])
    assert {one.source for one in training} == {"a"}
    assert {one.source for one in held[:2]} == {"a", "b"}


def test_a_sample_keeps_the_order() -> None:
    questions = many_pairs().questions
    some = sample(questions, 10, seed=1)
    assert len(some) == 10
    assert some == [one for one in questions if one in some]
    assert sample(questions, 1000, seed=1) == questions


def test_small_sources_come_early() -> None:
    sources = ["large"] * 900 + ["small"] * 100
    early = order(sources, seed=1)[:200]
    assert sum(position >= 900 for position in early) > 25  # 20 would be their share
    assert order(sources, seed=1)[:200] == early


def test_bm25_of_a_list_is_that_of_the_app() -> None:
    texts = ["an otter swims", "a heron and an eel", "an otter and a heron", "a newt"]
    for question in ("the otter and heron", "otters", "nothing of it"):
        expected = lexical.bm25(question, [texts[2], texts[0], texts[3]])
        np.testing.assert_array_equal(Lexicon(texts).bm25(question, [2, 0, 3]), expected)
    assert Lexicon(texts).bm25("otter", []).shape == (0,)


def test_candidates_are_the_nearest_and_doubtful_texts_are_none(embedder: Embedder, tmp_path: Path) -> None:
    texts = [
        "The heron sleeps in the marsh.",
        "Birds. The heron sleeps in the marsh. So it is.",  # contains the answer
        "The heron is asleep in the marsh.",  # says the same
        "A heron in a marsh",  # labelled, but not trusted
        "The lynx sleeps on the ridge.",
        "Preheat the oven to 200 degrees.",
    ]
    pairs = gather(texts, [a_row("Where does the heron sleep?", 0)], {})
    question = replace(pairs.questions[0], doubtful=(3,))
    (one,) = find_lists(pairs, [question], embedder, cache=tmp_path, depth=50, say=quiet)
    assert one.numbers.tolist() == [0, 4, 5]
    assert one.relevant.tolist() == [True, False, False]
    assert one.known[:, 0].tolist() == sorted(one.known[:, 0].tolist(), reverse=True)
    np.testing.assert_array_equal(
        one.known[:, 1], lexical.bm25(question.question, [texts[n] for n in (0, 4, 5)])
    )


def test_a_passage_that_is_not_found_is_listed_last_and_not_measured(
    embedder: Embedder, tmp_path: Path
) -> None:
    texts = ["Preheat the oven to 200 degrees.", *TEXTS]
    pairs = gather(texts, [a_row("Where does the otter sleep?", 0)], {})
    (one,) = find_lists(pairs, pairs.questions, embedder, cache=tmp_path, depth=3, say=quiet)
    assert (one.retrieved, len(one.numbers), one.numbers[-1]) == (3, 4, 0)
    assert one.relevant.tolist() == [False, False, False, True]
    assert not one.found.relevant.any()


def test_lists_come_from_the_cache_only_for_the_same_questions(
    pairs: Pairs, embedder: Embedder, tmp_path: Path
) -> None:
    class Unused:
        id = embedder.id

    first = find_lists(pairs, pairs.questions, embedder, cache=tmp_path, say=quiet)
    again = find_lists(pairs, pairs.questions, Unused(), cache=tmp_path, say=quiet)  # type: ignore[arg-type]
    for one, other in zip(first, again, strict=True):
        assert one.question == other.question
        np.testing.assert_array_equal(one.numbers, other.numbers)
        np.testing.assert_array_equal(one.known, other.known)
        np.testing.assert_array_equal(one.relevant, other.relevant)
        assert one.retrieved == other.retrieved
    with pytest.raises(AttributeError, match="embed"):
        find_lists(pairs, pairs.questions[1:], Unused(), cache=tmp_path, say=quiet)  # type: ignore[arg-type]


def test_a_step_draws_one_right_passage_and_mostly_those_that_look_right() -> None:
    known = np.zeros((50, 2), np.float32)
    known[:10, 0] = 1.0  # 20 points above the rest
    relevant = np.arange(50) == 30
    one = Listed("zoo", "q", np.arange(50, dtype=np.int32), known, relevant, 50)
    options = replace(OPTIONS, negatives=6, uniform=2)
    drawn = [draw(one, options, np.random.default_rng(seed)) for seed in range(40)]
    assert all(places[0] == 30 and 30 not in places[1:] for places in drawn)
    assert all(len(set(places)) == 7 for places in drawn)
    assert all(sum(place < 10 for place in places[1:5]) == 4 for places in drawn)
    assert any(place >= 40 for places in drawn for place in places[5:])


def test_a_short_list_gives_its_passages_several_times() -> None:
    one = Listed(
        "zoo", "q", np.arange(2, dtype=np.int32), np.zeros((2, 2), np.float32), np.array([0, 1]) > 0, 2
    )
    assert draw(one, OPTIONS, np.random.default_rng(1)) == [1, 0, 0, 0]


def test_loss_goes_down(material: Material, tmp_path: Path) -> None:
    lines: list[str] = []
    train(material, tmp_path, replace(OPTIONS, steps=6), team=alone(), say=lines.append)
    record = json.loads((tmp_path / "run.json").read_text())
    losses = [evaluation["loss"] for evaluation in record["evaluations"]]
    assert min(losses[1:]) < losses[0]
    assert record["options"]["steps"] == 6
    assert len(record["adapter_sha256"]) == 64
    assert "min left" in lines[-1]


def test_the_adapter_kept_is_the_best_and_the_start_takes_part(material: Material, tmp_path: Path) -> None:
    ruined = replace(OPTIONS, steps=8, learning_rate=1.0, patience=2)
    learner = train(material, tmp_path, ruined, team=alone(), say=quiet)
    record = json.loads((tmp_path / "run.json").read_text())
    best = max(record["evaluations"], key=lambda one: (one["score"], -one["loss"]))
    assert record["best_step"] == best["step"]
    assert record["steps"] == record["best_step"] + 2  # two evaluations without gain
    base, _ = load_backbone(OPTIONS.seed)
    kept = with_adapter(base, tmp_path / "adapter.safetensors")
    last = learner.averages["classifier.weight"]
    assert not np.allclose(kept["classifier.weight"].numpy(), last.numpy(), atol=1e-3)


def test_resuming_gives_the_same_as_not_being_interrupted(material: Material, tmp_path: Path) -> None:
    class Unplugged(Exception):
        pass

    def unplug(line: str) -> None:
        if line.startswith("evaluation at step 3"):
            raise Unplugged

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    expected = train(material, whole, OPTIONS, team=alone(), say=quiet)
    with pytest.raises(Unplugged):
        train(material, broken, OPTIONS, team=alone(), say=unplug)
    found = train(material, broken, OPTIONS, team=alone(), resume=True, say=quiet)
    for name, tensor in expected.masters.items():
        assert tensor.equal(found.masters[name]), name
        assert expected.averages[name].equal(found.averages[name]), name


def test_other_options_or_other_pairs_cannot_resume(material: Material, tmp_path: Path) -> None:
    once = replace(OPTIONS, steps=1)
    train(material, tmp_path, once, team=alone(), say=quiet)
    with pytest.raises(BadRequest, match="other options"):
        train(material, tmp_path, OPTIONS, team=alone(), resume=True, say=quiet)
    other = replace(material, training=material.training[1:])
    with pytest.raises(BadRequest, match="other pairs"):
        train(other, tmp_path, once, team=alone(), resume=True, say=quiet)
    (tmp_path / "checkpoint.pt").unlink()
    with pytest.raises(BadRequest, match="Nothing to resume"):
        train(material, tmp_path, once, team=alone(), resume=True, say=quiet)


def test_lists_without_a_right_passage_teach_nothing(material: Material, tmp_path: Path) -> None:
    unfound = [replace(one, relevant=np.zeros(len(TEXTS), bool)) for one in material.training]
    with pytest.raises(BadRequest, match="too few to train on"):
        train(replace(material, training=unfound), tmp_path, OPTIONS, team=alone(), say=quiet)


def test_the_adapter_written_is_the_adapter_loaded(tmp_path: Path) -> None:
    import torch
    from transformers import BertForSequenceClassification

    from rag.rerank import merge_adapter

    base, heads = load_backbone(1)
    generator = torch.Generator().manual_seed(2)
    changed = {
        name: tensor + 0.01 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in base.items()
        if name.startswith(("bert.encoder.layer.5.", "bert.pooler.", "classifier."))
    }
    path = tmp_path / "adapter.safetensors"
    export(changed, base, path, rank=384)
    loaded = with_adapter(base, path)
    for name, tensor in {**base, **changed}.items():
        torch.testing.assert_close(loaded[name], tensor, atol=2e-3, rtol=2e-3)

    model: Any = BertForSequenceClassification.from_pretrained(str(bundled_minilm()), num_labels=1)
    model.eval()
    merge_adapter(model, path)
    words = Tokenized(bundled_minilm(), ["The otter sleeps.", "A much longer text about a heron and a lake."])
    pairs = [Pair(words.encode("Who sleeps?"), words.passage(number)) for number in (0, 1)]
    ids, types, mask = _pad(pairs, 64)
    with torch.no_grad():
        expected = model(input_ids=ids, token_type_ids=types, attention_mask=mask).logits[:, 0].numpy()
    np.testing.assert_allclose(predict(loaded, heads, pairs, 64), expected, atol=1e-4)


def test_the_low_rank_difference_is_the_best_there_is() -> None:
    import torch

    generator = torch.Generator().manual_seed(3)
    for shape in ((20, 50), (50, 20), (20, 20)):
        difference = torch.randn(shape, generator=generator)
        left, sizes, right = torch.linalg.svd(difference, full_matrices=False)
        found_left, found_right = low_rank(difference, 5)
        assert (found_left.shape, found_right.shape) == ((shape[0], 5), (5, shape[1]))
        torch.testing.assert_close(found_left @ found_right, (left[:, :5] * sizes[:5]) @ right[:5])
    left, right = low_rank(torch.zeros(4, 6), 2)
    assert (left @ right == 0).all()


def test_gain_is_one_at_the_top_and_ties_lose() -> None:
    right = np.array([True, False, False])
    assert gain(np.array([3, 1, 2], np.float32), right) == 1
    assert gain(np.array([2, 3, 1], np.float32), right) == 1 / math.log2(3)
    assert gain(np.array([1, 1, 0], np.float32), right) == 1 / math.log2(3)
    assert gain(np.array([1, 2, 3], np.float32), np.array([True, False, True])) == 1  # one of two is enough
    assert gain(np.arange(3).astype(np.float32), ~right & right) == 0
    assert gain(np.arange(11).astype(np.float32), np.arange(11) == 0) == 0  # rank 11


def test_learning_rate_rises_then_falls_to_nothing() -> None:
    options = Options(learning_rate=1.0, warmup=0.5)
    assert [learning_rate(share, options) for share in (0.0, 0.25, 0.5, 0.75, 1.0)] == [0, 0.5, 1, 0.5, 0]


def test_the_command_says_what_does_not_fit_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(tmp_path), "--out", str(tmp_path / "out")]
    for more, words in (
        (["--groups", "5", "--workers", "2"], "cannot be shared by 2 workers"),
        (["--uniform", "9"], "--uniform must be from 0 to the number of negatives"),
        (["--start", str(tmp_path / "no")], "There is no adapter"),
        (["--calibrate-only"], "Name it with --start"),
        ([], "No pairs in"),
    ):
        assert main([*given, *more]) == 1
        assert words in capsys.readouterr().err


def test_two_processes_train_and_calibrate_one_adapter(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs")
    given = [
        str(tmp_path / "pairs"),
        "--out",
        str(tmp_path / "out"),
        "--hold-out",
        "wild",
        "--name",
        "by two",
    ]
    run = ["--steps", "2", "--groups", "4", "--negatives", "2", "--uniform", "1", "--workers", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "rag.train", *given, *run],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("evaluation at step 2") == 1
    loaded = load_adapter(tmp_path / "out")
    assert (loaded.name, loaded.cosine_weight, loaded.bm25_weight) == ("by two", 20, 0.4)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["pairs"] == 2 * 4 * 3
    assert list(record["data"]) == ["pairs.jsonl.gz"]
