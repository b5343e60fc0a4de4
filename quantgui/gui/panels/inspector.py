"""The inspector: what happens to the selected layers, editable; facts about them; advice on the configuration."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QEvent, QObject, QSize, Qt, Signal
from PySide6.QtGui import QStandardItemModel
from PySide6.QtWidgets import (
    QComboBox,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from quantgui.gui import numbers
from quantgui.gui.layer_words import describe_layers, why_fixed
from quantgui.gui.models.delegates import sqnr_token
from quantgui.gui.panels.activation_editor import ActivationEditor
from quantgui.gui.panels.advice import AdviceCard
from quantgui.gui.panels.spec_editor import form_of
from quantgui.gui.panels.weight_editor import WeightEditor
from quantgui.gui.preset_groups import preset_groups, preset_refusal
from quantgui.gui.widgets.card import Card, Pages
from quantgui.gui.widgets.labels import MetricLabel
from quantgui.gui.widgets.state_page import StatePage
from quantgui.gui.widgets.target_choice import TargetChoice
from quantgui.results import LayerInfo, TensorError, WeightView
from quantgui.session.edits import SpecEdit, fitting
from quantgui.session.sizes import layer_bytes
from quantgui.spec.presets import Preset
from quantgui.spec.quantizer import LayerSpec
from quantgui.spec.targets import TARGETS, Target


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
        self._layers, self._specs = tuple(layers), tuple(specs)
        self._pages.show_page(self._content if layers else self._empty)
        if not layers:
            self.set_note("")
            return
        self.set_note(layers[0].name if len(layers) == 1 else self.tr("{n} layers").format(n=len(layers)))
        self.weights.show_layers(layers, specs, view, has_data=has_data)
        self._show_reason()
        self._show_refusals()
        self.activations.show_layers(layers, specs)
        self._show_facts(view.error if view is not None else None)
        op = layers[0].op
        words = self.tr("Apply to all {n} {op}") if similar else self.tr("Apply to all {op}")
        self.similar.setText(words.format(n=similar, op=op))
        self.similar.setAccessibleName(self.similar.text())
        possible = similar > 1 and self.weights.is_editable() and len(layers) == 1
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
        self.preset.setPlaceholderText(self.tr("Choose a preset…"))
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

        self.weights = WeightEditor()
        self.activations = ActivationEditor()
        for editor in (self.weights, self.activations):
            editor.edited.connect(self._edit)

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

    def _lay_out(self) -> None:
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(3, 0, 8, 0)
        column.setSpacing(7)
        column.addWidget(self.reason)
        column.addWidget(form_of((self.tr("&Target"), self.target)))
        column.addWidget(self.preset)
        column.addWidget(self.weights)
        column.addWidget(self.activations)
        facts = QGridLayout()
        facts.setContentsMargins(0, 6, 0, 0)
        facts.setVerticalSpacing(7)
        for place, metric in enumerate((self.sqnr, self.bytes, self.ratio, self.macs)):
            facts.addWidget(metric, place // 2, place % 2)
        column.addLayout(facts)
        column.addStretch(1)
        area = _Column()
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

    # --- showing -------------------------------------------------------------------------------------------------

    def _show_reason(self) -> None:
        reasons = {why_fixed(layer) for layer in self._layers}
        self.reason.setText(next(iter(reasons)) if len(reasons) == 1 else "")
        self.reason.setVisible(bool(self.reason.text()))
        editable = self.weights.is_editable()
        tip = "" if editable else self.reason.text()
        for widget in (self.preset, self.reset):
            widget.setEnabled(editable)
        self.preset.setToolTip(tip or self.tr("A usual recipe for the selected layers."))
        self.reset.setToolTip(tip or self.tr("Weights and activations of the selected layers stay float32 (F)."))

    def _show_refusals(self) -> None:
        """Grey what the target runs in none of the selected layers, whatever else is chosen."""
        target = self._target
        layers = [layer for layer in self._layers if layer.finite and not layer.read_only]
        # A target that runs everything refuses nothing, whatever is selected.
        asked = (target, layers, self._specs[:1], self.weights.group_shape()) if target.runs else (target,)
        if asked != self._judged:
            self._judged = asked
            self.weights.show_refusals(target, layers)
            self.activations.show_refusals(target, layers)
            self._refuse_presets(layers)

    def _refuse_presets(self, layers: Sequence[LayerInfo]) -> None:
        items = self.preset.model()
        assert isinstance(items, QStandardItemModel)
        for place in range(self.preset.count()):
            preset = self.preset.itemData(place)
            if isinstance(preset, Preset):
                reason = preset_refusal(self._target, layers, preset)
                items.item(place).setEnabled(not reason)
                self.preset.setItemData(place, f"{preset.help}\n{reason}".strip(), Qt.ItemDataRole.ToolTipRole)

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

    def _on_preset(self) -> None:
        preset = self.preset.currentData()
        self.preset.setCurrentIndex(-1)
        if isinstance(preset, Preset):
            self._edit(lambda _: preset.spec, self.tr("Preset {name} for").format(name=preset.name) + " {layers}")

    def _on_reset(self) -> None:
        self._edit(lambda _: LayerSpec(), self.tr("Keep {layers} float"))


class _Column(QScrollArea):
    """What scrolls up and down only: never narrower than what is in it, which would be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self.widget() and event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return super().eventFilter(watched, event)

    def minimumSizeHint(self) -> QSize:
        hint, content = super().minimumSizeHint(), self.widget()
        if content is None:
            return hint
        width = content.minimumSizeHint().width() + self.verticalScrollBar().sizeHint().width()
        return QSize(max(hint.width(), width), hint.height())
