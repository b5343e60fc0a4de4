"""What computations produce: frozen values that cross from the engine to whoever asked. numpy only.

Events of a long computation are `Progress` and the ...Ready values below; a result carries the key it answers
(layer, spec, configuration), so it can be missing but never stale.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantgui.spec.config import QuantConfig, UnknownName
from quantgui.spec.mix import Mix
from quantgui.spec.pytorch_source import Exporter, PytorchOptions
from quantgui.spec.quantizer import LayerSpec, QuantizerSpec, RangeEstimator
from quantgui.spec.sweep import Sweep
from quantgui.spec.training import Training

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Progress:
    """A report of a long computation: `done` of `total` steps (0 of 0 where the number is not known)."""

    done: int
    total: int
    label: str = ""
    seconds_left: float | None = None


# --- the network -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input or output of the network. Dimensions are numbers, or names where they are free."""

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None

    def __str__(self) -> str:
        dims = "?" if self.shape is None else " x ".join(str(d) for d in self.shape) or "scalar"
        return f"{self.name} ({self.dtype}, {dims})"


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """One row of the layers table: one weight, with the operator that uses it.

    Attributes:
        name: unique; the user's own node name, with a suffix such as ``/W.forward.input`` for recurrent weights.
        op: ONNX operator type of the first user, such as ``Conv``; ``DepthwiseConv`` is written ``Conv``.
        weight: name of the initializer that holds the values (in the folded network).
        rows: where this layer is only a part of a recurrent weight: first and last + 1 row of the initializer seen
            as a matrix (directions * gates * hidden, columns).
        shape: shape of the weight, of the part if `rows` is given.
        channel_axis: axis of `shape` that holds the output channels.
        channels, elements_per_channel: C and K, with C * K = parameters.
        users: names of all nodes that use the weight; more than one where it is shared.
        node: name of the first of them in the folded network.
        input_tensor, output_tensor: data input of the first user, and its output after a fused Relu or Clip; empty
            where the layer has no activation that can be quantized.
        macs: multiply-accumulates for one sample, of all users together; 0 where not known.
        dtype: how the values are stored in the file: ``float32``, ``float16``, ``int8 with scale``; for read-only
            layers the format they are quantized to, such as ``int8`` or ``uint4 in groups of 32``.
        read_only: already quantized in the file; shown, not editable.
        finite: whether all values are finite; others stay float.
        signal_transform: the weight looks like a fixed signal transform (Fourier, mel), which presets leave float.
        quantizes_activations: whether `LayerSpec.activations` has a meaning for this operator.
        scope: names of the enclosing control-flow nodes (If, Loop), outermost first.
        stored_bytes: bytes in the opened file.
        float_bits: bits of a value where the layer stays float: 32, or the width a float16 or float64 network has.
    """

    name: str
    op: str
    weight: str
    shape: tuple[int, ...]
    channel_axis: int
    channels: int
    elements_per_channel: int
    users: tuple[str, ...]
    node: str = ""
    rows: tuple[int, int] | None = None
    input_tensor: str = ""
    output_tensor: str = ""
    macs: int = 0
    dtype: str = "float32"
    read_only: bool = False
    finite: bool = True
    signal_transform: bool = False
    quantizes_activations: bool = False
    scope: tuple[str, ...] = ()
    stored_bytes: int = 0
    float_bits: int = 32

    @property
    def parameters(self) -> int:
        """Number of weight values."""
        return self.channels * self.elements_per_channel

    @property
    def keeps_float(self) -> bool:
        """Whether presets leave this layer as it is."""
        return self.read_only or not self.finite or self.signal_transform


@dataclass(frozen=True, slots=True)
class GraphNode:
    """A node of the network as it is drawn; `layer` is the row it belongs to, or empty."""

    name: str
    op: str
    inputs: tuple[int, ...]
    """Indices of the nodes that feed it."""
    layer: str = ""


