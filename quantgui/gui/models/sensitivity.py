"""The heat map of a sweep as a table: a row per layer, a column per format.

A table and no plot: sorting, keys, selection and screen readers come with it, text stays sharp, and only the cells
that have changed are drawn anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from PySide6.QtCore import (
    QT_TRANSLATE_NOOP,
    QAbstractTableModel,
    QCoreApplication,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    Qt,
)

from quantgui.gui import numbers
from quantgui.gui.damage import DamageScale, cell_text, damage_scale
from quantgui.gui.layer_damage import is_as_tried
from quantgui.gui.layer_words import format_text, format_words, short_name, why_fixed
from quantgui.gui.quality import metric_name, score_text
from quantgui.gui.theme import current, theme_events
from quantgui.results import Candidate, LayerInfo, Score, Sensitivity
from quantgui.spec.formats import Format
from quantgui.spec.quantizer import FLOAT, LayerSpec
from quantgui.spec.sweep import Sweep

translate = QCoreApplication.translate
Index = QModelIndex | QPersistentModelIndex
ROOT = QModelIndex()
_ROWS_TOLD_APART = 16
UNCERTAIN = "~"


class Fixed(IntEnum):
    """Columns in front of the formats."""

    NAME = 0
    PRESENT = 1


@dataclass(frozen=True, slots=True)
class Cell:
    """What is drawn for one layer with one format.

    Attributes:
        text: the value in few letters.
        share: the damage, 0 ... 1; NaN where nothing is known.
        guess: whether it is the error of the weights, as the network has not been measured yet.
        present: whether the layer has this format now.
        uncertain: whether its place among the layers is not certain.
    """

    text: str
    share: float
    guess: bool
    present: bool
    uncertain: bool


@dataclass(frozen=True, slots=True)
class Place:
    """A layer's place in the order of a column, from 0; certain if those before and behind it surely are."""

    rank: int
    certain: bool


