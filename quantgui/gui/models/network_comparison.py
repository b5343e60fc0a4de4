"""The layers of one's own configuration beside those of a network that another tool has quantized."""

from __future__ import annotations

from enum import IntEnum

from PySide6.QtCore import QObject

from quantgui.gui.models.compared_layers import (
    ComparedLayersModel,
    LayerColumn,
    decibel,
    difference,
    is_unknown,
    signed_decibel,
)
from quantgui.gui.models.delegates import sqnr_token
from quantgui.results import LayerComparison


class OtherColumn(IntEnum):
    """Columns in their order."""

    NAME = 0
    OWN = 1
    OTHER = 2
    OWN_SQNR = 3
    OTHER_SQNR = 4
    DIFFERENCE = 5


class NetworkComparisonModel(ComparedLayersModel[LayerComparison]):
    """Formats of each layer in both networks, and how its output is kept; those with other formats are marked."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(self._make_columns(), differs, parent, only_different=False)

    def _make_columns(self) -> tuple[LayerColumn[LayerComparison], ...]:
        sqnr = self.tr("SQNR of the layer's output against the float network's, in dB; larger is better.")
        return (
            LayerColumn(
                self.tr("Layer"),
                self.tr("Name of the layer in the network."),
                text=lambda layer: layer.layer,
                key=lambda layer: layer.layer.lower(),
            ),
            LayerColumn(
                self.tr("Yours"),
                self.tr("Weights and activations under your configuration."),
                text=lambda layer: layer.own,
                key=lambda layer: layer.own,
                width=108,
            ),
            LayerColumn(
                self.tr("Theirs"),
                self.tr("Weights and activations as the file was read."),
                text=lambda layer: layer.other,
                key=lambda layer: layer.other,
                width=108,
            ),
            LayerColumn(
                self.tr("SQNR, yours"),
                sqnr,
                text=lambda layer: decibel(layer.own_sqnr_db),
                key=lambda layer: layer.own_sqnr_db,
                tip=lambda layer: self._tip(layer.own_sqnr_db, decibel(layer.own_sqnr_db)),
                token=lambda layer: _token(layer.own_sqnr_db),
                is_number=True,
                width=100,
            ),
            LayerColumn(
                self.tr("SQNR, theirs"),
                sqnr,
                text=lambda layer: decibel(layer.other_sqnr_db),
                key=lambda layer: layer.other_sqnr_db,
                tip=lambda layer: self._tip(layer.other_sqnr_db, decibel(layer.other_sqnr_db)),
                token=lambda layer: _token(layer.other_sqnr_db),
                is_number=True,
                width=104,
            ),
            LayerColumn(
                self.tr("Theirs − yours"),
                self.tr("How much better the file keeps the layer's output, in dB; below 0 yours is better."),
                text=lambda layer: signed_decibel(difference_db(layer)),
                key=difference_db,
                tip=lambda layer: self._tip(difference_db(layer), layer.layer),
                token=lambda layer: "muted" if is_unknown(difference_db(layer)) else "",
                is_number=True,
                width=112,
            ),
        )

    def _tip(self, value: float, words: str) -> str:
        if is_unknown(value):
            return self.tr("The output of this layer is not found by its name in both networks.")
        return words


def differs(layer: LayerComparison) -> bool:
    """Return whether a layer has other formats in the two networks."""
    return layer.own != layer.other


def difference_db(layer: LayerComparison) -> float:
    """Return how many dB the other network is better at the layer's output; NaN where it is not known."""
    return difference(layer.own_sqnr_db, layer.other_sqnr_db)


def _token(sqnr_db: float) -> str:
    return "muted" if is_unknown(sqnr_db) else sqnr_token(sqnr_db)
