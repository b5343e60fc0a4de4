"""What has been computed for the open network, under (what, spec): a result can be missing, but never stale."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from quantgui.engine.requests import Train
from quantgui.results import (
    ActivationReady,
    Advice,
    DataReport,
    Evaluation,
    Exported,
    MixReady,
    NoiseReady,
    Sensitivity,
    SensitivityReady,
    TensorError,
    TrainingReady,
    WeightView,
    updated_sensitivity,
)
from quantgui.spec.config import QuantConfig
from quantgui.spec.quantizer import InputWeightedError, LayerSpec, QuantizerSpec

VIEWS_KEPT = 64
"""Views hold a fine histogram (up to 0.5 MB); the least recently shown ones are computed again."""
NOISES_KEPT = 8
"""Each holds numbers per layer and sample."""

KEYS_KEPT = 64
"""Configurations whose keys are not made anew: the present one is looked up many times at every change."""


@dataclass(frozen=True, slots=True, eq=False)
class ConfigKey:
    """What a configuration means for a network: the spec of each layer, hashed once."""

    specs: tuple[LayerSpec, ...]
    digest: int

    def __hash__(self) -> int:
        return self.digest

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConfigKey) and self.digest == other.digest and self.specs == other.specs


@dataclass(frozen=True, slots=True)
class Tried:
    """A configuration that has been evaluated, for the quality-against-size plot."""

    config: QuantConfig
    bytes: int
    evaluation: Evaluation


class ResultStore:
    """Results of one network, of the data it is evaluated on, and of the metric in use."""

    def __init__(self, layers: Iterable[str] = ()) -> None:
        self._layers = tuple(layers)
        self._keys: deque[tuple[QuantConfig, ConfigKey]] = deque(maxlen=KEYS_KEPT)
        self._sizes: dict[ConfigKey, int] = {}
        self._views: OrderedDict[tuple[str, QuantizerSpec | None], WeightView] = OrderedDict()
        self._errors: dict[tuple[str, QuantizerSpec | None], TensorError] = {}
        self._activations: dict[str, ActivationReady] = {}
        self._evaluations: dict[ConfigKey, Evaluation] = {}
        self._tried: dict[ConfigKey, Tried] = {}
        self._newest_evaluation: Evaluation | None = None
        self._evaluated: set[ConfigKey] = set()
        self._advice: dict[ConfigKey, Advice | None] = {}
        self._noises: OrderedDict[ConfigKey, NoiseReady] = OrderedDict()
        self._sensitivity: Sensitivity | None = None
        self.report: DataReport | None = None
        """What the newest check of the data found."""
        self.mix: MixReady | None = None
        """The newest search for a mix."""
        self.training: TrainingReady | None = None
        """The newest training."""
        self.asked_training: Train | None = None
        self.looked_for_training = False
        self.training_was_left = False
        """Whether the newest training is one of an earlier session, which nobody has asked for since."""
        """What was asked of it, and would let it go on."""
        self.last_export: Exported | None = None
        """The file written last."""
        self.calibrated = False
        """Whether one whole calibration pass over the open data has ended."""

    def key(self, config: QuantConfig) -> ConfigKey:
        """Return what `config` means for this network; the same for two ways of writing the same."""
        for known, key in self._keys:
            if known is config or (known.default is config.default and not (known.overrides or config.overrides)):
                return key
        specs = tuple(config.spec_for(layer) for layer in self._layers)
        key = ConfigKey(specs, hash(specs))
        self._keys.appendleft((config, key))
        return key

    def size(self, config: QuantConfig, compute: Callable[[QuantConfig], int]) -> int:
        """Return the bytes of the network under `config`, which `compute` tells once."""
        key = self.key(config)
        if key not in self._sizes:
            self._sizes[key] = compute(config)
        return self._sizes[key]

    # --- weights -------------------------------------------------------------------------------------------------

    def put_view(self, view: WeightView) -> None:
        """Keep `view` and its error; the float statistics of a layer are kept once."""
        known = next((v for (layer, _), v in self._views.items() if layer == view.layer), None)
        if known is not None:
            view = replace(view, statistics=known.statistics)
        self._views[view.layer, view.spec] = view
        self._views.move_to_end((view.layer, view.spec))
        self.put_error(view.layer, view.spec, view.error)
        while len(self._views) > VIEWS_KEPT:
            self._views.popitem(last=False)

    def view(self, layer: str, spec: QuantizerSpec | None) -> WeightView | None:
        """Return the weights tab of `layer` under `spec`, or None while unknown."""
        if (layer, spec) in self._views:
            self._views.move_to_end((layer, spec))
        return self._views.get((layer, spec))

    def put_error(self, layer: str, spec: QuantizerSpec | None, error: TensorError) -> None:
        """Keep the weight error of `layer` under `spec`."""
        self._errors[layer, spec] = error

    def error(self, layer: str, spec: QuantizerSpec | None) -> TensorError | None:
        """Return the weight error of `layer` under `spec`, or None while unknown."""
        return self._errors.get((layer, spec))

    # --- activations ---------------------------------------------------------------------------------------------

    def put_activation(self, activation: ActivationReady) -> None:
        """Keep the statistics of an activation tensor."""
        self._activations[activation.tensor] = activation

    def activation(self, tensor: str) -> ActivationReady | None:
        """Return the statistics of an activation tensor, or None while unknown."""
        return self._activations.get(tensor)

    def mark_calibrated(self) -> None:
        """Note that a whole calibration pass over the open data has ended.

        Curves of weights that do not show yet what their inputs choose are worth another look.
        """
        self.calibrated = True
        for key, view in self._views.items():
            if view.curve is not None and not _picks_by_data(view):
                self._views[key] = replace(view, curve=None)

    @property
    def activations(self) -> Mapping[str, ActivationReady]:
        """All known activation statistics by tensor name."""
        return self._activations

    # --- quality -------------------------------------------------------------------------------------------------

    def put_evaluation(self, config: QuantConfig, evaluation: Evaluation, size: int) -> None:
        """Keep an evaluation unless one over more samples is known; `size` in bytes is the network's under `config`."""
        key = self.key(config)
        known = self._evaluations.get(key)
        if known is None or evaluation.quantized_score.samples >= known.quantized_score.samples:
            self._evaluations[key] = evaluation
        self._newest_evaluation = evaluation
        named = self._tried[key].config if key in self._tried and not config.name else config
        self._tried[key] = Tried(named, size, evaluation)

    @property
    def newest_evaluation(self) -> Evaluation | None:
        """The evaluation that came last, of whatever configuration."""
        return self._newest_evaluation

    @property
    def tried(self) -> tuple[Tried, ...]:
        """All configurations evaluated, in the order in which they were first tried."""
        return tuple(self._tried.values())

    def place_in_tried(self, config: QuantConfig) -> int | None:
        """Return the place of `config` in `tried`."""
        key = self.key(config)
        return next((place for place, known in enumerate(self._tried) if known == key), None)

    def evaluation(self, config: QuantConfig) -> Evaluation | None:
        """Return the quality under `config`, perhaps over some samples only, or None while unknown."""
        return self._evaluations.get(self.key(config))

    def mark_evaluated(self, config: QuantConfig) -> None:
        """Note that the evaluation of `config` has ended; it may have stopped before the last sample."""
        if self.key(config) in self._evaluations:
            self._evaluated.add(self.key(config))

    def is_evaluated(self, config: QuantConfig) -> bool:
        """Return whether nothing is left to be evaluated for `config`."""
        return self.key(config) in self._evaluated

    def put_advice(self, config: QuantConfig, advice: Advice | None) -> None:
        """Keep what is advised on `config`; None says that there is nothing to say."""
        self._advice[self.key(config)] = advice

    def has_advice(self, config: QuantConfig) -> bool:
        """Return whether the question has been answered for `config`."""
        return self.key(config) in self._advice

    def advice(self, config: QuantConfig) -> Advice | None:
        """Return what is advised on `config`."""
        return self._advice.get(self.key(config))

    # --- sensitivity and noise -----------------------------------------------------------------------------------

    @property
    def sensitivity(self) -> Sensitivity | None:
        """The table of the newest sweep, as far as it is known."""
        return self._sensitivity

    def put_sensitivity(self, news: Sensitivity | SensitivityReady) -> bool:
        """Keep a table, or merge news into the one of the same sweep; return whether that has changed anything."""
        known = self._sensitivity
        if isinstance(news, Sensitivity):
            self._sensitivity = news
        elif known is not None and known.sweep == news.sweep:
            self._sensitivity = updated_sensitivity(known, [news])
        return self._sensitivity is not known

    def put_noise(self, noise: NoiseReady) -> None:
        """Keep the noise of a configuration unless one over more samples is known."""
        key = self.key(noise.config)
        known = self._noises.get(key)
        if known is None or noise.complete or (noise.samples >= known.samples and not known.complete):
            self._noises[key] = noise
        self._noises.move_to_end(key)
        while len(self._noises) > NOISES_KEPT:
            self._noises.popitem(last=False)

    def noise(self, config: QuantConfig) -> NoiseReady | None:
        """Return the noise under `config`, perhaps over some samples only, or None while unknown."""
        return self._noises.get(self.key(config))

    # --- forgetting ----------------------------------------------------------------------------------------------

    def forget_quality(self) -> None:
        """Drop what depends on the metric."""
        self._evaluations.clear()
        self._tried.clear()
        self._newest_evaluation = None
        self._evaluated.clear()
        self._advice.clear()
        self._sensitivity = None
        self.mix = None
        self.training = self.asked_training = None
        self.looked_for_training = self.training_was_left = False

    def forget_data(self) -> None:
        """Drop what depends on the open data."""
        self.forget_quality()
        self._activations.clear()
        self._noises.clear()
        for name, spec in [each for each in self._errors if _depends_on_data(each[1])]:
            del self._errors[name, spec]
        for key, view in list(self._views.items()):
            if _depends_on_data(view.spec) or _picks_by_data(view):
                del self._views[key]
        self.report = None
        self.calibrated = False


def _depends_on_data(spec: QuantizerSpec | None) -> bool:
    return spec is not None and isinstance(spec.range_estimator, InputWeightedError)


def _picks_by_data(view: WeightView) -> bool:
    picks = () if view.curve is None else view.curve.picks
    return any(isinstance(each.estimator, InputWeightedError) for each in picks)