class SensitivityModel(QAbstractTableModel):
    """What is known of a sweep; nothing of it is edited here."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._sweep: Sweep | None = None
        self._table: Sensitivity | None = None
        self._layers: dict[str, LayerInfo] = {}
        self._columns: tuple[str, ...] = ()
        self._candidates: dict[str, dict[str, Candidate]] = {}
        self._places: dict[str, dict[str, Place]] = {}
        self._present: dict[str, LayerSpec] = {}
        self._drawn: dict[str, tuple[Cell | None, ...]] = {}
        self._shown: frozenset[str] | None = None
        self._rows: list[str] = []
        self._row_of: dict[str, int] = {}
        self._sort: tuple[int, Qt.SortOrder] = (-1, Qt.SortOrder.AscendingOrder)
        self._measured = 0, 0
        self.scale: DamageScale | None = None
        self._guess_scale: DamageScale | None = None
        theme_events().changed.connect(self._on_theme_changed)

    # --- in ------------------------------------------------------------------------------------------------------

    def show_layers(self, layers: Iterable[LayerInfo]) -> None:
        """Take over the layers of another network; there is no table yet."""
        self._layers = {layer.name: layer for layer in layers}
        self._present, self._shown = {}, None
        self.show_table(None)

    def show_table(self, table: Sensitivity | None) -> None:
        """Show what is known; of the table shown before, only the cells that differ are drawn anew."""
        old = self._table
        if table is None or old is None or not self._has_same_cells(table):
            self._rebuild(table)
            return
        changed = self._take_candidates(table.candidates)
        moved = self._take_orders(table, old)
        self._table = table
        self._tell(self._candidates if self._take_scales() or moved else changed)

    def show_present(self, specs: Mapping[str, LayerSpec]) -> None:
        """Take over what the layers are now; cells that have it are framed."""
        new = {**self._present, **specs}
        changed = [name for name, spec in new.items() if self._present.get(name) != spec]
        self._present = new
        self._tell(changed)

    def show_only(self, names: frozenset[str] | None) -> None:
        """Show the layers `names` alone; None for all."""
        if names != self._shown:
            self._shown = names
            self.resort()

    # --- what the panel asks -------------------------------------------------------------------------------------

    @property
    def table(self) -> Sensitivity | None:
        """The table shown."""
        return self._table

    def layer(self, row: int) -> str:
        """Return the name of the layer in `row`."""
        return self._rows[row]

    def row_of(self, name: str) -> int | None:
        """Return the row of a layer, None where it is not shown."""
        return self._row_of.get(name)

    def format_of(self, column: int) -> str:
        """Return the format that a column stands for; empty for the columns in front."""
        place = column - len(Fixed)
        return self._columns[place] if 0 <= place < len(self._columns) else ""

    def column_text(self, column: int) -> str:
        """Return the format of a column in few letters: ``W4A8`` for weights and activations."""
        weights, both, activations = self.format_of(column).partition(" / ")
        if not both:
            return weights
        return "".join(
            side + text.removeprefix("u").removeprefix("int") for side, text in (("W", weights), ("A", activations))
        )

    def candidate(self, row: int, column: int) -> Candidate | None:
        """Return what is known of a cell."""
        return self._candidates.get(self._rows[row], {}).get(self.format_of(column))

    def cells(self, row: int) -> tuple[Cell | None, ...]:
        """Return how the cells of a row are drawn, by format."""
        name = self._rows[row]
        if name not in self._drawn:
            first = len(Fixed)
            self._drawn[name] = tuple(self._cell(row, first + place) for place in range(len(self._columns)))
        return self._drawn[name]

    def measured(self) -> tuple[int, int]:
        """Return how many candidates have been measured, and of how many."""
        return self._measured

    def has_guesses(self) -> bool:
        """Return whether some cells show no more than the error of the weights."""
        return any(
            not each.samples and not math.isnan(each.weight_sqnr_db)
            for row in self._candidates.values()
            for each in row.values()
        )

    # --- Qt's interface ------------------------------------------------------------------------------------------

    def rowCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else len(self._rows)

    def columnCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else len(Fixed) + len(self._columns)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation != Qt.Orientation.Horizontal or not 0 <= section < self.columnCount():
            return None
        chosen = self.format_of(section)
        match role:
            case Qt.ItemDataRole.DisplayRole if chosen:
                return self.column_text(section) if self._is_certain(chosen) else UNCERTAIN + self.column_text(section)
            case Qt.ItemDataRole.DisplayRole:
                return self.tr("Layer") if section == Fixed.NAME else self.tr("Now")
            case Qt.ItemDataRole.ToolTipRole if chosen:
                return self._column_tip(chosen)
            case Qt.ItemDataRole.ToolTipRole if section == Fixed.NAME:
                return self.tr("Name of the layer. Click to sort; a third click gives the network's order back.")
            case Qt.ItemDataRole.ToolTipRole:
                return self.tr("The format the layer has now; its cell is framed.")
            case Qt.ItemDataRole.TextAlignmentRole:
                middle = section == Fixed.PRESENT
                # The arrow of the sorted column stands at the right.
                side = Qt.AlignmentFlag.AlignHCenter if middle else Qt.AlignmentFlag.AlignLeft
                return side | Qt.AlignmentFlag.AlignVCenter
            case _:
                return None

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid() or index.row() >= len(self._rows):
            return None
        row, column = index.row(), index.column()
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return self._text(row, column)
            case Qt.ItemDataRole.ToolTipRole:
                return self.describe(row, column)
            case Qt.ItemDataRole.AccessibleTextRole:
                return self.sentence(row, column)
            case Qt.ItemDataRole.ForegroundRole if column == Fixed.PRESENT:
                return current().color("muted")
            case Qt.ItemDataRole.TextAlignmentRole if column != Fixed.NAME:
                return Qt.AlignmentFlag.AlignCenter
            case _:
                return None

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        if (column, order) != self._sort:
            self._sort = (column, order)
            self.resort()

    # --- rows ----------------------------------------------------------------------------------------------------

    def resort(self) -> None:
        """Put the rows in the order asked for; who points at a layer goes on pointing at it."""
        rows = self._ordered()
        if rows == self._rows:
            return
        self.layoutAboutToBeChanged.emit()
        before = self.persistentIndexList()
        names = [self._rows[index.row()] for index in before]
        self._rows = rows
        self._row_of = {name: row for row, name in enumerate(rows)}
        after = [
            self.index(self._row_of[name], index.column()) if name in self._row_of else QModelIndex()
            for name, index in zip(names, before, strict=True)
        ]
        self.changePersistentIndexList(before, after)
        self.layoutChanged.emit()

    def is_sorted(self) -> bool:
        """Return whether the rows stand as was asked for."""
        return self._ordered() == self._rows

    def _ordered(self) -> list[str]:
        rows = [name for name in self._candidates if self._shown is None or name in self._shown]
        column, order = self._sort
        if 0 <= column < self.columnCount():
            rows.sort(key=self._sort_key(column), reverse=order == Qt.SortOrder.DescendingOrder)
        return rows

    def _sort_key(self, column: int) -> Callable[[str], Any]:
        if column == Fixed.NAME:
            return lambda name: short_name(self._layers[name]).lower() if name in self._layers else name
        if column == Fixed.PRESENT:
            return lambda name: -self._bits(name)
        chosen = self.format_of(column)
        return lambda name: self._badness(name, chosen)

    def _badness(self, name: str, chosen: str) -> tuple[int, float]:
        """Return a key that puts the most sensitive layer first, what is only guessed after what was measured."""
        candidate = self._candidates[name].get(chosen)
        if candidate is None or self._table is None:
            return 3, 0.0
        if candidate.samples and self.scale is not None:
            hurt = self.scale.damage(candidate.value)
            return (0, -hurt) if not math.isnan(hurt) else (2, 0.0)
        place = self._place(candidate)
        if place is not None:
            return 1, place.rank
        return (2, 0.0) if math.isnan(candidate.weight_sqnr_db) else (1, candidate.weight_sqnr_db)

    def _bits(self, name: str) -> int:
        spec = self._spec(name)
        part = spec.activations if self._sweep is not None and self._sweep.what == "activations" else spec.weights
        return 32 if part is None else part.bits

    # --- taking over ---------------------------------------------------------------------------------------------

    def _has_same_cells(self, table: Sensitivity) -> bool:
        if table.sweep != self._sweep or len(table.candidates) != sum(map(len, self._candidates.values())):
            return False
        return all(each.format in self._candidates.get(each.layer, {}) for each in table.candidates)

    def _rebuild(self, table: Sensitivity | None) -> None:
        self.beginResetModel()
        self._table = table
        self._sweep = None if table is None else table.sweep
        self._candidates = {}
        self._drawn = {}
        for each in () if table is None else table.candidates:
            self._candidates.setdefault(each.layer, {})[each.format] = each
        self._columns = ()
        if table is not None:
            used = {chosen for row in self._candidates.values() for chosen in row}
            labels = dict.fromkeys(table.sweep.label(spec) for spec in table.sweep.specs)
            self._columns = tuple(label for label in labels if label in used)
        self._places = {}
        if table is not None:
            self._take_orders(table, None)
        self._take_scales()
        if self._sort[0] >= self.columnCount():
            self._sort = (-1, Qt.SortOrder.AscendingOrder)
        self._rows = self._ordered()
        self._row_of = {name: row for row, name in enumerate(self._rows)}
        self.endResetModel()

    def _take_candidates(self, candidates: Iterable[Candidate]) -> set[str]:
        """Keep what is new; return the layers it belongs to."""
        changed = set()
        for each in candidates:
            row = self._candidates[each.layer]
            known = row[each.format]
            if known is not each and known != each:
                row[each.format] = each
                changed.add(each.layer)
        return changed

    def _take_orders(self, table: Sensitivity, old: Sensitivity | None) -> bool:
        """Keep the orders; return whether they are new."""
        if old is not None and table.orders is old.orders:
            return False
        places = {}
        for chosen, order in table.orders.items():
            places[chosen] = {
                each.layer: Place(rank, each.certain and (rank == 0 or order[rank - 1].certain))
                for rank, each in enumerate(order)
            }
        changed = places != self._places
        self._places = places
        if changed and old is not None and self._columns:
            self.headerDataChanged.emit(Qt.Orientation.Horizontal, len(Fixed), self.columnCount() - 1)
        return changed

    def _take_scales(self) -> bool:
        """Fit the scales to the values; return whether they have changed."""
        table, before = self._table, (self.scale, self._guess_scale)
        if table is None:
            self.scale = self._guess_scale = None
            self._measured = 0, 0
            return before != (None, None)
        known = [each for row in self._candidates.values() for each in row.values()]
        measured = [each.value for each in known if each.samples]
        guessed = [each.weight_sqnr_db for each in known]
        self._measured = len(measured), len(known)
        self.scale = damage_scale(measured, table.metric, higher_is_better=table.higher_is_better)
        self._guess_scale = damage_scale(guessed, "weight_sqnr_db", higher_is_better=True)
        return before != (self.scale, self._guess_scale)

    def _tell(self, names: Iterable[str]) -> None:
        """Have layers drawn anew: one by one where they are few, else all of them at once."""
        rows = []
        for name in names:
            self._drawn.pop(name, None)
            if (row := self._row_of.get(name)) is not None:
                rows.append(row)
        rows.sort()
        if not rows:
            return
        last = self.columnCount() - 1
        if len(rows) > _ROWS_TOLD_APART:
            self.dataChanged.emit(self.index(rows[0], 0), self.index(rows[-1], last))
            return
        for row in rows:
            self.dataChanged.emit(self.index(row, 0), self.index(row, last))

    def _on_theme_changed(self, _: object) -> None:
        self._tell(tuple(self._candidates))

    # --- cells ---------------------------------------------------------------------------------------------------

    def _spec(self, name: str) -> LayerSpec:
        return self._present.get(name, FLOAT)

    def is_present(self, candidate: Candidate) -> bool:
        """Return whether a layer has what the candidate tries, as far as the sweep changes it."""
        layer, what = self._layers.get(candidate.layer), "weights" if self._sweep is None else self._sweep.what
        has_activations = layer is None or layer.quantizes_activations
        spec = self._spec(candidate.layer)
        return is_as_tried(spec, candidate.spec, what, has_activations=has_activations)

    def _cell(self, row: int, column: int) -> Cell | None:
        candidate = self.candidate(row, column)
        if candidate is None or self._table is None:
            return None
        present = self.is_present(candidate)
        if candidate.samples:
            share = self.scale.share(candidate.value) if self.scale is not None else math.nan
            if math.isinf(candidate.value):
                share = 0.0 if (candidate.value > 0) == self._table.higher_is_better else 1.0
            place = self._place(candidate)
            uncertain = place is not None and not place.certain
            return Cell(cell_text(candidate.value, self._metric()), share, False, present, uncertain)
        guess = candidate.weight_sqnr_db
        if math.isnan(guess):
            return Cell("", math.nan, True, present, False)
        share = 0.0 if self._guess_scale is None else self._guess_scale.share(guess)
        return Cell(cell_text(guess, "output_sqnr_db"), share, True, present, False)

    def _metric(self) -> str:
        return "" if self._table is None else self._table.metric

    def _place(self, candidate: Candidate) -> Place | None:
        return self._places.get(candidate.format, {}).get(candidate.layer)

    def _text(self, row: int, column: int) -> str:
        name = self._rows[row]
        if column == Fixed.NAME:
            return short_name(self._layers[name]) if name in self._layers else name
        if column == Fixed.PRESENT:
            return self._present_text(name)
        cell = self._cell(row, column)
        return "" if cell is None else cell.text

    def present_text(self, row: int) -> str:
        """Return the format that a layer has now, in short."""
        return self._present_text(self._rows[row])

    def name_text(self, row: int) -> str:
        """Return the short name of a layer."""
        return self._text(row, Fixed.NAME)

    def _present_text(self, name: str) -> str:
        spec, what = self._spec(name), "weights" if self._sweep is None else self._sweep.what
        both = (spec.weights, spec.activations)
        parts = {"weights": both[:1], "activations": both[1:], "both": both}
        formats: list[Format | None] = [None if part is None else part.format for part in parts[what]]
        return "/".join(map(format_text, formats if any(formats) else formats[:1]))

    # --- words ---------------------------------------------------------------------------------------------------

    def _is_certain(self, chosen: str) -> bool:
        return all(place.certain for place in self._places.get(chosen, {}).values())

    def _column_tip(self, chosen: str) -> str:
        lines = [self.tr("Every layer as {format}. Click to sort, the most sensitive first.").format(format=chosen)]
        places = self._places.get(chosen, {})
        if any(candidate.samples for row in self._candidates.values() if (candidate := row.get(chosen))):
            certain = sum(place.certain for place in places.values())
            lines.append(
                self.tr("The order of all {n} layers is certain (two standard errors).").format(n=len(places))
                if certain == len(places)
                else self.tr(
                    "The place of {certain} of {n} layers is certain (two standard errors); the others are marked ~."
                ).format(certain=certain, n=len(places))
            )
        elif places:
            lines.append(self.tr("Ordered by the best cheap guess: nothing has been measured yet."))
        return "\n".join(lines)

    def sentence(self, row: int, column: int) -> str:
        """Return what is known of a cell in one line."""
        name = self._rows[row]
        candidate = self.candidate(row, column)
        if candidate is None:
            return self.tr("{layer}: now {format}").format(layer=name, format=self._present_text(name))
        head = self.tr("{layer} as {format}").format(layer=name, format=candidate.format)
        parts = [f"{head}: {self._value_words(candidate)}", numbers.data_size(candidate.bytes)]
        if not math.isnan(candidate.weight_sqnr_db) and candidate.samples:
            parts.append(self.tr("weight SQNR {db}").format(db=numbers.decibel(candidate.weight_sqnr_db)))
        if self.is_present(candidate):
            parts.append(self.tr("its present format"))
        return " · ".join(parts)

    def describe(self, row: int, column: int) -> str:
        """Return everything known of a cell, line by line."""
        name = self._rows[row]
        layer, candidate = self._layers.get(name), self.candidate(row, column)
        if candidate is None or self._table is None:
            return self._layer_tip(name, layer)
        lines = [
            self.tr("{layer} as {format}").format(layer=name, format=candidate.format),
            self._value_words(candidate),
        ]
        reference = self._table.reference
        if candidate.samples and math.isfinite(reference.value) and reference.samples:
            words = self.tr("{value} without this change")
            lines.append(words.format(value=score_text(reference, self._table.metric)))
        lines += self._order_words(candidate)
        lines.append(self.tr("{size} of weights").format(size=numbers.data_size(candidate.bytes)))
        if not math.isnan(candidate.weight_sqnr_db):
            lines.append(self.tr("Weight SQNR {db}").format(db=numbers.decibel(candidate.weight_sqnr_db)))
        lines += [
            self.tr("{proxy}: {value}").format(proxy=proxy_name(proxy), value=proxy_text(proxy, value))
            for proxy, value in candidate.proxies.items()
            if proxy != "weight_sqnr_db" and not math.isnan(value)
        ]
        reason = why_fixed(layer) if layer is not None and (layer.read_only or not layer.finite) else ""
        if reason:
            lines.append(reason)
        elif self.is_present(candidate):
            lines.append(self.tr("This is its present format."))
        else:
            lines.append(self.tr("Click, or press Enter, to give the layer this format."))
        return "\n".join(lines)

    def _layer_tip(self, name: str, layer: LayerInfo | None) -> str:
        weights = self._spec(name).weights
        now = format_words(None if weights is None else weights.format)
        words = self.tr("Weights now: {format}").format(format=now)
        if layer is None:
            return f"{name}\n{words}"
        return f"{name}\n{layer.op} · {numbers.amount(layer.parameters)} · {words}"

    def _value_words(self, candidate: Candidate) -> str:
        table = self._table
        assert table is not None
        if not candidate.samples:
            if math.isnan(candidate.weight_sqnr_db):
                return self.tr("not measured yet")
            db = numbers.decibel(candidate.weight_sqnr_db)
            return self.tr("not measured yet; weight SQNR {db}").format(db=db)
        value = score_text(Score(candidate.value, candidate.stderr, candidate.samples), table.metric)
        return self.tr("{metric} {value} on {n} samples").format(
            metric=metric_name(table.metric), value=value, n=candidate.samples
        )

    def _order_words(self, candidate: Candidate) -> list[str]:
        place = self._place(candidate)
        if place is None or not candidate.samples:
            return []
        known = len(self._places[candidate.format])
        words = (
            self.tr("Place {rank} of {n}, the most sensitive first; certain")
            if place.certain
            else self.tr("Place {rank} of {n}, the most sensitive first; ~ not certain against its neighbours")
        )
        return [words.format(rank=place.rank + 1, n=known)]


_PROXY_NAMES = {
    "weight_sqnr_db": QT_TRANSLATE_NOOP("sensitivity", "weight SQNR"),
    "input_weighted_sqnr_db": QT_TRANSLATE_NOOP("sensitivity", "input-weighted"),
    "own_output_sqnr_db": QT_TRANSLATE_NOOP("sensitivity", "own output"),
    "gradient_sqnr_db": QT_TRANSLATE_NOOP("sensitivity", "gradient"),
}


def proxy_name(proxy: str) -> str:
    """Return how a cheap guess is called on the screen.

    >>> proxy_name("weight_sqnr_db"), proxy_name("something_new")
    ('weight SQNR', 'something new')
    """
    known = _PROXY_NAMES.get(proxy)
    return proxy.removesuffix("_db").replace("_", " ") if known is None else translate("sensitivity", str(known))


def proxy_text(proxy: str, value: float) -> str:
    """Return the value of a cheap guess."""
    return numbers.decibel(value) if proxy.endswith("_db") else numbers.short(value)
