"""Links that reproduce a question with its settings, as query parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from app_pages.parts.turn import MODES, Look
from ingest.errors import BadRequest
from ingest.types import Document
from rag.pipeline import MAX_QUESTION_CHARS

DEPTHS = (10, 20, 50, 100, 200)
MOST_SOURCES = 10
PARAMETERS = ("q", "mode", "depth", "sources", "doc")
ID_CHARS = 12
"""How much of a document's id a link carries."""


@dataclass(frozen=True, slots=True)
class Link:
    """What a link asks for; `question` is empty where it only brings settings."""

    question: str
    look: Look


def query(question: str, look: Look) -> str:
    """The query of a link, with its question mark; every setting is in it, also where it is the default."""
    pairs = [("q", question), ("mode", look.mode.lower()), ("depth", look.depth), ("sources", look.sources)]
    pairs += [("doc", doc_id[:ID_CHARS]) for doc_id in look.doc_ids or ()]
    return "?" + urlencode(pairs)


def read_link(parameters: Mapping[str, Sequence[str]], documents: Sequence[Document]) -> Link | None:
    """What the parameters of an address ask for; None where there are none.

    Raises BadRequest, naming every parameter that cannot be used: nothing of such a link is done.
    """
    if not parameters:
        return None
    problems = [
        f"{name[:40]!r} is no parameter of this page" for name in parameters if name not in PARAMETERS
    ]
    problems += [
        f"{name} is given more than once" for name in PARAMETERS[:-1] if len(parameters.get(name, ())) > 1
    ]
    first = {name: values[-1] for name, values in parameters.items() if values}
    question = first.get("q", "").strip()
    if "q" in first and not 0 < len(question) <= MAX_QUESTION_CHARS:
        problems.append(f"q must be a question of at most {MAX_QUESTION_CHARS} characters")
    defaults = Look()
    modes = {mode.lower(): mode for mode in MODES}
    mode = modes.get(first.get("mode", defaults.mode).lower())
    if mode is None:
        problems.append(f"mode must be {', '.join(modes)}")
    depth = _number(first.get("depth"), defaults.depth)
    if depth not in DEPTHS:
        problems.append(f"depth must be one of {', '.join(map(str, DEPTHS))}")
    sources = _number(first.get("sources"), defaults.sources)
    if not 1 <= sources <= MOST_SOURCES:
        problems.append(f"sources must be from 1 to {MOST_SOURCES}")
    doc_ids, missing = _documents(parameters.get("doc", ()), documents)
    problems += missing
    if problems or mode is None:
        raise BadRequest(f"This link cannot be used: {'; '.join(problems)}. Nothing was asked.")
    return Link(question, Look(mode=mode, depth=depth, sources=sources, doc_ids=doc_ids))


def _number(text: str | None, default: int) -> int:
    """The number; -1, which nothing allows, where it is none."""
    if text is None:
        return default
    return int(text) if re.fullmatch("[0-9]{1,4}", text, re.ASCII) else -1


def _documents(
    wanted: Sequence[str], documents: Sequence[Document]
) -> tuple[tuple[str, ...] | None, list[str]]:
    """The ids that the beginnings stand for, None where there are none; and what is wrong with the others."""
    found, problems = [], []
    for beginning in wanted:
        usable = re.fullmatch(f"[0-9a-f]{{{ID_CHARS},64}}", beginning) is not None
        ids = [document.id for document in documents if usable and document.id.startswith(beginning)]
        if len(ids) == 1:
            found.append(ids[0])
        else:
            problems.append(f"doc {beginning[:40]!r} is no document of this library")
    return tuple(dict.fromkeys(found)) or None, problems
