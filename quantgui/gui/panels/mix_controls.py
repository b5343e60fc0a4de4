"""What a mix is to be found for: the limit, what may change and to what, what is held fast."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QStandardItemModel
from PySide6.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QFormLayout, QLabel, QSpinBox, QWidget

from quantgui.gui.mix_words import CostScale
from quantgui.gui.quality import metric_name
from quantgui.gui.widgets.segmented import Segment, SegmentedButtons
from quantgui.gui.widgets.spin import indented
from quantgui.gui.widgets.toggles import ToggleButtons
from quantgui.results import LayerInfo
from quantgui.session.target_fit import sweep_refusals
from quantgui.spec.mix import HEADLINE_METRIC, CostKind, Mix
from quantgui.spec.quantizer import LayerSpec
from quantgui.spec.sweep import SHARES, SWEPT_BITS, Sweep, What, bits_specs
from quantgui.spec.targets import TARGETS, Target

LimitKind = Literal["share", "bytes", "sqnr", "loss", "bops", "latency", "none"]
DEFAULT_SAMPLES = 64
_SOFT = ("output_sqnr_db", "kl", "cosine")
_COSTS: dict[str, CostKind] = {"bops": "bops", "latency": "latency"}
_SHARES = ("share", "bops", "latency")
_EVALUATED = 8


@dataclass(frozen=True, slots=True)
class MixQuestion:
    """What the controls say. `value` is in the unit of `kind`: parts of the float network, bytes, dB, parts of 1."""

    kind: LimitKind = "share"
    value: float = 0.25
    what: What = "weights"
    specs: tuple[LayerSpec, ...] = bits_specs(SWEPT_BITS)
    metric: str = "output_sqnr_db"
    samples: int | None = None
    holds_selected: bool = False
    grouped: bool = False
    refined: bool = True

    @property
    def cost(self) -> CostKind:
        """What the frontier is drawn over."""
        return _COSTS.get(self.kind, "bytes")

    def limit(self, float_cost: float) -> float | None:
        """Return the most cost allowed, of a network that costs `float_cost` as float; None where cost is no limit."""
        if self.kind in _SHARES:
            return self.value * float_cost
        return self.value if self.kind == "bytes" else None

    def mix(self, float_cost: float, selected: Mapping[str, LayerSpec]) -> Mix:
        """Return what is to be found.

        Args:
            float_cost: what the float network costs, in the unit of `cost`.
            selected: the selected layers with what they have now.
        """
        sweep = Sweep(self.specs, self.what, metric=self.metric, samples=self.samples)
        limited = {"sqnr": "output_sqnr_db", "loss": HEADLINE_METRIC}.get(self.kind, "")
        return Mix(
            sweep,
            self.cost,
            self.limit(float_cost),
            self.value if limited else None,
            dict(selected) if self.holds_selected else {},
            None if self.grouped else (),
            evaluated=_EVALUATED,
            refined=self.refined,
            drop_metric=limited,
        )


class MixControls(QWidget):
    """The settings, one below the other.

    Signals:
        changed: they ask something else.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._scales: dict[CostKind, CostScale] = {}
        self._samples = 0
        self._headline = ""
        self._target = TARGETS[0]
        self._layers: tuple[LayerInfo, ...] = ()
        self._values: dict[str, float] = {"share": 0.25, "bytes": 0.0, "sqnr": 30.0, "loss": 0.01} | {
            "bops": 0.15,
            "latency": 0.8,
            "none": 0.0,
        }
        self._make_limit()
        self.what = SegmentedButtons(
            self.tr("What is changed"),
            (
                Segment("weights", self.tr("Weights"), self.tr("Choose formats of weights; activations stay float.")),
                Segment("activations", self.tr("Activations"), self.tr("Choose formats of activations alone.")),
                Segment(
                    "both", self.tr("Both"), self.tr("Choose one bit-width for a layer's weights and activations.")
                ),
            ),
        )
        self.what.set_value("weights")
        self.bits = ToggleButtons(
            self.tr("Bits to choose from"),
            [Segment(bits, str(bits), self.tr("Layers may get {n} bits.").format(n=bits)) for bits in SWEPT_BITS],
        )
        self.bits.set_values(SWEPT_BITS)
        self.refusal = QLabel()
        self.refusal.setProperty("role", "note")
        self.refusal.setProperty("tone", "warning")
        self.refusal.setWordWrap(True)
        self._make_metric()
        self._make_checks()
        self._lay_out()
        self._connect()
        self._show_kind()
        self._show_refusals()

    # --- in ------------------------------------------------------------------------------------------------------

    def show_costs(self, scales: Mapping[CostKind, CostScale]) -> None:
        """Show what the float network costs, so that shares can be said in bytes."""
        fresh = scales.get("bytes") != self._scales.get("bytes")
        self._scales = dict(scales)
        if fresh and "bytes" in scales:
            self._values["bytes"] = scales["bytes"].float_cost / 4
        self._show_kind()

    def show_data(self, samples: int) -> None:
        """Show how many samples there are to measure on; 0 without data."""
        if samples != self._samples:
            self._samples = samples
            self.samples.setMaximum(max(samples, 1))
            self.samples.setValue(min(DEFAULT_SAMPLES, samples))

    def show_metrics(self, possible: Collection[str] | None, headline: str) -> None:
        """Offer the soft metrics in `possible` (None: not known yet); `headline` is what an evaluation shows first."""
        self._headline = headline
        self._enable(self.metrics, lambda metric: possible is None or metric in possible)
        hard = headline not in ("", *_SOFT)
        self._enable(self.kind, lambda kind: kind != "loss" or hard)
        self.kind.setItemText(self.kind.findData("loss"), self._loss_text())
        self._show_kind()

    def show_target(self, target: Target, layers: Sequence[LayerInfo]) -> None:
        """Grey the bit-widths that `target` runs in none of `layers`; none of them is asked for."""
        self._target, self._layers = target, tuple(layers)
        self._show_refusals()

    def show_selection(self, editable: int) -> None:
        """Show how many layers are selected that can be held."""
        if editable == 1:
            text = self.tr("Hold the selected layer as it is")
        else:
            text = self.tr("Hold the {n} selected layers as they are").format(n=editable)
        self.hold.setText(text if editable else self.tr("Hold the selected layers as they are"))
        self.hold.setAccessibleName(self.hold.text())
        self.hold.setEnabled(editable > 0)

    def show_limit(self, value: float) -> None:
        """Take over a limit that was dragged, in the unit of the chosen kind."""
        self.value.setValue(self._shown(value))

    # --- what is asked -------------------------------------------------------------------------------------------

    def asked(self) -> MixQuestion | None:
        """Return what the settings ask; None where no format is chosen that the target runs."""
        chosen = [each for each in self.bits.values() if isinstance(each, int)]
        bits = [each for each in chosen if self.bits.button(each).isEnabled()]
        if not bits:
            return None
        samples = self.samples.value()
        return MixQuestion(
            self._kind(),
            self._asked_value(),
            self._what(),
            bits_specs(bits),
            str(self.metrics.currentData()),
            None if samples >= self._samples else samples,
            self.hold.isChecked() and self.hold.isEnabled(),
            self.group.isChecked(),
            self.refine.isChecked(),
        )

    # --- parts ---------------------------------------------------------------------------------------------------

    def _make_limit(self) -> None:
        self.kind = QComboBox()
        for kind, text, help_text in (
            (
                "share",
                self.tr("Size, part of float"),
                self.tr("Bytes of the whole network over those of the float one."),
            ),
            ("bytes", self.tr("Size"), self.tr("Bytes of the whole network, scales and zero points counted.")),
            (
                "sqnr",
                self.tr("Least output SQNR"),
                self.tr("Signal over error of the outputs in dB; larger is better."),
            ),
            ("loss", self.tr("Most loss of accuracy"), self.tr("How much worse than float the metric may be.")),
            (
                "bops",
                self.tr("Bit operations, part of float"),
                self.tr("Multiply-accumulates times bits of weights times bits of activations."),
            ),
            ("latency", self.tr("Time, part of float"), self.tr("Time measured here, over that of the float network.")),
            ("none", self.tr("No limit: the whole frontier"), self.tr("Find every best mix, from smallest to best.")),
        ):
            self.kind.addItem(text, kind)
            self.kind.setItemData(self.kind.count() - 1, help_text, Qt.ItemDataRole.ToolTipRole)
        self.kind.setAccessibleName(self.tr("What is limited"))
        self.kind.setToolTip(self.tr("What the mix must keep; of all mixes that do, the best is sought."))
        self.value = indented(QDoubleSpinBox())
        self.value.setKeyboardTracking(False)
        self.value.setAccessibleName(self.tr("Limit"))
        self.hint = QLabel()
        self.hint.setProperty("role", "note")

    def _make_metric(self) -> None:
        self.metrics = QComboBox()
        for metric in _SOFT:
            text = metric_name(metric)
            self.metrics.addItem(text[:1].upper() + text[1:], metric)
        self.metrics.setAccessibleName(self.tr("Metric"))
        self.metrics.setToolTip(
            self.tr("What the layers' damage is measured by. It must be soft: only then do small damages add up.")
        )
        self.samples = indented(QSpinBox())
        self.samples.setRange(1, 1)
        self.samples.setSuffix(self.tr(" samples"))
        self.samples.setKeyboardTracking(False)
        self.samples.setAccessibleName(self.tr("Most samples"))
        self.samples.setToolTip(self.tr("Samples of the data that layers and mixes are measured on."))

    def _make_checks(self) -> None:
        self.hold = QCheckBox()
        self.hold.setToolTip(self.tr("The layers selected in the table keep their present formats."))
        self.group = QCheckBox(self.tr("Layers that feed one Add or Concat get the same bits"))
        self.group.setToolTip(self.tr("Many runtimes want the operands of an addition in one format."))
        self.refine = QCheckBox(self.tr("Refine"))
        self.refine.setChecked(True)
        self.refine.setToolTip(
            self.tr("Measure around the answer until no change of one layer or of two makes it better.")
        )
        for box in (self.group, self.refine):
            box.setAccessibleName(box.text())
        self.show_selection(0)

    def _lay_out(self) -> None:
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setHorizontalSpacing(14)
        form.setVerticalSpacing(9)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow(self.tr("Limit"), self.kind)
        form.addRow("", self.value)
        form.addRow("", self.hint)
        form.addRow(self.tr("Change"), self.what)
        form.addRow(self.tr("Bits"), self.bits)
        form.addRow("", self.refusal)
        form.addRow(self.tr("Measure by"), self.metrics)
        form.addRow(self.tr("On"), self.samples)
        form.addRow("", self.hold)
        form.addRow("", self.group)
        form.addRow("", self.refine)

    def _connect(self) -> None:
        self.kind.currentIndexChanged.connect(self._on_kind)
        self.value.valueChanged.connect(self._on_value)
        self.what.chosen.connect(self._on_what)
        self.bits.chosen.connect(self._on_changed)
        self.metrics.currentIndexChanged.connect(self._on_changed)
        self.samples.valueChanged.connect(self._on_changed)
        for box in (self.hold, self.group, self.refine):
            box.toggled.connect(self._on_changed)

    def _kind(self) -> LimitKind:
        kind: LimitKind = self.kind.currentData()
        return kind

    def _what(self) -> What:
        what = self.what.value()
        return "activations" if what == "activations" else "both" if what == "both" else "weights"

    def _unit(self) -> float:
        """Return what the number in the box is multiplied by."""
        kind = self._kind()
        if kind == "bytes":
            scale = self._scales.get("bytes")
            return 1e3 if scale is None else scale.unit
        return 0.01 if kind == "loss" and self._headline in SHARES else 1.0

    def _shown(self, value: float) -> float:
        return value / self._unit()

    def _asked_value(self) -> float:
        return self.value.value() * self._unit()

    def _show_kind(self) -> None:
        kind, unit = self._kind(), self._unit()
        largest = {"bytes": 1e9, "sqnr": 200.0, "loss": 100.0}.get(kind, 1.0)
        decimals, step, suffix = 3, 0.01, " ×"
        if kind == "bytes":
            decimals, step, suffix = 2, 0.1 if unit > 1e5 else 10.0, " MB" if unit > 1e5 else " KB"
        elif kind == "sqnr":
            decimals, step, suffix = 1, 1.0, " dB"
        elif kind == "loss":
            decimals, step, suffix = 2, 0.1, self.tr(" points") if unit < 1 else ""
        self.value.blockSignals(True)
        self.value.setDecimals(decimals)
        self.value.setRange(0.0 if kind in ("loss", "sqnr") else 10.0**-decimals, largest)
        self.value.setSingleStep(step)
        self.value.setSuffix(suffix)
        self.value.setValue(self._shown(self._values[kind]))
        self.value.blockSignals(False)
        self.value.setEnabled(kind != "none")
        self.value.setToolTip(str(self.kind.currentData(Qt.ItemDataRole.ToolTipRole)))
        self._show_hint()

    def _show_hint(self) -> None:
        kind, text = self._kind(), ""
        scale = self._scales.get(_COSTS.get(kind, "bytes"))
        if scale is not None and scale.float_cost and kind in ("share", "bops", "bytes"):
            limit = self._asked_value() if kind == "bytes" else self._asked_value() * scale.float_cost
            text = self.tr("{limit} of {all}").format(
                limit=scale.text_with_share(limit) if kind == "bytes" else scale.text(limit),
                all=scale.text(scale.float_cost),
            )
        elif kind == "loss":
            text = self.tr("against the float network, {metric}").format(metric=metric_name(self._headline))
        elif kind == "latency":
            text = self.tr("layers are timed on this machine first")
        self.hint.setText(text)
        self.hint.setVisible(bool(text))

    def _loss_text(self) -> str:
        return self.tr("Most loss of {metric}").format(metric=metric_name(self._headline or "accuracy"))

    def _enable(self, box: QComboBox, allowed: Callable[[str], bool]) -> None:
        model = box.model()
        assert isinstance(model, QStandardItemModel)
        for place in range(box.count()):
            model.item(place).setEnabled(allowed(box.itemData(place)))
        if not model.item(box.currentIndex()).isEnabled():
            box.setCurrentIndex(0)

    def _on_kind(self) -> None:
        self._show_kind()
        self.changed.emit()

    def _on_value(self) -> None:
        self._values[self._kind()] = self._asked_value()
        self._show_hint()
        self.changed.emit()

    def _show_refusals(self) -> None:
        sweep = Sweep(bits_specs(SWEPT_BITS), self._what())
        reasons = sweep_refusals(self._target, self._layers, sweep)
        for bits, spec in zip(SWEPT_BITS, sweep.specs, strict=True):
            reason = reasons.get(spec, "")
            button = self.bits.button(bits)
            button.setEnabled(not reason)
            button.setToolTip(f"{self.tr('Layers may get {n} bits.').format(n=bits)}\n{reason}".strip())
        nothing = len(reasons) == len(sweep.specs)
        words = self.tr("{target} runs none of these in any layer; change something else.")
        if self._what() != "both":
            words = self.tr("{target} runs none of these in any layer; change “Both”.")
        self.refusal.setText(words.format(target=self._target.title) if nothing else "")
        form = self.layout()
        assert isinstance(form, QFormLayout)
        form.setRowVisible(self.refusal, nothing)

    def _on_what(self, _: object = None) -> None:
        # What was switched on before stays so, for when the target runs it again.
        self._show_refusals()
        self.changed.emit()

    def _on_changed(self, _: object = None) -> None:
        self.changed.emit()
