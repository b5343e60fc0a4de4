"""What an exported file tells about itself."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from quantgui.errors import ExportError, SpecError
from quantgui.export.qdq import CONFIG_KEY
from quantgui.spec.config import QuantConfig
from quantgui.spec.serialization import config_from_json


def exported_config(path: Path) -> QuantConfig:
    """Return the configuration with which the file at `path` was exported.

    Raises:
        ExportError: the file cannot be read, or does not tell its configuration.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise ExportError(f"Cannot read '{path}': {error.strerror}.") from error
    except DecodeError as error:
        raise ExportError(f"'{path.name}' is no ONNX file.") from error
    told = {entry.key: entry.value for entry in model.metadata_props}
    if CONFIG_KEY not in told:
        raise ExportError(
            f"'{path.name}' does not tell its configuration, so it was not exported by this program: name one with "
            "--config or --preset."
        )
    try:
        return config_from_json(json.loads(told[CONFIG_KEY]))
    except (ValueError, SpecError) as error:
        raise ExportError(f"The configuration in '{path.name}' cannot be read: {error}") from error
