"""How long a computation still takes, by its pace so far."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import replace
from typing import TypeVar

from quantgui.results import Event, Progress

R = TypeVar("R")


def paced(events: Generator[Event, None, R]) -> Generator[Event, None, R]:
    """Yield the events, each Progress with the seconds that its stage still takes at its pace, and return the result.

    A stage is what has the same label and the same number of steps.
    """
    stage: tuple[str, int] | None = None
    first, started = 0, 0.0
    try:
        while True:
            event = next(events)
            if isinstance(event, Progress) and event.total and event.seconds_left is None:
                if stage != (event.label, event.total) or event.done < first:
                    stage, first, started = (event.label, event.total), event.done, time.perf_counter()
                done = event.done - first
                left = (time.perf_counter() - started) / done * (event.total - event.done) if done > 0 else None
                event = replace(event, seconds_left=left)
            yield event
    except StopIteration as stop:
        result: R = stop.value
        return result
    finally:
        events.close()
