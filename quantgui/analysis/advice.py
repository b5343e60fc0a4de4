"""Say when a configuration ruins the network, find which layers do it, and propose the least change that mends it.

Quality is compared on a few samples: of the whole configuration, and of its weights alone. Where quantized activations
cost much, other range estimators are tried first; if they are not enough, activations of the fewest layers go back to
float. Where the weights by themselves cost much, the fewest layers go up to 8 bits. Damages of single layers (or of
blocks of neighbours, in deep networks) rank the candidates; noise of layers roughly adds up, and because it only does
so roughly, every step of the search, and the proposal, is measured on the whole network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from quantgui.analysis.evaluation import Runner, evaluate_simulation
from quantgui.analysis.metric_function import Metric
from quantgui.analysis.samples import Samples
from quantgui.analysis.simulation import Ranges, build_simulation, weight_spec
from quantgui.results import (
    ActivationReady,
    Advice,
    AdviceReady,
    Array,
    Evaluation,
    Event,
    LayerInfo,
    Progress,
)
from quantgui.spec import presets
from quantgui.spec.config import QuantConfig
from quantgui.spec.granularity import PerTensor
from quantgui.spec.quantizer import (
    Entropy,
    LayerSpec,
    LeastSquaredError,
    Percentile,
    QuantizerSpec,
    RangeEstimator,
)
from quantgui.spec.sweep import SHARES
from quantgui.spec.trained_files import trained_states

SAMPLES = 16
"""Samples that decide."""
RANKING_SAMPLES = 4
"""Samples that rank layers."""

COSTLY_DB = 2.0
"""Activations cost much if they add more than half of the weights' noise to it ..."""
POOR_ACTIVATIONS_DB = 20.0
"""... and leave less than this (1 % noise)."""
POOR_WEIGHTS_DB = 10.0
"""Weights cost much if they alone leave less than this (10 % noise)."""
GOOD_ACTIVATIONS_DB = 25.0
"""Float activations are enough with this (0.3 % noise), or with `NEAR_DB` less than the best there is to reach."""
GOOD_WEIGHTS_DB = 15.0
"""8-bit weights are enough with this (3 % noise): whoever asks for 4 bits wants a small network."""
NEAR_DB = 1.5
HEADLINE_SHARE = 0.01
"""A repaired network may lose this share of a headline metric's float score."""

_MEASUREMENTS = 32
"""Most measurements that rank layers."""
_PRUNED = 8
"""Most layers that are tried whether they can stay quantized after all."""
_NAMED = 3
_SUFFIX = ", mended"
_ESTIMATORS: tuple[tuple[RangeEstimator, str], ...] = (
    (Percentile(99.99), "the 99.99 percentile"),
    (LeastSquaredError(), "least squared error"),
    (Entropy(), "entropy"),
)

Work = Generator[Event, None, Evaluation]


def advise(
    executor: Runner,
    dataset: Samples,
    config: QuantConfig,
    activations: Mapping[str, ActivationReady],
    metric: Metric | None = None,
) -> Iterator[Event]:
    """Yield Progress and AdviceReady: the finding as soon as there is one, then what mends it.

    The last AdviceReady counts; its advice is None where there is nothing to say.

    Raises:
        DataError: `config` quantizes an activation that `activations` does not know.
        MetricError: the user's metric fails.
        NetworkError: the network cannot be run.
    """
    bench = _Bench(executor, dataset, activations, metric)
    advice = yield from _advise_weights(bench, config)
    better = config if advice is None or advice.proposal is None else advice.proposal
    more = yield from _advise_activations(bench, better, asked=config)
    yield AdviceReady(config, _joined(advice, more))


def guarded_config(
    executor: Runner,
    dataset: Samples,
    config: QuantConfig,
    activations: Mapping[str, ActivationReady],
    metric: Metric | None = None,
) -> Generator[Event, None, tuple[QuantConfig, Advice | None]]:
    """Return `config`, or the proposal that keeps the network's quality where quantized activations would ruin it.

    Weights stay as they are asked for. Yields Progress and AdviceReady on the way.
    """
    bench = _Bench(executor, dataset, activations, metric)
    advice = yield from _advise_activations(bench, config, asked=config)
    return (config if advice is None or advice.proposal is None else advice.proposal), advice


