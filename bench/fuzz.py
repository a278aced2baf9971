"""The API of the running app against its OpenAPI document: `python -m bench.fuzz [--cases N]`.

The real app with the real models, served as people serve it, and schemathesis in front of it: requests that fit
the document and requests that do not, alone and in sequences. Exits with 1 where an answer is an error of the
server or is not documented, or where fewer than N requests were made. tests/test_api_fuzz.py does the same with
fake models and without a network.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

from bench.load import wait_for_queue
from bench.timing import ROOT
from tests.browser.conftest import start_app, stop_app
from tests.pdfs import text_pdf

CASES = 2000
PER_OPERATION = 500
UNLIMITED = dict.fromkeys(("REQUESTS_PER_MINUTE", "MAX_OPEN_UPLOADS", "MAX_QUEUE"), "1000000")


def fuzz(url: str, folder: Path, per_operation: int) -> tuple[int, int]:
    """Run schemathesis; its findings go to the screen. Returns its exit status and how many requests it made."""
    report = folder / "report.json"
    command = [
        Path(sys.executable).with_name("schemathesis"),
        *("--config-file", ROOT / "tests" / "schemathesis.toml"),
        *("run", f"{url}/api/openapi.json"),
        *("--max-examples", per_operation),
        *("--report", "json", "--report-json-path", report),
    ]
    status = subprocess.run([str(part) for part in command], check=False, cwd=folder).returncode
    cases = json.loads(report.read_text(encoding="utf-8"))["test_cases"]["generated"]
    return status, int(cases)


async def fill(url: str) -> None:
    """Put a few documents into the library, and wait until they are indexed."""
    async with httpx.AsyncClient(base_url=url, timeout=120) as api:
        for word in ("pump", "lathe", "kiln"):
            lines = [[f"The {word} needs fresh oil every 500 hours of work."]]
            file = (f"{word}.pdf", text_pdf(lines), "application/pdf")
            (await api.post("/api/documents", files={"files": file})).raise_for_status()
        await wait_for_queue(api)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", type=int, default=CASES, help=f"so many requests at least ({CASES})")
    parser.add_argument("--per-operation", type=int, default=PER_OPERATION)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        app = start_app(folder / "data", folder / "app.log", **UNLIMITED)
        try:
            asyncio.run(fill(app.url))
            status, cases = fuzz(app.url, folder, options.per_operation)
        finally:
            stop_app(app)
    print(f"{cases} requests, at least {options.cases} wanted: {'yes' if cases >= options.cases else 'no'}")
    return 0 if status == 0 and cases >= options.cases else 1


if __name__ == "__main__":
    sys.exit(main())
