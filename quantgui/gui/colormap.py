"""A colour for a number: from dark blue through grey to yellow, as bright as the number is large.

The map is cividis (J. Nuñez, C. Anderton, R. Renslow, "Optimizing colormaps with consideration for color vision
deficiency", 2018): people with and without colour vision deficiency see the same order in it.
"""

from __future__ import annotations

from PySide6.QtGui import QColor

ANCHORS = ("#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838")


def color_of(share: float) -> QColor:
    """Return the colour of a number at `share` (0 ... 1) of the scale.

    >>> color_of(0.0).name(), color_of(1.0).name()
    ('#00224e', '#fee838')
    """
    return _between(ANCHORS, share)


def _between(anchors: tuple[str, ...], share: float) -> QColor:
    position = min(max(share, 0.0), 1.0) * (len(anchors) - 1)
    index = min(int(position), len(anchors) - 2)
    rest = position - index
    low, high = QColor(anchors[index]), QColor(anchors[index + 1])
    mixed = (
        round(a + rest * (b - a))
        for a, b in zip((low.red(), low.green(), low.blue()), (high.red(), high.green(), high.blue()), strict=True)
    )
    return QColor(*mixed)


def text_on(color: QColor) -> QColor:
    """Return black or white, whichever is read better on `color`."""
    brightness = 0.299 * color.red() + 0.587 * color.green() + 0.114 * color.blue()
    return QColor("#14161b") if brightness > 135 else QColor("#ffffff")


_ON_LIGHT = ("#f5efdc", "#f0dfae", "#ecc978", "#e3ad49", "#d18d2c", "#b86d1d", "#985016", "#743811", "#50240c")
_ON_DARK = ("#16233d", "#1c3459", "#33466c", *ANCHORS[3:])


def damage_color(share: float, *, on_dark: bool) -> QColor:
    """Return the colour of damage: at `share` 0 it all but vanishes in the ground, at 1 it stands out most.

    Brightness alone gives the order, so it is seen without colours too.
    """
    return _between(_ON_DARK if on_dark else _ON_LIGHT, share)
