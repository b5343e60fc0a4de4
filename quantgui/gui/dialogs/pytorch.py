"""Opening a PyTorch network by its Python code: where it is, its weights, its inputs, and the consent to run it."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Signal
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from quantgui.errors import SpecError
from quantgui.gui.dialogs.files import FileChooser
from quantgui.gui.widgets.labels import Tone, set_style
from quantgui.gui.widgets.progress import ProgressRow
from quantgui.results import Progress
from quantgui.spec.pytorch_source import (
    BATCH_AXIS,
    DEFAULT_OPTIONS,
    Exporter,
    PytorchOptions,
    axes_text,
    is_factory,
    read_axes,
    read_example_input,
    split_factory,
)

_WIDTH = 580
_SEPARATOR = ";"


class PytorchDialog(QDialog):
    """Asks for everything that the code of a PyTorch network does not say; stays open until the network is.

    Signals:
        open_requested: ``module:factory``, and the `PytorchOptions`, which say that the code is trusted.
        cancel_requested: the opening is to be stopped.
    """

    open_requested = Signal(str, object)
    cancel_requested = Signal()

    def __init__(self, chooser: FileChooser, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(self.tr("Open PyTorch network"))
        self.setMinimumWidth(_WIDTH)
        self._chooser = chooser
        self._running = False
        self.code = self._line(
            self.tr("Python code"),
            self.tr("net.py, or package.module"),
            self.tr("File or module with the function that makes the network; it is imported."),
        )
        self.factory = self._line(
            self.tr("Function"),
            self.tr("make_network"),
            self.tr("Function without arguments that returns a torch.nn.Module, or (module, example inputs)."),
        )
        self.weights = self._line(
            self.tr("Weights"),
            self.tr("none: the function brings them"),
            self.tr("State dict: .pth, .pt or .safetensors. Nothing of this file is run."),
        )
        self.inputs = self._line(
            self.tr("Example inputs"),
            self.tr("1x3x224x224, or as the function returns them"),
            self.tr("Shape and type of each input, such as 1x3x224x224 or 1x128:int64; several with ; between them."),
        )
        self.axes = self._line(
            self.tr("Axes that vary"),
            "0",
            self.tr(
                "Axes whose size may differ from the example: 0 is the batch, 0,2,3 also height and width; none for "
                "none. For several inputs with ; between them."
            ),
        )
        self.axes.setText(axes_text(BATCH_AXIS))
        self.exporter = QComboBox()
        self.exporter.setAccessibleName(self.tr("Exporter"))
        self.exporter.setToolTip(
            self.tr(
                "Which of PyTorch's exporters to ONNX is used. The new one may fix the number of time steps of "
                "recurrent networks; then the old one is taken by itself, and you are told."
            )
        )
        choices: tuple[tuple[str, Exporter], ...] = (
            (self.tr("The new one; the old one where axes get lost"), "auto"),
            (self.tr("The new one (dynamo)"), "dynamo"),
            (self.tr("The old one"), "old"),
        )
        for text, value in choices:
            self.exporter.addItem(text, value)
        self.trust = QCheckBox(self.tr("Run this code. I know where it comes from and trust it."))
        self.trust.setAccessibleName(self.tr("Run this code"))
        self.trust.setToolTip(
            self.tr("The code can do everything that you can do on this machine. Without consent nothing of it is run.")
        )
        self.progress = ProgressRow(self.tr("Opening"))
        self.progress.hide()
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.status.hide()
        self.open_button = self._button(self.tr("Open"), self.tr("Run the code and open the network."))
        self.open_button.setProperty("primary", "true")
        self.open_button.setDefault(True)
        self.close_button = self._button(self.tr("Close"), self.tr("Close this dialog."))
        self._lay_out()
        self._connect()
        self._check()

    # --- in ------------------------------------------------------------------------------------------------------

    def show_source(self, network: str, options: PytorchOptions = DEFAULT_OPTIONS) -> None:
        """Fill the fields for `network`, ``module:factory`` or a file alone; the consent is asked for again."""
        split = split_factory(network) or (network, "")
        self.code.setText(split[0])
        self.factory.setText(split[1])
        self.weights.setText(options.weights)
        self.inputs.setText(f"{_SEPARATOR} ".join(map(str, options.inputs)))
        self.axes.setText(f"{_SEPARATOR} ".join(axes_text(axes) for axes in options.free_axes))
        self.exporter.setCurrentIndex(self.exporter.findData(options.exporter))
        self.trust.setChecked(False)
        self.say("", "muted")
        (self.factory if network and not split[1] else self.code).setFocus()

    def show_weights(self, path: str) -> None:
        """Take over a file of weights, and say what else is needed."""
        self.weights.setText(path)
        self.say(
            self.tr(
                "“{name}” holds weights, which do not say what network they belong to. Name the Python code that makes "
                "the network, or save the network with torch.export.save as .pt2, which opens by itself."
            ).format(name=Path(path).name),
            "muted",
        )
        self.code.setFocus()

    def show_progress(self, progress: Progress) -> None:
        """Show how far the opening is."""
        self._set_running(running=True)
        self.progress.show_progress(progress.done, progress.total, progress.label, progress.seconds_left)
        self.say("", "muted")

    def show_failure(self, sentence: str) -> None:
        """Show why the network could not be opened."""
        self._set_running(running=False)
        self.say(sentence, "bad")

    def show_opened(self) -> None:
        """Close: the network is open."""
        self._set_running(running=False)
        self.close()

    def say(self, sentence: str, tone: Tone) -> None:
        """Show a sentence below the fields; none if it is empty."""
        self.status.setText(sentence)
        self.status.setVisible(bool(sentence))
        set_style(self.status, "tone", tone)
        self.adjustSize()

    # --- parts ---------------------------------------------------------------------------------------------------

    def _line(self, name: str, placeholder: str, tip: str) -> QLineEdit:
        line = QLineEdit()
        line.setAccessibleName(name)
        line.setPlaceholderText(placeholder)
        line.setToolTip(tip)
        return line

    def _button(self, text: str, tip: str) -> QPushButton:
        button = QPushButton(text)
        button.setAccessibleName(text.rstrip("…"))
        button.setToolTip(tip)
        button.setAutoDefault(False)
        return button

    def _lay_out(self) -> None:
        intro = QLabel(
            self.tr(
                "A function of your Python code makes the network, and a file holds its weights. Inside, it becomes "
                "ONNX with the layer names of your modules. A .pt2 file of torch.export needs none of this: open it as "
                "it is."
            )
        )
        intro.setWordWrap(True)
        intro.setProperty("role", "note")
        code_file = self._button(self.tr("File…"), self.tr("Choose a Python file."))
        code_file.setAccessibleName(self.tr("Python file"))
        code_file.clicked.connect(self._on_code_file)
        weights_file = self._button(self.tr("File…"), self.tr("Choose a file of weights."))
        weights_file.setAccessibleName(self.tr("File of weights"))
        weights_file.clicked.connect(self._on_weights_file)
        form = QFormLayout()
        form.setSpacing(8)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for text, widget, button in (
            (self.tr("Python &code"), self.code, code_file),
            (self.tr("&Function"), self.factory, None),
            (self.tr("&Weights"), self.weights, weights_file),
            (self.tr("Example &inputs"), self.inputs, None),
            (self.tr("&Axes that vary"), self.axes, None),
            (self.tr("&Exporter"), self.exporter, None),
        ):
            label = QLabel(text)
            label.setBuddy(widget)
            label.setToolTip(widget.toolTip())
            row = QHBoxLayout()
            row.setSpacing(6)
            row.addWidget(widget, 1)
            if button is not None:
                row.addWidget(button)
            form.addRow(label, row)
        warning = QLabel(
            self.tr(
                "Opening the network runs this code in the engine's process, with all your rights. Weights run nothing."
            )
        )
        warning.setWordWrap(True)
        set_style(warning, "tone", "warning")
        row = QHBoxLayout()
        row.addWidget(self.close_button)
        row.addStretch(1)
        row.addWidget(self.open_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 14, 16, 14)
        layout.setSpacing(10)
        layout.addWidget(intro)
        layout.addLayout(form)
        for part in (warning, self.trust, self.progress, self.status):
            layout.addWidget(part)
        layout.addStretch(1)
        layout.addLayout(row)

    def _connect(self) -> None:
        # Consent is to what stands there, not to what is typed afterwards.
        for line in (self.code, self.factory):
            line.textChanged.connect(lambda: self.trust.setChecked(False))
        for line in (self.code, self.factory, self.weights, self.inputs, self.axes):
            line.textChanged.connect(self._check)
            line.textEdited.connect(lambda: self.say("", "muted"))
        self.trust.toggled.connect(self._check)
        self.open_button.clicked.connect(self._on_open)
        self.close_button.clicked.connect(self.close)
        self.progress.cancelled.connect(self.cancel_requested)

    # --- slots ---------------------------------------------------------------------------------------------------

    def _network(self) -> str:
        code, factory = self.code.text().strip(), self.factory.text().strip()
        return f"{code}:{factory}" if code and factory else ""

    def _options(self) -> PytorchOptions:
        """Return what the fields say.

        Raises:
            SpecError: they say nothing.
        """
        inputs = [text for text in self.inputs.text().split(_SEPARATOR) if text.strip()]
        return PytorchOptions(
            str(Path(self.weights.text().strip()).expanduser().absolute()) if self.weights.text().strip() else "",
            self.trust.isChecked(),
            tuple(read_example_input(text) for text in inputs),
            free_axes=tuple(read_axes(text) for text in self.axes.text().split(_SEPARATOR)),
            exporter=self.exporter.currentData(),
        )

    def _why_not(self) -> str:
        if not is_factory(self._network()):
            return self.tr("Name a Python file or module, and the function in it that makes the network.")
        try:
            self._options()
        except SpecError as error:
            return str(error)
        if not self.trust.isChecked():
            return self.tr("Agree that the code is run.")
        return ""

    def _check(self) -> None:
        reason = self._why_not()
        self.open_button.setEnabled(not reason and not self._running)
        self.open_button.setToolTip(reason or self.tr("Run the code and open the network."))

    def _set_running(self, *, running: bool) -> None:
        self._running = running
        self.progress.setVisible(running)
        self._check()

    def _on_open(self) -> None:
        if not self._why_not():
            self.say("", "muted")
            self.open_requested.emit(self._network(), self._options())

    def _on_code_file(self) -> None:
        if path := self._chooser.open_file(self, self.tr("Choose Python code"), "Python (*.py)"):
            self.code.setText(path)
            self.factory.setFocus()

    def _on_weights_file(self) -> None:
        pattern = "Weights (*.pth *.pt *.safetensors *.bin *.ckpt);;All files (*)"
        if path := self._chooser.open_file(self, self.tr("Choose weights"), pattern):
            self.weights.setText(path)
