"""Questions with the passages that answer them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from ingest.errors import BadRequest
from rag.pipeline import MAX_QUESTION_CHARS

MAX_ID_CHARS = 200


@dataclass(frozen=True, slots=True)
class Judgement:
    """A passage, and how relevant it is to a question: `grade` 1 or more is relevant, 0 is not.

    `document` is a file name or a document id; empty means any. Which chunks are this passage is told by the
    narrowest that is given: `chunk` (an id; a chunk of the document that holds `quote` counts as well), else
    `pages` (from 1; any of them counts, the first is the one meant), else `quote`, else the whole document.
    """

    document: str = ""
    pages: tuple[int, ...] = ()
    quote: str = ""
    chunk: str = ""
    grade: int = 1


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its judgements; without a relevant one the documents do not answer it.

    `id` is unique in a set; `answer` may be empty.
    """

    id: str
    text: str
    judgements: tuple[Judgement, ...]
    answer: str = ""

    @property
    def relevant(self) -> tuple[Judgement, ...]:
        """What a search should find."""
        return tuple(judgement for judgement in self.judgements if judgement.grade > 0)


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """Questions under a name."""

    name: str
    questions: tuple[Question, ...]


def question_id(text: str) -> str:
    """The id of a question that came without one: the same words always get the same id."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def question_problem(question: Question) -> str:
    """What is wrong with a question, as the end of a sentence; empty where nothing is."""
    id_, text = question.id, question.text
    if not text or text != text.strip():
        return "the question is empty" if not text.strip() else "the question begins or ends with white space"
    if len(text) > MAX_QUESTION_CHARS:
        return f"the question has {len(text):,} characters; at most {MAX_QUESTION_CHARS:,} are read"
    if not id_ or len(id_) > MAX_ID_CHARS or not id_.isprintable() or id_ != id_.strip():
        return f"the id must be 1 to {MAX_ID_CHARS} printable characters"
    texts = (text, question.answer, *(text for one in question.judgements for text in _texts(one)))
    if not all(_is_unicode(text) for text in texts):
        return "a text holds half a character (a lone surrogate)"
    return next(filter(None, map(_judgement_problem, question.judgements)), "")


def check_questions(questions: Iterable[Question]) -> tuple[Question, ...]:
    """The questions as they are. Raises BadRequest where one cannot be used or an id is there twice."""
    kept: dict[str, Question] = {}
    for number, question in enumerate(questions, start=1):
        problem = question_problem(question)
        if not problem and question.id in kept:
            problem = f"the id {question.id!r} is there twice"
        if problem:
            raise BadRequest(f"Question {number}: {problem}.")
        kept[question.id] = question
    return tuple(kept.values())


def _judgement_problem(judgement: Judgement) -> str:
    if not (judgement.document or judgement.quote or judgement.chunk):
        return "a relevant passage needs a document, a quoted text or a chunk"
    if judgement.pages and not judgement.document:
        return "a page needs its document"
    if any(page < 1 for page in judgement.pages):
        return "pages count from 1"
    if judgement.grade < 0:
        return "a grade is 0 (not relevant) or more"
    if judgement.quote and not any(map(str.isalnum, judgement.quote)):
        return "the quoted text has no words"
    return ""


def _texts(judgement: Judgement) -> tuple[str, ...]:
    return judgement.document, judgement.quote, judgement.chunk


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def measurable(questions: QuestionSet) -> QuestionSet:
    """The set without questions of which only wrong passages are known: they may well have a right one."""
    kept = tuple(one for one in questions.questions if one.relevant or not one.judgements)
    return QuestionSet(questions.name, kept)