@dataclass(frozen=True, slots=True)
class Conversion:
    """How a PyTorch network became ONNX."""

    options: PytorchOptions
    exporter: Exporter
    difference: float
    """Largest difference of the ONNX form on example inputs, as a share of the largest output."""
    frozen: tuple[str, ...] = ()
    """Axes that were to vary and do not."""


@dataclass(frozen=True, slots=True)
class NetworkSummary:
    """All the window needs to know of an open network."""

    name: str
    path: str
    fingerprint: str
    opset: int
    ir_version: int
    producer: str
    parameters: int
    file_bytes: int
    float_bytes: int
    """Bytes of all constants of the folded network, in the types it computes with."""
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    layers: tuple[LayerInfo, ...]
    nodes: tuple[GraphNode, ...] = ()
    warnings: tuple[str, ...] = ()
    conversion: Conversion | None = None
    """How it became ONNX, where its file is something else."""


@dataclass(frozen=True, slots=True)
class NetworkOpened:
    """Result of opening a network."""

    summary: NetworkSummary


# --- data --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """How pictures become the network's input; guessed, shown, corrected by the user.

    ``x = (pixel / 255 * scale - mean) / std`` per channel, so ``scale`` is 1 for networks that take 0 ... 1 and 255 for
    those that take 0 ... 255.
    """

    height: int
    width: int
    layout: str = "NCHW"
    channels: int = 3
    bgr: bool = False
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class DataSummary:
    """All the window needs to know of open data."""

    source: str
    samples: int
    inputs: tuple[TensorInfo, ...]
    has_labels: bool
    trustworthy: bool
    """False for random numbers: ranges and quality measured on them mean little."""
    fingerprint: str
    image_options: ImageOptions | None = None
    notes: tuple[str, ...] = ()
    calibration: str = ""
    """Where ranges of activations come from, if not from `source`."""


@dataclass(frozen=True, slots=True)
class DataOpened:
    """Result of opening data."""

    summary: DataSummary


# --- tensors -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Counts of values in bins of equal width; ``edges`` has one entry more than ``counts``."""

    edges: Array
    counts: Array


@dataclass(frozen=True, slots=True, eq=False)
class TensorStatistics:
    """What is known of a tensor's values, whatever its format becomes.

    The fine histogram has bins of width `bin_width` (a power of two); its first bin starts at
    ``first_bin * bin_width``. All float64 / int64. Values too far out for the bins are kept one by one in `outliers`,
    sorted, so the bins and the outliers together hold `count` values; `numerics.statistics.rebin` draws both.
    """

    count: int
    minimum: float
    maximum: float
    total: float
    total_square: float
    bin_width: float
    first_bin: int
    counts: Array
    zeros: int = 0
    non_finite: int = 0
    outliers: Array = field(default_factory=lambda: np.empty(0))

    @property
    def edges(self) -> Array:
        """Bin edges of the fine histogram, shape (B + 1,)."""
        return (self.first_bin + np.arange(len(self.counts) + 1)) * self.bin_width

    @property
    def mean(self) -> float:
        """Mean of the values."""
        return self.total / self.count if self.count else 0.0

    @property
    def std(self) -> float:
        """Standard deviation of the values."""
        return float(np.sqrt(max(self.total_square / self.count - self.mean**2, 0.0))) if self.count else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class ChannelStatistics:
    """Per-channel values of a weight, each of shape (C,)."""

    minimum: Array
    maximum: Array
    mean: Array
    std: Array
    sqnr_db: Array | None = None


@dataclass(frozen=True, slots=True)
class TensorError:
    """Error of a quantized tensor against the float one."""

    sqnr_db: float
    """10 log10(sum x^2 / sum (x - x')^2), larger is better; inf where equal."""
    mse: float
    max_abs: float
    clipped: float
    """Share of the values outside the range, 0 ... 1."""


@dataclass(frozen=True, slots=True)
class Pick:
    """The range that an estimator chooses, ``low`` ... ``high`` of the widest group, and the error it leads to."""

    estimator: RangeEstimator
    low: float
    high: float
    sqnr_db: float

    @property
    def threshold(self) -> float:
        """The absolute value of the larger end."""
        return max(-self.low, self.high)


