"""Where the files lie that travel with the program, in a checkout and in an installed wheel."""

from __future__ import annotations

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
