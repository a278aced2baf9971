"""PDFs that nobody should have written, each on its whole way into an index: indexed or refused, in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bench.hostile import KINDS, SETTLED, Ended, Group, Trial, run
from bench.mutants import (
    CONSTRUCTS,
    DAMAGES,
    NAMES,
    SLOW_PICTURES,
    TITLES,
    Mutant,
    deflated,
    document,
    mutants,
    text_string,
    tiny_pdfs,
)
from ingest.errors import PdfRefused
from ingest.pdf import MAX_PAGE_CHARS, MAX_SECTIONS, read_outline
from ingest.queue import clean_name
from ingest.sandbox import CALLS_PER_FILE, Sandbox, read_document
from ingest.types import Page
from rag.settings import Settings
from tests.conftest import SHARED
from tests.pdfs import text_pdf

HOSTILE = SHARED / "data" / "hostile-dev"
SECONDS = 3.0
"""What one call of the parser may take here; a file that is slow by its nature is refused then."""
LONGEST = 90.0
"""For a whole file, on a machine that has much else to do."""


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    settings = Settings(parse_seconds=SECONDS)
    made = Trial(tmp_path_factory.mktemp("hostile"), settings=settings)
    yield made
    made.close()


def assert_ended_well(one: Ended) -> None:
    assert one.end in ("indexed", *KINDS), f"{one.mutant.kind}: {one.problem}"
    assert one.picture != "defect", f"{one.mutant.kind}: {one.problem}"
    if one.end != "indexed":
        assert one.problem.endswith((".", "one")), one.problem
    assert one.seconds < LONGEST, one.mutant.kind


@pytest.mark.parametrize("kind", CONSTRUCTS)
def test_every_hostile_construct_ends_as_indexed_or_refused(trial: Trial, kind: str) -> None:
    one = trial.take(Mutant("report.pdf", kind, CONSTRUCTS[kind](Random(kind))))
    assert_ended_well(one)
    if kind in SLOW_PICTURES:
        assert (one.end, one.picture) == ("indexed", "timed_out")


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_end_as_indexed_or_refused(trial: Trial, damage: str) -> None:
    for number, good in enumerate(tiny_pdfs()):
        one = trial.take(Mutant("report.pdf", damage, DAMAGES[damage](Random(f"{damage}/{number}"), good)))
        assert_ended_well(one)


def test_the_same_seed_makes_the_same_files() -> None:
    first, again, other = (
        [mutant.data for mutant in mutants(tiny_pdfs(), len(CONSTRUCTS) + 30, seed)][len(CONSTRUCTS) :]
        for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("name", NAMES)
def test_no_name_leads_out_of_a_folder(name: str) -> None:
    clean = clean_name(name)
    assert clean
    assert not {"/", "\\", "\0"} & set(clean)
    assert clean not in (".", "..")
    assert clean.isprintable()
    assert len(clean) <= 120


@pytest.mark.parametrize("title", TITLES)
def test_hostile_titles_are_tidied(trial: Trial, title: str, tmp_path: Path) -> None:
    info = b"<< /Title " + text_string(title) + b" >>"
    one = trial.take(Mutant("report.pdf", "title", document(info, trailer=b"/Info 6 0 R")))
    assert (one.end, one.problem) == ("indexed", "")


def test_every_file_of_the_hostile_folder_ends_well(trial: Trial) -> None:
    if not HOSTILE.is_dir():
        pytest.skip("the folder of hostile PDFs is not on this machine")
    for path in sorted(HOSTILE.glob("*.pdf")):
        assert_ended_well(trial.take(Mutant(path.name, "file", path.read_bytes())))


def test_a_defect_is_told_and_counted(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    def burst(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a defect of the app")

    monkeypatch.setattr("bench.hostile.ingest", burst)
    groups, _, _ = run([("broken", [Mutant("a.pdf", "good", text_pdf([["A page"]]))])], trial)
    (one,) = groups[0].ended
    assert one.bad
    assert "a defect of the app" in one.problem


def test_the_table_counts_ends_and_pictures() -> None:
    mutant = Mutant("a.pdf", "good", b"")
    group = Group(
        "three",
        [
            Ended(mutant, "indexed", 1.0, picture="drawn"),
            Ended(mutant, "damaged", 3.0, "The file is damaged."),
            Ended(mutant, "defect", 2.0, "boom"),
        ],
    )
    name, files, indexed, *refused, defects, drawn, undrawn, seconds = group.row()
    assert (name, files, indexed, defects, drawn, undrawn) == ("three", "3", "1", "1", "1", "0")
    assert dict(zip(KINDS, refused, strict=True))["damaged"] == "1"
    assert seconds.startswith("2.00 / ")
    assert len(CONSTRUCTS) < SETTLED  # memory is compared after the floods, not before them


# --- Limits of what is read -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(seconds=20) as made:
        yield made


def flood(lines: int) -> bytes:
    """A page of so many lines of 10,000 characters."""
    words = b"(" + b"pump oil, " * 1000 + b") Tj 0 -1 Td "
    return document(content=deflated(b"BT /F1 .01 Tf 9 720 Td " + words * lines + b"ET"))


def test_a_page_with_too_much_text_is_read_in_part_and_that_is_told(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "flood.pdf"
    path.write_bytes(flood(30))
    read = read_document(sandbox, path, "", max_pages=9)
    assert len(read.pages[0].text) == MAX_PAGE_CHARS
    assert read.warnings == (
        "Page 1 has too much text for one page: what comes after the first part is left out.",
    )


def test_a_file_with_too_much_text_is_refused(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.sandbox.MAX_CHARS", 25)
    path = tmp_path / "long.pdf"
    path.write_bytes(text_pdf([["ten letter"], ["ten letter"], ["ten letter"]]))
    with pytest.raises(
        PdfRefused, match=r"^The file has more than 25 characters of text\. Split it"
    ) as caught:
        read_document(sandbox, path, "", max_pages=9, slice_pages=1)
    assert caught.value.kind == "out_of_memory"


class Slow(Sandbox):
    """Says that each call took all of its time, by a clock of its own."""

    now = 0.0

    def call(self, function: Callable[..., Any], *args: object, seconds: float | None = None) -> Any:
        self.now += self.seconds
        return 1000 if function.__name__ == "inspect" else [Page(number, "words") for number in range(1, 26)]


def test_a_file_that_is_slow_at_every_step_is_refused_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = Slow(seconds=30)
    monkeypatch.setattr("ingest.sandbox.monotonic", lambda: sandbox.now)
    with pytest.raises(PdfRefused, match="takes longer than 300 seconds") as caught:
        read_document(sandbox, tmp_path / "a.pdf", "", max_pages=1000)
    assert caught.value.kind == "timed_out"
    assert sandbox.now == pytest.approx((CALLS_PER_FILE + 1) * 30)


def test_a_very_long_outline_is_cut_and_that_is_told(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "outline.pdf"
    path.write_bytes(CONSTRUCTS["long outline"](Random(1)))
    outline = sandbox.call(read_outline, path, "")
    assert len(outline.sections) == MAX_SECTIONS
    assert outline.warning == "The outline has more than 10,000 entries: those after that are left out."