@dataclass(frozen=True, slots=True, eq=False)
class ErrorCurve:
    """The error of a tensor as a function of the clipping limit (`numerics.error_curve`).

    Attributes:
        thresholds: larger end of the (widest) range, ascending, (T,); empty where all values are 0.
        sqnr_db: sqnr at each, (T,).
        picks: where each range estimator lies. Ranges whose ends, or whose groups, are not in proportion to those of
            min-max do not lie on the curve.
        share: share of the channels that were measured.
    """

    thresholds: Array
    sqnr_db: Array
    picks: tuple[Pick, ...]
    share: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class WeightView:
    """The weights tab: everything about one layer's weight under one spec."""

    layer: str
    spec: QuantizerSpec | None
    statistics: TensorStatistics
    channels: ChannelStatistics
    error: TensorError
    quantized: Histogram
    """Histogram of the quantized values: one thin bin per level where there are few."""
    error_histogram: Histogram
    scales: Array
    """Scale of each group, shape (G,); empty for float formats."""
    zero_points: Array
    low: float
    """Lower end of the widest range used."""
    high: float
    levels: Array = field(default_factory=lambda: np.empty(0))
    """Levels of the group with the widest range, in ascending order; empty where there are too many to draw."""
    curve: ErrorCurve | None = None
    """Error as a function of one factor on all groups' ranges; None until it is known, or where nobody asked."""


@dataclass(frozen=True, slots=True)
class WeightErrorReady:
    """Error of a layer's weight under `spec`, for the layers table."""

    layer: str
    spec: QuantizerSpec | None
    error: TensorError


@dataclass(frozen=True, slots=True, eq=False)
class WeightViewReady:
    """The weights tab of a layer has been computed."""

    view: WeightView


@dataclass(frozen=True, slots=True, eq=False)
class ActivationReady:
    """Statistics of one activation tensor over all calibration samples seen so far."""

    tensor: str
    statistics: TensorStatistics
    samples: int
    sample_minima: Array
    """Smallest value in each sample, shape (S,)."""
    sample_maxima: Array
    squares: Mapping[int, Array] = field(default_factory=dict)
    """Mean square at each index of an axis, float32, for the axes that products with weights sum over."""


@dataclass(frozen=True, slots=True, eq=False)
class Calibrated:
    """All activation statistics of one pass over the data."""

    activations: Mapping[str, ActivationReady]
    samples: int
    seconds: float


