"""Plans for many runs that differ in one layer, and what is kept for them alone.

To try many formats of a layer, the network is cut right before the layer as well, and what lies behind its segment runs
in one piece. What crosses the cuts before it, once for each batch, is kept until the next layers do not need it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from quantgui.network.network import Network
from quantgui.network.segments import Segment, joined, split_before
from quantgui.network.session_costs import worth_joining
from quantgui.network.variant_sessions import VariantSessions

TensorKey = tuple[str, str, bool]
"""Names a tensor that is kept: what made it, its name, whether it is quantized."""


@dataclass(frozen=True, eq=False)
class Detour:
    """A plan for many runs that differ in one layer: cut before it, and what lies behind its segment in one piece.

    Attributes:
        plan: the usual segments before the layer's, that one in two, and the rest.
        front: tensors that cross the usual cut before the layer's segment and are still needed.
        halves: the two parts of the layer's segment; empty where the layer is its first one.
        tensors: keys of those kept at the cut, to be dropped after it.
        forms: sessions beside it, likewise.
    """

    plan: tuple[Segment, ...]
    front: frozenset[str]
    halves: frozenset[Segment]
    tensors: list[TensorKey] = field(default_factory=list)
    forms: set[int] = field(default_factory=set)


@dataclass(frozen=True, eq=False)
class _Tail:
    """What lies behind a segment: as it is, or all of it `joined` (whose sessions it knows)."""

    place: int
    segments: tuple[Segment, ...]
    joined: Segment | None = None
    forms: set[int] = field(default_factory=set)


class Detours:
    """The detours that are open. Detours of one segment share what lies behind it."""

    def __init__(self, network: Network, sessions: VariantSessions, drop_tensor: Callable[[TensorKey], None]) -> None:
        self._network = network
        self._sessions = sessions
        self._drop_tensor = drop_tensor
        self._open: dict[frozenset[str], Detour] = {}
        self._tail: _Tail | None = None
        # What runs with cuts have kept, by tensor, and the tensors that the next ones may need.
        self._passed: dict[str, list[TensorKey]] = {}
        self._front: frozenset[str] = frozenset()

    def known(self, cut: frozenset[str]) -> Detour | None:
        """Return the detour of `cut` if it is open."""
        return self._open.get(cut)

    def open(
        self, usual: Sequence[Segment], cut: frozenset[str], rows_behind: float | None, borders: Collection[str]
    ) -> Detour | None:
        """Return the plan with a cut before `cut`; None where no node is or reads one of it.

        Args:
            usual: the plan without it.
            cut: names of nodes and initializers.
            rows_behind: see `Executor.run`.
            borders: the tensors whose type is known, where a cut can be.
        """
        if not cut or cut in self._open:
            return self._open.get(cut)
        first = next((segment for segment in usual if cut & (segment.initializers | segment.node_names)), None)
        if first is None:
            return None
        halves = split_before(first, cut) or ()
        if halves and not all(name in borders for name in halves[0].outputs):
            halves = ()
        before, behind = tuple(usual[: first.index]), tuple(usual[first.index + 1 :])
        if self._tail is None or self._tail.place != first.index:
            self._close_tail()
            pays = rows_behind is None or worth_joining(self._network, behind, rows_behind)
            outputs = tuple(value.name for value in self._network.skeleton.graph.output)
            whole = joined(behind, outputs) if pays and len(behind) > 1 else None
            self._tail = _Tail(first.index, behind if whole is None else (whole,), whole)
        plan = (*before, *(halves or (first,)), *self._tail.segments)
        made = frozenset(name for segment in before for name in segment.outputs)
        front = made.intersection(name for segment in plan[first.index :] for name in segment.inputs)
        if front != self._front:
            # The new tensors are made of the ones there were; those before them are not needed any more.
            self._drop_passed(front | self._front)
            self._front = front
        self._open[cut] = Detour(plan, front, frozenset(halves))
        return self._open[cut]

    def note_session(self, detour: Detour, segment: Segment, form: int) -> None:
        """Remember the form of a session that a run with `detour` used."""
        if segment in detour.halves:
            detour.forms.add(form)
        elif self._tail is not None and segment is self._tail.joined:
            self._tail.forms.add(form)

    def note_tensor(self, detour: Detour, segment: Segment, key: TensorKey) -> None:
        """Remember a tensor of `segment` that a run with `detour` has kept."""
        if segment in detour.halves:
            detour.tensors.append(key)
        else:
            self._passed.setdefault(key[1], []).append(key)

    def close(self, cut: frozenset[str]) -> None:
        """Drop what is kept for one cut: the tensors there, and the sessions on both sides of it."""
        detour = self._open.pop(cut, None)
        if detour is not None:
            for key in detour.tensors:
                self._drop_tensor(key)
            for form in detour.forms:
                self._sessions.drop(form)

    def close_all(self) -> None:
        """Drop what is kept for any cut, also what cuts share."""
        for cut in tuple(self._open):
            self.close(cut)
        self._close_tail()
        self._front = frozenset()
        self._drop_passed(self._front)

    def _close_tail(self) -> None:
        for form in self._tail.forms if self._tail is not None else ():
            self._sessions.drop(form)
        self._tail = None

    def _drop_passed(self, needed: frozenset[str]) -> None:
        """Drop what runs with cuts have kept, but the tensors `needed`."""
        for name in self._passed.keys() - needed:
            for key in self._passed.pop(name):
                self._drop_tensor(key)
