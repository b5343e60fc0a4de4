"""What an exported file tells about itself: the program's version, its configuration, and what of it comes from data.

Grids of activations, and what some ranges of weights follow from, come from calibration data that whoever verifies the
file need not have; with them the simulation is that of the file, whatever data it is run on.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from quantgui import __version__
from quantgui.analysis.importance import RecordedSquares
from quantgui.analysis.simulation import Ranges
from quantgui.errors import ExportError, SpecError
from quantgui.numerics.qparams import QParams
from quantgui.results import Array
from quantgui.spec.config import QuantConfig
from quantgui.spec.profiles import EXPORT_PROFILES, ExportProfile
from quantgui.spec.serialization import config_from_json, config_to_json, quantizer_from_json, quantizer_to_json

VERSION_KEY, CONFIG_KEY, RANGES_KEY = "quantgui.version", "quantgui.config", "quantgui.activations"
SQUARES_KEY = "quantgui.inputs"
PROFILE_KEY = "quantgui.profile"


def sign(
    model: onnx.ModelProto,
    config: QuantConfig,
    ranges: Ranges,
    profile: ExportProfile = "qdq",
    squares: RecordedSquares = MappingProxyType({}),
) -> None:
    """Record in `model` what made it, with which configuration, for whom, and what of it comes from data.

    That is the grids of activations in `ranges`, and the mean `squares` of inputs that grids of weights follow from.
    """
    model.producer_name, model.producer_version = "quantgui", __version__
    specs = list(dict.fromkeys(spec for _, spec in ranges))
    grids = [
        [tensor, specs.index(spec), float(str(grid.scale[0])), int(grid.zero_point[0])]
        for (tensor, spec), grid in ranges.items()
    ]
    told = {"specs": [quantizer_to_json(spec) for spec in specs], "grids": grids}
    entries = {VERSION_KEY: __version__, CONFIG_KEY: _compact(config_to_json(config)), RANGES_KEY: _compact(told)}
    if squares:
        entries[SQUARES_KEY] = _compact(
            {tensor: {str(axis): _numbers(each) for axis, each in by.items()} for tensor, by in squares.items()}
        )
    if profile != "qdq":
        entries[PROFILE_KEY] = profile
    kept = [(entry.key, entry.value) for entry in model.metadata_props if entry.key not in entries]
    del model.metadata_props[:]
    for key, value in (*kept, *entries.items()):
        model.metadata_props.add(key=key, value=value)


def _numbers(values: Array) -> list[float]:
    return [float(str(each)) for each in values]


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def exported_config(path: Path) -> QuantConfig:
    """Return the configuration with which the file at `path` was exported.

    Raises:
        ExportError: the file cannot be read, or does not tell its configuration.
    """
    told = _told(path)
    if CONFIG_KEY not in told:
        raise ExportError(
            f"'{path.name}' does not tell its configuration, so it was not exported by this program: name one with "
            "--config or --preset."
        )
    try:
        return config_from_json(json.loads(told[CONFIG_KEY]))
    except (ValueError, SpecError) as error:
        raise ExportError(f"The configuration in '{path.name}' cannot be read: {error}") from error


def exported_ranges(path: Path) -> Ranges:
    """Return the grids of activations that the file at `path` records; none where another program wrote it.

    Raises:
        ExportError: the file cannot be read, or its records cannot.
    """
    try:
        told = json.loads(_told(path).get(RANGES_KEY, '{"specs": [], "grids": []}'))
        specs = [quantizer_from_json(spec, "specs") for spec in told["specs"]]
        return {
            (str(tensor), specs[spec]): QParams(np.array([scale], np.float32), np.array([zero_point], np.int32))
            for tensor, spec, scale, zero_point in told["grids"]
        }
    except (ValueError, TypeError, KeyError, IndexError, SpecError) as error:
        raise ExportError(f"The ranges of activations in '{path.name}' cannot be read: {error}") from error


def exported_squares(path: Path) -> RecordedSquares:
    """Return the mean squares of inputs that the file at `path` records; none where no grid of a weight needs them.

    Raises:
        ExportError: the file cannot be read, or its records cannot.
    """
    try:
        told = json.loads(_told(path).get(SQUARES_KEY, "{}"))
        return {
            str(tensor): {int(axis): np.array(values, np.float32) for axis, values in by_axis.items()}
            for tensor, by_axis in told.items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise ExportError(f"The mean squares of inputs in '{path.name}' cannot be read: {error}") from error


def exported_profile(path: Path) -> ExportProfile:
    """Return the profile with which the file at `path` was exported.

    Raises:
        ExportError: the file cannot be read.
    """
    told = _told(path).get(PROFILE_KEY, "qdq")
    return next((profile for profile in EXPORT_PROFILES if profile == told), "qdq")


def _told(path: Path) -> dict[str, str]:
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise ExportError(f"Cannot read '{path}': {error.strerror}.") from error
    except DecodeError as error:
        raise ExportError(f"'{path.name}' is no ONNX file.") from error
    return {entry.key: entry.value for entry in model.metadata_props}
