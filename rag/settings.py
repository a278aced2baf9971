"""What an operator can set; read once from the environment and passed down."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from ingest.errors import BadRequest

LONGEST_QUESTION = 2000
"""In characters; the longest question that an operator can allow: the models read far less."""
YES, NO = ("yes", "true", "1", "on"), ("no", "false", "0", "off")


@dataclass(frozen=True, slots=True)
class Settings:
    """One frozen object for the whole process; secrets never show in its repr."""

    data: Path = Path("data")
    qdrant_url: str = field(default="", repr=False)
    qdrant_api_key: str = field(default="", repr=False)
    qdrant_collection: str = "second_look"
    embedder: str = ""
    reranker: str = ""
    llm_base_url: str = field(default="", repr=False)
    llm_api_key: str = field(default="", repr=False)
    llm_model: str = ""
    llm_timeout: float = 60.0
    host: str = "127.0.0.1"
    port: int = 8501
    url: str = ""
    oidc_issuer: str = ""
    oidc_client_id: str = ""
    oidc_client_secret: str = field(default="", repr=False)
    cookie_secret: str = field(default="", repr=False)
    users: str = field(default="", repr=False)
    shared: bool = False
    api_tokens: str = field(default="", repr=False)
    api_tokens_file: str = ""
    open_to_everyone: bool = False
    max_upload_mb: int = 200
    max_pages: int = 5000
    parse_seconds: float = 30.0
    parse_memory_mb: int = 1500
    max_open_uploads: int = 500
    max_queue: int = 2000
    max_question_chars: int = LONGEST_QUESTION
    requests_per_minute: int = 600
    llm_concurrency: int = 8
    llm_wait: float = 30.0

    @property
    def has_llm(self) -> bool:
        """True when an LLM endpoint is configured: a key or an address, and a model."""
        return bool((self.llm_api_key or self.llm_base_url) and self.llm_model)

    @property
    def files(self) -> Path:
        """Folder of the uploaded originals, each named by its SHA-256."""
        return self.data / "files"

    @property
    def trash(self) -> Path:
        """Folder of deleted originals that can still be brought back."""
        return self.data / "trash"

    @property
    def index(self) -> Path:
        """Folder of the embedded Qdrant index."""
        return self.data / "index"

    @property
    def queue(self) -> Path:
        """File of the durable upload queue."""
        return self.data / "queue.sqlite3"


VARIABLES = {
    "data": "SECOND_LOOK_DATA",
    "qdrant_url": "QDRANT_URL",
    "qdrant_api_key": "QDRANT_API_KEY",
    "qdrant_collection": "QDRANT_COLLECTION",
    "embedder": "EMBEDDER",
    "reranker": "RERANKER",
    "llm_base_url": "OPENAI_BASE_URL",
    "llm_api_key": "OPENAI_API_KEY",
    "llm_model": "LLM_MODEL",
    "llm_timeout": "LLM_TIMEOUT",
    "host": "SECOND_LOOK_HOST",
    "port": "SECOND_LOOK_PORT",
    "url": "SECOND_LOOK_URL",
    "oidc_issuer": "OIDC_ISSUER",
    "oidc_client_id": "OIDC_CLIENT_ID",
    "oidc_client_secret": "OIDC_CLIENT_SECRET",
    "cookie_secret": "SECOND_LOOK_COOKIE_SECRET",
    "users": "SECOND_LOOK_USERS",
    "shared": "SECOND_LOOK_SHARED",
    "api_tokens": "SECOND_LOOK_API_TOKENS",
    "api_tokens_file": "SECOND_LOOK_API_TOKENS_FILE",
    "open_to_everyone": "SECOND_LOOK_OPEN_TO_EVERYONE",
    "max_upload_mb": "MAX_UPLOAD_MB",
    "max_pages": "MAX_PAGES",
    "parse_seconds": "PARSE_SECONDS",
    "parse_memory_mb": "PARSE_MEMORY_MB",
    "max_open_uploads": "MAX_OPEN_UPLOADS",
    "max_queue": "MAX_QUEUE",
    "max_question_chars": "MAX_QUESTION_CHARS",
    "requests_per_minute": "REQUESTS_PER_MINUTE",
    "llm_concurrency": "LLM_CONCURRENCY",
    "llm_wait": "LLM_WAIT",
}
"""Field of `Settings` to the environment variable that sets it."""


def read_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Settings from the environment; an empty variable counts as not set.

    Raises BadRequest, naming the variable, where a number or a yes cannot be read or makes no sense.
    """
    defaults = Settings()
    values: dict[str, object] = {}
    for setting in fields(Settings):
        variable = VARIABLES[setting.name]
        raw = environ.get(variable, "").strip()
        if raw:
            values[setting.name] = _convert(variable, raw, getattr(defaults, setting.name))
    settings = Settings(**values)  # type: ignore[arg-type]
    if settings.max_question_chars > LONGEST_QUESTION:
        raise BadRequest(f"MAX_QUESTION_CHARS must be at most {LONGEST_QUESTION}: the models read no more.")
    return settings


def _convert(variable: str, raw: str, default: object) -> object:
    if isinstance(default, Path):
        return Path(raw).expanduser()
    if isinstance(default, bool):
        if raw.lower() not in YES + NO:
            raise BadRequest(f"{variable} must be yes or no, not {raw[:40]!r}.")
        return raw.lower() in YES
    if not isinstance(default, int | float):
        return raw
    try:
        number = type(default)(raw)
    except ValueError:
        raise BadRequest(f"{variable} must be a number, not {raw[:40]!r}.") from None
    if number <= 0:
        raise BadRequest(f"{variable} must be above 0, not {raw[:40]!r}.")
    return number
