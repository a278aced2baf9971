from __future__ import annotations

import ast
import hashlib
import json
import pickle
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ingest.embed import identify, load_embedder
from ingest.errors import ModelUnavailable
from ingest.weights import HUB_FILES, cached, find_model
from rag.rerank import load_reranker
from supply import audit
from supply.licences import LIST, not_allowed
from supply.lock import pinned

ROOT = Path(__file__).resolve().parents[1]
OURS = ("app.py", "app_pages", "rag", "ingest", "bench", "samples", "docs", "supply")
NEVER = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
"""Modules whose reading of a file can run code."""


class Bomb:
    """Writes a file when somebody unpickles it."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self._mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """Is there once code of a model has run."""
    return tmp_path / "code-has-run"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that is taken for a model."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert", "hidden_size": 4}')
    save_file({"weight": torch.zeros(4)}, folder / "model.safetensors")
    return folder


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call in our code, with the name of what is called."""
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node.func)}", node


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for name in OURS:
        for path in [ROOT / name] if name.endswith(".py") else sorted((ROOT / name).rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def given(call: ast.Call, name: str) -> object:
    """The constant given for an argument; None where there is none."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value.value if isinstance(keyword.value, ast.Constant) else keyword.value
    return None


def test_no_model_is_loaded_with_code_of_its_own() -> None:
    assert [where for where, call in calls() if given(call, "trust_remote_code") not in (None, False)] == []


def test_models_are_loaded_from_this_machine_alone() -> None:
    loaders = [
        (where, call)
        for where, call in calls()
        if re.search(r"(: (SentenceTransformer|CrossEncoder)|\.from_pretrained)$", where)
        and where.startswith(("rag", "ingest"))
    ]
    assert len(loaders) >= 3
    assert [
        where
        for where, call in loaders
        if given(call, "local_files_only") is not True and "bundled_minilm()" not in ast.unparse(call)
    ] == []


def test_nothing_is_unpickled() -> None:
    pickled = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, tree in trees()
        for node in ast.walk(tree)
        for name in _imported(node)
        if name.split(".")[0] in NEVER
    ]
    loaded = [
        where
        for where, call in calls()
        if (where.endswith("torch.load") and given(call, "weights_only") is not True)
        or (where.endswith(("np.load", "numpy.load")) and given(call, "allow_pickle") not in (None, False))
    ]
    assert pickled + loaded == []


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def test_only_safetensors_and_texts_are_taken_from_a_hub() -> None:
    assert set(HUB_FILES) == {"*.json", "*.txt", "model.safetensors"}


def test_a_folder_with_a_pickle_alone_is_refused(model: Path, mark: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    for load in (lambda: load_embedder(identify(str(model))), lambda: load_reranker(str(model))):
        with pytest.raises(ModelUnavailable, match=r"model\.safetensors"):
            load()
    assert not mark.exists()


def test_a_pickle_under_another_name_is_refused(model: Path, mark: Path) -> None:
    (model / "model.safetensors").write_bytes(pickle.dumps(Bomb(mark)))
    for load in (lambda: load_embedder(identify(str(model))), lambda: load_reranker(str(model))):
        with pytest.raises(ModelUnavailable, match="not a safetensors file"):
            load()
    assert not mark.exists()


def test_a_pickle_in_a_part_of_the_model_is_refused(model: Path, mark: Path) -> None:
    modules = [{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]
    (model / "modules.json").write_text(json.dumps(modules))
    (model / "2_Dense").mkdir()
    (model / "2_Dense" / "config.json").write_text('{"out_features": 4}')
    (model / "2_Dense" / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(ModelUnavailable, match="is a pickle"):
        load_embedder(identify(str(model)))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_model_that_brings_code_is_refused(model: Path, mark: Path, name: str) -> None:
    (model / name).write_text(
        json.dumps({"auto_map": {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}})
    )
    (model / "evil.py").write_text(f"open({str(mark)!r}, 'w')")
    for load in (lambda: load_embedder(identify(str(model))), lambda: load_reranker(str(model))):
        with pytest.raises(ModelUnavailable, match=rf"auto_map in {name}"):
            load()
    assert not mark.exists()


@pytest.mark.parametrize("modules", [[{"type": "evil.Model", "path": ""}], ["evil"], [{}]])
def test_a_model_made_of_modules_of_its_own_is_refused(model: Path, mark: Path, modules: object) -> None:
    (model / "modules.json").write_text(json.dumps(modules))
    (model / "evil.py").write_text(f"open({str(mark)!r}, 'w')")
    with pytest.raises(ModelUnavailable, match=r"modules\.json"):
        load_embedder(identify(str(model)))
    assert not mark.exists()


def test_a_settings_file_that_is_no_json_is_named(model: Path) -> None:
    (model / "config.json").write_text("{")
    with pytest.raises(ModelUnavailable, match=r"config\.json cannot be read"):
        find_model(str(model))


def test_weights_of_ones_own_are_checked_by_the_sums_beside_them(model: Path) -> None:
    right = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    (model / "SHA256SUMS").write_text(f"{'0' * 64}  other.bin\n{right}  model.safetensors\n")
    assert find_model(str(model)) == model
    (model / "SHA256SUMS").write_text(f"{'0' * 64}  model.safetensors\n")
    with pytest.raises(ModelUnavailable, match="not 000000000000"):
        find_model(str(model))
    (model / "SHA256SUMS").write_text(f"{right}  other.bin\n")
    with pytest.raises(ModelUnavailable, match=r"does not name model\.safetensors"):
        find_model(str(model))


def test_weights_from_a_hub_are_checked_by_what_the_hub_said(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = (model / "model.safetensors").read_bytes()
    store = tmp_path / "hub" / "models--somebody--model"
    snapshot = store / "snapshots" / ("a" * 40)
    (store / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (store / "refs").mkdir()
    (store / "refs" / "main").write_text("a" * 40)
    (snapshot / "config.json").write_bytes((model / "config.json").read_bytes())
    blob = store / "blobs" / hashlib.sha256(weights).hexdigest()
    (snapshot / "model.safetensors").symlink_to(blob)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    blob.write_bytes(weights)
    assert find_model("somebody/model") == cached("somebody/model") == snapshot
    blob.write_bytes(weights[:-1] + b"\x01")
    with pytest.raises(ModelUnavailable, match="altered or cut"):
        find_model("somebody/model")


def test_every_package_is_pinned_and_on_the_list_of_licences() -> None:
    listed = re.findall(r"^\| ([^ |]+) \| ([^ |]+) \| .+ \|$", LIST.read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(listed[1:]) == pinned()  # the first one is the head


def test_every_package_that_the_app_asks_for_is_in_the_lock() -> None:
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    names = {re.split(r"[\[<>=~ ]", line)[0].lower() for line in asked}
    assert names <= {name.lower() for name in pinned()}


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("MIT", []),
        ("MIT AND (Apache-2.0 WITH LLVM-exception)", []),
        ("GPL-3.0-only OR MIT", []),
        ("MIT AND GPL-3.0-only", ["GPL-3.0-only"]),
        ("", ["none is told"]),
    ],
)
def test_a_licence_is_allowed_or_named(text: str, bad: list[str]) -> None:
    assert not_allowed(text) == bad


def test_advisories_that_cannot_be_had_are_said_and_fail_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "PROBE", "http://127.0.0.1:1/")
    assert audit.main() == 0
    assert "skipped, the advisory service cannot be reached" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("packages", "status", "said"),
    [
        ([{"name": "a", "version": "1", "vulns": []}], 0, "1 packages, 0 known"),
        ([{"name": "a", "skip_reason": "unknown"}], 0, "knows none"),
        (
            [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}],
            1,
            "a 1: CVE-1, fixed in 2",
        ),
    ],
)
def test_a_known_vulnerability_fails_the_audit(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    packages: list[dict[str, object]],
    status: int,
    said: str,
) -> None:
    monkeypatch.setattr(audit, "unreachable", lambda: "")
    monkeypatch.setattr(audit, "audit", lambda _: packages)
    assert audit.main() == status
    assert said in capsys.readouterr().out
