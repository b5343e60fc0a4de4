"""What ``quantgui mix --json`` has printed, read again for the report: the frontier, without its configurations."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantgui.errors import DataError
from quantgui.results import MixPoint, MixReady, NetworkSummary, Score
from quantgui.spec.config import QuantConfig
from quantgui.spec.mix import Mix
from quantgui.spec.sweep import SWEPT_BITS, Sweep, bits_specs


def read_mix(path: Path, summary: NetworkSummary) -> MixReady:
    """Return the frontier in the file at `path`; its points have costs and qualities, but no formats of layers.

    Raises:
        DataError: the file cannot be read, or tells of something else.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"Cannot read the mix '{path}': {error.strerror}.") from error
    except ValueError as error:
        raise DataError(f"'{path.name}' is no JSON file: {error}.") from error
    try:
        if told["float"]["bytes"] != summary.float_bytes or told["network"] != summary.name:
            raise DataError(f"'{path.name}' is of another network than '{summary.name}'.")
        refined = told["refined"]
        return MixReady(
            mix=Mix(Sweep(bits_specs(SWEPT_BITS)), cost=told["cost"]),
            metric=str(told["metric"]),
            higher_is_better=bool(told["higher_is_better"]),
            float_score=Score(_number(told["float"]["value"]), math.nan, 0),
            points=tuple(_point(each) for each in told["frontier"]),
            chosen=None if told["chosen"] is None else int(told["chosen"]["index"]),
            additivity_error=_number(told["additivity_error"]),
            refined=None if refined is None else _point(refined),
            changes=(),
            gained=_number(told["gained"]),
            seconds=_number(told["seconds"]),
            complete=bool(told["complete"]),
        )
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        raise DataError(f"'{path.name}' is no answer of 'quantgui mix --json'.") from error


def _point(told: Mapping[str, Any]) -> MixPoint:
    measured = told["measured"]
    return MixPoint(
        QuantConfig(),
        _number(told["cost"]),
        int(told["bytes"]),
        _number(told["predicted"]),
        None if measured is None else Score(_number(measured), _number(told["stderr"]), 0),
    )


def _number(value: float | str | None) -> float:
    return math.nan if value is None else float(value)
