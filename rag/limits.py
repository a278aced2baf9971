"""What one user, or all users together, may ask for at once and in a minute, as the operator has set it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ingest.errors import AnswerFailed, BadRequest, LimitReached
from ingest.types import Chunk
from rag.answer import Answerer, ChatAnswerer, make_answerer
from rag.quotes import ScoreSentences
from rag.settings import Settings

BODY_BYTES = 1_000_000
"""The largest request that is not an upload, and what an upload may add around its files."""


class Limits:
    """Counts requests of each user within the last 60 seconds; thread-safe."""

    def __init__(self, settings: Settings) -> None:
        # here, because it takes longer to import than all of this package
        from limits import RateLimitItemPerMinute
        from limits.storage import MemoryStorage
        from limits.strategies import MovingWindowRateLimiter

        self._settings = settings
        self._rate = RateLimitItemPerMinute(settings.requests_per_minute)
        self._window = MovingWindowRateLimiter(MemoryStorage())

    def request(self, user: str) -> None:
        """Count one request of a user. Raises LimitReached where it is one too many."""
        if not self._window.hit(self._rate, user):
            raise LimitReached(
                f"More than {self._settings.requests_per_minute} requests in a minute: try again in "
                f"{self.seconds_left(user)} s. The operator can raise REQUESTS_PER_MINUTE."
            )

    def seconds_left(self, user: str) -> int:
        """Seconds until a user's next request is taken, at least 1."""
        return max(1, math.ceil(self._window.get_window_stats(self._rate, user).reset_time - time.time()))

    def question(self, question: str) -> str:
        """The question. Raises BadRequest where it is longer than the operator allows."""
        most = self._settings.max_question_chars
        if len(question) > most:
            raise BadRequest(f"The question has {len(question):,} characters; at most {most:,} are allowed.")
        return question

    def body_bytes(self, *, upload: bool) -> int:
        """How many bytes the body of a request may have."""
        return BODY_BYTES + (self._settings.max_upload_mb * 1_000_000 if upload else 0)


class Places:
    """So many may do a thing at the same time; whoever comes then waits for a while."""

    def __init__(self, places: int, seconds: float) -> None:
        self._all = places
        self._seconds = seconds
        self._free = threading.BoundedSemaphore(places)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold a place. Raises AnswerFailed where none gets free in time."""
        if not self._free.acquire(timeout=self._seconds):
            raise AnswerFailed(
                f"The LLM is busy: {self._all} texts are being written for others, as many as are allowed, and "
                f"none ended within {self._seconds:g} s. Ask again in a moment; the operator can raise "
                "LLM_CONCURRENCY."
            )
        try:
            yield
        finally:
            self._free.release()


class WaitingAnswerer(ChatAnswerer):
    """An LLM that writes only so many texts at the same time."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._places = Places(settings.llm_concurrency, settings.llm_wait)

    def stream(self, question: str, sources: Sequence[Chunk]) -> Iterator[str]:
        """The answer, piece by piece; holds a place from the first piece to the last."""
        with self._places.taken():
            yield from super().stream(question, sources)

    def complete(self, instructions: str, content: str, *, seconds: float, characters: int) -> str:
        """One short text; holds a place meanwhile."""
        with self._places.taken():
            return super().complete(instructions, content, seconds=seconds, characters=characters)


def limited_answerer(settings: Settings, score_sentences: ScoreSentences) -> Answerer:
    """As `make_answerer`, with the operator's limit on how many texts an LLM writes at the same time."""
    return WaitingAnswerer(settings) if settings.has_llm else make_answerer(settings, score_sentences)
