"""Boxes for numbers."""

from __future__ import annotations

from typing import TypeVar

from PySide6.QtWidgets import QDoubleSpinBox, QSpinBox

_INDENT = 4

Box = TypeVar("Box", QSpinBox, QDoubleSpinBox)


def indented(box: Box) -> Box:
    """Return `box` with its text as far from the left border as that of other lines.

    Style sheets do not reach the line within a spin box.
    """
    box.lineEdit().setTextMargins(_INDENT, 0, 0, 0)
    return box
