"""Answers that are written at the same time, in threads of their own, and shown while they arrive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, Queue
from time import monotonic, sleep

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from ingest.errors import UserError
from ingest.types import Chunk
from rag.answer import Answerer
from rag.citations import safe_markdown
from rag.types import Answered

OnText = Callable[[str], None]
Stop = threading.Event
Write = Callable[[OnText, Stop], Answered]
"""Writes an answer, calling back with all text so far; ends soon after the event is set."""

SECONDS_BETWEEN_LOOKS = 0.08
SECONDS_BETWEEN_PEEKS = 0.01


class Stoppable:
    """An answerer that ends its answer when `stop` is set, also while the one behind it is silent."""

    def __init__(self, answerer: Answerer, stop: Stop) -> None:
        self.name = answerer.name
        self.note = answerer.note
        self._answerer = answerer
        self._stop = stop

    def stream(self, question: str, sources: Sequence[Chunk]) -> Iterator[str]:
        """Pieces until the end, or until `stop` is set."""
        pieces: Queue[str | Exception | None] = Queue()
        reader = threading.Thread(
            target=self._read, args=(question, sources, pieces), name="answer-pieces", daemon=True
        )
        reader.start()
        while not self._stop.is_set():
            try:
                piece = pieces.get(timeout=SECONDS_BETWEEN_LOOKS)
            except Empty:
                continue
            if piece is None:
                return
            if isinstance(piece, Exception):
                raise piece
            yield piece

    def _read(self, question: str, sources: Sequence[Chunk], pieces: Queue[str | Exception | None]) -> None:
        end: Exception | None = RuntimeError("The answer broke off; the log has the reason.")
        try:
            for piece in self._answerer.stream(question, sources):
                if self._stop.is_set():
                    break
                pieces.put(piece)
            end = None
        except UserError as error:
            end = error
        finally:
            pieces.put(end)


class Writing:
    """One answer on its way. It goes on while the page is drawn anew, until it is complete or stopped."""

    def __init__(self, write: Write) -> None:
        self.text = ""
        self._stop = Stop()
        self._done = threading.Event()
        self._answered: Answered | None = None
        self._error: UserError | None = None
        threading.Thread(target=self._run, args=(write,), name="answer", daemon=True).start()

    @property
    def done(self) -> bool:
        """True when there is a result."""
        return self._done.is_set()

    @property
    def stopped(self) -> bool:
        """True when it was told to end before it was complete."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Have it end soon; what was written so far is kept. A complete one stays complete."""
        if not self.done:
            self._stop.set()

    def result(self) -> Answered:
        """The answer, waiting for it. Raises the UserError that ended it."""
        self._done.wait()
        if self._error:
            raise self._error
        if self._answered is None:
            raise RuntimeError("The answer broke off; the log has the reason.")
        return self._answered

    def _run(self, write: Write) -> None:
        try:
            self._answered = write(self._put, self._stop)
        except UserError as error:
            self._error = error
        finally:
            self._done.set()

    def _put(self, text: str) -> None:
        self.text = text


def peek(writings: Sequence[Writing], places: Sequence[DeltaGenerator], *, patience: float = 0.0) -> None:
    """Show what has arrived of each text, waiting at most `patience` seconds for the first words of all."""
    end = monotonic() + patience
    while any(not writing.text and not writing.done for writing in writings) and monotonic() < end:
        sleep(SECONDS_BETWEEN_PEEKS)
    for writing, place in zip(writings, places, strict=True):
        if writing.text:
            place.markdown(safe_markdown(writing.text))


def follow(writings: Sequence[Writing], places: Sequence[DeltaGenerator]) -> None:
    """Show each text in its place while it grows, until all are complete.

    Whoever uses the page meanwhile interrupts this, not the writing: the next run of the page follows again.
    """
    shown = ["" for _ in writings]
    while True:
        complete = all(writing.done for writing in writings)
        for number, (writing, place) in enumerate(zip(writings, places, strict=True)):
            if writing.text != shown[number]:
                shown[number] = writing.text
                place.markdown(safe_markdown(shown[number]))
        if complete:
            return
        # any look at the session is where Streamlit can interrupt a page: also while no text arrives
        _ = "turns" in st.session_state
        sleep(SECONDS_BETWEEN_LOOKS)
