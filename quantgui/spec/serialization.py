"""Configurations as JSON: ``version`` 1, unknown keys refused, every error names the place."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, assert_never

from quantgui.errors import SpecError
from quantgui.paths import trained_folder
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import CodebookFormat, FloatFormat, Format, IntFormat, parse_format
from quantgui.spec.granularity import Granularity, PerBlock, PerChannel, PerGroup, PerTensor
from quantgui.spec.quantizer import (
    BLOCK_FORMATS,
    SCALE_FORMATS,
    Entropy,
    FixedRange,
    HalfQuadratic,
    InputWeightedError,
    LayerSpec,
    LeastSquaredError,
    MinMax,
    MovingAverage,
    Percentile,
    QuantizerSpec,
    RangeEstimator,
    SampleMean,
    ScaleFormat,
    Trained,
    TwoSidedPercentile,
)
from quantgui.spec.trained_files import copy_states

VERSION = 1


def config_to_json(config: QuantConfig) -> dict[str, Any]:
    """Return `config` as JSON values."""
    return {
        "version": VERSION,
        "name": config.name,
        "default": layer_spec_to_json(config.default),
        "layers": {name: layer_spec_to_json(spec) for name, spec in sorted(config.overrides.items())},
    }


def config_from_json(value: object) -> QuantConfig:
    """Return the configuration that `value` describes.

    Raises:
        SpecError: a key is unknown or missing, or a value is impossible; the message names the place.
    """
    fields = _fields(value, "configuration", required={"version"}, optional={"name", "default", "layers"})
    if fields["version"] != VERSION or isinstance(fields["version"], bool):
        raise SpecError(f"The configuration has version {fields['version']!r}; this program reads version {VERSION}.")
    layers = fields.get("layers", {})
    if not isinstance(layers, Mapping):
        raise SpecError("'layers' of the configuration must be an object from layer names to specs.")
    return QuantConfig(
        layer_spec_from_json(fields.get("default", {}), "default"),
        MappingProxyType({str(n): layer_spec_from_json(v, f"layers['{n}']") for n, v in layers.items()}),
        str(fields.get("name", "")),
    )


def save_config(config: QuantConfig, path: Path) -> None:
    """Write `config` to `path`, and the trained weights it uses beside it.

    An existing file is replaced only by a whole new one.

    Raises:
        SpecError: the folder cannot be written.
    """
    require_writable(path)
    copy_states(config, trained_folder(), path.parent)
    write_text_atomically(path, json.dumps(config_to_json(config), indent=2) + "\n")


def load_config(path: Path) -> QuantConfig:
    """Read the configuration at `path`; trained weights that lie beside it are known from then on.

    Raises:
        SpecError: the file cannot be read, is no JSON, or describes no configuration.
    """
    try:
        # Some editors begin a file with a byte order mark.
        value = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
    except OSError as error:
        raise SpecError(f"Cannot read the configuration '{path}': {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise SpecError(f"'{path.name}' is no JSON file: {error}.") from error
    config = config_from_json(value)
    copy_states(config, path.parent, trained_folder())
    return config


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of `pairs`; a key that comes twice is a mistake, and the last of them would win unseen."""
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise SpecError(f"The configuration holds '{twice}' twice in one object.")
    return value


def require_writable(path: Path) -> None:
    """Raise SpecError if `path` is no place for a file: something else stands there, or its folder does not exist."""
    try:
        if path.exists() and not path.is_file():
            raise SpecError(f"'{path}' is no file; choose another place.")
        path.parent.stat()
    except OSError as error:
        raise SpecError(f"Cannot write '{path}': {error.strerror}.") from error
    if not os.access(path.parent, os.W_OK):
        raise SpecError(f"Cannot write '{path}': {os.strerror(errno.EACCES)}.")


def write_text_atomically(path: Path, text: str) -> None:
    """Write a file beside `path`, then put it in its place.

    Raises:
        SpecError: the folder cannot be written, or the disk is full.
    """
    require_writable(path)
    temporary = None
    try:
        # Not by `tempfile`, whose files nobody else may read: who shares the folder shares what is written there.
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        with open(beside, "x", encoding="utf-8") as file:
            temporary = beside
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise SpecError(f"Cannot write '{path}': {error.strerror}.") from error


def layer_spec_to_json(spec: LayerSpec) -> dict[str, Any]:
    """Return `spec` as JSON values; ``null`` means float32."""
    return {
        "weights": None if spec.weights is None else quantizer_to_json(spec.weights),
        "activations": None if spec.activations is None else quantizer_to_json(spec.activations),
    }


