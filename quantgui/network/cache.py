"""A cache with a byte budget that is never exceeded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class ByteCache(Generic[V]):
    """Values by key, each with its size in bytes; what was used longest ago goes first.

    Dropping the oldest alone has a flaw: a pass over more data than fits drops each value shortly before the next pass
    needs it, and finds nothing. So with a `patience` a value is dropped only when it was not used for that many ages
    (`next_age`: the caller turned to something new); until then newcomers are not kept, and such passes find as much
    of their data as fits.
    """

    def __init__(self, budget: int, *, patience: int = 0) -> None:
        self.budget = budget
        self.used = 0
        self._patience = patience
        self._age = 0
        self._entries: OrderedDict[Hashable, tuple[V, int, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._entries

    def next_age(self) -> None:
        """Let everything become one age older."""
        self._age += 1

    def get(self, key: Hashable) -> V | None:
        """Return the value of `key` and mark it as used; None if there is none."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        value, size, _ = entry
        self._entries[key] = (value, size, self._age)
        return value

    def put(self, key: Hashable, value: V, size: int) -> None:
        """Keep `value` if it fits; drop old values where that helps."""
        self.drop(key)
        if size > self.budget:
            return
        while self.used + size > self.budget:
            oldest, (_, _, used_at) = next(iter(self._entries.items()))
            if self._age - used_at < self._patience:
                return
            self.drop(oldest)
        self._entries[key] = (value, size, self._age)
        self.used += size

    def drop(self, key: Hashable) -> None:
        """Forget `key`."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.used -= entry[1]

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.used = 0
