"""Where the files lie that travel with the program, in a checkout and in an installed wheel."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _folder(name: str) -> Path:
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def resources() -> Path:
    """Return the folder of icons, fonts, help pages and translations."""
    return _folder("resources")


def sample_models() -> Path:
    """Return the folder of sample networks and their data."""
    return _folder("sample_models")


def state_folder() -> Path:
    """Return the folder for logs and recovery files of this user; it need not exist."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "quantgui"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "quantgui"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "quantgui"


def trained_folder() -> Path:
    """Return the folder of trained weights (`spec.trained_files`); it need not exist."""
    return state_folder() / "trained"


def engine_log() -> Path:
    """Return the file into which the engine process writes its warnings and errors."""
    return state_folder() / "engine.log"
