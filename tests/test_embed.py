from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from ingest.bert import BertWeights, PackedBert, batches, spread
from ingest.embed import (
    Embedder,
    Identity,
    LibraryEmbedder,
    PackedEmbedder,
    identify,
    load_embedder,
    unit_rows,
)
from ingest.errors import ModelUnavailable
from ingest.weights import bundled_minilm, check_sha256, find_model

ROOT = Path(__file__).resolve().parents[1]
TEXTS = ["Short.", "", "The pump needs oil every 500 hours. " * 30, "A middling sentence.", "Short."] + [
    f"Number {n} " * n for n in range(20)
]


@pytest.fixture(scope="module")
def library_model() -> SentenceTransformer:
    return SentenceTransformer(str(bundled_minilm()), device="cpu", local_files_only=True)


def packed(model: SentenceTransformer) -> PackedEmbedder:
    return PackedEmbedder(identify(), BertWeights.of(model[0].model), torch.float32, max_tokens=256)


def test_vectors_are_those_of_the_library_in_float32(library_model: SentenceTransformer) -> None:
    expected = library_model.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    got = packed(library_model).embed(TEXTS)
    np.testing.assert_allclose(got, expected, atol=2e-6)


def test_the_number_type_of_this_machine_keeps_the_cosines(
    embedder: Embedder, library_model: SentenceTransformer
) -> None:
    expected = library_model.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    assert float((embedder.embed(TEXTS) * expected).sum(axis=1).min()) > 0.999


def test_rows_are_float32_of_length_one(embedder: Embedder) -> None:
    vectors = embedder.embed(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), embedder.dimension)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_no_texts_give_no_rows(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, 384)


def test_progress_ends_with_all_texts(embedder: Embedder) -> None:
    seen: list[tuple[int, int]] = []
    embedder.embed(TEXTS, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(TEXTS), len(TEXTS))
    assert seen == sorted(seen)


def test_batches_hold_every_sequence_once_shortest_first() -> None:
    assert list(batches([5, 1, 9, 3], tokens=8)) == [[1, 3], [0], [2]]
    assert list(batches([], tokens=8)) == []


def test_the_first_tokens_alone_are_the_first_rows_of_all_states(library_model: SentenceTransformer) -> None:
    bert = PackedBert(BertWeights.of(library_model[0].model), torch.float32)
    tokenizer = library_model.tokenizer.backend_tokenizer
    tokenizer.no_padding()
    encodings = tokenizer.encode_batch(["one two", "three four", "five six seven"])
    everything = bert.states(encodings)
    first = bert.states(encodings, first_only=True)
    starts = np.cumsum([0] + [len(encoding.ids) for encoding in encodings[:-1]])
    torch.testing.assert_close(first, everything[starts], atol=1e-5, rtol=1e-5)


def test_a_row_of_zeros_stays_zero() -> None:
    assert unit_rows(np.zeros((1, 3), np.float32)).tolist() == [[0, 0, 0]]


def test_altered_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"not the weights")
    with pytest.raises(ModelUnavailable, match="altered"):
        check_sha256(path, "0" * 64)


def test_a_missing_model_is_named() -> None:
    with pytest.raises(ModelUnavailable, match="no/such-model"):
        find_model("no/such-model")


def test_the_librarys_way_gives_the_same_vectors(library_model: SentenceTransformer) -> None:
    library = LibraryEmbedder(identify(), library_model, torch.device("cpu"), torch.float32)
    ours = packed(library_model)
    np.testing.assert_allclose(library.embed(TEXTS), ours.embed(TEXTS), atol=2e-6)


def test_a_bi_encoder_in_a_folder_is_told_by_its_weights(
    library_model: SentenceTransformer, tmp_path: Path
) -> None:
    library_model.save_pretrained(str(tmp_path / "mine"))
    identity = identify(str(tmp_path / "mine"))
    assert identity.dimension == 384
    assert identity.id.startswith(f"{tmp_path / 'mine'}@")
    assert load_embedder(identity).embed(["one"]).shape == (1, 384)


def test_each_batch_is_computed_by_one_thread_and_the_process_keeps_its_number() -> None:
    before = torch.get_num_threads()
    done = list(spread(lambda batch: (len(batch), torch.get_num_threads()), [5, 9, 700, 800, 3]))
    assert {threads for _, (_, threads) in done} == {1}
    assert sum(count for _, (count, _) in done) == 5
    assert torch.get_num_threads() == before


def test_a_text_longer_than_the_model_reads_is_not_read_whole(
    embedder: Embedder, library_model: SentenceTransformer
) -> None:
    library = LibraryEmbedder(identify(), library_model, torch.device("cpu"), torch.float32)
    for each in (embedder, library):
        assert each.reads_whole("word " * 254)  # 256 with the two special tokens
        assert not each.reads_whole("word " * 255)


def test_the_bundled_model_is_loaded_without_the_libraries() -> None:
    code = (
        "import sys; from ingest.embed import identify, load_embedder; from rag.rerank import load_reranker; "
        "load_embedder(identify()).embed(['one']); load_reranker('bundled'); "
        "print([m for m in ('transformers', 'sentence_transformers', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("1_Pooling/config.json", '{"pooling_mode_cls_token": true}'),
        (
            "modules.json",
            '[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]',
        ),
        ("config.json", '{"model_type": "roberta"}'),
    ],
)
def test_what_is_no_plain_bert_with_mean_pooling_is_left_to_the_library(
    file: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(bundled_minilm(), folder)
    identity = identify(str(folder))
    (folder / file).write_text(text, encoding="utf-8")
    asked: list[Identity] = []
    monkeypatch.setattr("ingest.embed._library_embedder", lambda identity, *_: asked.append(identity))
    load_embedder(identity)
    assert asked == [identity]
