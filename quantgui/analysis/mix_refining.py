"""Refinement of a mix: what single changes do within it, and changes of several layers that are really better.

Damages of single layers add up only roughly, least of all where they are large. So the layers are measured again, each
with the next format up and down while all others stay as the mix has them. What these promise together is tried on all
samples, then single changes and pairs (one layer up, another one down), best promise first; a change stays only if the
metric is really better, by more than twice the standard error of the difference on the same samples.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np

from quantgui.analysis.damage import DamageModel
from quantgui.analysis.knapsack import Item, Knapsack, Selection, frontier
from quantgui.analysis.mix_choices import Choices
from quantgui.analysis.mix_measuring import Gauge, Measured
from quantgui.analysis.ranking import CERTAIN_ERRORS
from quantgui.analysis.scores import difference_error
from quantgui.network.batch import Batch
from quantgui.network.simulation import Simulation
from quantgui.results import Array, Progress

LOCAL_SAMPLES = 16
"""Samples on which single changes are measured: they only say what is worth trying."""
MOST_TRIALS = 8
"""Changes tried without success before the mix counts as the best that single changes and pairs can make it."""
WORTHWHILE = 0.005
"""Part of the damage that a change has to save, about 0.02 dB."""

Trial = tuple[Selection, Measured]
"""A selection that has been measured, and what it gave."""


@dataclass(frozen=True, eq=False)
class _Local:
    """The choices around a selection: for each item the next cheaper, the present and the next dearer one."""

    choices: tuple[tuple[int, ...], ...]
    items: tuple[Item, ...]
    """Damages are changes: 0 for the present choice."""

    def selection(self, picked: Selection) -> Selection:
        return tuple(choices[pick] for choices, pick in zip(self.choices, picked, strict=True))


@dataclass(eq=False)
class Refinement:
    """Changes a measured selection until none of the changes that promise most is better.

    Attributes:
        gauge: measures.
        model: turns metrics into damages.
        choices: what can be chosen.
        limit: most cost allowed; None where the loss is limited and the cost is sought.
    """

    gauge: Gauge
    model: DamageModel
    choices: Choices
    limit: float | None
    rounds: int = field(default=0, init=False)

    def improved(self, start: Trial) -> Generator[Progress | Trial, None, None]:
        """Yield each better selection."""
        present = start
        while True:
            local = yield from self._around(present[0])
            self.rounds += 1
            found = yield from (self._cheaper(present, local) if self.limit is None else self._better(present, local))
            if found is None:
                return
            present = found
            yield present

    # --- within the limit of cost --------------------------------------------------------------------------------

    def _better(self, present: Trial, local: _Local) -> Generator[Progress, None, Trial | None]:
        """Return the first selection tried that is really better."""
        damage = self.model.damage(present[1].quality.value)
        for number, selection in enumerate(itertools.islice(self._promising(present[0], local, damage), MOST_TRIALS)):
            label = f"Trying a change ({number + 1} of at most {MOST_TRIALS})"
            measured = yield from self.gauge.measure(self.choices.config(selection), label)
            if self._is_better(measured, present[1]):
                return selection, measured
        return None

    def _is_better(self, new: Measured, old: Measured) -> bool:
        before, after = self.model.damage(old.quality.value), self.model.damage(new.quality.value)
        if not after < before * (1 - WORTHWHILE):
            return False
        error = difference_error(new.quality, old.quality)
        return math.isnan(error) or abs(new.quality.value - old.quality.value) > CERTAIN_ERRORS * error

    def _promising(self, present: Selection, local: _Local, damage: float) -> Iterator[Selection]:
        """Yield selections that promise to save damage: the best of all, then changes of one or two items."""
        assert self.limit is not None
        least = -WORTHWHILE * damage
        limit = self.limit - self.choices.fixed_cost
        tried = {present}
        best = Knapsack(local.items).best(limit)
        if best is not None:
            gain = sum(float(item.damages[pick]) for item, pick in zip(local.items, best, strict=True))
            selection = local.selection(best)
            if gain < least and selection not in tried:
                tried.add(selection)
                yield selection
        for _, selection in sorted(self._swaps(present, local, limit, least)):
            if selection not in tried:
                tried.add(selection)
                yield selection

    def _swaps(
        self, present: Selection, local: _Local, limit: float, least: float
    ) -> Iterator[tuple[float, Selection]]:
        """Yield the changes of one or two items that stay within the limit, with what they promise (less than 0)."""
        now = [choices.index(choice) for choices, choice in zip(local.choices, present, strict=True)]
        slack = limit - sum(float(item.costs[pick]) for item, pick in zip(local.items, now, strict=True))
        moves = [
            (index, choice, float(item.costs[pick] - item.costs[now[index]]), float(item.damages[pick]))
            for index, (choices, item) in enumerate(zip(local.choices, local.items, strict=True))
            for pick, choice in enumerate(choices)
            if pick != now[index]
        ]
        for index, choice, cost, damage in moves:
            if cost <= slack and damage < least:
                yield damage, _changed(present, {index: choice})
        for (i, a, cost_a, damage_a), (j, b, cost_b, damage_b) in itertools.combinations(moves, 2):
            if i != j and cost_a + cost_b <= slack and damage_a + damage_b < least:
                yield damage_a + damage_b, _changed(present, {i: a, j: b})

    # --- within the limit of the loss ----------------------------------------------------------------------------

    def _cheaper(self, present: Trial, local: _Local) -> Generator[Progress, None, Trial | None]:
        """Return the cheapest selection tried that keeps the limit of the loss."""
        now = self.choices.cost(present[0])
        picks = frontier(local.items, np.linspace(0.8, 1.0, 50) * now - self.choices.fixed_cost)
        selections = [local.selection(pick) for pick in picks]
        cheaper = [each for each in selections if self.choices.cost(each) < now * (1 - WORTHWHILE)][::-1]
        found: Trial | None = None
        kept, lost, step, bisecting = -1, len(cheaper), 1, False
        while lost - kept > 1:
            place = (kept + lost) // 2 if bisecting else min(kept + step, lost - 1)
            measured = yield from self.gauge.measure(self.choices.config(cheaper[place]), "Trying a cheaper mix")
            if self.gauge.keeps_limit(measured):
                kept, found = place, (cheaper[place], measured)
                step *= 2
            else:
                lost, bisecting = place, True
        return found

    # --- single changes ------------------------------------------------------------------------------------------

    def _around(self, present: Selection) -> Generator[Progress, None, _Local]:
        """Measure each item with its next cheaper and dearer choice, all others as they are."""
        neighbours = [_neighbours(item, choice) for item, choice in zip(self.choices.items, present, strict=True)]
        total = sum(len(each) - 1 for each in neighbours)
        base = self.gauge.simulation(self.choices.config(present))
        batches = yield from self._prepared(base)
        label = f"Measuring {total} changes within the mix"
        reference = yield from self._damage(base, base, batches, frozenset(), Progress(0, total, label))
        items, done = [], 0
        for index, choices in enumerate(neighbours):
            cut = self._cut(index)
            damages: dict[int, float] = {present[index]: reference}
            for choice in choices:
                if choice in damages:
                    continue
                simulation = self._exchanged(self._simulation(present, index, choice), base, index)
                progress = Progress(done, total, label)
                damages[choice] = yield from self._damage(simulation, base, batches, cut, progress)
                done += 1
                if done == total or not any(override.exchanged for override in simulation.weights.values()):
                    self.gauge.executor.forget(simulation, base, cut)
            self.gauge.executor.close_cut(cut)
            changes = np.array([damages[choice] - reference for choice in choices])
            costs = self.choices.items[index].costs[list(choices)]
            items.append(Item(costs, np.where(np.isnan(changes), math.inf, changes)))
        return _Local(tuple(neighbours), tuple(items))

    def _simulation(self, present: Selection, index: int, choice: int) -> Simulation:
        return self.gauge.simulation(self.choices.config(_changed(present, {index: choice})))

    def _prepared(self, base: Simulation) -> Generator[Progress, None, list[tuple[Batch, Mapping[str, Array]]]]:
        """Return some batches with the outputs of the float network, what crosses the cuts of the mix being kept."""
        data, executor = self.gauge.dataset, self.gauge.executor
        samples = self.gauge.total if data.carried else min(LOCAL_SAMPLES, self.gauge.total)
        found: list[tuple[Batch, Mapping[str, Array]]] = []
        with closing(executor.run_sequence(data.batches(samples=samples))) as answers:
            for answer in answers:
                yield Progress(sum(batch.samples for batch, _ in found), samples, "Preparing changes")
                if answer is not None:
                    batch, (outputs,) = answer
                    found.append((batch, outputs))
        return found

    def _damage(
        self,
        simulation: Simulation,
        base: Simulation,
        batches: Sequence[tuple[Batch, Mapping[str, Array]]],
        cut: frozenset[str],
        progress: Progress,
    ) -> Generator[Progress, None, float]:
        """Return the damage of a simulation on some batches."""
        tally = self.gauge.tally()
        executor = self.gauge.executor
        references = iter(batches)
        plain = (batch for batch, _ in batches)
        with closing(executor.run_sequence(plain, (simulation,), keep=base, cut=cut)) as answers:
            for answer in answers:
                yield progress
                if answer is not None:
                    batch, (outputs,) = answer
                    tally.add(batch, next(references)[1], outputs)
        return self.model.damage(tally.rows(self.gauge.mix.sweep.metric).estimate().value)

    def _exchanged(self, simulation: Simulation, base: Simulation, index: int) -> Simulation:
        """Return the simulation with the weights that differ from the base fed, where that is cheaper."""
        executor = self.gauge.executor
        weights = {executor.network.layers[name].weight for name in self.choices.groups[index]}
        if dict(simulation.quantizers) != dict(base.quantizers):
            return simulation
        if not all(executor.exchangeable(name, min(LOCAL_SAMPLES, self.gauge.total)) for name in weights):
            return simulation
        overrides = {
            name: override
            if name in base.weights and base.weights[name].key == override.key
            else replace(override, exchanged=True)
            for name, override in simulation.weights.items()
        }
        return Simulation(overrides, simulation.quantizers)

    def _cut(self, index: int) -> frozenset[str]:
        layers = [self.gauge.executor.network.layers[name] for name in self.choices.groups[index]]
        return frozenset(name for layer in layers for name in (layer.weight, *layer.users))


def _neighbours(item: Item, choice: int) -> tuple[int, ...]:
    """Return the next cheaper, the present and the next dearer choice, as far as there are such.

    Damages only tell which of equally dear ones is meant: they are what is measured anew.
    """
    rising = np.lexsort((-item.damages, item.costs)).tolist()
    cheaper = [each for each in rising if item.costs[each] < item.costs[choice]]
    falling = np.lexsort((-item.damages, -item.costs)).tolist()
    dearer = [each for each in falling if item.costs[each] > item.costs[choice]]
    return (*cheaper[-1:], choice, *dearer[-1:])


def _changed(present: Selection, changes: Mapping[int, int]) -> Selection:
    return tuple(changes.get(index, choice) for index, choice in enumerate(present))