# --- quality -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Score:
    """Mean of a metric with its standard error over `samples` samples."""

    value: float
    stderr: float
    samples: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Quality of the network under a configuration.

    `metric` names the headline metric; `float_score` and `quantized_score` are its values for both networks. `scores`
    holds every metric that could be computed for the quantized network (``output_sqnr_db``, ``cosine``, ``kl``,
    ``agreement``, ``accuracy``, ``user``).
    """

    metric: str
    higher_is_better: bool
    float_score: Score
    quantized_score: Score
    output_sqnr_db: float
    scores: Mapping[str, Score]
    seconds: float
    total_samples: int
    notes: tuple[str, ...] = ()
    """What is wrong with the outputs, in sentences (not finite, of another shape)."""

    @property
    def complete(self) -> bool:
        """Whether all samples have been seen."""
        return self.quantized_score.samples >= self.total_samples


@dataclass(frozen=True, slots=True)
class EvaluationReady:
    """An evaluation, partial at first: it tightens with every mini-batch."""

    config: QuantConfig
    evaluation: Evaluation


@dataclass(frozen=True, slots=True)
class Advice:
    """A finding about a configuration, and the configuration that mends it."""

    config: QuantConfig
    sentence: str
    layers: tuple[str, ...]
    proposal: QuantConfig | None
    before: Evaluation | None = None
    after: Evaluation | None = None


@dataclass(frozen=True, slots=True)
class AdviceReady:
    """What the program advises on a configuration; None where there is nothing to say."""

    config: QuantConfig
    advice: Advice | None


# --- sensitivity -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Candidate:
    """One layer with one spec, all others as the sweep's `base` has them.

    Attributes:
        layer: name of the layer.
        format: the column it stands in, such as ``int4``.
        spec: what the layer becomes.
        value: metric of the network; NaN before it is measured. Where other layers of the column are measured on more
            samples, the mean of what those changed for them is added, so that the column can be compared.
        stderr: its standard error; NaN for fewer than two samples.
        samples: samples measured on; 0 before.
        bytes: of the layer's weight under `spec`.
        weight_sqnr_db: error of the weight alone, a first guess; NaN where weights are not changed.
        proxies: all cheap guesses by name (see `analysis.proxies`), in dB, larger is less harmful; NaN where unknown.
    """

    layer: str
    format: str
    spec: LayerSpec
    value: float
    stderr: float
    samples: int
    bytes: int
    weight_sqnr_db: float = float("nan")
    proxies: Mapping[str, float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class SensitivityReady:
    """Some candidates of a sweep have a new or better number."""

    sweep: Sweep
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class RankedLayer:
    """A place in the order of layers; `certain` if the next one's is surely less sensitive (two standard errors)."""

    layer: str
    certain: bool


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The table of a sweep as far as it is known.

    Attributes:
        sweep: what was asked.
        metric: name of the metric, the function's where it is the user's own.
        higher_is_better: its direction.
        reference: the metric of `sweep.base` itself.
        candidates: by layer in the network's order, then by spec.
        orders: the layers by format, most sensitive first; by the best guess before anything is measured.
        weight_error_correlation: Spearman's rank correlation of weight error and measured value, NaN where unknown.
        total_samples: most samples a candidate can be measured on.
        float_forward_seconds: what the float network takes for `total_samples` samples.
        seconds: since the sweep began.
        cut_segments: pieces in which the network ran.
        peak_cache_bytes: most bytes of activations that were kept.
        resumed: candidates whose numbers came from an earlier run, at least in part.
        complete: whether the sweep has ended.
        correlations: Spearman's rank correlation of each proxy and the measured values of the whole table; those that
            cannot be told are left out.
        layer_correlations: the same among the layers of one format, the mean over the formats.
        proxy_seconds: what the proxies took of `seconds`.
        notes: sentences for the user, such as why a proxy is missing.
    """

    sweep: Sweep
    metric: str
    higher_is_better: bool
    reference: Score
    candidates: tuple[Candidate, ...]
    orders: Mapping[str, tuple[RankedLayer, ...]]
    weight_error_correlation: float
    total_samples: int
    float_forward_seconds: float
    seconds: float
    cut_segments: int
    peak_cache_bytes: int
    resumed: int
    complete: bool
    correlations: Mapping[str, float] = field(default_factory=dict)
    layer_correlations: Mapping[str, float] = field(default_factory=dict)
    proxy_seconds: float = 0.0
    notes: tuple[str, ...] = ()


def updated_sensitivity(answer: Sensitivity, news: Iterable[SensitivityReady]) -> Sensitivity:
    """Return the table with what was measured after it; news of another sweep change nothing."""
    newest = {(c.layer, c.spec): c for ready in news if ready.sweep == answer.sweep for c in ready.candidates}
    layers = {layer for layer, _ in newest}
    return replace(
        answer,
        candidates=tuple(
            newest.get((each.layer, each.spec), each) if each.layer in layers else each for each in answer.candidates
        ),
    )


# --- mix ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MixPoint:
    """A configuration on the frontier of cost and quality.

    Attributes:
        config: one spec for each layer.
        cost: in the unit of `Mix.cost`.
        bytes: of the whole network.
        predicted: the metric, if the damages of single layers add up.
        measured: the metric really measured; None before.
        limited: what `Mix.drop` limits, measured; None before, or where no loss is limited.
    """

    config: QuantConfig
    cost: float
    bytes: int
    predicted: float
    measured: Score | None = None
    limited: Score | None = None


@dataclass(frozen=True, slots=True)
class MixReady:
    """The frontier as far as it is known: predicted at first, then measured point by point, then refined.

    Attributes:
        mix: what was asked.
        metric, higher_is_better: name and direction of the metric.
        float_score: the metric of the float network.
        points: rising in cost; none is beaten by a cheaper one as far as predicted.
        chosen: index of the point that answers the limit; None where there is no limit, or no point that keeps it. With
            a limited loss it is a guess until it is measured.
        additivity_error: mean of |measured - predicted| of the measured points, in the metric's unit; NaN before.
        refined: the chosen point after refinement; None before, or where nothing was asked.
        changes: what the refinement changed: (layer, from, to) in their order.
        gained: what the refinement gained in the metric (more than 0 is better), 0 where nothing was better. Where the
            loss is limited it makes the network cheaper instead, and this may be less than 0.
        seconds: since the search began.
        complete: whether it has ended.
        limited_metric: name of the metric that `Mix.drop` limits; empty where no loss is limited.
        limited_float: that metric of the float network.
        margin: how much better than the limit the refined, else the chosen point is, with the standard error of that:
            both networks ran on the same samples. The limit is surely kept where it is more than two of them.
    """

    mix: Mix
    metric: str
    higher_is_better: bool
    float_score: Score
    points: tuple[MixPoint, ...]
    chosen: int | None
    additivity_error: float
    refined: MixPoint | None
    changes: tuple[tuple[str, LayerSpec, LayerSpec], ...]
    gained: float
    seconds: float
    complete: bool
    limited_metric: str = ""
    limited_float: Score | None = None
    margin: Score | None = None


# --- noise -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LayerNoise:
    """Noise at one layer's output under a configuration, in dB against the float network (larger is better).

    Attributes:
        layer: name of the layer.
        tensor: the tensor it was seen at; empty where none can be, and the numbers are NaN.
        own_sqnr_db: this layer alone quantized: the noise it makes itself; infinite where it is float.
        inherited_sqnr_db: all quantized but this layer: the noise that comes in with its inputs.
        total_sqnr_db: all quantized.
        input_sqnr_db: noise in the data it reads, all quantized; inherited noise below it has been amplified. NaN where
            the layer has no single input of data that can be seen.
    """

    layer: str
    tensor: str
    own_sqnr_db: float
    inherited_sqnr_db: float
    total_sqnr_db: float
    input_sqnr_db: float = float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class NoiseReady:
    """Where noise is made under `config`, and what it does to the samples.

    Attributes:
        config: the configuration.
        layers: noise of the layers whose output can be seen, in the network's order.
        samples: how many samples it was measured on.
        damage: (L, S) float32: how much layer l, quantized alone, changes the output of sample s: noise power over
            signal power, so that the layers of one sample can be compared; rows as `layers`.
        flips: (L, S) bool: whether layer l alone changes the top class; all False where outputs are no classes.
        flipped: (S,) bool: whether the whole configuration does.
        has_classes: whether outputs look like classes.
        complete: whether it has ended.
    """

    config: QuantConfig
    layers: tuple[LayerNoise, ...]
    samples: int
    damage: Array
    flips: Array
    flipped: Array
    has_classes: bool
    complete: bool


@dataclass(frozen=True, slots=True, eq=False)
class SampleReady:
    """One sample as the network sees it.

    Attributes:
        config: the configuration of `quantized`.
        sample: its index in the data.
        inputs: by name, without the axis of samples where there is one.
        float_outputs, quantized_outputs: by name, likewise.
        label: what the data says it is; None where it says nothing.
        image_options: how pictures became inputs, to turn them back; None where the data is no folder of pictures.
        class_axes: the axis of the classes of those outputs that look like scores of classes.
        calibration: whether it is a sample of the data that ranges come from.
    """

    config: QuantConfig
    sample: int
    inputs: Mapping[str, Array]
    float_outputs: Mapping[str, Array]
    quantized_outputs: Mapping[str, Array]
    label: Array | None
    image_options: ImageOptions | None
    class_axes: Mapping[str, int] = field(default_factory=dict)
    calibration: bool = False


# --- training ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class TrainingReady:
    """Quantization-aware training as far as it has come; the last one is complete.

    Attributes:
        config, training: what it started from, and how.
        steps: optimizer steps done, of `training.steps`; the layers' steps together where blocks are trained.
        loss_steps: int (L,): the steps at which `losses` were taken.
        losses: float (L,): the mean loss since the one before; means of more steps as training goes on, so that L
            stays below 2000.
        before: quality under `config`; None until it is known.
        evaluations: steps with the quality after them, from the first evaluation on.
        best: step of the best evaluation; None before one is better than `before`.
        trained: `config` with what was best: trained weights and scales in place of estimated ones; None like `best`.
        layers: names of the layers that are trained.
        seconds, seconds_left: of training and evaluations; left is NaN while unknown.
        resumed: step at which it went on from a checkpoint; 0 if it began anew.
        complete: whether it came to its end, by itself or early because nothing got better.
        notes: what cannot be trained, in sentences.
    """

    config: QuantConfig
    training: Training
    steps: int
    loss_steps: Array
    losses: Array
    before: Evaluation | None
    evaluations: tuple[tuple[int, Evaluation], ...]
    best: int | None
    trained: QuantConfig | None
    layers: tuple[str, ...]
    seconds: float
    seconds_left: float = float("nan")
    resumed: int = 0
    complete: bool = False
    notes: tuple[str, ...] = ()

    @property
    def after(self) -> Evaluation | None:
        """The quality under `trained`."""
        return next((found for step, found in self.evaluations if step == self.best), None)


@dataclass(frozen=True, slots=True)
class TrainingLeft:
    """A training that was left before its end, as its checkpoint tells; None where there is none."""

    training: TrainingReady | None


# --- the data check ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about the data or what it does in the network.

    Attributes:
        kind: what was checked, such as ``range of inputs`` or ``saturated``.
        severity: ``error`` (numbers measured on this data mislead), ``warning`` or ``hint``.
        sentence: what is wrong, with the layer it concerns.
        advice: what to do about it.
        layers: names of the layers it concerns, the worst first.
        tensor: the input or activation it concerns most; may be empty.
        samples: the samples it concerns, the worst first.
        numbers: the evidence by name.
    """

    kind: str
    severity: str
    sentence: str
    advice: str = ""
    layers: tuple[str, ...] = ()
    tensor: str = ""
    samples: tuple[int, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, eq=False)