# --- measuring ---------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Bench:
    """What all measurements of one piece of advice share."""

    executor: Runner
    dataset: Samples
    activations: Mapping[str, ActivationReady]
    metric: Metric | None
    ranges: Ranges = field(default_factory=dict)
    loaded: dict[Hashable, Array] = field(default_factory=dict)
    known: dict[tuple[QuantConfig, int], Evaluation] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        return self.executor.network.summary.layers

    def measure(self, config: QuantConfig, label: str, samples: int = SAMPLES) -> Work:
        """Return the evaluation of `config` on the first samples."""
        key = (config, samples)
        if key not in self.known:
            simulation = build_simulation(
                self.executor.network, config, self.activations, ranges=self.ranges, loaded=self.loaded
            )
            last = None
            # In the batches of every evaluation, so that what one of them has run is known to the other.
            for event in evaluate_simulation(
                self.executor, self.dataset, simulation, self.metric, samples=samples, thorough=False
            ):
                yield Progress(0, 0, label)
                last = event if isinstance(event, Evaluation) else last
            assert last is not None, "a dataset holds at least one sample"
            self.known[key] = last
        return self.known[key]


def _noise(evaluation: Evaluation) -> float:
    """Return noise / signal of the outputs."""
    return float(10 ** (-evaluation.output_sqnr_db / 10))


def _headline_loss(evaluation: Evaluation, reference: Evaluation) -> float:
    """Return how much worse the headline metric is than that of `reference`; 0 where it is the SQNR itself."""
    if evaluation.metric == "output_sqnr_db":
        return 0.0
    loss = reference.quantized_score.value - evaluation.quantized_score.value
    return loss if evaluation.higher_is_better else -loss


def _allowed_loss(reference: Evaluation) -> float:
    share = HEADLINE_SHARE * abs(reference.float_score.value)
    return share if math.isfinite(share) else 0.0


def _noticeable_loss(reference: Evaluation) -> float:
    """Return a loss of the headline metric that is more than chance among few samples."""
    stderr = reference.quantized_score.stderr
    return 2 * max(_allowed_loss(reference), stderr if math.isfinite(stderr) else 0.0)


def _is_good(evaluation: Evaluation, best: Evaluation, good_db: float) -> bool:
    """Return whether `evaluation` is close enough to the best that can be reached."""
    enough = min(best.output_sqnr_db - NEAR_DB, good_db)
    return evaluation.output_sqnr_db >= enough and _headline_loss(evaluation, best) <= _allowed_loss(best)


# --- activations -------------------------------------------------------------------------------------------------


def _advise_activations(
    bench: _Bench, config: QuantConfig, *, asked: QuantConfig
) -> Generator[Event, None, Advice | None]:
    layers = [
        layer.name for layer in bench.layers if layer.quantizes_activations and config.spec_for(layer.name).activations
    ]
    if not layers:
        return None
    bare = config.with_overrides({name: LayerSpec(config.spec_for(name).weights) for name in layers})
    before = yield from bench.measure(config, "Checking activations")
    best = yield from bench.measure(bare, "Checking weights alone")
    costly = before.output_sqnr_db < min(best.output_sqnr_db - COSTLY_DB, POOR_ACTIVATIONS_DB)
    if not costly and _headline_loss(before, best) <= _noticeable_loss(best):
        return None
    finding = (
        f"Quantized activations {_verdict(before)} this network: {described(before)} with them, "
        f"{described(best)} without{_doubt(bench)}."
    )
    yield AdviceReady(asked, Advice(asked, finding, (), None, before))
    repaired, estimator = yield from _other_range(bench, config, layers, before)
    after = yield from bench.measure(repaired, "Trying other ranges")
    if estimator and _is_good(after, best, GOOD_ACTIVATIONS_DB):
        sentence = f"{finding} Ranges by {estimator} mend it: {described(after)}."
        return Advice(asked, sentence, tuple(layers), _named(repaired, config), before, after)
    chosen = yield from _fewest_changes(
        bench,
        quantized=repaired,
        clean=bare,
        candidates=_by_input(bench, layers),
        change=lambda name: LayerSpec(config.spec_for(name).weights),
        label="activations",
        good_db=GOOD_ACTIVATIONS_DB,
    )
    kept = set(chosen)
    proposal = _named(
        repaired.with_overrides({name: LayerSpec(config.spec_for(name).weights) for name in kept}), config
    )
    after = yield from bench.measure(proposal, "Checking the proposal")
    names = tuple(name for name in layers if name in kept)
    how = f" (and ranges by {estimator})" if estimator and len(names) < len(layers) else ""
    sentence = f"{finding} With float activations in {_names(names, len(layers))}{how}: {described(after)}."
    return Advice(asked, sentence, names, proposal, before, after)


