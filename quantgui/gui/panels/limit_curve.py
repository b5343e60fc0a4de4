"""Error by clipping limit as panels show it: the plot with its words, and the marks of a curve."""

from __future__ import annotations

from PySide6.QtWidgets import QWidget

from quantgui.gui.estimators import estimator_label, estimator_name
from quantgui.gui.numbers import decibel, short
from quantgui.gui.plots.error_curve import CurveMark, ErrorCurvePlot
from quantgui.gui.texts import translate
from quantgui.results import Array, ErrorCurve


class LimitCurve(ErrorCurvePlot):
    """The plot with marks of range estimators."""

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(name, "", "", parent)
        self.set_label("bottom", self.tr("clipping limit"))
        self.set_label("left", self.tr("SQNR"))
        self.setToolTip(
            self.tr(
                "Error by clipping limit: SQNR in dB, larger is better, over the larger end of the range in units of "
                "the values. Left of the top too much is clipped, right of it steps are too wide.\n"
                "Each mark is what a range estimator chooses: point at it for its name, click to choose it. "
                "A mark off the curve moves both ends, or the ranges of groups, each on its own.\n"
                "Dashed: the limit as it is; drag it to set the range by hand.\n"
                "Keys: up and down go from mark to mark, enter chooses, Ctrl + arrows move the limit."
            )
        )

    def show_error_curve(self, curve: ErrorCurve | None, common: ErrorCurve | None, largest: float) -> None:
        """Show a curve, its marks, and dotted that of one range for all groups."""
        marks = () if curve is None else marks_of(curve)
        self.show_curve(_points(curve), _points(common), marks, largest)


def _points(curve: ErrorCurve | None) -> tuple[Array, Array] | None:
    return None if curve is None else (curve.thresholds, curve.sqnr_db)


def marks_of(curve: ErrorCurve) -> tuple[CurveMark, ...]:
    """Return a mark for each pick."""
    return tuple(
        CurveMark(pick.estimator, estimator_label(pick.estimator), pick.threshold, pick.sqnr_db) for pick in curve.picks
    )


def mark_words(mark: CurveMark, curve: ErrorCurve) -> str:
    """Return name, range and error of a mark."""
    pick = next(pick for pick in curve.picks if pick.estimator == mark.value)
    ends = f"±{short(pick.high)}" if pick.low == -pick.high else f"{short(pick.low)} … {short(pick.high)}"
    words = translate("limit_curve", "{name}: {range}, {error}")
    return words.format(name=estimator_name(pick.estimator), range=ends, error=decibel(mark.sqnr_db))