class RangeGrowth:
    """How the range of an activation tensor grows with the number of samples.

    Attributes:
        tensor: its name.
        layers: the layers that read or make it.
        shares: (S,) range of the first n samples over the range of all, 0 ... 1.
        enough: samples after which the range has reached 99 % of the final one.
        late: share of the range that only the last quarter of the samples added.
        highest, lowest: the samples that set the maximum and the minimum.
        minimum, maximum: of all samples.
    """

    tensor: str
    layers: tuple[str, ...]
    shares: Array
    enough: int
    late: float
    highest: int
    lowest: int
    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True, eq=False)
class DataReport:
    """What the data check found.

    Attributes:
        config: the configuration whose ranges were looked at; None where only the inputs were.
        samples: how many samples were looked at.
        findings: the worst first.
        checked: the kinds of finding that were looked for.
        unknown: sentences on what could not be judged.
        growths: of the activations, by tensor; empty where only the inputs were looked at.
        previews: the first samples of the input `preview_input`, without the axis of samples.
        image_options: how pictures became inputs, to turn them back.
        setters: fewest samples that together give all ranges; 0 while unknown.
    """

    config: QuantConfig | None
    samples: int
    findings: tuple[Finding, ...]
    checked: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    growths: Mapping[str, RangeGrowth] = field(default_factory=dict)
    previews: tuple[Array, ...] = ()
    preview_input: str = ""
    image_options: ImageOptions | None = None
    setters: int = 0


