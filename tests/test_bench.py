from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.crowd import Crowd, Wait, overtakers, places
from bench.memory import Memory, parse
from ingest.bert import PROMPT_TOKENS, _Line


def test_memory_is_read_in_megabytes() -> None:
    text = "00400000-7fff [rollup]\nRss:   4096 kB\nPss:   2048 kB\nPss_File:   1024 kB\n"
    assert parse(text) == Memory(pss=2.0, rss=4.0, files=1.0)
    assert parse(text) + parse(text) == Memory(4.0, 8.0, 2.0)


def test_overtakers_asked_later_and_were_answered_earlier() -> None:
    waits = [Wait(0, 9), Wait(1, 2), Wait(2, 3), Wait(3, 10)]
    assert overtakers(waits) == [2, 0, 0, 0]
    assert places([5.0, 1.0, 3.0]) == [2, 0, 1]
    assert Crowd.of([Wait(0, 1), Wait(1, 2), Wait(2, 4)]).correlation == pytest.approx(1.0)


def test_waiting_batches_are_computed_by_turn_then_by_the_place_of_their_call() -> None:
    with ThreadPoolExecutor(1) as pool:
        line = _Line(1, pool)
        free = threading.Event()
        line.submit(free.wait, 100, 0, line.place())
        first, second = line.place(), line.place()
        done: list[str] = []
        waiting = [("document", PROMPT_TOKENS, first), ("second", 0, second), ("first", 0, first)]
        futures = [line.submit(lambda name=name: done.append(name), 10, *at) for name, *at in waiting]  # type: ignore[misc]
        free.set()
        for future in futures:
            future.result(timeout=10)
    assert done == ["first", "second", "document"]
    assert line.computed == 130
