"""Files of trained weights, as far as a configuration goes with them; what they hold is no concern of this module.

A file is named by the hash of its content, so where it lies does not matter, and a file of that name is never replaced
by a better one. Programs look for it in `paths.trained_folder`. A configuration that is saved brings the files it uses
with it, beside its own; from there they are taken over when it is opened.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from pathlib import Path

from quantgui.errors import SpecError
from quantgui.spec.config import QuantConfig
from quantgui.spec.quantizer import Trained

ENDING = ".safetensors"


def trained_states(config: QuantConfig) -> frozenset[str]:
    """Return the names of the trained weights that `config` uses."""
    specs = (each.weights for each in (config.default, *config.overrides.values()))
    estimators = (spec.range_estimator for spec in specs if spec is not None)
    return frozenset(each.state for each in estimators if isinstance(each, Trained))


def copy_states(config: QuantConfig, source: Path, target: Path) -> None:
    """Bring the trained weights that `config` uses from the folder `source` to `target`, where they are not there yet.

    Those that `source` does not hold are left out: whoever needs them says so.

    Raises:
        SpecError: `target` cannot be written.
    """
    for state in sorted(trained_states(config)):
        origin, place = source / f"{state}{ENDING}", target / f"{state}{ENDING}"
        try:
            if origin.is_file() and not _is_there(place, origin):
                target.mkdir(parents=True, exist_ok=True)
                _bring(origin, place)
        except OSError as error:
            raise SpecError(f"Cannot write the trained weights '{place}': {error.strerror}.") from error


def _is_there(place: Path, origin: Path) -> bool:
    """Return whether `place` holds a whole file, as far as its size tells."""
    return place.is_file() and place.stat().st_size == origin.stat().st_size


def _bring(origin: Path, place: Path) -> None:
    """Let `place` be the file `origin`: the same one where the disk can do that, which takes no time; else a copy."""
    beside = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    try:
        try:
            os.link(origin, beside)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS):
                raise
            shutil.copyfile(origin, beside)
        beside.replace(place)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


__all__ = ["ENDING", "copy_states", "trained_states"]