@dataclass(frozen=True, slots=True)
class DataExamined:
    """The data has been examined."""

    report: DataReport


# --- export ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Exported:
    """A quantized network has been written."""

    path: str
    config: QuantConfig
    file_bytes: int
    opset: int
    notes: tuple[str, ...] = ()
    """What differs from the wish, in sentences (3 bits stored as 4 ...)."""


@dataclass(frozen=True, slots=True)
class LayerDeviation:
    """How far one layer's output in the exported file is from the simulated one."""

    layer: str
    tensor: str
    sqnr_db: float
    kernel: str = ""
    """The operator that runs it in ONNX Runtime; "" where that cannot be told."""
    is_float: bool = False
    """Whether that operator computes with float weights."""
    stored_bytes: int = 0
    """Bytes of its weight in the file."""


@dataclass(frozen=True, slots=True)
class Verification:
    """The exported file against what the window shows."""

    path: str
    simulated: Evaluation
    deployed: Evaluation
    output_sqnr_db: float
    """Deployed against simulated outputs; inf where equal."""
    file_bytes: int
    float_file_bytes: int
    latency_ratio: float
    """Median of deployed / float over the rounds, each of which times one sample with both."""
    float_latency_ms: float
    deployed_latency_ms: float
    layers: tuple[LayerDeviation, ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)
    seconds: float = 0.0
    first_parting: str = ""
    """The first layer whose output is not the simulated one; "" where there is none."""
    latency_quartiles: tuple[float, float] | None = None
    """Lower and upper quartile of the same."""