def layer_spec_from_json(value: object, place: str) -> LayerSpec:
    """Return the layer spec that `value` describes; `place` is named in errors."""
    fields = _fields(value, place, optional={"weights", "activations"})
    parts = {
        key: None if fields.get(key) is None else quantizer_from_json(fields[key], f"{place}.{key}")
        for key in ("weights", "activations")
    }
    return LayerSpec(parts["weights"], parts["activations"])


def quantizer_to_json(spec: QuantizerSpec) -> dict[str, Any]:
    """Return `spec` as JSON values; keys that have no meaning for its format are left out."""
    value: dict[str, Any] = {"format": str(spec.format)}
    if isinstance(spec.format, FloatFormat):
        return value
    if isinstance(spec.format, IntFormat):
        value["symmetric"] = spec.symmetric
    value["granularity"] = _granularity_to_json(spec.granularity)
    if not isinstance(spec.format, CodebookFormat):
        value["range"] = _range_to_json(spec.range_estimator)
    if isinstance(spec.format, IntFormat) and spec.format.narrow_range:
        value["narrow_range"] = True
    if spec.full_range:
        value["full_range"] = True
    if spec.scale_format != "float32":
        value["scale_format"] = spec.scale_format
    if spec.double_quantization:
        value["double_quantization"] = True
    return value


def quantizer_from_json(value: object, place: str) -> QuantizerSpec:
    """Return the quantizer spec that `value` describes; `place` is named in errors.

    Besides the formats themselves, ``format`` may name one of `BLOCK_FORMATS`, with ``range`` as the only other key.
    """
    fields = _fields(value, place, required={"format"}, optional=_ALL_KEYS)
    with _at(place):
        name = str(fields["format"])
        block = BLOCK_FORMATS.get(name)
        fmt = parse_format(name) if block is None else block.format
        known = _BLOCK_KEYS if block is not None else _known_keys(fmt)
        if unfit := sorted(fields.keys() - known - {"format"}):
            raise SpecError(f"'{unfit[0]}' has no meaning for {name}.")
        if isinstance(fmt, FloatFormat):
            return QuantizerSpec(fmt, granularity=PerTensor())
        estimator = _range_from_json(fields.get("range", "min-max"))
        if block is not None:
            return replace(block, range_estimator=estimator)
        if isinstance(fmt, IntFormat):
            narrow = _boolean(fields, "narrow_range", default=fmt.narrow_range)
            if fmt.narrow_range and not narrow:
                raise SpecError("ternary weights have no lowest level; leave out 'narrow_range', or use int2.")
            fmt = replace(fmt, narrow_range=narrow)
        return QuantizerSpec(
            fmt,
            _boolean(fields, "symmetric", default=True),
            _granularity_from_json(fields.get("granularity", "channel")),
            estimator,
            _boolean(fields, "full_range", default=False),
            _scale_format(fields),
            _boolean(fields, "double_quantization", default=False),
        )


_BLOCK_KEYS = {"range"}
_CODEBOOK_KEYS = {"granularity", "scale_format"}
_SCALED_KEYS = {"symmetric", "granularity", "range", "scale_format", "double_quantization"}
_ALL_KEYS = _SCALED_KEYS | {"narrow_range", "full_range"}


def _known_keys(fmt: Format) -> set[str]:
    match fmt:
        case IntFormat() | FloatFormat():
            # Float formats have always been written without other keys, and read with any of these.
            return _ALL_KEYS
        case CodebookFormat():
            return _CODEBOOK_KEYS
        case _:
            return _SCALED_KEYS


def _scale_format(fields: dict[str, Any]) -> ScaleFormat:
    value = fields.get("scale_format", "float32")
    for known in SCALE_FORMATS:
        if value == known:
            return known
    raise SpecError(f"scale_format must be one of {', '.join(SCALE_FORMATS)}, got {value!r}.")


@contextlib.contextmanager
def _at(place: str) -> Iterator[None]:
    """Name `place` in what is refused."""
    try:
        yield
    except SpecError as error:
        raise SpecError(f"In {place}: {error}") from error


def _granularity_to_json(granularity: Granularity) -> Any:
    match granularity:
        case PerTensor():
            return "tensor"
        case PerChannel():
            return "channel"
        case PerGroup(group_size):
            return {"group_size": group_size}
        case PerBlock(rows, columns):
            return {"rows": rows, "columns": columns}
        case _:
            assert_never(granularity)


