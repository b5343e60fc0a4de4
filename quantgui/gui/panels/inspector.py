"""The inspector: what happens to the selected layers, editable; facts about them; advice on the configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QStandardItemModel
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from quantgui.gui import numbers
from quantgui.gui.format_menu import ACTIVATION_GROUPS, WEIGHT_GROUPS, FormatMenu, choice_text
from quantgui.gui.models.delegates import sqnr_token
from quantgui.gui.models.layers import (
    ACTIVATION_CHOICES,
    WEIGHT_CHOICES,
    describe_layers,
    format_text,
    format_words,
    scheme_text,
    why_fixed,
)
from quantgui.gui.panels.advice import AdviceCard
from quantgui.gui.panels.range_editor import MIXED, Choice, RangeEditor
from quantgui.gui.preset_groups import preset_groups, preset_refusal
from quantgui.gui.widgets.card import Card, Pages
from quantgui.gui.widgets.labels import MetricLabel
from quantgui.gui.widgets.segmented import Segment, SegmentedButtons
from quantgui.gui.widgets.spin import indented
from quantgui.gui.widgets.state_page import StatePage
from quantgui.gui.widgets.target_choice import TargetChoice
from quantgui.results import LayerInfo, TensorError, WeightView
from quantgui.session.edits import (
    FormatChoice,
    SpecEdit,
    activation_choice,
    adapted,
    fitting,
    weight_choice,
    with_activation_format,
    with_activations,
    with_granularity,
    with_narrow_range,
    with_symmetry,
    with_weight_format,
    with_weights,
)
from quantgui.session.sizes import layer_bytes
from quantgui.session.target_fit import activations_refusal, weights_refusal
from quantgui.spec.formats import CodebookFormat, FloatFormat, Format, IntFormat
from quantgui.spec.granularity import Granularity, PerBlock, PerChannel, PerGroup, PerTensor
from quantgui.spec.presets import Preset
from quantgui.spec.quantizer import (
    HalfQuadratic,
    InputWeightedError,
    LayerSpec,
    LeastSquaredError,
    QuantizerSpec,
)
from quantgui.spec.targets import TARGETS, Target

GROUP_SIZES = (2, 65536)
DEFAULT_GROUP_SIZE = 32
BLOCK_SIZES = (1, 4096)
DEFAULT_BLOCK = 128
TWICE = "twice"
"""Stands beside the scale formats for scales that are quantized themselves."""
_LABEL_WIDTH = 70


class InspectorPanel(Card):
    """Specs, facts and advice for the selected layers.

    Signals:
        specs_edited: dict of layer name to new `LayerSpec`, words for the undo step, merge key.
        target_chosen: the `Target` that the network is meant for.
        apply_to_similar: the user wants the current layer's spec for all layers of its operator.
        proposal_accepted: the user takes the advice.
    """

    specs_edited = Signal(object, str, str)
    target_chosen = Signal(object)
    apply_to_similar = Signal()
    proposal_accepted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("", parent)
        self.set_title(self.tr("Inspector"))
        self._layers: tuple[LayerInfo, ...] = ()
        self._has_data = False
        self._specs: tuple[LayerSpec, ...] = ()
        self._target = TARGETS[0]
        self._judged: tuple[object, ...] = ()
        self._empty = StatePage()
        self._empty.show_state(
            "sliders-horizontal", self.tr("No layer selected"), self.tr("Select layers in the table to change them.")
        )
        self._content = QWidget()
        self._pages = Pages(self._empty, self._content)
        self.body.addWidget(self._pages)
        self._make_controls()
        self._lay_out()
        self.show_target(self._target)

    # --- in ------------------------------------------------------------------------------------------------------

    def show_layers(
        self,
        layers: Sequence[LayerInfo],
        specs: Sequence[LayerSpec],
        *,
        similar: int = 0,
        view: WeightView | None = None,
        has_data: bool = False,
    ) -> None:
        """Show the specs of the selected layers.

        `similar` counts all layers of the first one's operator; `has_data` tells whether data is open.
        """
        self._layers, self._specs, self._has_data = tuple(layers), tuple(specs), has_data
        self._pages.show_page(self._content if layers else self._empty)
        if not layers:
            self.set_note("")
            return
        self.set_note(layers[0].name if len(layers) == 1 else self.tr("{n} layers").format(n=len(layers)))
        self._show_reason()
        self._show_weights(view)
        self._show_activations()
        self._show_facts(view.error if view is not None else None)
        op = layers[0].op
        words = self.tr("Apply to all {n} {op}") if similar else self.tr("Apply to all {op}")
        self.similar.setText(words.format(n=similar, op=op))
        self.similar.setAccessibleName(self.similar.text())
        possible = similar > 1 and self._editable() and len(layers) == 1
        self.similar.setEnabled(possible)
        self.similar.setToolTip(
            self.tr("Give every {op} layer the settings of this layer.").format(op=op)
            if possible
            else self.tr("Select one layer that can be changed and has others of its operator.")
        )

    def show_error(self, error: TensorError | None) -> None:
        """Show the weight error of the only selected layer."""
        self._show_facts(error)

    def show_target(self, target: Target) -> None:
        """Grey what `target` does not run."""
        self._target = target
        self.target.show_target(target)
        if self._layers:
            self._show_refusals()

    # --- making --------------------------------------------------------------------------------------------------

    def _make_controls(self) -> None:
        self.preset = QComboBox()
        self.preset.setAccessibleName(self.tr("Preset for the selected layers"))
        self.preset.setToolTip(self.tr("A usual recipe for the selected layers."))
        self.preset.setPlaceholderText(self.tr("Choose a preset …"))
        for place, (_, presets) in enumerate(preset_groups()):
            if place:
                self.preset.insertSeparator(self.preset.count())
            for preset in presets:
                self.preset.addItem(preset.name, preset)
                self.preset.setItemData(self.preset.count() - 1, preset.help, Qt.ItemDataRole.ToolTipRole)
        self.preset.setCurrentIndex(-1)
        self.preset.activated.connect(self._on_preset)

        self.target = TargetChoice()
        self.target.target_chosen.connect(self.target_chosen)

        integers = [Segment(c, format_text(c), format_words(c)) for c in WEIGHT_CHOICES if isinstance(c, IntFormat)]
        floats = [Segment(c, format_text(c), format_words(c)) for c in WEIGHT_CHOICES if not isinstance(c, IntFormat)]
        self.bits = SegmentedButtons(self.tr("Bits of the weights"), integers, stretch=True)
        self.floats = SegmentedButtons(self.tr("Float format of the weights"), floats, stretch=True)
        self.bits.chosen.connect(self._on_weight_format)
        self.floats.chosen.connect(self._on_weight_format)
        self.more = FormatMenu(self.tr("More formats of the weights"), WEIGHT_GROUPS)
        self.more.chosen.connect(self._on_weight_format)
        self.symmetry = self._symmetry(self.tr("Symmetry of the weights"))
        self.symmetry.activated.connect(lambda: self._on_symmetry(self.symmetry, with_weights))
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
        self.range.edited.connect(lambda change, text, merge: self._edit_quantizer(with_weights, change, text, merge))
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

        self.more_activations = FormatMenu(self.tr("More formats of the activations"), ACTIVATION_GROUPS)
        self.more_activations.chosen.connect(self._on_activation_format)
        choices = [
            Segment(None if c is None else c.bits, "Float" if c is None else str(c.bits)) for c in ACTIVATION_CHOICES
        ]
        helped = [replace(s, help=self._activation_help(s.value)) for s in choices]
        self.activation_bits = SegmentedButtons(self.tr("Bits of the activations"), helped, stretch=True)
        self.activation_bits.chosen.connect(self._on_activation_bits)
        self.activation_symmetry = self._symmetry(self.tr("Symmetry of the activations"))
        self.activation_symmetry.activated.connect(
            lambda: self._on_symmetry(self.activation_symmetry, with_activations)
        )
        self.activation_scales = Choice(
            self.tr("Format of the scales of the activations"),
            self.tr("What the scale is stored in; values are computed with it."),
            (
                ("float32", self.tr("float32"), self.tr("Exact.")),
                ("float16", self.tr("float16"), self.tr("16 bits; a tiny scale becomes 0.")),
                ("bfloat16", self.tr("bfloat16"), self.tr("16 bits, with 3 digits.")),
                (
                    "e8m0",
                    self.tr("Power of two"),
                    self.tr("A shift multiplies, as on many microcontrollers. Up to 1 bit less exact."),
                ),
            ),
        )
        self.activation_scales.activated.connect(self._on_activation_scales)
        self.activation_range = RangeEditor(self.tr("activations"), of_samples=True)
        self.activation_range.edited.connect(
            lambda change, text, merge: self._edit_quantizer(with_activations, change, text, merge)
        )

        self.sqnr = MetricLabel(self.tr("Weight SQNR"), self.tr("dB, larger is better; 6 dB are one bit."))
        self.bytes = MetricLabel(self.tr("Size"), self.tr("Packed values, scales and zero points."))
        self.ratio = MetricLabel(self.tr("Of float size"), self.tr("Size against float32; smaller is better."))
        self.macs = MetricLabel(self.tr("MACs / sample"), self.tr("Multiply-accumulates for one sample."))
        self.similar = QPushButton()
        self.similar.setProperty("primary", "true")
        self.similar.clicked.connect(self.apply_to_similar)
        self.reset = QPushButton(self.tr("Float"))
        self.reset.setAccessibleName(self.tr("Keep the selected layers float"))
        self.reset.clicked.connect(self._on_reset)
        self.advice = AdviceCard()
        self.advice.accepted.connect(self.proposal_accepted)
        self.reason = QLabel()
        self.reason.setProperty("role", "note")
        self.reason.setProperty("tone", "warning")
        self.reason.setWordWrap(True)

    def _activation_help(self, bits: object) -> str:
        if bits is None:
            return self.tr("Activations stay float32.")
        return self.tr("Activations of {bits} bits; needs data for calibration.").format(bits=bits)

    def _count(self, limits: tuple[int, int], value: int, name: str) -> QSpinBox:
        spin = indented(QSpinBox())
        spin.setRange(*limits)
        spin.setValue(value)
        spin.setKeyboardTracking(False)
        spin.setFixedWidth(68)
        spin.setAccessibleName(name)
        return spin

    def _symmetry(self, name: str) -> Choice:
        return Choice(
            name,
            self.tr("Whether the grid is centred on zero."),
            (
                (True, self.tr("Symmetric"), self.tr("Zero point 0: fastest everywhere.")),
                (False, self.tr("Asymmetric"), self.tr("The grid follows the range: better for one-sided values.")),
            ),
        )

    def _lay_out(self) -> None:
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(3, 0, 8, 0)
        column.setSpacing(7)
        column.addWidget(self.reason)
        column.addWidget(self._form((self.tr("&Target"), self.target)))
        column.addWidget(self.preset)
        self.weights_title = self._section(self.tr("Weights"))
        column.addWidget(self.weights_title)
        column.addWidget(self.bits)
        column.addWidget(self._beside(self.floats, self.more))
        grouping = QWidget()
        row = QHBoxLayout(grouping)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(5)
        row.addWidget(self.granularity, 1)
        row.addWidget(self.group_size)
        self._block = self._beside(self.rows, self.columns)
        boxes = QWidget()
        row = QHBoxLayout(boxes)
        row.setContentsMargins(0, 2, 0, 0)
        row.setSpacing(14)
        row.addWidget(self.full_range)
        row.addWidget(self.narrow_range)
        row.addStretch(1)
        self._weight_form = self._form(
            (self.tr("S&ymmetry"), self.symmetry),
            (self.tr("&Granularity"), grouping),
            (self.tr("Block"), self._block),
            (self.tr("&Range"), self.range),
            (self.tr("Sca&les"), self.scales),
            ("", boxes),
        )
        self._boxes = boxes
        column.addWidget(self._weight_form)
        self.activations_title = self._section(self.tr("Activations"))
        column.addWidget(self.activations_title)
        column.addWidget(self.activation_bits)
        column.addWidget(self.more_activations)
        self._activation_form = self._form(
            (self.tr("Symmetry"), self.activation_symmetry),
            (self.tr("Range"), self.activation_range),
            (self.tr("Scales"), self.activation_scales),
        )
        column.addWidget(self._activation_form)
        facts = QGridLayout()
        facts.setContentsMargins(0, 6, 0, 0)
        facts.setVerticalSpacing(7)
        for place, metric in enumerate((self.sqnr, self.bytes, self.ratio, self.macs)):
            facts.addWidget(metric, place // 2, place % 2)
        column.addLayout(facts)
        column.addStretch(1)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        area.setWidget(inner)
        buttons = QHBoxLayout()
        buttons.setContentsMargins(3, 0, 0, 0)
        buttons.addWidget(self.reset)
        buttons.addWidget(self.similar, 1)
        outer = QVBoxLayout(self._content)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(7)
        outer.addWidget(area, 1)
        # Beside what scrolls: advice is of the whole network, and must be seen when it comes.
        outer.addWidget(self.advice)
        outer.addLayout(buttons)

    def _beside(self, *widgets: QWidget) -> QWidget:
        line = QWidget()
        row = QHBoxLayout(line)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(5)
        for widget in widgets:
            row.addWidget(widget, 1)
        return line

    def _section(self, text: str) -> QLabel:
        label = QLabel(text)
        label.setProperty("role", "title")
        label.setContentsMargins(0, 5, 0, 0)
        return label

    def _form(self, *rows: tuple[str, QWidget]) -> QWidget:
        widget = QWidget()
        form = QFormLayout(widget)
        form.setContentsMargins(0, 0, 0, 0)
        form.setHorizontalSpacing(8)
        form.setVerticalSpacing(6)
        form.setLabelAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for text, field in rows:
            if not text:
                form.addRow(field)
                continue
            label = QLabel(text)
            label.setProperty("role", "note")
            label.setMinimumWidth(_LABEL_WIDTH)
            label.setMinimumHeight(26)
            label.setBuddy(field.kind if isinstance(field, RangeEditor) else field)
            form.addRow(label, field)
        return widget

    # --- showing -------------------------------------------------------------------------------------------------

    def _editable(self) -> bool:
        return any(layer.finite and not layer.read_only for layer in self._layers)

    def _show_reason(self) -> None:
        reasons = {why_fixed(layer) for layer in self._layers}
        self.reason.setText(next(iter(reasons)) if len(reasons) == 1 else "")
        self.reason.setVisible(bool(self.reason.text()))
        editable = self._editable()
        tip = "" if editable else self.reason.text()
        for widget in (self.preset, self.reset):
            widget.setEnabled(editable)
        self.preset.setToolTip(tip or self.tr("A usual recipe for the selected layers."))
        self.reset.setToolTip(tip or self.tr("Weights and activations of the selected layers stay float32 (F)."))

    def _show_weights(self, view: WeightView | None) -> None:
        specs = [spec.weights for spec in self._specs]
        formats = {weight_choice(spec) for spec in specs}
        given = any(layer.read_only for layer in self._layers)
        common: object = next(iter(formats)) if len(formats) == 1 and not given else MIXED
        self.bits.set_value(common)
        self.floats.set_value(common)
        own = common is not MIXED and common not in WEIGHT_CHOICES
        self.more.show_choice(common if own else None, own=own)  # type: ignore[arg-type]
        mixed = self.tr("Weights · mixed") if len(formats) > 1 else self.tr("Weights")
        self.weights_title.setText(mixed)
        editable = self._editable()
        for widget in (self.bits, self.floats, self.more):
            widget.setEnabled(editable)
        scaled = [spec for spec in specs if spec is not None and not isinstance(spec.format, FloatFormat)]
        self._weight_form.setVisible(bool(scaled))
        self._weight_form.setEnabled(editable)
        if scaled:
            self._show_quantizers(scaled, view)
        self._show_refusals()

    def _show_quantizers(self, specs: Sequence[QuantizerSpec], view: WeightView | None) -> None:
        integers = [spec for spec in specs if spec.is_integer]
        ranged = [spec for spec in specs if spec.has_scale]
        form = self._weight_form.layout()
        assert isinstance(form, QFormLayout)
        form.setRowVisible(self.symmetry, bool(integers))
        form.setRowVisible(self.range, bool(ranged))
        form.setRowVisible(self._boxes, bool(integers))
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
        self.symmetry.show_value(_common({spec.symmetric for spec in integers}))
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

    def _range_reasons(self, *, has_integers: bool) -> dict[object, str]:
        """Return why range estimators of weights cannot be chosen."""
        reasons: dict[object, str] = {}
        if not has_integers:
            reasons[HalfQuadratic] = self.tr("Only integers have a zero point to be moved.")
        unseen = next((layer for layer in self._layers if not layer.quantizes_activations), None)
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

    def _show_refusals(self) -> None:
        """Grey what the target runs in none of the selected layers, whatever else is chosen."""
        target = self._target
        layers = [layer for layer in self._layers if layer.finite and not layer.read_only]
        # A target that runs everything refuses nothing, whatever is selected.
        asked = (target, layers, self._specs[:1], self._group_shape()) if target.runs else (target,)
        if asked == self._judged:
            return
        self._judged = asked

        def of_format(choice: object) -> str:
            spec = with_weight_format(self._specs[0] if self._specs else LayerSpec(), choice)  # type: ignore[arg-type]
            return weights_refusal(target, layers, spec.weights, any_granularity=True)

        def of_activations(choice: object) -> str:
            spec = with_activation_format(LayerSpec(), choice)  # type: ignore[arg-type]
            return activations_refusal(target, layers, spec.activations)

        for choice in WEIGHT_CHOICES:
            buttons = self.bits if isinstance(choice, IntFormat) else self.floats
            _refuse(buttons.button(choice), format_words(choice), of_format(choice))
        self.more.show_refusals(of_format)
        self.more_activations.show_refusals(of_activations)
        for choice in ACTIVATION_CHOICES:
            bits = None if choice is None else choice.bits
            _refuse(self.activation_bits.button(bits), self._activation_help(bits), of_activations(choice))
        weights = self._specs[0].weights if self._specs else None
        self.granularity.show_refusals(self._granularity_reasons(layers, weights))
        self._refuse_presets(layers)

    def _group_shape(self) -> tuple[int, int, int]:
        return self.group_size.value(), self.rows.value(), self.columns.value()

    def _granularity_reasons(self, layers: Iterable[LayerInfo], weights: QuantizerSpec | None) -> dict[object, str]:
        if weights is None or isinstance(weights.format, FloatFormat) or not self._target.runs:
            return {}
        reasons = {}
        size, rows, columns = self._group_shape()
        sizes = dict.fromkeys((size, 16, 32, 64, 128, 256))
        tried: dict[object, list[Granularity]] = {
            PerTensor: [PerTensor()],
            PerChannel: [PerChannel()],
            PerGroup: [PerGroup(size) for size in sizes],
            PerBlock: [PerBlock(rows, max(columns, 2))],
        }
        for kind, granularities in tried.items():
            found = [
                weights_refusal(self._target, layers, with_granularity(weights, each), any_granularity=False)
                for each in granularities
            ]
            reasons[kind] = "" if "" in found else found[0]
        return reasons

    def _refuse_presets(self, layers: Sequence[LayerInfo]) -> None:
        items = self.preset.model()
        assert isinstance(items, QStandardItemModel)
        for place in range(self.preset.count()):
            preset = self.preset.itemData(place)
            if isinstance(preset, Preset):
                reason = preset_refusal(self._target, layers, preset)
                items.item(place).setEnabled(not reason)
                self.preset.setItemData(place, f"{preset.help}\n{reason}".strip(), Qt.ItemDataRole.ToolTipRole)

    def _show_granularity(self, granularities: set[Granularity]) -> None:
        kinds = {type(granularity) for granularity in granularities}
        self.granularity.show_value(_common(kinds))
        sizes = {granularity.group_size for granularity in granularities if isinstance(granularity, PerGroup)}
        self.group_size.setVisible(kinds == {PerGroup})
        form = self._weight_form.layout()
        assert isinstance(form, QFormLayout)
        form.setRowVisible(self._block, kinds == {PerBlock})
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

    def _show_activations(self) -> None:
        able = [i for i, layer in enumerate(self._layers) if layer.quantizes_activations]
        specs = [self._specs[i].activations for i in able]
        formats = {activation_choice(spec) for spec in specs}
        common = next(iter(formats)) if len(formats) == 1 else MIXED
        buttons = {choice: None if choice is None else choice.bits for choice in ACTIVATION_CHOICES}
        self.activation_bits.set_value(buttons.get(common, MIXED))  # type: ignore[call-overload]
        own = common is not MIXED and common not in buttons
        self.more_activations.show_choice(common if own else None, own=own)  # type: ignore[arg-type]
        for widget in (self.activation_bits, self.more_activations):
            widget.setEnabled(bool(able) and self._editable())
        self.activation_bits.setToolTip(
            "" if able else self.tr("The activations of {op} layers are not quantized.").format(op=self._layers[0].op)
        )
        title = self.tr("Activations · mixed") if len(formats) > 1 else self.tr("Activations")
        self.activations_title.setText(title)
        scaled = [spec for spec in specs if spec is not None and spec.has_scale]
        integers = [spec for spec in scaled if spec.is_integer]
        self._activation_form.setVisible(bool(scaled))
        if scaled:
            form = self._activation_form.layout()
            assert isinstance(form, QFormLayout)
            form.setRowVisible(self.activation_symmetry, bool(integers))
            self.activation_symmetry.show_value(_common({spec.symmetric for spec in integers}))
            self.activation_range.show_range({spec.range_estimator for spec in scaled}, None)
            stored: set[object] = {spec.scale_format for spec in scaled}
            self.activation_scales.show_value(_common(stored))

    def _show_facts(self, error: TensorError | None) -> None:
        if not self._layers:
            return
        pairs = list(zip(self._layers, self._specs, strict=True))
        size = sum(layer_bytes(layer, spec.weights) for layer, spec in pairs)
        full = sum(4 * layer.parameters for layer in self._layers)
        self.bytes.show_value(numbers.data_size(size))
        self.ratio.show_value(numbers.percent(size / full) if full else "–")
        macs = sum(layer.macs for layer in self._layers)
        self.macs.show_value(numbers.amount(macs) if macs else "–")
        single = len(self._layers) == 1 and self._specs[0].weights is not None
        if error is None or not single:
            self.sqnr.show_value("–", "muted")
        else:
            token = sqnr_token(error.sqnr_db)
            self.sqnr.show_value(
                numbers.decibel(error.sqnr_db),
                "good" if token == "good" else "warning" if token == "warning" else "bad",
            )

    # --- edits ---------------------------------------------------------------------------------------------------

    def _edit(self, edit: SpecEdit, text: str, merge: str = "") -> None:
        new = {layer.name: fitting(layer, edit(spec)) for layer, spec in zip(self._layers, self._specs, strict=True)}
        names = [layer.name for layer in self._layers]
        words = text.format(layers=describe_layers(names))
        self.specs_edited.emit(new, words, f"{merge}:{'|'.join(names)}" if merge else "")

    def _edit_quantizer(
        self,
        where: Callable[[LayerSpec, Callable[[QuantizerSpec], QuantizerSpec]], LayerSpec],
        change: Callable[[QuantizerSpec], QuantizerSpec],
        text: str,
        merge: str = "",
        chosen: str = "range_estimator",
    ) -> None:
        gave_way: dict[str, None] = {}

        def note(old: QuantizerSpec) -> QuantizerSpec:
            new = change(old)
            gave_way.update(dict.fromkeys(self._given_way(old, new, chosen)))
            return new

        for spec in self._specs:
            where(spec, note)
        words = text + self.tr(" in {layers}")
        if gave_way:
            words += self.tr("; now {changes}").format(changes=", ".join(gave_way))
        self._edit(lambda spec: where(spec, change), words, merge and f"{merge} {where.__name__}")

    def _given_way(self, old: QuantizerSpec, new: QuantizerSpec, chosen: str) -> list[str]:
        """Return words for what changed beside the field `chosen`."""
        searched = isinstance(new.range_estimator, LeastSquaredError)
        words = {
            "symmetric": self.tr("symmetric") if new.symmetric else self.tr("asymmetric"),
            "range_estimator": self.tr("least squared error") if searched else self.tr("min–max"),
            "granularity": self.tr("per channel"),
            "full_range": self.tr("without full range"),
            "scale_format": self.tr("float32 scales"),
            "double_quantization": self.tr("scales quantized once"),
        }
        changed = [name for name in words if name != chosen and getattr(old, name) != getattr(new, name)]
        return [words[name] for name in changed]

    def _on_preset(self) -> None:
        preset = self.preset.currentData()
        self.preset.setCurrentIndex(-1)
        if isinstance(preset, Preset):
            self._edit(lambda _: preset.spec, self.tr("Preset {name} for").format(name=preset.name) + " {layers}")

    def _on_weight_format(self, chosen: FormatChoice) -> None:
        words = format_words(chosen) if not isinstance(chosen, str) else choice_text(chosen)
        new = with_weight_format(LayerSpec(), chosen).weights
        if new is not None and (not new.is_integer or isinstance(chosen, str)):
            # What was known of the old quantizer does not carry over: say what it is now.
            words = f"{choice_text(chosen)} ({scheme_text(new)})" if not isinstance(new.format, FloatFormat) else words
        self._edit(
            lambda spec: with_weight_format(spec, chosen),
            self.tr("Set {layers} to {format}").replace("{format}", words),
        )

    def _on_scales(self) -> None:
        chosen = self.scales.currentData()
        if chosen is None:
            return
        double = chosen == TWICE
        fields = {"double_quantization": True} if double else {"scale_format": chosen, "double_quantization": False}
        self._edit_quantizer(
            with_weights,
            lambda q: adapted(q, **fields)[0],
            self.tr("Set scales to {format}").format(format=self.scales.currentText()),
            chosen="double_quantization" if double else "scale_format",
        )

    def _on_activation_scales(self) -> None:
        chosen = self.activation_scales.currentData()
        if chosen is not None:
            self._edit_quantizer(
                with_activations,
                lambda q: adapted(q, scale_format=chosen)[0],
                self.tr("Set scales of activations to {format}").format(format=self.activation_scales.currentText()),
                chosen="scale_format",
            )

    def _on_symmetry(
        self, combo: QComboBox, where: Callable[[LayerSpec, Callable[[QuantizerSpec], QuantizerSpec]], LayerSpec]
    ) -> None:
        symmetric = combo.currentData()
        if isinstance(symmetric, bool):
            self._edit_quantizer(
                where, lambda q: with_symmetry(q, symmetric=symmetric), combo.currentText(), chosen="symmetric"
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
        self._edit_quantizer(
            with_weights, lambda q: with_granularity(q, granularity), self.tr("Set granularity"), merge, "granularity"
        )

    def _on_full_range(self) -> None:
        on = self.full_range.checkState() == Qt.CheckState.Checked
        self._edit_quantizer(
            with_weights, lambda q: adapted(q, full_range=on)[0], self.tr("Full range"), chosen="full_range"
        )

    def _on_narrow_range(self) -> None:
        on = self.narrow_range.checkState() == Qt.CheckState.Checked
        self._edit_quantizer(with_weights, lambda q: with_narrow_range(q, narrow=on), self.tr("Narrow range"))

    def _on_activation_bits(self, bits: int | None) -> None:
        self._on_activation_format(None if bits is None else IntFormat(bits, signed=False))

    def _on_activation_format(self, chosen: Format | None) -> None:
        self._edit(
            lambda spec: with_activation_format(spec, chosen),
            self.tr("Set activations of {layers} to {format}").replace("{format}", format_words(chosen)),
        )

    def _on_reset(self) -> None:
        self._edit(lambda _: LayerSpec(), self.tr("Keep {layers} float"))


def _refuse(button: QWidget, words: str, reason: str) -> None:
    button.setEnabled(not reason)
    button.setToolTip(f"{words}\n{reason}".strip())


def _common(values: set[object] | set[bool] | set[int | str | None] | set[type]) -> object:
    return next(iter(values)) if len(values) == 1 else MIXED


def _show_box(box: QCheckBox, values: set[bool]) -> None:
    box.setTristate(len(values) > 1)
    if len(values) > 1:
        box.setCheckState(Qt.CheckState.PartiallyChecked)
    else:
        box.setChecked(values == {True})
