"""Time left, by the pace of a stage."""

from __future__ import annotations

import time
from collections.abc import Generator

import pytest

from quantgui.analysis import pace
from quantgui.analysis.pace import paced
from quantgui.results import Event, Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a clock that shows what stands in the list."""
    now = [100.0]
    monkeypatch.setattr(pace.time, "perf_counter", lambda: now[0])
    return now


def test_that_each_stage_has_its_own_pace(clock: list[float]) -> None:
    def work() -> Generator[Event, None, str]:
        for label, seconds in (("first", 2.0), ("second", 5.0)):
            for done in range(4):
                yield Progress(done, 4, label)
                clock[0] += seconds
        return "all"

    results = []

    def collected() -> Generator[Event, None, None]:
        results.append((yield from paced(work())))

    found = [event.seconds_left for event in collected()]
    assert found == [None, 6.0, 4.0, 2.0, None, 15.0, 10.0, 5.0]
    assert results == ["all"]


def test_that_what_is_known_to_take_its_time_and_what_has_no_end_stay_as_they_are() -> None:
    given = [Progress(1, 2, "a", 7.0), Progress(0, 0, "b"), Progress(1, 0, "b")]
    assert list(paced(event for event in given)) == given


def test_that_a_stage_that_starts_again_is_timed_again(clock: list[float]) -> None:
    def work() -> Generator[Event, None, None]:
        for done in (3, 4, 0, 1):
            yield Progress(done, 5, "round")
            clock[0] += 1.0

    assert [event.seconds_left for event in paced(work())] == [None, 1.0, None, 4.0]


def test_that_stopping_stops_the_work() -> None:
    stopped = []

    def work() -> Generator[Event, None, None]:
        try:
            while True:
                yield Progress(0, 1, str(time.perf_counter()))
        finally:
            stopped.append(True)

    events = paced(work())
    next(events)
    events.close()
    assert stopped == [True]