@dataclass(frozen=True, slots=True)
class SettingsWritten:
    """A file for another tool has been written; `notes` say what it could not hold."""

    path: str
    dialect: str
    config: QuantConfig
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SettingsRead:
    """Another tool's file has been read.

    Attributes:
        path: the file.
        dialect: whose file it is, for people.
        config: what it says.
        unknown: sentences on names that match nothing in the network.
        notes: what else is to be said.
        unknown_names: the names of `unknown`, each with the nearest that does match.
    """

    path: str
    dialect: str
    config: QuantConfig
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unknown_names: tuple[UnknownName, ...] = ()


@dataclass(frozen=True, slots=True)
class LayerComparison:
    """One layer in two quantized networks: its format in each, and the SQNR of its output against the float one.

    NaN where the output is not found by name in both.
    """

    layer: str
    own: str
    other: str
    own_sqnr_db: float
    other_sqnr_db: float


@dataclass(frozen=True, slots=True)
class NetworkComparison:
    """A network that another tool has quantized, beside one's own configuration.

    Attributes:
        path: the other network's file.
        config: one's own.
        other: what the file was read as.
        own_evaluation, other_evaluation: quality of both against the float network.
        layers: in the network's order.
        file_bytes: of the other network's file.
        unknown: sentences on names in the file that match nothing in the network.
        notes: what else is to be said of how the file was read.
    """

    path: str
    config: QuantConfig
    other: QuantConfig
    own_evaluation: Evaluation
    other_evaluation: Evaluation
    layers: tuple[LayerComparison, ...]
    file_bytes: int
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportWritten:
    """A report has been written."""

    path: str
    file_bytes: int


Event = (
    Progress
    | NetworkOpened
    | DataOpened
    | WeightErrorReady
    | WeightViewReady
    | ActivationReady
    | Calibrated
    | EvaluationReady
    | AdviceReady
    | SensitivityReady
    | Sensitivity
    | MixReady
    | NoiseReady
    | SampleReady
    | TrainingReady
    | TrainingLeft
    | DataExamined
    | Exported
    | Verification
    | SettingsWritten
    | SettingsRead
    | NetworkComparison
    | ReportWritten
)
