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
    "ingest.files",
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
    "ingest.ahead",
    "ingest.queue",
    "ingest.settle",
    "rag.types",
    "rag.movement",
    "rag.settings",
    "rag.access",
    "rag.retrieve",
    "rag.lexical",
    "rag.rerank",
    "rag.quotes",
    "rag.passages",
    "rag.answer",
    "rag.conversation",
    "rag.citations",
    "rag.pipeline",
    "rag.checks",
    "rag.votes",
    "rag.threshold",
    "rag.limits",
    "rag.services",
    "rag.rebuild",
    "rag.samples",
    "rag.export",
    "rag.replay",
    "rag.evidence",
    "rag.evidence.questions",
    "rag.evidence.match",
    "rag.evidence.measures",
    "rag.evidence.compare",
    "rag.evidence.verdict",
    "rag.evidence.variants",
    "rag.evidence.runfile",
    "rag.evidence.run",
    "rag.evidence.threshold",
    "rag.evidence.report",
    "rag.evidence.versus",
    "rag.evidence.formats",
    "rag.evidence.export",
    "rag.evidence.beir",
    "rag.evidence.sets",
    "rag.evidence.usage",
    "rag.evidence.generate",
    "rag.evidence.jobs",
    "rag.evidence.making",
    "rag.evidence.command",
    "rag.api_models",
    "rag.guard",
    "rag.api",
    "rag.train",
    "rag.train.options",
    "rag.train.pairs",
    "rag.train.mine",
    "rag.train.model",
    "rag.train.measure",
    "rag.train.record",
    "rag.train.batch",
    "rag.train.learn",
    "rag.train.calibrate",
    "rag.train.run",
    "rag.train.own",
    "rag.train.__main__",
    "rag.cli",
]
"""Every module in the order of the data; a module imports only from above itself."""

AT_FIRST_USE = {"rag.api_models", "rag.api", "rag.guard", "ingest.store.server"}
"""Modules that are imported only where they are wanted, because their library is heavy."""

OWNERS = {
    "pypdfium2": {"ingest.pdf"},
    "pypdf": {"ingest.pdf"},
    "pebble": {"ingest.sandbox"},
    "semantic_text_splitter": {"ingest.chunk"},
    "openai": {"rag.answer"},
    "markdown_it": {"rag.citations"},
    "ir_measures": {"rag.evidence.measures"},
    "py3langid": {"rag.checks"},
    "qdrant_client": {"ingest.store.server"},
    "tenacity": {"ingest.store.server"},
    "sqlite3": {"ingest.queue", "rag.votes"},
    "typer": {"rag.cli"},
    "limits": {"rag.limits"},
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
    assert set(modules()) == set(FLOW)


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
