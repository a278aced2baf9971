from __future__ import annotations

import itertools
import time

import pytest
from tokenizers import Tokenizer

from ingest.chunk import (
    BLOCK_CHARS,
    MAX_CHUNK_CHARS,
    MAX_TOKENS,
    Chunker,
    Heading,
    cut_at_spaces,
    join_heading,
    place_headings,
    title_of,
    unwrap,
)
from ingest.types import Page
from ingest.weights import bundled_minilm

TOKENIZER = bundled_minilm() / "tokenizer.json"


@pytest.fixture(scope="module")
def chunker() -> Chunker:
    return Chunker(TOKENIZER)


def sentences(count: int) -> str:
    return " ".join(
        f"Sentence number {n} says that the pump needs oil every {n} hours." for n in range(count)
    )


def tokens(text: str) -> int:
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return len(tokenizer.encode(text, add_special_tokens=False).ids)


def test_a_chunk_is_exactly_the_text_between_its_offsets(chunker: Chunker) -> None:
    page = Page(3, "  Title\r\n\r\n" + sentences(60))
    chunks = chunker.chunks([page], doc_id="d", source="s.pdf", title="T")
    assert len(chunks) > 3
    assert all(chunk.text == page.text[chunk.start : chunk.end] for chunk in chunks)
    assert {chunk.page for chunk in chunks} == {3}


def test_no_chunk_has_more_tokens_than_the_bi_encoder_reads(chunker: Chunker) -> None:
    soup = " ".join(f"{n},{n * 7 % 1000} (0.{n})" for n in range(600))
    for text in (sentences(80), soup, "x" * 5000):
        counts = [tokens(c.text) for c in chunker.chunks([Page(1, text)], doc_id="d", source="s", title="")]
        assert max(counts) <= MAX_TOKENS


def test_chunks_end_at_sentence_ends_and_overlap_by_a_sentence(chunker: Chunker) -> None:
    chunks = chunker.chunks([Page(1, sentences(60))], doc_id="d", source="s", title="")
    assert all(chunk.text.rstrip().endswith(".") for chunk in chunks)
    for before, after in itertools.pairwise(chunks):
        assert after.start < before.end
        assert tokens(before.text[after.start - before.start :]) <= 32


def test_every_word_of_a_page_is_in_some_chunk(chunker: Chunker) -> None:
    page = Page(1, sentences(70))
    chunks = chunker.chunks([page], doc_id="d", source="s", title="")
    covered = {position for chunk in chunks for position in range(chunk.start, chunk.end)}
    missing = "".join(ch for position, ch in enumerate(page.text) if position not in covered)
    assert missing.strip() == ""


@pytest.mark.parametrize(
    "text", ["x" * 30_000, "\u8425" * 30_000, "wordy " * 5_000, ("y" * 3_000 + " ") * 10]
)
def test_a_chunk_of_hostile_text_is_bounded_and_nothing_is_lost(chunker: Chunker, text: str) -> None:
    chunks = chunker.chunks([Page(1, text)], doc_id="d", source="s", title="")
    assert max(len(chunk.text) for chunk in chunks) <= MAX_CHUNK_CHARS
    assert all(chunk.text == text[chunk.start : chunk.end] for chunk in chunks)
    covered = {position for chunk in chunks for position in range(chunk.start, chunk.end)}
    assert all(text[position].isspace() for position in set(range(len(text))) - covered)


def test_long_text_is_cut_at_white_space_where_there_is_any() -> None:
    assert list(cut_at_spaces("aaaa bbbb cccc", 0, 14, 10)) == [(0, 10), (10, 14)]
    assert list(cut_at_spaces("aaaaaaaaaaaa", 0, 12, 5)) == [(0, 5), (5, 10), (10, 12)]
    assert list(cut_at_spaces("short", 0, 5, 10)) == [(0, 5)]


def test_unbroken_text_is_cut_into_blocks_before_the_splitter_takes_the_square_of_its_length(
    chunker: Chunker,
) -> None:
    chunks = chunker.chunks([Page(1, "\u8425" * (BLOCK_CHARS + 300))], doc_id="d", source="s", title="")
    assert BLOCK_CHARS in [chunk.start for chunk in chunks]


def test_pages_without_words_give_no_chunks(chunker: Chunker) -> None:
    assert chunker.chunks([Page(1, ""), Page(2, " \r\n .. -- ")], doc_id="d", source="s", title="") == []


def test_line_ends_inside_a_paragraph_are_not_places_to_cut() -> None:
    text = (
        "This line of a paragraph is long and goes\r\non in the next line, which is long also\r\n"
        "and ends.\r\nTable 1 2"
    )
    joined = unwrap(text)
    assert len(joined) == len(text)
    assert "goes  on in" in joined
    assert "ends.\r\nTable" in joined


def test_a_chunk_gets_the_section_that_begins_before_it(chunker: Chunker) -> None:
    pages = [
        Page(1, "Intro\r\n" + sentences(20)),
        Page(2, sentences(12) + "\r\nMaintenance\r\n" + sentences(12)),
    ]
    headings = place_headings([(2, "Maintenance"), (1, "Intro")], pages)
    assert headings == [Heading(1, 0, "Intro"), Heading(2, pages[1].text.index("Maintenance"), "Maintenance")]
    chunks = chunker.chunks(pages, doc_id="d", source="s", title="Manual", headings=headings)
    assert chunks[0].heading == "Manual > Intro"
    assert chunks[-1].heading == "Manual > Maintenance"


def test_a_heading_that_is_not_on_its_page_counts_from_the_top() -> None:
    assert place_headings([(1, "Elsewhere (a+b")], [Page(1, "words")]) == [Heading(1, 0, "Elsewhere (a+b")]


def test_a_heading_is_found_over_line_ends_and_in_other_capitals() -> None:
    page = Page(4, "  Overview\r\n\r\nSTRA\u00dfE  and\r\n\u0130stanbul\r\nwords")
    assert place_headings([(4, "Stra\u00dfe and \u0130stanbul")], [page])[0].start == page.text.index("STRA")


def test_thousands_of_long_headings_that_are_not_there_are_looked_for_at_once() -> None:
    begun = time.process_time()
    place_headings([(1, "a " * 99 + "z")] * 2_000, [Page(1, "a " * 50_000)])
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("title", "section", "expected"),
    [("A", "", "A"), ("", "B", "B"), ("A", "a", "A"), ("A", "B", "A > B"), ("", "", "")],
)
def test_title_and_section_make_one_heading(title: str, section: str, expected: str) -> None:
    assert join_heading(title, section) == expected


def test_a_long_heading_is_cut() -> None:
    assert len(join_heading("t" * 300, "s")) == 160


@pytest.mark.parametrize(
    ("metadata", "source", "expected"),
    [
        ("Annual Report 2023", "x.pdf", "Annual Report 2023"),
        ("", "pump_manual v2.pdf", "pump manual v2"),
        ("Microsoft Word - draft.docx", "pump.pdf", "pump"),
        ("C:\\temp\\a.doc", "pump.pdf", "pump"),
    ],
)
def test_the_title_is_the_metadata_or_else_the_file_name(metadata: str, source: str, expected: str) -> None:
    assert title_of(metadata, source) == expected
