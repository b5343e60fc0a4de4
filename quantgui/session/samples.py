"""The sample networks that travel with the program."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from quantgui.paths import sample_models


@dataclass(frozen=True, slots=True)
class Sample:
    """A trained network with data: `evaluation` has labels, `calibration` is for ranges alone."""

    name: str
    title: str
    description: str
    network: str
    calibration: str
    evaluation: str


def read_samples(folder: Path | None = None) -> tuple[Sample, ...]:
    """Return the samples listed in ``samples.json``; those without files, or without a list, are left out."""
    folder = folder or sample_models()
    try:
        entries = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
        samples = [
            Sample(
                str(entry["name"]),
                str(entry["title"]),
                str(entry["description"]),
                *(str(folder / entry[key]) for key in ("network", "calibration", "evaluation")),
            )
            for entry in entries
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    return tuple(sample for sample in samples if Path(sample.network).is_file())
