"""What can be asked of the engine. Frozen values; the answers are the events of `results`.

Each request is answered by a stream of events that ends with done, failed or cancelled (`quantgui.engine.client`).
A newer request of the same `topic` replaces an older one that waits or runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from quantgui.results import ImageOptions, MixReady, Sensitivity
from quantgui.spec.config import QuantConfig
from quantgui.spec.mix import Mix
from quantgui.spec.profiles import ExportProfile
from quantgui.spec.pytorch_source import DEFAULT_OPTIONS, PytorchOptions
from quantgui.spec.quantizer import QuantizerSpec
from quantgui.spec.sweep import Sweep
from quantgui.spec.training import Training


class Priority(IntEnum):
    """Smaller runs first: what the user looks at before what takes long."""

    OPEN = 0
    LOOK = 1
    TABLE = 2
    """Errors of weights: in sight like the tabs, and a small part of what an evaluation takes."""
    EVALUATE = 3
    CALIBRATE = 4
    EXPORT = 5
    SWEEP = 6


@dataclass(frozen=True, slots=True)
class OpenNetwork:
    """Answered by Progress ... NetworkOpened. Forgets the data opened before.

    `path` is an .onnx or .pt2 file, or ``module:factory``, whose code is run if `pytorch` says that it is trusted.
    """

    path: str
    pytorch: PytorchOptions = DEFAULT_OPTIONS


@dataclass(frozen=True, slots=True)
class OpenData:
    """Answered by DataOpened. `source` is a file, a folder of images, or ``random:N``.

    Ranges of activations come from the data `calibration`, which may be named like `source`; from `source` itself if
    it is empty.
    """

    source: str
    image_options: ImageOptions | None = None
    calibration: str = ""


@dataclass(frozen=True, slots=True)
class SetMetric:
    """Use the function ``FILE.py:function`` (the user's own code) as headline metric; empty for the automatic one."""

    function: str


@dataclass(frozen=True, slots=True)
class ViewWeight:
    """Answered by one WeightViewReady."""

    layer: str
    spec: QuantizerSpec | None


@dataclass(frozen=True, slots=True)
class WeightErrors:
    """Answered by one WeightErrorReady per layer."""

    specs: Mapping[str, QuantizerSpec | None]


@dataclass(frozen=True, slots=True)
class Calibrate:
    """Answered by Progress, partial ActivationReady, and Calibrated."""

    samples: int | None = None


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Answered by EvaluationReady per mini-batch; the last one is complete. Calibrates first where needed."""

    config: QuantConfig
    samples: int | None = None


@dataclass(frozen=True, slots=True)
class Advise:
    """Answered by AdviceReady."""

    config: QuantConfig


@dataclass(frozen=True, slots=True)
class ExamineData:
    """Answered by Progress and DataExamined.

    Without a configuration only the inputs are looked at; with one also the activations, which are calibrated first
    where needed, and how its ranges fit them.
    """

    config: QuantConfig | None = None


@dataclass(frozen=True, slots=True)
class MeasureSensitivity:
    """Answered by SensitivityReady and Sensitivity; the last one is complete. Calibrates first where needed.

    What is measured is kept on disk: after a stop, a crash or a restart the same request goes on from there.
    """

    sweep: Sweep


@dataclass(frozen=True, slots=True)
class FindMix:
    """Answered by MixReady: the frontier first, then its points measured. Measures sensitivity first where needed.

    With a `table` (of `mix.sweep`, from the float network) nothing is measured for the frontier.
    """

    mix: Mix
    table: Sensitivity | None = None


@dataclass(frozen=True, slots=True)
class TraceNoise:
    """Answered by NoiseReady, tightening with more samples. Calibrates first where needed."""

    config: QuantConfig
    samples: int | None = None


@dataclass(frozen=True, slots=True)
class ViewSample:
    """Answered by one SampleReady: of the data quality is measured on, or of that which ranges come from."""

    config: QuantConfig
    sample: int
    calibration: bool = False


@dataclass(frozen=True, slots=True)
class Train:
    """Answered by Progress and TrainingReady; the last one is complete. Calibrates first where needed.

    Checkpoints are kept on disk: after a stop, a crash or a restart the same request goes on from there.
    """

    config: QuantConfig
    training: Training


@dataclass(frozen=True, slots=True)
class FindTraining:
    """Answered by one TrainingLeft: the newest training on the open data that has not ended.

    The checkpoint of `discarded` is deleted first.
    """

    discarded: Train | None = None


@dataclass(frozen=True, slots=True)
class Export:
    """Answered by Progress and Exported.

    With `convert` what TensorRT refuses is changed, and told, instead of refused (profile ``tensorrt`` alone).
    """

    config: QuantConfig
    path: str
    profile: ExportProfile = "qdq"
    convert: bool = False


@dataclass(frozen=True, slots=True)
class Verify:
    """Answered by Progress and Verification: the file at `path` against `config`."""

    config: QuantConfig
    path: str
    samples: int | None = None


@dataclass(frozen=True, slots=True)
class WriteSettings:
    """Answered by SettingsWritten: `config` as the file of another tool (`export.dialects.table`) at `path`."""

    config: QuantConfig
    path: str
    dialect: str
    sensitivity: Sensitivity | None = None


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """Answered by SettingsRead; the tool is recognised unless `dialect` names it."""

    path: str
    dialect: str = ""


@dataclass(frozen=True, slots=True)
class CompareNetwork:
    """Answered by Progress and NetworkComparison: `config` beside the quantized ONNX file of another tool at `path`."""

    config: QuantConfig
    path: str
    samples: int | None = None


@dataclass(frozen=True, slots=True)
class WriteReport:
    """Answered by Progress and ReportWritten: all that is known of `config` as one HTML file at `path`.

    Quality is measured on the first `samples`; None for all.
    """

    config: QuantConfig
    path: str
    sensitivity: Sensitivity | None = None
    mix: MixReady | None = None
    samples: int | None = None


Request = (
    OpenNetwork
    | OpenData
    | SetMetric
    | ViewWeight
    | WeightErrors
    | Calibrate
    | Evaluate
    | Advise
    | ExamineData
    | MeasureSensitivity
    | FindMix
    | TraceNoise
    | ViewSample
    | Train
    | FindTraining
    | Export
    | Verify
    | WriteSettings
    | ReadSettings
    | CompareNetwork
    | WriteReport
)
