"""The architecture as a test: data flows one way, and each library has one owner."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

FLOW = [
    "ingest.types",
    "ingest.errors",
    "ingest.pdf",
    "ingest.sandbox",
    "ingest.chunk",
    "ingest.weights",
    "ingest.bert",
    "ingest.embed",
    "ingest.store",
    "ingest.store.points",
    "ingest.store.edge",
    "ingest.store.server",
    "ingest.originals",
    "ingest.pipeline",
    "ingest.queue",
    "rag.types",
    "rag.settings",
    "rag.retrieve",
    "rag.rerank",
    "rag.quotes",
    "rag.answer",
    "rag.citations",
    "rag.pipeline",
    "rag.services",
    "rag.export",
    "rag.api",
    "rag.guard",
    "rag.cli",
]
"""Every module in the order of the data; a module imports only from above itself."""

OFF_THE_LINE = {"rag.train"}
"""Tools that are run by hand and that nothing imports."""

AT_FIRST_USE = {"rag.api", "ingest.store.server"}
"""Modules that are imported only where they are wanted, because their library is heavy."""

OWNERS = {
    "pypdfium2": {"ingest.pdf"},
    "pypdf": {"ingest.pdf"},
    "pebble": {"ingest.sandbox"},
    "semantic_text_splitter": {"ingest.chunk"},
    "openai": {"rag.answer"},
    "markdown_it": {"rag.citations"},
    "qdrant_client": {"ingest.store.server"},
    "sqlite3": {"ingest.queue"},
    "typer": {"rag.cli"},
    "fastapi": {"rag.api"},
}


def modules() -> dict[str, Path]:
    found = {}
    for package in ("ingest", "rag"):
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = path
    return {name: path for name, path in found.items() if name not in ("ingest", "rag")}


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_every_module_has_its_place_in_the_flow() -> None:
    assert set(modules()) - OFF_THE_LINE == set(FLOW)


def test_modules_import_only_what_comes_before_them() -> None:
    backwards = [
        f"{name} imports {used}"
        for name, path in modules().items()
        for used in imports(path)
        if name in FLOW and used in FLOW and FLOW.index(used) >= FLOW.index(name)
    ]
    assert backwards == []


def test_only_the_entry_point_imports_pages() -> None:
    assert [
        name for name, path in modules().items() if any(i.startswith("app_pages") for i in imports(path))
    ] == []


def test_each_library_has_one_owner() -> None:
    strays = [
        f"{name} imports {used}"
        for name, path in modules().items()
        for used in imports(path)
        if name not in OWNERS.get(used.split(".")[0], {name})
    ]
    assert strays == []


def test_importing_the_packages_loads_no_heavy_library() -> None:
    code = (
        f"import sys; {'; '.join(f'import {name}' for name in FLOW if name not in AT_FIRST_USE)}; "
        "print([m for m in ('torch', 'transformers', 'sentence_transformers', 'streamlit', 'openai', "
        "'pypdf', 'pypdfium2', 'qdrant_client') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
