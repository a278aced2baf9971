"""Worker processes and their limits; the misbehaving calls are functions of the standard library."""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ingest.errors import PdfRefused
from ingest.pdf import Section, inspect, read_outline, reread_pages
from ingest.sandbox import Pages, Sandbox, read_document
from ingest.types import Page
from tests.conftest import SHARED
from tests.pdfs import encrypted_pdf, mixed_pdf, rootless_pdf, scanned_pdf, text_pdf, unseen_pdf

ROOT = Path(__file__).parents[1]
HOSTILE = SHARED / "data" / "hostile-dev"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(seconds=20, memory_mb=500) as made:
        yield made


def refusal(
    sandbox: Sandbox, function: Callable[..., object], *args: object, seconds: float = 20
) -> PdfRefused:
    with pytest.raises(PdfRefused) as caught:
        sandbox.call(function, *args, seconds=seconds)
    return caught.value


def run_script(code: str, folder: Path, *, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(code, encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def test_a_call_runs_in_another_process_which_serves_the_next_one_too(sandbox: Sandbox) -> None:
    first = sandbox.call(os.getpid)
    assert first != os.getpid()
    assert sandbox.call(os.getpid) == first


def test_what_a_function_raises_is_raised_here(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="invalid literal for int"):
        sandbox.call(int, "seven")


def test_a_refusal_keeps_its_kind(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(b"")
    assert refusal(sandbox, inspect, path, "").kind == "empty"


def test_an_answer_that_cannot_be_pickled_is_an_error(sandbox: Sandbox) -> None:
    with pytest.raises(TypeError, match="cannot pickle"):
        sandbox.call(eval, "memoryview(b'ab')")


def test_a_worker_that_cannot_start_is_no_fault_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pypdf.py").write_text("raise ImportError('half installed')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with Sandbox() as sandbox, pytest.raises(RuntimeError, match="The PDF worker does not start"):
        sandbox.call(os.getpid)
    assert "ImportError: half installed" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("function", "args"),
    [(ctypes.string_at, (0,)), (os.abort, ()), (os._exit, (1,)), (signal.raise_signal, (signal.SIGKILL,))],
    ids=["segmentation fault", "abort", "exit", "kill"],
)
def test_a_crash_is_refused_and_the_next_call_works(
    sandbox: Sandbox, function: Callable[..., object], args: tuple[object, ...]
) -> None:
    problem = refusal(sandbox, function, *args)
    assert problem.kind == "crashed"
    assert str(problem) == (
        "The PDF parser crashed: the file is damaged, or takes more than 500 MB (PARSE_MEMORY_MB). "
        "Open it in a PDF viewer, save it as a new PDF and upload that one."
    )
    assert sandbox.call(len, "next") == 4


@pytest.mark.parametrize(
    ("function", "argument"),
    [(time.sleep, 60), (sum, itertools.count())],
    ids=["waits", "loops without letting other threads run"],
)
def test_an_endless_call_is_stopped_and_the_next_call_works(
    sandbox: Sandbox, function: Callable[..., object], argument: object
) -> None:
    began = time.monotonic()
    problem = refusal(sandbox, function, argument, seconds=0.3)
    assert 0.3 <= time.monotonic() - began < 10
    assert problem.kind == "timed_out"
    assert str(problem) == "Reading it takes longer than 0.3 seconds. Split the file or raise PARSE_SECONDS."
    assert sandbox.call(len, "next") == 4


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to a limit of address space")
@pytest.mark.parametrize(
    ("function", "argument"),
    [(bytearray, 10**10), (list, itertools.count())],
    ids=["at once", "little by little"],
)
def test_a_flood_of_memory_is_stopped_and_the_next_call_works(
    sandbox: Sandbox, function: Callable[..., object], argument: object
) -> None:
    problem = refusal(sandbox, function, argument)
    assert problem.kind == "out_of_memory"
    assert str(problem) == "Reading it takes more than 500 MB. Split the file or raise PARSE_MEMORY_MB."
    assert sandbox.call(len, "next") == 4


def test_a_worker_that_dies_while_idle_is_replaced(sandbox: Sandbox) -> None:
    worker = sandbox.call(os.getpid)
    os.kill(worker, signal.SIGKILL)
    time.sleep(0.2)
    assert sandbox.call(os.getpid) != worker


def test_calls_beside_one_that_misbehaves_are_not_disturbed(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with Sandbox(workers=2, seconds=60, memory_mb=500) as sandbox, ThreadPoolExecutor(1) as pool:
        beside = pool.submit(sandbox.call, Path.read_text, gate)  # waits until something is written
        kinds = [
            refusal(sandbox, os._exit, 1).kind,
            refusal(sandbox, time.sleep, 60, seconds=0.1).kind,
            refusal(sandbox, bytearray, 10**10).kind,
            refusal(sandbox, ctypes.string_at, 0).kind,
        ]
        gate.write_text("undisturbed", encoding="utf-8")
        assert beside.result() == "undisturbed"
    assert kinds == ["crashed", "timed_out", "out_of_memory", "crashed"]


def test_calls_wait_for_an_idle_worker_and_their_time_does_not_run_meanwhile() -> None:
    with Sandbox(workers=1, seconds=1) as sandbox, ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(sandbox.call, time.sleep, 0.5) for _ in range(4)]
        assert [call.result() for call in calls] == [None] * 4


def test_what_a_function_prints_is_no_answer(sandbox: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    assert sandbox.call(os.system, "echo printed") == 0
    assert sandbox.call(len, "next") == 4
    assert capfd.readouterr().out == ""


def test_workers_do_not_see_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with Sandbox() as sandbox:
        assert "sk-secret" not in sandbox.call(eval, "str(__import__('os').environ)")


def test_workers_load_the_parsers_and_nothing_heavy_and_never_run_the_main_page(tmp_path: Path) -> None:
    # as Streamlit does for each run of a page, and with the guard that our pages end with
    done = run_script(
        "import os, sys, types\n"
        "from ingest.sandbox import Sandbox\n"
        "if __name__ == '__main__':\n"
        "    main = sys.modules['__main__'] = types.ModuleType('__main__')\n"
        f"    main.__file__ = {str(ROOT / 'app_pages' / 'main.py')!r}\n"
        "    names = {'pypdf', 'pypdfium2', 'torch', 'transformers', 'streamlit', 'numpy', 'openai', 'rag'}\n"
        "    with Sandbox() as sandbox:\n"
        "        print(sorted(names & set(sandbox.call(eval, \"list(__import__('sys').modules)\"))))\n",
        tmp_path,
    )
    assert (done.stdout, done.stderr) == ("['pypdf', 'pypdfium2']\n", "")


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    done = run_script(
        "import os, signal, threading, time\n"
        "from ingest.sandbox import Sandbox\n"
        "if __name__ == '__main__':\n"
        "    sandbox = Sandbox(workers=2)\n"
        "    sandbox.call(os.getpid)\n"
        "    threading.Thread(target=sandbox.call, args=(time.sleep, 600), daemon=True).start()\n"
        "    time.sleep(0.5)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n",
        tmp_path,
        seconds=30,  # `run` waits until no process holds its pipes any more, so also for the workers
    )
    assert done.returncode == -signal.SIGKILL


def test_closing_ends_a_running_call_and_refuses_the_next() -> None:
    sandbox = Sandbox()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(sandbox.call, time.sleep, 600)
        time.sleep(0.5)
        sandbox.close()
        with pytest.raises(RuntimeError, match=r"The sandbox is closed\."):
            running.result(timeout=10)
    with pytest.raises(RuntimeError, match=r"The sandbox is closed\."):
        sandbox.call(len, "late")
    sandbox.close()


def test_a_document_is_read_slice_by_slice_with_progress(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    lines = [[f"This is page {number}"] for number in range(1, 61)]
    path.write_bytes(text_pdf(lines, title="Sixty pages", outline=[(1, "Start"), (60, "End")]))
    progress: list[tuple[int, int]] = []
    read = read_document(sandbox, path, "", max_pages=60, on_progress=lambda *done: progress.append(done))
    assert read == Pages(
        "Sixty pages",
        (Section(1, "Start"), Section(60, "End")),
        tuple(Page(number, f"This is page {number}") for number in range(1, 61)),
        (),
    )
    assert progress == [(0, 60), (25, 60), (50, 60), (60, 60)]


def test_pages_where_pdfium_finds_no_text_are_read_by_the_second_parser(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(unseen_pdf([["one"], ["two"], ["three"]], unseen={2}))
    read = read_document(sandbox, path, "", max_pages=9)
    assert read.pages == (Page(1, "one"), Page(2, "two \n"), Page(3, "three"))
    assert read.warnings == ()


def test_a_document_that_pdfium_cannot_open_is_read_by_the_second_parser(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(rootless_pdf([["one"], ["two"]]))
    assert read_document(sandbox, path, "", max_pages=9).pages == (Page(1, "one\n"), Page(2, "two\n"))


def test_a_document_with_too_many_pages_is_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(text_pdf([["one"], ["two"], ["three"]]))
    with pytest.raises(PdfRefused) as caught:
        read_document(sandbox, path, "", max_pages=2)
    assert caught.value.kind == "too_many_pages"
    assert str(caught.value) == "The file has 3 pages, and at most 2 are read. Split it or raise MAX_PAGES."


@pytest.mark.parametrize(
    ("pages", "which"),
    [(1, "The only page has"), (3, "All 3 pages have")],
)
def test_a_scanned_document_is_refused(sandbox: Sandbox, tmp_path: Path, pages: int, which: str) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(scanned_pdf(pages))
    with pytest.raises(PdfRefused) as caught:
        read_document(sandbox, path, "", max_pages=9)
    assert caught.value.kind == "no_text"
    assert str(caught.value) == (
        f"{which} no text (scanned?). Run OCR on the file, for example with ocrmypdf, and upload it again."
    )


@pytest.mark.parametrize(
    ("pages", "warning"),
    [
        ([["one"], []], "1 of 2 pages has no text (scanned?): it cannot be searched."),
        ([["one"], [], []], "2 of 3 pages have no text (scanned?): they cannot be searched."),
    ],
)
def test_scanned_pages_among_others_are_a_warning(
    sandbox: Sandbox, tmp_path: Path, pages: list[list[str]], warning: str
) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(mixed_pdf(pages))
    assert read_document(sandbox, path, "", max_pages=9).warnings == (warning,)


def test_a_password_is_in_no_message_and_no_repr(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(encrypted_pdf([["hidden"]], password="open sesame"))
    with pytest.raises(PdfRefused) as caught:
        read_document(sandbox, path, "0p3n s3s4m3", max_pages=9)
    read = read_document(sandbox, path, "open sesame", max_pages=9)
    assert read.pages == (Page(1, "hidden"),)
    assert "0p3n s3s4m3" not in repr(caught.value) + str(caught.value)
    assert "sesame" not in repr(read) + repr(sandbox)


class HalfBroken(Sandbox):
    """Refuses one of the two pypdf steps."""

    broken: Callable[..., object]

    def call(self, function: Callable[..., Any], *args: object, seconds: float | None = None) -> Any:
        if function is self.broken:
            raise PdfRefused("timed_out", "It hangs.")
        return super().call(function, *args, seconds=seconds)


def test_a_document_is_read_without_the_parser_that_fails_on_it(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(mixed_pdf([["one"], []], title="Half a report"))
    scanned = "1 of 2 pages has no text (scanned?): it cannot be searched."
    with HalfBroken() as sandbox:
        sandbox.broken = reread_pages
        assert read_document(sandbox, path, "", max_pages=9).warnings == (scanned,)
        sandbox.broken = read_outline
        read = read_document(sandbox, path, "", max_pages=9)
    assert read.title == ""
    assert read.warnings == ("The file's title and outline are left out: It hangs.", scanned)


def test_every_hostile_file_is_read_or_refused(capfd: pytest.CaptureFixture[str]) -> None:
    if not HOSTILE.is_dir():
        pytest.skip("the folder of hostile PDFs is not on this machine")
    files = sorted(HOSTILE.glob("*.pdf"))
    assert len(files) == 84
    ends: list[str] = []
    with Sandbox() as sandbox:
        for path in files:
            try:
                read = read_document(sandbox, path, "", max_pages=5000)
            except PdfRefused as problem:
                ends.append(problem.kind)
            else:
                ends.append("read")
                assert all(page.text.encode() and "\x00" not in page.text for page in read.pages if page.text)
    assert set(ends) <= {"read", "no_text", "password", "damaged"}
    assert ends.count("read") >= 60
    assert capfd.readouterr() == ("", "")