def _other_range(
    bench: _Bench, config: QuantConfig, layers: Sequence[str], before: Evaluation
) -> Generator[Event, None, tuple[QuantConfig, str]]:
    """Return the configuration with the best range estimator for all activations, and its name; empty if as it was."""
    best, best_db, name = config, before.output_sqnr_db, ""
    for estimator, text in _ESTIMATORS:
        changed = _with_range(config, layers, estimator)
        evaluation = yield from bench.measure(changed, "Trying other ranges")
        # A change that gains little is not worth explaining.
        if evaluation.output_sqnr_db > best_db + 0.5:
            best, best_db, name = changed, evaluation.output_sqnr_db, text
    return best, name


def _with_range(config: QuantConfig, layers: Sequence[str], estimator: RangeEstimator) -> QuantConfig:
    def changed(spec: LayerSpec) -> LayerSpec:
        if spec.activations is None or not spec.activations.is_integer:
            return spec
        return replace(spec, activations=replace(spec.activations, range_estimator=estimator))

    default = changed(config.default)
    overrides = {name: changed(config.spec_for(name)) for name in {*layers, *config.overrides}}
    return replace(config, default=default).with_overrides(overrides)


def _by_input(bench: _Bench, layers: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the layers grouped by the tensor they read: one that reads it quantized costs what all of them cost."""
    infos = bench.executor.network.layers
    groups: dict[str, list[str]] = {}
    for name in layers:
        groups.setdefault(infos[name].input_tensor, []).append(name)
    return [tuple(group) for group in groups.values()]


# --- weights -----------------------------------------------------------------------------------------------------


def _advise_weights(bench: _Bench, config: QuantConfig) -> Generator[Event, None, Advice | None]:
    specs = {layer.name: weight_spec(layer, config) for layer in bench.layers}
    layers = [name for name, spec in specs.items() if spec is not None]
    bare = config.with_overrides({layer.name: LayerSpec(specs[layer.name]) for layer in bench.layers})
    if not layers:
        return None
    before = yield from bench.measure(bare, "Checking weights alone")
    if before.output_sqnr_db >= POOR_WEIGHTS_DB or (_is_kept(before) and trained_states(config)):
        # Trained weights may give other outputs than the float network and be right: what counts is kept.
        return None
    finding = (
        f"Quantized weights {_verdict(before)} this network: {described(before)} even with float "
        f"activations{_doubt(bench)}."
    )
    yield AdviceReady(config, Advice(config, finding, (), None, before))
    coarse = [name for name in layers if _is_coarse(specs[name])]
    finer = LayerSpec(presets.weight_spec(8))
    clean = bare.with_overrides(dict.fromkeys(coarse, finer))
    best = yield from bench.measure(clean, "Trying 8-bit weights")
    if not coarse or best.output_sqnr_db < before.output_sqnr_db + COSTLY_DB:
        return Advice(config, f"{finding} 8 bits per channel do not mend it; keep more layers float.", (), None, before)
    names = yield from _fewest_changes(
        bench,
        quantized=bare,
        clean=clean,
        candidates=[(name,) for name in coarse],
        change=lambda name: finer,
        label="weights",
        good_db=GOOD_WEIGHTS_DB,
    )
    fixed = {name: replace(config.spec_for(name), weights=finer.weights) for name in names}
    proposal = _named(config.with_overrides(fixed), config)
    after = yield from bench.measure(bare.with_overrides(dict.fromkeys(names, finer)), "Checking the proposal")
    sentence = f"{finding} With 8-bit weights in {_names(names, len(layers))}: {described(after)}."
    return Advice(config, sentence, names, proposal, before, after)


def _is_coarse(spec: QuantizerSpec | None) -> bool:
    return spec is not None and spec.is_integer and (spec.bits < 8 or isinstance(spec.granularity, PerTensor))


# --- the search --------------------------------------------------------------------------------------------------


def _fewest_changes(
    bench: _Bench,
    *,
    quantized: QuantConfig,
    clean: QuantConfig,
    candidates: Sequence[tuple[str, ...]],
    change: Callable[[str], LayerSpec],
    label: str,
    good_db: float,
) -> Generator[Event, None, tuple[str, ...]]:
    """Return few layers whose `change` makes `quantized` nearly as good as `clean`, which has them all changed."""
    best = yield from bench.measure(clean, f"Checking {label}")
    ranked = yield from _ranked(bench, quantized, clean, candidates, label)

    def changed(groups: Sequence[tuple[str, ...]]) -> QuantConfig:
        return quantized.with_overrides({name: change(name) for group in groups for name in group})

    def is_good(groups: Sequence[tuple[str, ...]]) -> Generator[Event, None, bool]:
        evaluation = yield from bench.measure(changed(groups), f"Looking for the layers whose {label} cost most")
        return _is_good(evaluation, best, good_db)

    bad, good = 0, 1
    while good < len(ranked) and not (yield from is_good(ranked[:good])):
        bad, good = good, 2 * good
    good = min(good, len(ranked))
    while good - bad > 1:
        middle = (bad + good) // 2
        if (yield from is_good(ranked[:middle])):
            good = middle
        else:
            bad = middle
    chosen = ranked[:good]
    # The last of the row came in with those before it; some of these may not be needed beside it.
    for group in chosen[-2 : -2 - _PRUNED : -1]:
        rest = [other for other in chosen if other != group]
        if (yield from is_good(rest)):
            chosen = rest
    return tuple(name for group in chosen for name in group)


def _ranked(
    bench: _Bench, quantized: QuantConfig, clean: QuantConfig, candidates: Sequence[tuple[str, ...]], label: str
) -> Generator[Event, None, list[tuple[str, ...]]]:
    """Return the candidates, most damaging first: measured one by one, or in blocks of neighbours where many."""
    samples = RANKING_SAMPLES
    floor = _noise((yield from bench.measure(clean, f"Ranking layers by the cost of their {label}", samples)))

    def damage(block: Sequence[tuple[str, ...]]) -> Generator[Event, None, float]:
        specs = {name: quantized.spec_for(name) for group in block for name in group}
        config = clean.with_overrides(specs)
        evaluation = yield from bench.measure(config, f"Ranking layers by the cost of their {label}", samples)
        return max(_noise(evaluation) - floor, 0.0)

    blocks: list[tuple[float, list[tuple[str, ...]]]] = []
    size = -(-len(candidates) // (_MEASUREMENTS // 2)) if len(candidates) > _MEASUREMENTS else 1
    left = _MEASUREMENTS
    for start in range(0, len(candidates), size):
        block = list(candidates[start : start + size])
        blocks.append(((yield from damage(block)), block))
        left -= 1
    while left >= 2:
        worst = max((b for b in blocks if len(b[1]) > 1), key=lambda b: b[0], default=None)
        if worst is None:
            break
        blocks.remove(worst)
        half = len(worst[1]) // 2
        first, second = worst[1][:half], worst[1][half:]
        blocks += [((yield from damage(first)), first), ((yield from damage(second)), second)]
        left -= 2
    blocks.sort(key=lambda b: -b[0] / len(b[1]))
    return [group for _, block in blocks for group in block]


# --- words -------------------------------------------------------------------------------------------------------


def _verdict(evaluation: Evaluation) -> str:
    # Outputs far from the float network's ruin nothing where what counts, accuracy say, is as good.
    return "harm" if _is_kept(evaluation) or evaluation.output_sqnr_db >= POOR_WEIGHTS_DB else "ruin"


def _is_kept(evaluation: Evaluation) -> bool:
    """Return whether the headline metric, if it is not the SQNR itself, is as good as the float network's."""
    return evaluation.metric != "output_sqnr_db" and _lost(evaluation) <= _noticeable_loss(evaluation)


def _lost(evaluation: Evaluation) -> float:
    """Return how much worse the headline metric is than the float network's."""
    loss = evaluation.float_score.value - evaluation.quantized_score.value
    return loss if evaluation.higher_is_better else -loss


def described(evaluation: Evaluation) -> str:
    """Return the headline metric, in percent where it is a share, and output SQNR."""
    text = f"{evaluation.output_sqnr_db:.1f} dB output SQNR".replace("-", "\N{MINUS SIGN}")
    if evaluation.metric == "output_sqnr_db":
        return text
    value = evaluation.quantized_score.value
    score = f"{100 * value:.1f} %" if evaluation.metric in SHARES else f"{value:.3g}"
    return f"{evaluation.metric} {score} and {text}"


def _doubt(bench: _Bench) -> str:
    return "" if bench.dataset.summary.trustworthy else " (measured on random numbers, so hardly to be trusted)"


def _names(names: Sequence[str], of: int) -> str:
    if len(names) == of:
        return f"all {of} layers"
    shown = ", ".join(names[:_NAMED])
    rest = len(names) - _NAMED
    count = f"{len(names)} of {of} layers"
    return f"{count} ({shown}{f' and {rest} more' if rest > 0 else ''})"


def _named(proposal: QuantConfig, config: QuantConfig) -> QuantConfig:
    name = (config.name or "configuration").removesuffix(_SUFFIX)
    return replace(proposal, name=name + _SUFFIX)


def _joined(first: Advice | None, second: Advice | None) -> Advice | None:
    if first is None or second is None:
        return first or second
    return Advice(
        config=first.config,
        sentence=f"{first.sentence}\n{second.sentence}",
        layers=tuple(dict.fromkeys([*first.layers, *second.layers])),
        proposal=second.proposal or first.proposal,
        before=first.before,
        after=second.after or first.after,
    )
