"""The inspector's editor of activations: format, symmetry, range and scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PySide6.QtWidgets import QWidget

from quantgui.gui.format_menu import ACTIVATION_GROUPS, FormatMenu
from quantgui.gui.layer_words import format_words
from quantgui.gui.panels.range_editor import MIXED, Choice, RangeEditor
from quantgui.gui.panels.spec_editor import SpecEditor, common, form_of, refuse, section, show_row
from quantgui.gui.widgets.segmented import Segment, SegmentedButtons
from quantgui.results import LayerInfo
from quantgui.session.edits import activation_choice, adapted, with_activation_format, with_activations
from quantgui.session.target_fit import activations_refusal
from quantgui.spec.formats import Format, IntFormat
from quantgui.spec.quantizer import LayerSpec
from quantgui.spec.targets import Target

ACTIVATION_CHOICES: tuple[Format | None, ...] = (
    *(IntFormat(bits, signed=False) for bits in (4, 5, 6, 7, 8, 16)),
    None,
)


class ActivationEditor(SpecEditor):
    """Format and quantizer of the selected layers' activations."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(with_activations, parent)
        self._make_controls()
        self._lay_out()

    # --- in ------------------------------------------------------------------------------------------------------

    def show_layers(self, layers: Sequence[LayerInfo], specs: Sequence[LayerSpec]) -> None:
        """Show the activations' specs of the selected layers."""
        self.hold(layers, specs)
        able = [i for i, layer in enumerate(self.layers) if layer.quantizes_activations]
        found = [self.specs[i].activations for i in able]
        formats = {activation_choice(spec) for spec in found}
        shown = next(iter(formats)) if len(formats) == 1 else MIXED
        buttons = {choice: None if choice is None else choice.bits for choice in ACTIVATION_CHOICES}
        self.bits.set_value(buttons.get(shown, MIXED))  # type: ignore[call-overload]
        own = shown is not MIXED and shown not in buttons
        self.more.show_choice(shown if own else None, own=own)  # type: ignore[arg-type]
        for widget in (self.bits, self.more):
            widget.setEnabled(bool(able) and self.is_editable())
        self.bits.setToolTip(
            "" if able else self.tr("The activations of {op} layers are not quantized.").format(op=self.layers[0].op)
        )
        title = self.tr("Activations · mixed") if len(formats) > 1 else self.tr("Activations")
        self.title.setText(title)
        scaled = [spec for spec in found if spec is not None and spec.has_scale]
        integers = [spec for spec in scaled if spec.is_integer]
        self._form.setVisible(bool(scaled))
        if scaled:
            show_row(self._form, self.symmetry, shown=bool(integers))
            self.symmetry.show_value(common({spec.symmetric for spec in integers}))
            self.range.show_range({spec.range_estimator for spec in scaled}, None)
            stored: set[object] = {spec.scale_format for spec in scaled}
            self.scales.show_value(common(stored))

    def show_refusals(self, target: Target, layers: Sequence[LayerInfo]) -> None:
        """Grey what `target` runs in none of `layers`, whatever else is chosen."""

        def of_activations(choice: object) -> str:
            spec = with_activation_format(LayerSpec(), choice)  # type: ignore[arg-type]
            return activations_refusal(target, layers, spec.activations)

        self.more.show_refusals(of_activations)
        for choice in ACTIVATION_CHOICES:
            bits = None if choice is None else choice.bits
            refuse(self.bits.button(bits), self._help(bits), of_activations(choice))

    # --- making --------------------------------------------------------------------------------------------------

    def _make_controls(self) -> None:
        self.more = FormatMenu(self.tr("More formats of the activations"), ACTIVATION_GROUPS)
        self.more.chosen.connect(self._on_format)
        choices = [
            Segment(None if c is None else c.bits, "Float" if c is None else str(c.bits)) for c in ACTIVATION_CHOICES
        ]
        helped = [replace(s, help=self._help(s.value)) for s in choices]
        self.bits = SegmentedButtons(self.tr("Bits of the activations"), helped, stretch=True)
        self.bits.chosen.connect(self._on_bits)
        self.symmetry = self.symmetry_choice(self.tr("Symmetry of the activations"))
        self.symmetry.activated.connect(lambda: self.edit_symmetry(self.symmetry))
        self.scales = Choice(
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
        self.scales.activated.connect(self._on_scales)
        self.range = RangeEditor(self.tr("activations"), of_samples=True)
        self.range.edited.connect(self.edit_quantizer)

    def _help(self, bits: object) -> str:
        if bits is None:
            return self.tr("Activations stay float32.")
        return self.tr("Activations of {bits} bits; needs data for calibration.").format(bits=bits)

    def _lay_out(self) -> None:
        self.title = section(self.tr("Activations"))
        self.column.addWidget(self.title)
        self.column.addWidget(self.bits)
        self.column.addWidget(self.more)
        self._form = form_of(
            (self.tr("Symmetry"), self.symmetry),
            (self.tr("Range"), self.range),
            (self.tr("Scales"), self.scales),
        )
        self.column.addWidget(self._form)

    # --- edits ---------------------------------------------------------------------------------------------------

    def _on_bits(self, bits: int | None) -> None:
        self._on_format(None if bits is None else IntFormat(bits, signed=False))

    def _on_format(self, chosen: Format | None) -> None:
        self.edited.emit(
            lambda spec: with_activation_format(spec, chosen),
            self.tr("Set activations of {layers} to {format}").replace("{format}", format_words(chosen)),
            "",
        )

    def _on_scales(self) -> None:
        chosen = self.scales.currentData()
        if chosen is not None:
            self.edit_quantizer(
                lambda q: adapted(q, scale_format=chosen)[0],
                self.tr("Set scales of activations to {format}").format(format=self.scales.currentText()),
                chosen="scale_format",
            )
