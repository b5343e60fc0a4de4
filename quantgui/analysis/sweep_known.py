"""What a sweep knows: numbers of each candidate, the order of layers, and the table of all of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from quantgui.analysis.metric_function import Metric
from quantgui.analysis.proxies import GRADIENT_SQNR, PROXIES, WEIGHT_SQNR, Proxies
from quantgui.analysis.ranking import RankErrors, rank_errors, ranked, spearman
from quantgui.analysis.scores import Estimate, SampleRows, joined
from quantgui.analysis.sweep_store import Place
from quantgui.results import Candidate, LayerInfo, RankedLayer, Score, Sensitivity
from quantgui.spec.quantizer import LayerSpec, bits_of
from quantgui.spec.size import weight_bytes
from quantgui.spec.sweep import SMALLER_IS_BETTER, USER_METRIC, Sweep

Key = tuple[str, int]
"""A layer and the place of one of the sweep's specs. They are looked up all the time, which specs are slow at."""
_NOTHING_CHANGES = (
    "No candidate changes the outputs at all: on these samples they are constant, not finite, or do not depend on "
    "these layers, so nothing can be chosen by them."
)


class Known:
    """Numbers of the candidates of one sweep, filled by who measures.

    Attributes:
        specs: what each candidate is, in the order of the network.
        formats: the candidates of each format.
        errors: SQNR of the weights, in dB.
        guessed: the other cheap guesses.
        rows: the metric of each candidate, by batch.
        reference: that of the base.
        places: the batches, in order.
        resumed: candidates of which an earlier sweep knew something.
    """

    def __init__(self, sweep: Sweep, layers: Sequence[LayerInfo], metric: Metric | None, total: int) -> None:
        self.sweep, self.metric, self.total = sweep, metric, total
        self._layers = {layer.name: layer for layer in layers}
        self.specs: dict[Key, LayerSpec] = {
            (layer.name, place): sweep.candidate(layer.name, spec)
            for layer in layers
            for place, spec in enumerate(sweep.specs)
        }
        self.keys = tuple(self.specs)
        self.formats: dict[str, list[Key]] = {}
        for key, candidate in self.specs.items():
            self.formats.setdefault(sweep.label(candidate), []).append(key)
        self.errors: dict[Key, float] = {}
        self.guessed = Proxies({})
        self.rows: dict[Key, dict[Place, SampleRows]] = {key: {} for key in self.keys}
        self.reference: dict[Place, SampleRows] = {}
        self.places: list[Place] = []
        self.resumed: set[Key] = set()
        self._joined: dict[tuple[Key, int], Estimate] = {}

    def _estimate(self, key: Key, batches: int) -> Estimate:
        """Return the metric of a candidate on the first `batches` batches."""
        if (key, batches) not in self._joined:
            rows = joined([self.rows[key][place] for place in self.places[:batches]])
            self._joined[key, batches] = rows.estimate()
        return self._joined[key, batches]

    def batches(self, key: Key) -> int:
        """Return on how many batches, from the first, a candidate is known."""
        return next((i for i, place in enumerate(self.places) if place not in self.rows[key]), len(self.places))

    @property
    def columns(self) -> list[list[Key]]:
        """The candidates of each format, the finest one first."""
        return sorted(self.formats.values(), key=lambda column: -bits_of(self.sweep.specs[column[0][1]].weights))

    def rank_errors(self, keys: Sequence[Key]) -> RankErrors:
        """Return how uncertain the order of a column is."""
        return rank_errors(self._estimates(keys), self.total)

    def _estimates(self, keys: Sequence[Key]) -> list[tuple[str, Estimate]]:
        """Return the measured candidates of a column, by layer.

        Samples differ, so values from fewer samples are brought to the level of those from most: step by step, each
        by all candidates that are known on both sides of it.
        """
        batches = {key: self.batches(key) for key in keys}
        counts = sorted(set(batches.values()) - {0}, reverse=True)
        levels = dict.fromkeys(counts[:1], 0.0)
        for more, count in itertools.pairwise(counts):
            both = [key for key in keys if batches[key] >= more]
            changes = np.array([self._estimate(key, more).value - self._estimate(key, count).value for key in both])
            changes = changes[np.isfinite(changes)]
            levels[count] = levels[more] + (float(changes.mean()) if changes.size else 0.0)
        found = []
        for key, count in batches.items():
            if count:
                estimate = self._estimate(key, count)
                found.append((key[0], replace(estimate, value=estimate.value + levels[count])))
        return found

    @property
    def _higher_is_better(self) -> bool:
        if self.sweep.metric == USER_METRIC and self.metric is not None:
            return self.metric.higher_is_better
        return self.sweep.metric not in SMALLER_IS_BETTER

    def candidates(self, keys: Sequence[Key]) -> tuple[Candidate, ...]:
        """Return what is known of `keys`."""
        estimates = {
            (name, label): estimate
            for label, column in self.formats.items()
            for name, estimate in self._estimates(column)
        }
        return tuple(self._candidate(key, estimates) for key in keys)

    def _candidate(self, key: Key, estimates: Mapping[tuple[str, str], Estimate]) -> Candidate:
        spec = self.specs[key]
        layer = self._layers[key[0]]
        label = self.sweep.label(spec)
        known = (layer.name, label) in estimates
        score = estimates[layer.name, label].score if known else Score(math.nan, math.nan, 0)
        size = weight_bytes(layer.channels, layer.elements_per_channel, spec.weights, float_bits=layer.float_bits)
        error = self.errors.get(key, math.nan)
        proxies = {proxy: self._guesses(proxy, [key])[0] for proxy in PROXIES}
        return Candidate(layer.name, label, spec, score.value, score.stderr, score.samples, size, error, proxies)

    def _order(self, keys: Sequence[Key]) -> tuple[RankedLayer, ...]:
        if all(self.batches(key) for key in keys):
            return ranked(self._estimates(keys), higher_is_better=self._higher_is_better)
        guesses = self._guesses(GRADIENT_SQNR, keys)
        if any(math.isnan(guess) for guess in guesses):
            guesses = self._guesses(WEIGHT_SQNR, keys)
        known = sorted((guess, key[0]) for guess, key in zip(guesses, keys, strict=True) if not math.isnan(guess))
        return tuple(RankedLayer(name, certain=False) for _, name in known)

    def _guesses(self, proxy: str, keys: Sequence[Key]) -> list[float]:
        """Return what a proxy says of candidates, NaN where it says nothing."""
        if proxy == WEIGHT_SQNR:
            return [self.errors.get(key, math.nan) for key in keys]
        return [self.guessed.values.get(key, {}).get(proxy, math.nan) for key in keys]

    def table(
        self, *, float_forward_seconds: float, seconds: float, cut_segments: int, peak_cache_bytes: int, complete: bool
    ) -> Sensitivity:
        """Return all that is known; the arguments are those of `Sensitivity`."""
        candidates = self.candidates(self.keys)
        sign = 1 if self._higher_is_better else -1
        values = np.array([sign * each.value for each in candidates])
        columns = [np.array([each.format == label for each in candidates]) for label in self.formats]
        correlations, layer_correlations = {}, {}
        for proxy in PROXIES:
            guesses = np.array([each.proxies[proxy] for each in candidates])
            correlations[proxy] = spearman(guesses, values)
            found = [spearman(guesses[column], values[column]) for column in columns]
            known_of = [each for each in found if not math.isnan(each)]
            layer_correlations[proxy] = float(np.mean(known_of)) if known_of else math.nan
        known = joined(list(self.reference.values())).estimate().score if self.reference else None
        user = self.metric is not None and self.sweep.metric == USER_METRIC
        return Sensitivity(
            sweep=self.sweep,
            metric=self.metric.name if user and self.metric else self.sweep.metric,
            higher_is_better=self._higher_is_better,
            reference=known or Score(math.nan, math.nan, 0),
            candidates=candidates,
            orders={label: self._order(keys) for label, keys in self.formats.items()},
            weight_error_correlation=correlations[WEIGHT_SQNR],
            total_samples=self.total,
            float_forward_seconds=float_forward_seconds,
            seconds=seconds,
            cut_segments=cut_segments,
            peak_cache_bytes=peak_cache_bytes,
            resumed=len(self.resumed),
            complete=complete,
            correlations={proxy: value for proxy, value in correlations.items() if not math.isnan(value)},
            layer_correlations={proxy: value for proxy, value in layer_correlations.items() if not math.isnan(value)},
            proxy_seconds=self.guessed.seconds,
            notes=(*self.guessed.notes, *self._unchanged(candidates)),
        )

    def _unchanged(self, candidates: Sequence[Candidate]) -> tuple[str, ...]:
        """Return a warning where nothing that was tried changes the outputs: they cannot tell formats apart."""
        measured = [each for each in candidates if each.samples]
        if self.sweep.metric != "output_sqnr_db" or not measured or any(each.value != math.inf for each in measured):
            return ()
        return (_NOTHING_CHANGES,)
