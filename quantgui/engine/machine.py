"""What this process may use of the machine: cores and memory, less where a container has a quota."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_FALLBACK_MEMORY: Final = 4 * 2**30


def usable_cores() -> int:
    """Return the number of cores this process may use, by its affinity and its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _number_in("/sys/fs/cgroup/cpu.max"), _number_in("/sys/fs/cgroup/cpu.max", 1)
    if quota[0] and quota[1]:
        cores = min(cores, max(1, round(quota[0] / quota[1])))
    return cores


def usable_memory() -> int:
    """Return the bytes of memory of the machine, or of the container if that is less."""
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        machine = _FALLBACK_MEMORY
    limits = (_number_in("/sys/fs/cgroup/memory.max"), _number_in("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
    return min(machine, *(limit for limit in limits if limit), machine)


def _number_in(file: str, word: int = 0) -> int | None:
    """Return a number of a control group's file; None where there is no such file or no limit."""
    try:
        text = Path(file).read_text(encoding="ascii").split()[word]
    except (OSError, IndexError):
        return None
    return int(text) if text.isdecimal() else None
