"""The inspector's editor of weights: format, granularity, range and scales."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QCheckBox, QHBoxLayout, QSpinBox, QWidget

from quantgui.gui.format_menu import WEIGHT_GROUPS, FormatMenu, choice_text
from quantgui.gui.layer_words import format_text, format_words, scheme_text
from quantgui.gui.panels.range_editor import MIXED, Choice, RangeEditor
from quantgui.gui.panels.spec_editor import SpecEditor, beside, common, form_of, refuse, section, show_row
from quantgui.gui.widgets.segmented import Segment, SegmentedButtons
from quantgui.gui.widgets.spin import indented
from quantgui.results import LayerInfo, WeightView
from quantgui.session.edits import (
    FormatChoice,
    adapted,
    weight_choice,
    with_granularity,
    with_narrow_range,
    with_weight_format,
    with_weights,
)
from quantgui.session.target_fit import weights_refusal
from quantgui.spec.formats import CodebookFormat, FloatFormat, Format, IntFormat
from quantgui.spec.granularity import Granularity, PerBlock, PerChannel, PerGroup, PerTensor
from quantgui.spec.quantizer import HalfQuadratic, InputWeightedError, LayerSpec, QuantizerSpec
from quantgui.spec.targets import Target

WEIGHT_CHOICES: tuple[Format | None, ...] = (
    *(IntFormat(bits) for bits in (2, 3, 4, 5, 6, 7, 8, 16)),
    FloatFormat("float16"),
    FloatFormat("bfloat16"),
    None,
)
GROUP_SIZES = (2, 65536)
DEFAULT_GROUP_SIZE = 32
BLOCK_SIZES = (1, 4096)
DEFAULT_BLOCK = 128
TWICE = "twice"
"""Stands beside the scale formats for scales that are quantized themselves."""


class WeightEditor(SpecEditor):
    """Format and quantizer of the selected layers' weights."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(with_weights, parent)
        self._has_data = False
        self._make_controls()
        self._lay_out()

    # --- in ------------------------------------------------------------------------------------------------------

    def show_layers(
        self, layers: Sequence[LayerInfo], specs: Sequence[LayerSpec], view: WeightView | None, *, has_data: bool
    ) -> None:
        """Show the weights' specs of the selected layers; `view` tells the range of a single one."""
        self.hold(layers, specs)
        self._has_data = has_data
        self._show(view)

    def show_refusals(self, target: Target, layers: Sequence[LayerInfo]) -> None:
        """Grey what `target` runs in none of `layers`, whatever else is chosen."""

        def of_format(choice: object) -> str:
            spec = with_weight_format(self.specs[0] if self.specs else LayerSpec(), choice)  # type: ignore[arg-type]
            return weights_refusal(target, layers, spec.weights, any_granularity=True)

        for choice in WEIGHT_CHOICES:
            buttons = self.bits if isinstance(choice, IntFormat) else self.floats
            refuse(buttons.button(choice), format_words(choice), of_format(choice))
        self.more.show_refusals(of_format)
        weights = self.specs[0].weights if self.specs else None
        self.granularity.show_refusals(self._granularity_reasons(target, layers, weights))

    def group_shape(self) -> tuple[int, int, int]:
        """Return the size of a group, and channels and neighbours of a block."""
        return self.group_size.value(), self.rows.value(), self.columns.value()

    # --- making --------------------------------------------------------------------------------------------------

    def _make_controls(self) -> None:
        integers = [Segment(c, format_text(c), format_words(c)) for c in WEIGHT_CHOICES if isinstance(c, IntFormat)]
        floats = [Segment(c, format_text(c), format_words(c)) for c in WEIGHT_CHOICES if not isinstance(c, IntFormat)]
        self.bits = SegmentedButtons(self.tr("Bits of the weights"), integers, stretch=True)
        self.floats = SegmentedButtons(self.tr("Float format of the weights"), floats, stretch=True)
        self.bits.chosen.connect(self._on_weight_format)
        self.floats.chosen.connect(self._on_weight_format)
        self.more = FormatMenu(self.tr("More formats of the weights"), WEIGHT_GROUPS)
        self.more.chosen.connect(self._on_weight_format)
        self.symmetry = self.symmetry_choice(self.tr("Symmetry of the weights"))
        self.symmetry.activated.connect(lambda: self.edit_symmetry(self.symmetry))
        self.granularity = Choice(
            self.tr("Granularity"),
            self.tr("Which values share one scale: finer is more exact and takes more bytes."),
            (
                (PerTensor, self.tr("Per tensor"), self.tr("One scale for the whole weight.")),
                (PerChannel, self.tr("Per channel"), self.tr("One scale for each output channel.")),
                (PerGroup, self.tr("Groups of"), self.tr("One scale for some neighbours within a channel.")),
                (PerBlock, self.tr("Blocks of"), self.tr("One scale for a block of channels × neighbours.")),
            ),
        )
        # Beside it stands the size of a group: the row must fit beside a scroll bar in the narrowest inspector.
        self.granularity.setMinimumContentsLength(5)
        self.granularity.activated.connect(self._on_granularity)
        self.group_size = self._count(GROUP_SIZES, DEFAULT_GROUP_SIZE, self.tr("Group size"))
        self.group_size.setToolTip(self.tr("Number of neighbours that share a scale; smaller is more exact."))
        self.group_size.valueChanged.connect(self._on_group_size)
        self.rows = self._count(BLOCK_SIZES, DEFAULT_BLOCK, self.tr("Channels of a block"))
        self.rows.setToolTip(self.tr("Number of output channels that share a scale."))
        self.columns = self._count(BLOCK_SIZES, DEFAULT_BLOCK, self.tr("Neighbours of a block"))
        self.columns.setToolTip(self.tr("Number of neighbours within a channel that share a scale."))
        for spin in (self.rows, self.columns):
            spin.valueChanged.connect(self._on_block)
        self.scales = Choice(
            self.tr("Format of the scales"),
            self.tr("What the scales, or the levels of a codebook, are stored in; values are computed with them."),
            (
                ("float32", self.tr("float32"), self.tr("Exact; 32 bits for each scale.")),
                ("float16", self.tr("float16"), self.tr("16 bits for each scale; tiny scales become 0.")),
                ("bfloat16", self.tr("bfloat16"), self.tr("16 bits for each scale, with 3 digits.")),
                ("e8m0", self.tr("Power of two"), self.tr("E8M0: 8 bits; a shift multiplies. Up to 1 bit less exact.")),
                ("e4m3", self.tr("FP8 E4M3"), self.tr("8 bits, with one float32 scale for the whole weight (NVFP4).")),
                (TWICE, self.tr("Quantized twice"), self.tr("8-bit integers in runs of 256 scales, as in QLoRA.")),
            ),
        )
        self.scales.activated.connect(self._on_scales)
        self.range = RangeEditor(self.tr("weights"))
        self.range.edited.connect(self.edit_quantizer)
        self.full_range = QCheckBox(self.tr("Full range"))
        self.full_range.setToolTip(
            self.tr("Symmetric scale that uses the lowest code too: 1.4 dB better at 2 bits, nothing at 8.")
        )
        self.full_range.clicked.connect(self._on_full_range)
        self.narrow_range = QCheckBox(self.tr("Narrow range"))
        self.narrow_range.setToolTip(self.tr("Leave the lowest code out, as some accelerators need."))
        self.narrow_range.clicked.connect(self._on_narrow_range)
        for box in (self.full_range, self.narrow_range):
            box.setAccessibleName(box.text())

    def _count(self, limits: tuple[int, int], value: int, name: str) -> QSpinBox:
        spin = indented(QSpinBox())
        spin.setRange(*limits)
        spin.setValue(value)
        spin.setKeyboardTracking(False)
        spin.setFixedWidth(68)
        spin.setAccessibleName(name)
        return spin

    def _lay_out(self) -> None:
        self.title = section(self.tr("Weights"))
        self.column.addWidget(self.title)
        self.column.addWidget(self.bits)
        self.column.addWidget(beside(self.floats, self.more))
        grouping = QWidget()
        row = QHBoxLayout(grouping)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(5)
        row.addWidget(self.granularity, 1)
        row.addWidget(self.group_size)
        self._block = beside(self.rows, self.columns)
        boxes = QWidget()
        row = QHBoxLayout(boxes)
        row.setContentsMargins(0, 2, 0, 0)
        row.setSpacing(14)
        row.addWidget(self.full_range)
        row.addWidget(self.narrow_range)
        row.addStretch(1)
        self._form = form_of(
            (self.tr("S&ymmetry"), self.symmetry),
            (self.tr("&Granularity"), grouping),
            (self.tr("Block"), self._block),
            (self.tr("&Range"), self.range),
            (self.tr("Sca&les"), self.scales),
            ("", boxes),
        )
        self._boxes = boxes
        self.column.addWidget(self._form)

    # --- showing -------------------------------------------------------------------------------------------------

    def _show(self, view: WeightView | None) -> None:
        specs = [spec.weights for spec in self.specs]
        formats = {weight_choice(spec) for spec in specs}
        given = any(layer.read_only for layer in self.layers)
        shown: object = next(iter(formats)) if len(formats) == 1 and not given else MIXED
        self.bits.set_value(shown)
        self.floats.set_value(shown)
        own = shown is not MIXED and shown not in WEIGHT_CHOICES
        self.more.show_choice(shown if own else None, own=own)  # type: ignore[arg-type]
        mixed = self.tr("Weights · mixed") if len(formats) > 1 else self.tr("Weights")
        self.title.setText(mixed)
        editable = self.is_editable()
        for widget in (self.bits, self.floats, self.more):
            widget.setEnabled(editable)
        scaled = [spec for spec in specs if spec is not None and not isinstance(spec.format, FloatFormat)]
        self._form.setVisible(bool(scaled))
        self._form.setEnabled(editable)
        if scaled:
            self._show_quantizers(scaled, view)

    def _show_quantizers(self, specs: Sequence[QuantizerSpec], view: WeightView | None) -> None:
        integers = [spec for spec in specs if spec.is_integer]
        ranged = [spec for spec in specs if spec.has_scale]
        show_row(self._form, self.symmetry, shown=bool(integers))
        show_row(self._form, self.range, shown=bool(ranged))
        show_row(self._form, self._boxes, shown=bool(integers))
        self._show_granularity({spec.granularity for spec in specs})
        scales: set[object] = {TWICE if spec.double_quantization else spec.scale_format for spec in specs}
        self.scales.show_value(next(iter(scales)) if len(scales) == 1 else MIXED)
        self.scales.show_refusals(self._scale_reasons(specs))
        if ranged:
            limits = None if view is None else (view.low, view.high)
            self.range.show_range({spec.range_estimator for spec in ranged}, limits)
            self.range.kind.show_refusals(self._range_reasons(has_integers=bool(integers)))
        if not integers:
            return
        self.symmetry.show_value(common({spec.symmetric for spec in integers}))
        _show_box(self.full_range, {spec.full_range for spec in integers})
        _show_box(
            self.narrow_range, {spec.format.narrow_range for spec in integers if isinstance(spec.format, IntFormat)}
        )
        symmetric = any(spec.symmetric for spec in integers)
        self.full_range.setEnabled(symmetric)
        self.full_range.setToolTip(
            self.tr("Symmetric scale that uses the lowest code too: 1.4 dB better at 2 bits, nothing at 8.")
            if symmetric
            else self.tr("Only symmetric grids have a choice of scale.")
        )

    def _show_granularity(self, granularities: set[Granularity]) -> None:
        kinds = {type(granularity) for granularity in granularities}
        self.granularity.show_value(common(kinds))
        sizes = {granularity.group_size for granularity in granularities if isinstance(granularity, PerGroup)}
        self.group_size.setVisible(kinds == {PerGroup})
        show_row(self._form, self._block, shown=kinds == {PerBlock})
        blocks = {granularity for granularity in granularities if isinstance(granularity, PerBlock)}
        if len(blocks) == 1:
            block = next(iter(blocks))
            for spin, value in ((self.rows, block.rows), (self.columns, block.columns)):
                spin.blockSignals(True)
                spin.setValue(value)
                spin.blockSignals(False)
        if len(sizes) == 1:
            self.group_size.blockSignals(True)
            self.group_size.setValue(next(iter(sizes)))
            self.group_size.blockSignals(False)

    def _range_reasons(self, *, has_integers: bool) -> dict[object, str]:
        """Return why range estimators of weights cannot be chosen."""
        reasons: dict[object, str] = {}
        if not has_integers:
            reasons[HalfQuadratic] = self.tr("Only integers have a zero point to be moved.")
        unseen = next((layer for layer in self.layers if not layer.quantizes_activations), None)
        if unseen is not None:
            words = self.tr("What multiplies the weight of {layer} ({op}) is not seen from outside.")
            reasons[InputWeightedError] = words.format(layer=unseen.name, op=unseen.op)
        elif not self._has_data:
            reasons[InputWeightedError] = self.tr("Open data first.")
        return reasons

    def _scale_reasons(self, specs: Sequence[QuantizerSpec]) -> dict[object, str]:
        if all(isinstance(spec.format, CodebookFormat) for spec in specs):
            reason = self.tr("The levels of a codebook are stored as floats.")
            return dict.fromkeys(("e8m0", "e4m3", TWICE), reason)
        if all(isinstance(spec.granularity, PerTensor) for spec in specs):
            reason = self.tr("There is one scale for the whole weight; choose channels or groups first.")
            return dict.fromkeys(("e4m3", TWICE), reason)
        return {}

    def _granularity_reasons(
        self, target: Target, layers: Sequence[LayerInfo], weights: QuantizerSpec | None
    ) -> dict[object, str]:
        if weights is None or isinstance(weights.format, FloatFormat) or not target.runs:
            return {}
        reasons = {}
        size, rows, columns = self.group_shape()
        sizes = dict.fromkeys((size, 16, 32, 64, 128, 256))
        tried: dict[object, list[Granularity]] = {
            PerTensor: [PerTensor()],
            PerChannel: [PerChannel()],
            PerGroup: [PerGroup(size) for size in sizes],
            PerBlock: [PerBlock(rows, max(columns, 2))],
        }
        for kind, granularities in tried.items():
            found = [
                weights_refusal(target, layers, with_granularity(weights, each), any_granularity=False)
                for each in granularities
            ]
            reasons[kind] = "" if "" in found else found[0]
        return reasons

    # --- edits ---------------------------------------------------------------------------------------------------

    def _on_weight_format(self, chosen: FormatChoice) -> None:
        words = format_words(chosen) if not isinstance(chosen, str) else choice_text(chosen)
        new = with_weight_format(LayerSpec(), chosen).weights
        if new is not None and (not new.is_integer or isinstance(chosen, str)):
            # What was known of the old quantizer does not carry over: say what it is now.
            words = f"{choice_text(chosen)} ({scheme_text(new)})" if not isinstance(new.format, FloatFormat) else words
        self.edited.emit(
            lambda spec: with_weight_format(spec, chosen),
            self.tr("Set {layers} to {format}").replace("{format}", words),
            "",
        )

    def _on_scales(self) -> None:
        chosen = self.scales.currentData()
        if chosen is None:
            return
        double = chosen == TWICE
        fields = {"double_quantization": True} if double else {"scale_format": chosen, "double_quantization": False}
        self.edit_quantizer(
            lambda q: adapted(q, **fields)[0],
            self.tr("Set scales to {format}").format(format=self.scales.currentText()),
            chosen="double_quantization" if double else "scale_format",
        )

    def _on_granularity(self) -> None:
        kind = self.granularity.currentData()
        if kind is PerGroup:
            self._set_granularity(PerGroup(self.group_size.value()))
        elif kind is PerBlock:
            self._set_granularity(PerBlock(self.rows.value(), max(self.columns.value(), 2)))
        elif kind is not None:
            self._set_granularity(kind())

    def _on_group_size(self, size: int) -> None:
        self._set_granularity(PerGroup(size), merge="group size")

    def _on_block(self) -> None:
        rows, columns = self.rows.value(), self.columns.value()
        # A block of one value would be no block.
        self._set_granularity(PerBlock(rows, max(columns, 2) if rows == 1 else columns), merge="block")

    def _set_granularity(self, granularity: Granularity, merge: str = "") -> None:
        self.edit_quantizer(
            lambda q: with_granularity(q, granularity), self.tr("Set granularity"), merge, "granularity"
        )

    def _on_full_range(self) -> None:
        on = self.full_range.checkState() == Qt.CheckState.Checked
        self.edit_quantizer(lambda q: adapted(q, full_range=on)[0], self.tr("Full range"), chosen="full_range")

    def _on_narrow_range(self) -> None:
        on = self.narrow_range.checkState() == Qt.CheckState.Checked
        self.edit_quantizer(lambda q: with_narrow_range(q, narrow=on), self.tr("Narrow range"))


def _show_box(box: QCheckBox, values: set[bool]) -> None:
    box.setTristate(len(values) > 1)
    if len(values) > 1:
        box.setCheckState(Qt.CheckState.PartiallyChecked)
    else:
        box.setChecked(values == {True})
