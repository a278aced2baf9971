"""Answers that are written at the same time, shown while they arrive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from streamlit.delta_generator import DeltaGenerator

from rag.citations import safe_markdown
from rag.types import Answered

Write = Callable[[Callable[[str], None]], Answered]
"""Writes an answer, calling back with all text so far."""

SECONDS_BETWEEN_LOOKS = 0.08


class _Left(Exception):
    """The page was left while an answer was being written."""


@dataclass(slots=True)
class _Box:
    """The newest text of one answer, handed from its thread to the page."""

    text: str = ""
    left: threading.Event = field(default_factory=threading.Event)

    def put(self, text: str) -> None:
        if self.left.is_set():
            raise _Left
        self.text = text


def stream(writes: Sequence[Write], places: Sequence[DeltaGenerator]) -> list[Answered]:
    """Run all writers at once and show each one's text in its place until all are done.

    When the page is left or rerun, the writers stop at their next piece.
    """
    boxes = [_Box() for _ in writes]
    shown = ["" for _ in writes]
    with ThreadPoolExecutor(len(writes)) as pool:
        futures = [pool.submit(write, box.put) for write, box in zip(writes, boxes, strict=True)]
        try:
            pending = set(futures)
            while pending:
                pending = wait(pending, timeout=SECONDS_BETWEEN_LOOKS).not_done
                for number, (box, place) in enumerate(zip(boxes, places, strict=True)):
                    if box.text != shown[number]:
                        shown[number] = box.text
                        place.markdown(safe_markdown(shown[number]))
        finally:
            for box in boxes:
                box.left.set()
        return [future.result() for future in futures]
