"""What the editors of a layer's weights and of its activations share: the spec they change, and their forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QComboBox, QFormLayout, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from quantgui.gui.panels.range_editor import MIXED, Choice, RangeEditor
from quantgui.results import LayerInfo
from quantgui.session.edits import with_symmetry
from quantgui.spec.quantizer import LayerSpec, LeastSquaredError, QuantizerSpec

Where = Callable[[LayerSpec, Callable[[QuantizerSpec], QuantizerSpec]], LayerSpec]
"""Changes one of the quantizers of a layer: `with_weights` or `with_activations`."""
_LABEL_WIDTH = 70


class SpecEditor(QWidget):
    """Shows one of the quantizers of the selected layers, and changes it.

    Args:
        where: which quantizer that is.

    Signals:
        edited: a `SpecEdit`, words for the undo step with a place for ``{layers}``, and a merge key.
    """

    edited = Signal(object, str, str)

    def __init__(self, where: Where, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.where = where
        self.layers: tuple[LayerInfo, ...] = ()
        self.specs: tuple[LayerSpec, ...] = ()
        self.column = QVBoxLayout(self)
        self.column.setContentsMargins(0, 0, 0, 0)
        self.column.setSpacing(7)

    def hold(self, layers: Sequence[LayerInfo], specs: Sequence[LayerSpec]) -> None:
        """Keep what is changed by edits from now on."""
        self.layers, self.specs = tuple(layers), tuple(specs)

    def is_editable(self) -> bool:
        """Return whether any of the layers can be changed."""
        return any(layer.finite and not layer.read_only for layer in self.layers)

    def edit_quantizer(
        self,
        change: Callable[[QuantizerSpec], QuantizerSpec],
        text: str,
        merge: str = "",
        chosen: str = "range_estimator",
    ) -> None:
        """Change the quantizer of each layer; the words say what gives way beside its field `chosen`."""
        gave_way: dict[str, None] = {}

        def note(old: QuantizerSpec) -> QuantizerSpec:
            new = change(old)
            gave_way.update(dict.fromkeys(self._given_way(old, new, chosen)))
            return new

        for spec in self.specs:
            self.where(spec, note)
        words = text + self.tr(" in {layers}")
        if gave_way:
            words += self.tr("; now {changes}").format(changes=", ".join(gave_way))
        self.edited.emit(lambda spec: self.where(spec, change), words, merge and f"{merge} {self.where.__name__}")

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

    def edit_symmetry(self, combo: QComboBox) -> None:
        """Take over what is chosen in `combo`."""
        symmetric = combo.currentData()
        if isinstance(symmetric, bool):
            self.edit_quantizer(
                lambda q: with_symmetry(q, symmetric=symmetric), combo.currentText(), chosen="symmetric"
            )

    def symmetry_choice(self, name: str) -> Choice:
        """Return a choice of symmetry that is read out as `name`."""
        return Choice(
            name,
            self.tr("Whether the grid is centred on zero."),
            (
                (True, self.tr("Symmetric"), self.tr("Zero point 0: fastest everywhere.")),
                (False, self.tr("Asymmetric"), self.tr("The grid follows the range: better for one-sided values.")),
            ),
        )


def beside(*widgets: QWidget) -> QWidget:
    """Return widgets side by side, each as wide as the others."""
    line = QWidget()
    row = QHBoxLayout(line)
    row.setContentsMargins(0, 0, 0, 0)
    row.setSpacing(5)
    for widget in widgets:
        row.addWidget(widget, 1)
    return line


def section(text: str) -> QLabel:
    """Return a heading."""
    label = QLabel(text)
    label.setProperty("role", "title")
    label.setContentsMargins(0, 5, 0, 0)
    return label


def form_of(*rows: tuple[str, QWidget]) -> QWidget:
    """Return labels with their fields; without a label a field takes the whole row."""
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


def show_row(form: QWidget, field: QWidget, *, shown: bool) -> None:
    """Show or hide the row of `field` in what `form_of` has made."""
    layout = form.layout()
    assert isinstance(layout, QFormLayout)
    layout.setRowVisible(field, shown)


def refuse(button: QWidget, words: str, reason: str) -> None:
    """Grey `button` if there is a `reason`, and let its tooltip say that too."""
    button.setEnabled(not reason)
    button.setToolTip(f"{words}\n{reason}".strip())


def common(values: set[object] | set[bool] | set[int | str | None] | set[type]) -> object:
    """Return the value that all have, or `MIXED`."""
    return next(iter(values)) if len(values) == 1 else MIXED
