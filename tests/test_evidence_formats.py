"""Question sets as files: what is written is read back as it was, and a bad row is named by file and line."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ingest.errors import BadRequest
from rag.evidence.formats import (
    beir_files,
    read_beir,
    read_csv,
    read_file,
    read_jsonl,
    read_questions,
    safe_cell,
    write_beir,
    write_csv,
    write_jsonl,
    write_questions,
)
from rag.evidence.questions import Judgement, Question, question_id
from tests.conftest import SHARED

Format = tuple[Callable[[Sequence[Question]], Any], Callable[[Any], tuple[Question, ...]]]
FORMATS: dict[str, Format] = {
    "csv": (write_csv, lambda data: read_csv(data, "q.csv")),
    "jsonl": (write_jsonl, lambda data: read_jsonl(data, "q.jsonl")),
    "beir": (write_beir, lambda files: read_beir(files, "q")),
}
SET = (
    Question(
        "one", "How old?", (Judgement("a.pdf", (3,)), Judgement("a.pdf", (7, 8)), Judgement("b", ())), "9"
    ),
    Question("two", "Where,\nexactly?", (Judgement(quote='He said "here", \r\n  twice. '),)),
    Question(
        "three", "=1+1", (Judgement("-a.pdf", (9, 2, 4), "=cmd()", "uuid", 2), Judgement("+c.pdf", grade=0))
    ),
    Question("four", "Is it in no document?", (), "@no"),
)


@pytest.fixture(params=FORMATS)
def both(request: pytest.FixtureRequest) -> Format:
    return FORMATS[request.param]


def test_what_is_written_is_read_back_as_it_was(both: Format) -> None:
    write, read = both
    assert read(write(SET)) == SET


def test_any_text_at_all_is_read_back_as_it_was(both: Format) -> None:
    write, read = both
    alphabet = "ab '\"=+-@|,;\t\r\n\\\x00\x1f\u2028\ufeffé👩‍🔬#_[](){}<>"
    chance = random.Random(7)

    def text(size: int) -> str:
        return "".join(chance.choices(alphabet, k=chance.randrange(size)))

    made = tuple(
        Question(
            f"q{number}",
            f"x{text(20)}x",
            tuple(
                Judgement(
                    f"d{text(9)}",
                    tuple(chance.choices(range(1, 99), k=chance.randrange(4))),
                    text(20) + "word" + text(9),
                    text(9),
                    chance.randrange(4),
                )
                for _ in range(chance.randrange(4))
            ),
            text(20),
        )
        for number in range(200)
    )
    assert read(write(made)) == made


def test_a_question_without_an_id_gets_the_same_one_from_every_format() -> None:
    asked = (Question(question_id("How old?"), "How old?", (Judgement("a.pdf", (3,)),)),)
    assert read_csv(b"question,document,page\nHow old?,a.pdf,3\n", "q.csv") == asked
    line = b'{"question": "How old?", "relevant": [{"document": "a.pdf", "page": 3}]}'
    assert read_jsonl(line, "q.jsonl") == asked


def test_rows_of_the_same_question_are_one_question_with_several_passages() -> None:
    rows = b"question,document,page,answer\nHow old?,a.pdf,3,9\nWho?,b.pdf,,\nHow old?,a.pdf,7-8,\n"
    first, second = read_csv(rows, "q.csv")
    assert first.judgements == (Judgement("a.pdf", (3,)), Judgement("a.pdf", (7, 8)))
    assert first.answer == "9"
    assert second.judgements == (Judgement("b.pdf"),)


def test_columns_come_in_any_order_with_a_byte_order_mark_and_any_line_ends() -> None:
    rows = "\ufeffPage,Question,Document\r\n3,How old?,a.pdf\r\n\r\n,,\r\n4,Who?,a.pdf".encode()
    assert [question.text for question in read_csv(rows, "q.csv")] == ["How old?", "Who?"]


def test_no_cell_is_a_formula_for_a_spreadsheet() -> None:
    written = write_csv(SET).decode()
    assert '"=' not in written
    assert '"@' not in written
    assert safe_cell("=1") == "'=1"
    assert safe_cell("'=1") == "''=1"
    assert safe_cell("it's") == "it's"


CSV = "question,document,page,grade\n"


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        (CSV + "Who?,a.pdf,0,", "q.csv, line 2: pages count from 1"),
        (CSV + "Who?,a.pdf,1,\nWhat?,a.pdf,two,", "q.csv, line 3: the page must be a number from 1"),
        (CSV + "Who?,a.pdf,9-8,", "line 2: the pages '9-8' are no range"),
        (CSV + "Who?,a.pdf,1-999999,", "line 2: the pages '1-999999' are no range"),
        (CSV + "Who?,a.pdf,1,good", "line 2: the grade must be a whole number, not 'good'"),
        (CSV + "Who?,a.pdf,1,-1", "line 2: a grade is 0"),
        (CSV + "Who?,,3,", "line 2: a relevant passage needs a document"),
        (CSV + " ,a.pdf,3,", "line 2: the question is empty"),
        (CSV + f"{'x' * 2001},a.pdf,3,", "line 2: the question has 2,001 characters"),
        (CSV + "Who?,a.pdf,1", "line 2: the row has 3 cells, and the first row has 4"),
        (CSV + '"Two\nlines?",a.pdf,1,\nWho?,a.pdf,x,', "line 4: the page"),
        (CSV + 'Who?,"a.pdf,1,\n', "line 2: the row cannot be read"),
        (CSV + "Who?,a.pdf,1,\nWho?,,,", "line 3: the same question is there twice"),
        ("question,pages\nWho?,1", r"line 1: .* does not know 'pages'"),
        ("document,page\na.pdf,1", "line 1: the first row must name the columns"),
        ("question,question\na,b", "line 1: the first row must name the columns"),
        ("id,question,answer\n1,Who?,a\n1,What?,a", "line 3: the id '1' stands for another question"),
        ("question,answer\nWho?,a\nWho?,b", "line 3: the same question has another answer above"),
        ("question,document,quote\nWho?,a.pdf,...", "line 2: the quoted text has no words"),
        ("question\n", "q.csv holds no question"),
        ("", "q.csv holds no question"),
    ],
)
def test_a_bad_row_of_a_csv_file_is_named_by_file_and_line(rows: str, named: str) -> None:
    with pytest.raises(BadRequest, match=named):
        read_csv(rows.encode(), "q.csv")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("{", "q.jsonl, line 2: the line is no JSON object"),
        ("[" * 100_000, "line 2: the line is no JSON object"),
        ("3", "line 2: the line is no JSON object"),
        ("{}", "line 2: the question is empty"),
        ('{"question": 3}', "line 2: `question` must be a text"),
        ('{"question": "Who?", "relevant": 3}', "line 2: `relevant` must be a list of objects"),
        ('{"question": "Who?", "relevant": [3]}', "line 2: `relevant` must be a list of objects"),
        (
            '{"question": "Who?", "relevant": [{"document": "a", "page": "3"}]}',
            "line 2: a page must be a whole",
        ),
        (
            '{"question": "Who?", "relevant": [{"document": "a", "page": true}]}',
            "line 2: a page must be a whole",
        ),
        (
            '{"question": "Who?", "relevant": [{"quote": "a", "page": 3}]}',
            "line 2: a page needs its document",
        ),
        ('{"question": "Who?", "relevant": [{}]}', "line 2: a relevant passage needs a document"),
        ('{"question": "\\ud800"}', "line 2: a text holds half a character"),
        ('{"question": "First?"}', "line 2: the id '.*' is there twice"),
        ('{"id": "a\\tb", "question": "Who?"}', "line 2: the id must be"),
    ],
)
def test_a_bad_line_of_a_jsonl_file_is_named_by_file_and_line(line: str, named: str) -> None:
    with pytest.raises(BadRequest, match=named):
        read_jsonl(f'{{"question": "First?"}}\n{line}\n'.encode(), "q.jsonl")


def test_a_file_that_is_not_utf8_is_named_with_the_line() -> None:
    with pytest.raises(BadRequest, match=r"q\.csv, line 2: the text is not UTF-8"):
        read_csv("question\nWer spült?\n".encode("latin-1"), "q.csv")


def test_all_bad_rows_are_named_ten_at_most() -> None:
    rows = CSV + "".join(f"Who {n}?,a.pdf,x,\n" for n in range(12))
    with pytest.raises(BadRequest) as caught:
        read_csv(rows.encode(), "q.csv")
    told = str(caught.value).splitlines()
    assert (told[0], told[1][:18], told[10][:19], told[11]) == (
        "Nothing was imported.",
        "q.csv, line 2: the",
        "q.csv, line 11: the",
        "And 2 more.",
    )


BEIR = {
    "corpus.jsonl": b'{"_id": "a", "title": "T", "text": "The pump needs oil."}\n{"_id": "b", "text": ""}\n',
    "queries.jsonl": b'{"_id": "1", "text": "Oil?"}\n{"_id": "2", "text": "Train only?"}\n',
    "qrels.tsv": b"query-id\tcorpus-id\tscore\r\n1\ta\t2\r\n1\tb\t0\r\n",
}


def test_a_beir_folder_tells_its_passages_by_their_text() -> None:
    (question,) = read_beir(BEIR, "set")
    told = (Judgement(quote="The pump needs oil.", grade=2), Judgement("b", grade=0))
    assert question == Question("1", "Oil?", told)


def test_without_a_corpus_a_passage_is_the_name_of_a_document() -> None:
    files = {name: data for name, data in BEIR.items() if name != "corpus.jsonl"}
    assert read_beir(files, "set")[0].judgements == (Judgement("a", grade=2), Judgement("b", grade=0))


@pytest.mark.parametrize(
    ("name", "data", "named"),
    [
        (
            "qrels.tsv",
            b"query-id\tcorpus-id\tscore\n1\tz\t1\n",
            r"set/qrels\.tsv, line 2: the corpus has no",
        ),
        ("qrels.tsv", b"1 a 1\n", r"set/qrels\.tsv, line 1: a row is question id"),
        ("qrels.tsv", b"1\ta\tmuch\n", r"set/qrels\.tsv, line 1: a row is question id"),
        ("qrels.tsv", b"1\ta\t1\n9\ta\t1\n", r"set/qrels\.tsv, line 2: there is no question '9'"),
        ("corpus.jsonl", b'{"text": "x"}\n', r"set/corpus\.jsonl, line 1: the passage has no `_id`"),
        (
            "corpus.jsonl",
            BEIR["corpus.jsonl"] * 2,
            r"set/corpus\.jsonl, line 3: the passage has no `_id`, or one",
        ),
        (
            "queries.jsonl",
            BEIR["queries.jsonl"] + b"x\n",
            r"set/queries\.jsonl, line 3: the line is no JSON",
        ),
    ],
)
def test_a_bad_line_of_a_beir_folder_is_named_by_file_and_line(name: str, data: bytes, named: str) -> None:
    with pytest.raises(BadRequest, match=named):
        read_beir({**BEIR, name: data}, "set")


@pytest.mark.parametrize("name", ["q.csv", "q.jsonl", "folder"])
def test_files_and_folders_are_written_and_read(tmp_path: Path, name: str) -> None:
    write_questions(SET, tmp_path / name)
    assert read_questions(tmp_path / name) == SET


def test_qrels_may_lie_where_the_beir_repository_puts_them(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    for name, data in BEIR.items():
        (tmp_path / name.replace("qrels.tsv", "qrels/test.tsv")).write_bytes(data)
    assert len(read_questions(tmp_path)) == 1


def test_what_is_no_question_set_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="is not in BEIR layout: it needs"):
        beir_files(tmp_path)
    with pytest.raises(BadRequest, match=r"q\.xlsx is no question set: give a \.csv"):
        read_file("q.xlsx", b"")
    with pytest.raises(BadRequest, match="cannot be read"):
        read_questions(tmp_path / "nowhere.csv")


def test_other_peoples_names_for_the_same_things_are_understood() -> None:
    row = {"_id": "nw0", "text": "Who?", "answers": ["A", "B"], "evidence": [{"doc": "a.pdf", "page": 7}]}
    (question,) = read_jsonl(json.dumps(row).encode(), "q.jsonl")
    assert question == Question("nw0", "Who?", (Judgement("a.pdf", (7,)),), "A | B")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared test data is not on this machine")
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("financebench-dev/questions.jsonl", 33),
        ("northwind/questions.jsonl", 250),
        ("eval-dev/anthropic-docs", 100),
    ],
)
def test_real_question_sets_survive_every_format(name: str, count: int, both: Format) -> None:
    questions = read_questions(SHARED / "data" / name)
    assert len(questions) == count
    write, read = both
    assert read(write(questions)) == questions
