"""The error tree.

    UserError                what, where, and what to do next; shown as it is
    |-- PdfRefused           a file that cannot be indexed; `kind` says why
    |-- IndexLocked          another process holds the embedded index
    |-- IndexMismatch        the index was made with another embedder or chunker
    |-- StoreUnavailable     Qdrant does not answer, or answers with an error
    |-- ModelUnavailable     weights are missing, altered, or fail their self-test
    |-- RerankFailed         the cross-encoder broke on a question
    |-- AnswerFailed         the LLM endpoint refused, timed out, or cut its stream
    |-- LimitReached         more at once, or in a minute, than the operator allows
    `-- BadRequest           a question, a name or a number that cannot be used

Anything else that is raised is a defect.
"""

from __future__ import annotations

from typing import Literal

PdfProblem = Literal[
    "not_a_pdf",
    "empty",
    "damaged",
    "password",
    "no_text",
    "too_many_pages",
    "crashed",
    "timed_out",
    "out_of_memory",
]


class UserError(Exception):
    """A message for the person in front of the screen."""


class PdfRefused(UserError):
    """A file that cannot be indexed; the message names the reason and the way out."""

    def __init__(self, kind: PdfProblem, message: str) -> None:
        super().__init__(message)
        self.kind: PdfProblem = kind

    def __reduce__(self) -> tuple[type[PdfRefused], tuple[PdfProblem, str]]:
        """Keep `kind` when the error crosses a process boundary."""
        return PdfRefused, (self.kind, str(self))


class IndexLocked(UserError):
    """Another process holds the embedded index."""


class IndexMismatch(UserError):
    """The index was made with another embedder or chunker."""


class StoreUnavailable(UserError):
    """Qdrant does not answer, or answers with an error."""


class ModelUnavailable(UserError):
    """Weights are missing, altered, or fail their self-test."""


class RerankFailed(UserError):
    """The cross-encoder broke on a question."""


class AnswerFailed(UserError):
    """The LLM endpoint refused, timed out, or cut its stream."""


class LimitReached(UserError):
    """More at once, or in a minute, than the operator allows: the message says what, and when to try again."""


class BadRequest(UserError):
    """A question, a name or a number that cannot be used."""
