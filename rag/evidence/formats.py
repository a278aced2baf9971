"""Question sets as CSV, JSON lines and BEIR folders; what is written is read back exactly as it was."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ingest.errors import BadRequest
from rag.evidence.questions import Judgement, Question, question_id, question_problem
from rag.evidence.runfile import question_data

COLUMNS = ("id", "question", "document", "page", "quote", "chunk", "grade", "answer")
"""Of a CSV file: one row for each relevant passage; rows of one question repeat its id (or its words)."""
CORPUS, QUERIES, QRELS = "corpus.jsonl", "queries.jsonl", "qrels.tsv"
BEIR_QRELS = (QRELS, "qrels/test.tsv")
MAX_PROBLEMS = 10
"""So many bad rows are named; the others are counted."""
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_PAGES = re.compile(r"\d{1,6}(-\d{1,6})?(,\d{1,6}(-\d{1,6})?)*")
_OTHER_NAMES = {
    "question": ("question", "text", "query"),
    "id": ("id", "_id"),
    "answer": ("answer", "answers"),
    "relevant": ("relevant", "evidence"),
    "document": ("document", "doc", "file", "source"),
    "quote": ("quote", "text"),
}
"""Keys of JSON lines that mean the same: other people's question sets can be read as they are."""


class Rows:
    """Collects questions and what is wrong with them, row by row; nothing is given out while anything is wrong."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._questions: dict[str, Question] = {}
        self._problems: list[str] = []

    def problem(self, line: int, what: str, file: str = "") -> None:
        """Name a bad row; `line` counts from 1."""
        self._problems.append(f"{file or self._file}, line {line}: {what}.")

    def add(self, line: int, question: Question, *, merge: bool = False) -> None:
        """Take in a question; with `merge` the passages of one that is there already are added to it."""
        what = question_problem(question)
        before = self._questions.get(question.id)
        if not what and before:
            what = _clash(before, question) if merge else f"the id {question.id!r} is there twice"
        if what:
            self.problem(line, what)
        elif before:
            judgements = before.judgements + question.judgements
            self._questions[question.id] = replace(before, judgements=judgements)
        else:
            self._questions[question.id] = question

    def done(self) -> tuple[Question, ...]:
        """All questions. Raises BadRequest, naming file and line of each bad row."""
        self.check()
        if not self._questions:
            raise BadRequest(f"{self._file} holds no question.")
        return tuple(self._questions.values())

    def check(self) -> None:
        """Raise BadRequest, naming file and line of each bad row, where there is one."""
        if self._problems:
            named = self._problems[:MAX_PROBLEMS]
            more = len(self._problems) - len(named)
            rest = [f"And {more:,} more."] if more else []
            raise BadRequest("\n".join(["Nothing was imported.", *named, *rest]))


def _clash(before: Question, question: Question) -> str:
    if before.text != question.text:
        return f"the id {question.id!r} stands for another question above"
    if question.answer not in ("", before.answer):
        return "the same question has another answer above"
    if not (before.judgements and question.judgements):
        return "the same question is there twice, once without a relevant passage"
    return ""


def read_questions(path: Path) -> tuple[Question, ...]:
    """Questions from a .csv file, a .jsonl file or a BEIR folder. Raises BadRequest."""
    try:
        if path.is_dir():
            return read_beir(beir_files(path), path.name)
        return read_file(path.name, path.read_bytes())
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {error.strerror}.") from error


def read_file(name: str, data: bytes) -> tuple[Question, ...]:
    """Questions from the bytes of a .csv or .jsonl file. Raises BadRequest, naming file and line."""
    suffix = Path(name).suffix.lower()
    if suffix == ".csv":
        return read_csv(data, name)
    if suffix in (".jsonl", ".ndjson"):
        return read_jsonl(data, name)
    raise BadRequest(
        f"{name} is no question set: give a .csv file, a .jsonl file, or a folder in BEIR layout."
    )


def write_questions(questions: Sequence[Question], path: Path) -> None:
    """Write a .csv file, a .jsonl file, or, for any other name, a BEIR folder."""
    writers: dict[str, Callable[[Sequence[Question]], bytes]] = {".csv": write_csv, ".jsonl": write_jsonl}
    writer = writers.get(path.suffix.lower())
    if writer:
        path.write_bytes(writer(questions))
        return
    path.mkdir(parents=True, exist_ok=True)
    for name, data in write_beir(questions).items():
        (path / name).write_bytes(data)


def read_csv(data: bytes, file: str) -> tuple[Question, ...]:
    """Questions from a CSV file with the columns `question` and any others of COLUMNS, in any order."""
    rows = Rows(file)
    reader = csv.reader(io.StringIO(_text(data, file), newline=""), strict=True)
    header: list[str] = []
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            # where a quote is never closed the rest of the file is one cell: nothing more can be read
            rows.problem(line, f"the row cannot be read ({error})")
            break
        if cells is None:
            break
        if not header:
            header = _header(cells, file)
        elif any(cell.strip() for cell in cells):
            _csv_row(rows, line, header, cells)
    return rows.done()


def _header(cells: Sequence[str], file: str) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    unknown = sorted(set(names) - set(COLUMNS))
    if "question" not in names or unknown or len(set(names)) < len(names):
        said = (
            f"does not know {', '.join(map(repr, unknown))}"
            if unknown
            else f"found {', '.join(names)[:100]!r}"
        )
        raise BadRequest(
            f"{file}, line 1: the first row must name the columns, `question` and any of "
            f"{', '.join(COLUMNS)}, each once; {said}."
        )
    return names


def _csv_row(rows: Rows, line: int, header: Sequence[str], cells: Sequence[str]) -> None:
    if len(cells) != len(header):
        rows.problem(line, f"the row has {len(cells)} cells, and the first row has {len(header)}")
        return
    row = {name: plain_cell(cell) for name, cell in zip(header, cells, strict=True)}
    text = row["question"].strip()
    try:
        judgement = Judgement(
            row.get("document", ""),
            _pages(row.get("page", "")),
            row.get("quote", ""),
            row.get("chunk", ""),
            _grade(row.get("grade", "")),
        )
    except ValueError as error:
        rows.problem(line, str(error))
        return
    judgements = () if judgement == Judgement() and not row.get("grade") else (judgement,)
    id_ = row.get("id") or question_id(text)
    rows.add(line, Question(id_, text, judgements, row.get("answer", "")), merge=True)


def write_csv(questions: Sequence[Question]) -> bytes:
    """One row for each judgement; a question without any is a row of its own."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(COLUMNS)
    for question in questions:
        for one in question.judgements or (None,):
            passage = (
                (one.document, _page_cell(one.pages), one.quote, one.chunk, str(one.grade))
                if one
                else ("",) * 5
            )
            cells = (question.id, question.text, *passage, question.answer)
            writer.writerow([safe_cell(cell) for cell in cells])
    return out.getvalue().encode()