def _granularity_from_json(value: object) -> Granularity:
    match value:
        case "tensor":
            return PerTensor()
        case "channel":
            return PerChannel()
        case {"group_size": int(group_size), **rest} if not rest and _are_numbers(group_size):
            return PerGroup(group_size)
        case {"rows": int(rows), "columns": int(columns), **rest} if not rest and _are_numbers(rows, columns):
            return PerBlock(rows, columns)
        case _:
            raise SpecError(
                "granularity must be 'tensor', 'channel', {'group_size': N} or {'rows': M, 'columns': N}, "
                f"got {value!r}."
            )


def _range_to_json(estimator: RangeEstimator) -> Any:
    match estimator:
        case MinMax():
            return "min-max"
        case LeastSquaredError():
            return "least-squared-error"
        case InputWeightedError():
            return "input-weighted-error"
        case Entropy():
            return "entropy"
        case Percentile(percentile):
            return {"percentile": percentile}
        case TwoSidedPercentile(lower, upper):
            return {"lower_percentile": lower, "upper_percentile": upper}
        case FixedRange(low, high, output):
            return {"low": low, "high": high} | ({} if output is None else {"output": list(output)})
        case MovingAverage(momentum):
            return {"moving_average": momentum}
        case SampleMean():
            return "sample-mean"
        case HalfQuadratic():
            return "half-quadratic"
        case Trained(state):
            return {"trained": state}
        case _:
            assert_never(estimator)


_NAMED_RANGES: Mapping[str, RangeEstimator] = MappingProxyType(
    {
        "min-max": MinMax(),
        "least-squared-error": LeastSquaredError(),
        "input-weighted-error": InputWeightedError(),
        "entropy": Entropy(),
        "sample-mean": SampleMean(),
        "half-quadratic": HalfQuadratic(),
    }
)


def _range_from_json(value: object) -> RangeEstimator:
    match value:
        case str() if value in _NAMED_RANGES:
            return _NAMED_RANGES[value]
        case {"percentile": int() | float() as percentile, **rest} if not rest:
            return Percentile(_number(percentile))
        case {"lower_percentile": int() | float() as lower, "upper_percentile": int() | float() as upper, **rest} if (
            not rest
        ):
            return TwoSidedPercentile(_number(lower), _number(upper))
        case {"moving_average": int() | float() as momentum, **rest} if not rest:
            return MovingAverage(_number(momentum))
        case {"trained": str() as state, **rest} if not rest:
            return Trained(state)
        case {"low": int() | float() as low, "high": int() | float() as high, **rest} if not rest:
            return FixedRange(_number(low), _number(high))
        case {
            "low": int() | float() as low,
            "high": int() | float() as high,
            "output": [int() | float() as least, int() | float() as most],
            **rest,
        } if not rest:
            return FixedRange(_number(low), _number(high), (_number(least), _number(most)))
        case _:
            raise SpecError(
                f"range must be {', '.join(map(repr, _NAMED_RANGES))}, "
                "{'percentile': P}, {'lower_percentile': P, 'upper_percentile': Q}, {'moving_average': M}, "
                f"{{'trained': STATE}} or {{'low': A, 'high': B}}, got {value!r}."
            )


def _are_numbers(*values: object) -> bool:
    """Return whether none of `values` is a boolean, which is an int to Python."""
    return not any(isinstance(value, bool) for value in values)


def _number(value: float) -> float:
    if isinstance(value, bool) or abs(value) > sys.float_info.max:
        raise SpecError(f"a range needs finite numbers, got {str(value)[:40]}.")
    return float(value)


def _fields(
    value: object, place: str, *, required: set[str] | None = None, optional: set[str] | None = None
) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise SpecError(f"{place} must be an object, got {type(value).__name__}.")
    required, optional = required or set(), optional or set()
    if unknown := sorted(set(value) - required - optional):
        raise SpecError(
            f"{place} has the unknown key '{unknown[0]}'; known are {', '.join(sorted(required | optional))}."
        )
    if missing := sorted(required - set(value)):
        raise SpecError(f"{place} lacks the key '{missing[0]}'.")
    return dict(value)


def _boolean(fields: dict[str, Any], key: str, *, default: bool) -> bool:
    value = fields.get(key, default)
    if not isinstance(value, bool):
        raise SpecError(f"'{key}' must be true or false, got {value!r}.")
    return value