def safe_cell(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: what begins like one gets an apostrophe in front."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def plain_cell(cell: str) -> str:
    """Inverse of `safe_cell`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _pages(cell: str) -> tuple[int, ...]:
    """The pages of a cell like 7, 7-8 or 7,9. Raises ValueError."""
    cell = cell.replace(" ", "")
    if not cell:
        return ()
    if not _PAGES.fullmatch(cell):
        raise ValueError(f"the page must be a number from 1, or like 7-8 or 7,9, not {cell[:40]!r}")
    pages: list[int] = []
    for part in cell.split(","):
        first, _, last = part.partition("-")
        if int(last or first) - int(first) not in range(1000):
            raise ValueError(f"the pages {part[:40]!r} are no range of at most 1,000 pages")
        pages += range(int(first), int(last or first) + 1)
    return tuple(pages)


def _page_cell(pages: Sequence[int]) -> str:
    if len(pages) > 1 and tuple(pages) == tuple(range(pages[0], pages[-1] + 1)):
        return f"{pages[0]}-{pages[-1]}"
    return ",".join(map(str, pages))


def _grade(cell: str) -> int:
    try:
        return int(cell) if cell.strip() else 1
    except ValueError:
        raise ValueError(f"the grade must be a whole number, not {cell[:40]!r}") from None


def read_jsonl(data: bytes, file: str) -> tuple[Question, ...]:
    """Questions from JSON lines, each {"question", "id", "answer", "relevant": [{"document", "page", ...}]}."""
    rows = Rows(file)
    for line, row in read_objects(data, file, rows):
        try:
            rows.add(line, _question(row))
        except ValueError as error:
            rows.problem(line, str(error))
    return rows.done()


def write_jsonl(questions: Sequence[Question]) -> bytes:
    """One object a line for each question."""
    return _lines(question_data(question) for question in questions)


def _question(row: Mapping[str, Any]) -> Question:
    text = _string(row, "question").strip()
    relevant = _value(row, "relevant") or []
    if not isinstance(relevant, list) or not all(isinstance(one, dict) for one in relevant):
        raise ValueError("`relevant` must be a list of objects")
    return Question(
        _string(row, "id") or question_id(text),
        text,
        tuple(map(_judgement, relevant)),
        _string(row, "answer"),
    )


def _judgement(row: Mapping[str, Any]) -> Judgement:
    pages = row.get("pages", [row["page"]] if row.get("page") is not None else [])
    if not isinstance(pages, list) or not all(_is_whole(page) for page in pages):
        raise ValueError("a page must be a whole number, and `pages` a list of them")
    grade = row.get("grade", 1)
    if not _is_whole(grade):
        raise ValueError("a grade must be a whole number")
    return Judgement(
        _string(row, "document"), tuple(pages), _string(row, "quote"), _string(row, "chunk"), grade
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _value(row: Mapping[str, Any], name: str) -> Any:
    return next((row[key] for key in _OTHER_NAMES.get(name, (name,)) if row.get(key) is not None), None)


def _string(row: Mapping[str, Any], name: str) -> str:
    value = _value(row, name)
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        value = " | ".join(value)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"`{name}` must be a text")
    return value or ""


def beir_files(folder: Path) -> dict[str, bytes]:
    """The files of a BEIR folder that hold questions. Raises BadRequest where some are missing."""
    names = [name for name in (CORPUS, QUERIES, *BEIR_QRELS) if (folder / name).is_file()]
    if QUERIES not in names or not set(BEIR_QRELS) & set(names):
        raise BadRequest(
            f"{folder} is not in BEIR layout: it needs {QUERIES} and {QRELS} (or qrels/test.tsv)."
        )
    return {name: (folder / name).read_bytes() for name in names}


def read_beir(files: Mapping[str, bytes], folder: str) -> tuple[Question, ...]:
    """Questions from the files of a BEIR folder.

    A passage of the corpus is told by its text, so that it is found in whatever document of the library holds it;
    without a corpus its id is taken for the name of a document. Questions that no row of the qrels names are left
    out, except those that `write_beir` wrote.
    """
    rows = Rows(f"{folder}/{QUERIES}")
    corpus = read_corpus(files[CORPUS], f"{folder}/{CORPUS}", rows) if CORPUS in files else None
    qrels_name = next(name for name in BEIR_QRELS if name in files)
    found: dict[str, list[Judgement]] = {}
    lines: dict[str, int] = {}
    qrels_file = f"{folder}/{qrels_name}"
    for line, query, passage, grade in read_qrels(files[qrels_name], qrels_file, rows):
        lines.setdefault(query, line)
        if corpus is not None and passage not in corpus:
            rows.problem(line, f"the corpus has no passage {passage[:100]!r}", qrels_file)
            continue
        told = corpus[passage] if corpus is not None else Judgement(passage)
        found.setdefault(query, []).append(replace(told, grade=grade))
    for line, row in read_objects(files[QUERIES], f"{folder}/{QUERIES}", rows):
        try:
            question = _question({key: row[key] for key in row if key not in ("relevant", "evidence")})
        except ValueError as error:
            rows.problem(line, str(error))
            continue
        lines.pop(question.id, None)
        kept = row.get("metadata") == {"judged": True}
        if question.id in found or kept:
            rows.add(line, replace(question, judgements=tuple(found.get(question.id, ()))))
    for query, line in lines.items():
        rows.problem(line, f"there is no question {query[:100]!r}", qrels_file)
    return rows.done()


def read_corpus(data: bytes, file: str, rows: Rows) -> dict[str, Judgement]:
    """What each passage of a corpus is told by, by id."""
    passages: dict[str, Judgement] = {}
    for line, row in read_objects(data, file, rows):
        metadata = row.get("metadata")
        try:
            id_, text = _string(row, "id"), _string({"quote": row.get("text")}, "quote")
            told = _judgement(metadata) if isinstance(metadata, dict) and metadata else Judgement(quote=text)
        except ValueError as error:
            rows.problem(line, str(error), file)
            continue
        if not id_ or id_ in passages:
            rows.problem(line, "the passage has no `_id`, or one that is there twice", file)
            continue
        passages[id_] = told if told != Judgement() else Judgement(id_)
    return passages


def read_qrels(data: bytes, file: str, rows: Rows) -> Iterator[tuple[int, str, str, int]]:
    """(line, question id, passage id, grade) of each row below the header."""
    for line, text in enumerate(_text(data, file).split("\n"), start=1):
        cells = text.rstrip("\r").split("\t")
        if not text.strip() or (line == 1 and cells[0] == "query-id"):
            continue
        try:
            query, passage, score = cells
            grade = max(0, round(float(score)))
        except (ValueError, OverflowError):
            rows.problem(line, "a row is question id, passage id and score, with tabs between", file)
            continue
        yield line, query, passage, grade


def write_beir(questions: Sequence[Question]) -> dict[str, bytes]:
    """corpus.jsonl (the judged passages alone), queries.jsonl and qrels.tsv."""
    ids: dict[Judgement, str] = {}
    qrels = ["query-id\tcorpus-id\tscore"]
    for question in questions:
        for judgement in question.judgements:
            told = replace(judgement, grade=1)
            id_ = ids.setdefault(told, f"passage-{len(ids) + 1}")
            qrels.append(f"{question.id}\t{id_}\t{judgement.grade}")
    corpus = [
        {
            "_id": id_,
            "title": told.document,
            "text": told.quote,
            "metadata": question_data(Question("", "", (told,)))["relevant"][0],
        }
        for told, id_ in ids.items()
    ]
    queries = [
        {"_id": one.id, "text": one.text, "answer": one.answer, "metadata": {"judged": True}}
        for one in questions
    ]
    return {
        CORPUS: _lines(corpus),
        QUERIES: _lines(queries),
        QRELS: "".join(f"{line}\n" for line in qrels).encode(),
    }


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()


def read_objects(data: bytes, file: str, rows: Rows) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, object) of each line that is not empty; what is no object is named as a problem."""
    for line, text in enumerate(_text(data, file).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            yield line, row
        else:
            rows.problem(line, "the line is no JSON object", file)


def _text(data: bytes, file: str) -> str:
    """The text of a file, without a byte order mark. Raises BadRequest, naming the line that is no UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise BadRequest(
            f"{file}, line {line}: the text is not UTF-8. Save the file as UTF-8 and try again."
        ) from None
