"""What the actions do: ask the user what is needed, tell the session."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QMessageBox, QWidget

from quantgui import __version__
from quantgui.errors import QuantGuiError
from quantgui.gui import numbers
from quantgui.gui.actions import ACTIONS
from quantgui.gui.dialogs.data import DataDialog
from quantgui.gui.dialogs.export import ExportDialog
from quantgui.gui.dialogs.files import FileChooser
from quantgui.gui.dialogs.help import SHORTCUTS, HelpDialog
from quantgui.gui.dialogs.palette import Entry, SearchDialog
from quantgui.gui.dialogs.preferences import PreferencesDialog
from quantgui.gui.dialogs.settings_files import ImportDialog, WriteSettingsDialog
from quantgui.gui.dialogs.verification import VerificationDialog
from quantgui.gui.languages import code_in_use, languages
from quantgui.gui.menus import plain_text
from quantgui.gui.needs import why_not
from quantgui.gui.presenters.network_comparison import NetworkComparisonPresenter
from quantgui.gui.presenters.pytorch import PytorchPresenter
from quantgui.gui.theme import theme_events
from quantgui.results import DataSummary, Exported, ReportWritten, SettingsRead, SettingsWritten, Verification
from quantgui.session.document import Side
from quantgui.session.jobs import Job, JobState
from quantgui.session.recent import RecentFile
from quantgui.session.samples import Sample
from quantgui.session.session import Session
from quantgui.spec.config import changed_layers
from quantgui.spec.formats import IntFormat
from quantgui.spec.presets import PRESETS, Preset
from quantgui.spec.pytorch_source import DEFAULT_OPTIONS, PytorchOptions, is_factory, is_weights
from quantgui.spec.quantizer import bits_of
from quantgui.spec.serialization import load_config

if TYPE_CHECKING:
    from quantgui.gui.main_window import MainWindow

NETWORKS = "Networks (*.onnx *.pt2);;PyTorch code (*.py);;All files (*)"
CONFIGS = "Configuration (*.json)"
SETTINGS = "Settings of other tools (*.json *.encodings *.py *.txt);;All files (*)"
SETTINGS_SUFFIXES = (".encodings", ".py", ".txt")
REPORTS = "Report (*.html)"


class Answer(Enum):
    """What to do with a configuration that has not been saved."""

    SAVE = auto()
    DISCARD = auto()
    CANCEL = auto()


class Commands(QObject):
    """Handlers of all actions.

    Attributes:
        ask_to_save: asks what to do with an unsaved configuration; a test puts its own answer here.

    Signals:
        scheme_chosen: ``system``, ``light`` or ``dark``.
        language_chosen: ``system``, or the code of a language, from the next start on.
        tab_chosen: number of the tab to be shown.
        layout_reset: the panels go back to where they were at first.
        quit_requested: the user wants to leave.
        noticed: a sentence that is worth being seen, and whether it is a failure.
        withdrawn: a sentence that is not true any more.
    """

    scheme_chosen = Signal(str)
    language_chosen = Signal(str)
    tab_chosen = Signal(int)
    layout_reset = Signal()
    quit_requested = Signal()
    noticed = Signal(str, bool)
    withdrawn = Signal(str)

    def __init__(self, session: Session, chooser: FileChooser, window: MainWindow) -> None:
        super().__init__(window)
        self._session = session
        self._chooser = chooser
        self._window = window
        self._complaint = ""
        self.ask_to_save: Callable[[], Answer] = self._ask_to_save
        self.data_dialog: DataDialog | None = None
        self.export_dialog: ExportDialog | None = None
        self.verification_dialog: VerificationDialog | None = None
        self.settings_dialog: WriteSettingsDialog | None = None
        self.import_dialog: ImportDialog | None = None
        self.network_comparison = NetworkComparisonPresenter(session, chooser, window, self)
        self.pytorch = PytorchPresenter(session, chooser, window, self.may_leave, self)
        self.help_dialog: HelpDialog | None = None
        self.search_dialog: SearchDialog | None = None
        self.preferences_dialog: PreferencesDialog | None = None
        session.network_opened.connect(lambda summary: chooser.visit(summary.path))
        session.data_opened.connect(self._on_data_opened)
        session.exported.connect(self._on_exported)
        session.verified.connect(self._on_verified)
        session.settings_written.connect(self._on_settings_written)
        session.settings_read.connect(self._on_settings_read)
        session.report_written.connect(self._on_report_written)
        session.job_changed.connect(self._on_job_changed)

    def handlers(self) -> dict[str, Callable[[], object]]:
        """Return what each action does, by the action's id."""
        bits = {f"bits_{n}": self._setting_bits(n) for n in range(2, 9)}
        tabs = tuple(
            f"tab_{name}"
            for name in ("weights", "channels", "activations", "graph", "sensitivity", "noise", "data", "training")
        )
        return {
            "open": self.open_network,
            "open_pytorch": self.pytorch.ask,
            "data": self.open_data,
            "load_config": self.load_config,
            "save_config": self.save_config,
            "save_config_as": self.save_config_as,
            "export": self.export,
            "verify": self.verify,
            "write_settings": self.write_settings,
            "read_settings": self.read_settings,
            "compare_network": self.network_comparison.choose,
            "report": self.write_report,
            "close": self.close_network,
            "preferences": self.preferences,
            "quit": self.quit_requested.emit,
            "undo": self.undo,
            "redo": self.redo,
            "search": self.search,
            "filter": self.focus_filter,
            "target": self.choose_target,
            "select_all": self.select_all,
            "select_similar": self.select_similar,
            **bits,
            "float": lambda: self._window.presenter.set_weight_format(None),
            "apply_similar": self.apply_to_similar,
            "evaluate": self._session.evaluate,
            "automatic": self.toggle_automatic,
            "calibrate": self._session.calibrate,
            "sensitivity": self.measure_sensitivity,
            "noise": self.trace_noise,
            "check_data": self.check_data,
            "train": self.train,
            "keep_training": self.keep_training,
            "find_mix": self.find_mix,
            "pin_a": lambda: self._pin("A"),
            "pin_b": lambda: self._pin("B"),
            "flip": self.flip,
            "compare": self.compare,
            "stop": self.stop_jobs,
            "restart": self._session.restart_engine,
            **{name: self._showing_tab(place) for place, name in enumerate(tabs)},
            "theme": self.toggle_theme,
            "reset_layout": self.layout_reset.emit,
            "help": self.help,
            "shortcuts": lambda: self.help(SHORTCUTS),
            "about": self.about,
        }

    # --- opening -------------------------------------------------------------------------------------------------

    def open_network(self) -> None:
        """Ask for a network and open it."""
        if path := self._chooser.open_file(self._window, self.tr("Open network"), NETWORKS):
            if path.lower().endswith(".py"):
                # Dropped, it might be another tool's program of settings; here a network has been asked for.
                self.pytorch.ask(path)
            elif is_weights(path):
                self.open_files([path])
            else:
                self.open_path(path)

    def open_path(
        self,
        path: str,
        data: str = "",
        calibration: str = "",
        pytorch: PytorchOptions = DEFAULT_OPTIONS,
        config: str = "",
    ) -> None:
        """Open the network at `path`, then `data`, with the configuration in the file `config` (if any).

        Nothing is opened if the user wants to keep his unsaved work.
        If it is code that he has not agreed to in this session, he is asked first.
        """
        if is_factory(path) and not pytorch.trusted:
            self.pytorch.ask(path, pytorch, data, calibration)
        elif self.may_leave():
            try:
                chosen = load_config(Path(config)) if config else None
            except QuantGuiError as error:
                self._complain_of_file(str(error))
                return
            self._session.open_network(path, data, chosen, calibration=calibration, pytorch=pytorch)

    def open_sample(self, sample: Sample) -> None:
        """Open a sample network with its data."""
        self.open_path(sample.network, sample.evaluation, sample.calibration)

    def open_recent(self, entry: RecentFile) -> None:
        """Open a network again, with the data it was used with if that is still there."""
        data, calibration = (
            source if source.startswith("random:") or (source and Path(source).exists()) else ""
            for source in (entry.data, entry.calibration)
        )
        self.open_path(entry.network, data, calibration, entry.pytorch)

    def open_files(self, paths: list[str]) -> None:
        """Open what has been dropped on the window: a network, data, a configuration, or several of them."""
        networks = [path for path in paths if path.lower().endswith((".onnx", ".pt2"))]
        code, weights = [path for path in paths if path.lower().endswith(".py")], [p for p in paths if is_weights(p)]
        configs = [path for path in paths if path.lower().endswith(".json")]
        settings = [path for path in paths if path.lower().endswith(SETTINGS_SUFFIXES)]
        data = [path for path in paths if path not in networks + configs + settings + weights]
        if networks:
            self.open_path(networks[0], data[0] if data else "")
        elif weights and not code:
            self.pytorch.ask_for_code(weights[0], data[0] if data else "")
        elif code and (weights or self._session.summary is None):
            self.pytorch.ask(code[0], PytorchOptions(next(iter(weights), "")), data[0] if data else "")
        elif self._session.summary is None:
            self.noticed.emit(self.tr("Drop a network (.onnx, .pt2) first: what you dropped belongs to one."), True)
        elif settings:
            self._session.read_settings(settings[0])
        elif configs and not _is_configuration(Path(configs[0])):
            self._session.read_settings(configs[0])
        elif configs:
            self._load(Path(configs[0]))
        elif data:
            self._session.open_data(data[0])

    def close_network(self) -> None:
        """Close the network."""
        if self.may_leave():
            self._session.close_network()

    def open_data(self) -> None:
        """Show the dialog for data and metric."""
        if self._session.summary is None:
            return
        if self.data_dialog is None:
            self.data_dialog = DataDialog(self._chooser, self._window)
            self.data_dialog.data_chosen.connect(self._session.open_data)
            self.data_dialog.metric_chosen.connect(self._session.set_metric)
        self.data_dialog.show_network(self._session.summary.inputs)
        self.data_dialog.show_data(self._session.data)
        self.data_dialog.show_metric(self._session.metric)
        _present(self.data_dialog)

    # --- configuration -------------------------------------------------------------------------------------------

    def may_leave(self) -> bool:
        """Return whether the configuration may be left behind, after asking the user if it is not saved."""
        if self._session.is_saved:
            return True
        match self.ask_to_save():
            case Answer.SAVE:
                return self.save_config()
            case Answer.DISCARD:
                return True
            case Answer.CANCEL:
                return False

    def load_config(self) -> None:
        """Ask for a configuration and take it over."""
        if path := self._chooser.open_file(self._window, self.tr("Load configuration"), CONFIGS):
            self._load(Path(path))

    def save_config(self) -> bool:
        """Save the configuration where it came from; return whether it has been saved."""
        return self._save(self._session.config_path) if self._session.config_path else self.save_config_as()

    def save_config_as(self) -> bool:
        """Ask for a file and save the configuration; return whether it has been saved."""
        summary = self._session.summary
        suggestion = f"{Path(summary.path).stem}.quantization.json" if summary is not None else "quantization.json"
        path = self._chooser.save_file(self._window, self.tr("Save configuration"), suggestion, CONFIGS)
        return bool(path) and self._save(path)

    def undo(self) -> None:
        """Undo, and say what."""
        stack = self._session.undo_stack
        text = stack.undoText()
        stack.undo()
        if text:
            self._window.status.show_notice(self.tr("Undone: {what}").format(what=text))

    def redo(self) -> None:
        """Redo, and say what."""
        stack = self._session.undo_stack
        text = stack.redoText()
        stack.redo()
        if text:
            self._window.status.show_notice(self.tr("Done again: {what}").format(what=text))

    def focus_filter(self) -> None:
        """Let the next keys go to the filter of the layers table."""
        self._window.panels.layers.focus_filter()

    def select_all(self) -> None:
        """Select all layers shown in the table."""
        self._window.panels.layers.table.selectAll()

    def choose_target(self) -> None:
        """Open the list of targets."""
        self._window.status.focus_target()

    def apply_to_similar(self) -> None:
        """Give all layers of the current one's operator its spec."""
        self._window.presenter.apply_to_similar()

    def select_similar(self) -> None:
        """Select all layers with the operator of the current one."""
        current = self._session.current
        if current is not None:
            names = [layer.name for layer in self._session.similar_layers(current.name)]
            self._session.select([current.name, *(name for name in names if name != current.name)])

    def toggle_automatic(self) -> None:
        """Switch evaluation after every change on and off."""
        self._session.evaluates_automatically = not self._session.evaluates_automatically
        self._session.refresh()

    def stop_jobs(self) -> None:
        """Stop everything."""
        for job in self._session.jobs:
            self._session.cancel(job.topic)

    def measure_sensitivity(self) -> None:
        """Show the sensitivity tab, and measure what its settings ask."""
        self._window.tabs.setCurrentWidget(self._window.panels.sensitivity)
        self._window.presenter.sensitivity.measure()

    def find_mix(self) -> None:
        """Show the dialog that looks for a mix."""
        self._window.presenter.trade_off.find_mix()

    def compare(self) -> None:
        """Show A and B layer by layer."""
        self._window.presenter.trade_off.compare()

    def flip(self) -> None:
        """Put A to use, or B if A is in use, and say which."""
        self._window.presenter.trade_off.flip()
        first, second = self._session.pins
        side = "A" if self._session.config == first else "B"
        if first is not None and second is not None:
            self._window.status.show_notice(self.tr("{side} is in use").format(side=side))

    def _pin(self, side: Side) -> None:
        self._window.presenter.trade_off.pin(side)
        self._window.status.show_notice(self.tr("Pinned the present configuration as {side}").format(side=side))

    def trace_noise(self) -> None:
        """Show the noise tab, and trace the present configuration."""
        self._window.tabs.setCurrentWidget(self._window.panels.noise)
        self._window.presenter.noise.trace()

    def check_data(self) -> None:
        """Show the data tab, and check the data with the present configuration."""
        self._window.tabs.setCurrentWidget(self._window.panels.data_check)
        self._window.presenter.data_check.check()

    def train(self) -> None:
        """Show the training tab, and train as its settings say."""
        self._window.tabs.setCurrentWidget(self._window.panels.training)
        self._window.presenter.training.train()

    def keep_training(self) -> None:
        """Make what training has found the configuration, and say so."""
        self._session.keep_training()
        self._window.status.show_notice(self.tr("Trained weights are in use; Undo brings the former ones back"))

    # --- export --------------------------------------------------------------------------------------------------

    def export(self) -> None:
        """Show the export dialog."""
        session = self._session
        if session.summary is None:
            return
        if self.export_dialog is None:
            self.export_dialog = ExportDialog(self._chooser, self._window)
            self.export_dialog.export_requested.connect(session.export)
            self.export_dialog.cancel_requested.connect(lambda: session.cancel("export"))
            self.export_dialog.verify_requested.connect(session.verify)
        source = Path(session.summary.path).absolute()
        # Names of configurations are free text, those of files are not.
        name = re.sub(r"[^\w.+-]+", "-", session.config.name).strip("-.") or "quantized"
        folder = source.parent if os.access(source.parent, os.W_OK) else Path.home()
        self.export_dialog.show_plan(str(folder / f"{source.stem}.{name}.onnx"), self._plan())
        _present(self.export_dialog)

    def write_settings(self) -> None:
        """Show the dialog that writes files of other tools."""
        session = self._session
        if session.summary is None:
            return
        if self.settings_dialog is None:
            self.settings_dialog = WriteSettingsDialog(self._chooser, self._window)
            self.settings_dialog.write_requested.connect(session.write_settings)
            self.settings_dialog.cancel_requested.connect(lambda: session.cancel("settings"))
        self.settings_dialog.show_plan(
            self._stem(), has_data=session.data is not None, has_sensitivity=session.sensitivity is not None
        )
        _present(self.settings_dialog)

    def read_settings(self) -> None:
        """Ask for the file of another tool and look at it."""
        if path := self._chooser.open_file(self._window, self.tr("Import settings"), SETTINGS):
            self._session.read_settings(path)

    def write_report(self) -> None:
        """Ask for a file and write the report."""
        suggestion = f"{self._stem()}.html"
        if path := self._chooser.save_file(self._window, self.tr("Write report"), suggestion, REPORTS):
            self._session.write_report(path if Path(path).suffix else f"{path}.html")

    def _stem(self) -> Path:
        """Return where files about the configuration go, without a suffix."""
        assert self._session.summary is not None
        source = Path(self._session.summary.path).absolute()
        name = re.sub(r"[^\w.+-]+", "-", self._session.config.name).strip("-.") or "quantized"
        folder = source.parent if os.access(source.parent, os.W_OK) else Path.home()
        return folder / f"{source.stem}.{name}"

    def _on_settings_written(self, written: SettingsWritten) -> None:
        if self.settings_dialog is not None:
            self.settings_dialog.show_written(written)

    def _on_settings_read(self, settings: SettingsRead) -> None:
        session = self._session
        if session.summary is None:
            return
        if self.import_dialog is None:
            self.import_dialog = ImportDialog(self._window)
            self.import_dialog.accepted_settings.connect(self._take_settings)
        editable = [layer.name for layer in session.summary.layers if session.is_editable(layer.name)]
        changed = changed_layers(session.config, settings.config, editable)
        self.import_dialog.show_settings(settings, len(changed), len(session.summary.layers))
        _present(self.import_dialog)

    def _take_settings(self, settings: SettingsRead) -> None:
        self._session.set_config(settings.config, self.tr("Import {name}").format(name=Path(settings.path).name))

    def _on_report_written(self, report: ReportWritten) -> None:
        words = self.tr("Report written: {name} ({size})")
        name, size = Path(report.path).name, numbers.data_size(report.file_bytes)
        self._window.status.show_notice(words.format(name=name, size=size))

    def verify(self) -> None:
        """Verify the file exported last, or one the user chooses."""
        exported = self._session.last_export
        path = exported.path if exported is not None and Path(exported.path).is_file() else ""
        path = path or self._chooser.open_file(self._window, self.tr("Verify an exported file"), NETWORKS)
        if path:
            self._session.verify(path)

    def _plan(self) -> str:
        session = self._session
        assert session.summary is not None
        layers = session.summary.layers
        specs = [session.spec_for(layer.name) for layer in layers]
        quantized = sum(spec.weights is not None for spec in specs)
        activations = sum(spec.activations is not None for spec in specs)
        before, after = numbers.data_size(session.summary.float_bytes), numbers.data_size(session.size())
        sentence = self.tr(
            "{n} of {all} layers with quantized weights, {a} with quantized activations: {b} → {c}."
        ).format(n=quantized, all=len(layers), a=activations, b=before, c=after)
        odd = {bits_of(spec.weights) for spec in specs if spec.weights is not None and spec.weights.is_integer}
        if odd - {2, 4, 8, 16}:
            sentence += "\n" + self.tr("Odd bit-widths are stored in the next larger type of ONNX.")
        return sentence

    # --- window --------------------------------------------------------------------------------------------------

    def search(self) -> None:
        """Show the search."""
        if self.search_dialog is None:
            self.search_dialog = SearchDialog(self._window)
        self.search_dialog.show_entries(self._entries())
        corner = self._window.mapToGlobal(self._window.rect().topLeft())
        self.search_dialog.move(corner.x() + (self._window.width() - self.search_dialog.width()) // 2, corner.y() + 70)

    def help(self, page: str = "") -> None:
        """Show the help."""
        if self.help_dialog is None:
            self.help_dialog = HelpDialog(self._window)
        if page:
            self.help_dialog.show_page(page)
        _present(self.help_dialog)

    def preferences(self) -> None:
        """Show the preferences."""
        if self.preferences_dialog is None:
            known = languages()
            language = code_in_use(self._window.language, known)
            self.preferences_dialog = PreferencesDialog(theme_events().scheme, known, language, self._window)
            self.preferences_dialog.language_chosen.connect(self.language_chosen)
            self.preferences_dialog.scheme_chosen.connect(self.scheme_chosen)
        self.preferences_dialog.show_scheme(theme_events().scheme)
        _present(self.preferences_dialog)

    def toggle_theme(self) -> None:
        """Switch between light and dark."""
        self.scheme_chosen.emit("light" if theme_events().tokens.is_dark else "dark")

    def about(self) -> None:
        """Show version and licence."""
        box = QMessageBox(self._window)
        box.setWindowTitle(self.tr("About quantgui"))
        box.setText(
            self.tr(
                "quantgui {version}\nThe bench on which you decide how a neural network is quantized.\n\n"
                "Apache License 2.0. Fonts: Inter, JetBrains Mono (OFL). Icons: Lucide (ISC)."
            ).format(version=__version__)
        )
        box.open()

    def _entries(self) -> list[Entry]:
        session, handlers = self._session, self.handlers()
        found = [
            Entry(
                plain_text(spec),
                self.tr("action"),
                handlers[spec.id],
                why_not(spec.needs, session),
            )
            for spec in ACTIONS
            if spec.id != "search"
        ]
        reason = "" if session.summary is not None else self.tr("Open a network first.")
        found += [Entry(preset.name, self.tr("preset"), self._applying(preset), reason) for preset in PRESETS]
        if session.summary is not None:
            found += [Entry(x.name, x.op, self._selecting(x.name)) for x in session.summary.layers]
        return found

    # --- what the session says -----------------------------------------------------------------------------------

    def _on_data_opened(self, summary: DataSummary) -> None:
        if self.data_dialog is not None:
            self.data_dialog.show_data(summary)

    def _on_exported(self, exported: Exported) -> None:
        if self.export_dialog is not None:
            self.export_dialog.show_exported(exported, can_verify=self._session.data is not None)

    def _on_verified(self, result: Verification) -> None:
        if self.verification_dialog is None:
            self.verification_dialog = VerificationDialog(self._window)
            self.verification_dialog.layer_activated.connect(self._look_at)
        self.verification_dialog.show_verification(result)
        _present(self.verification_dialog)

    def _look_at(self, layer: str) -> None:
        if self._session.layer(layer) is not None:
            self._session.select((layer,))

    def _on_job_changed(self, job: Job) -> None:
        if job.topic == "export" and self.export_dialog is not None:
            if job.state is JobState.RUNNING:
                self.export_dialog.show_progress(job.progress)
            elif job.state in (JobState.FAILED, JobState.CANCELLED):
                self.export_dialog.show_failure(job.sentence or self.tr("Stopped; nothing was written."))
        if job.topic == "settings" and self.settings_dialog is not None:
            if job.state is JobState.RUNNING:
                self.settings_dialog.show_progress(job.progress)
            elif job.state is JobState.CANCELLED:
                self.settings_dialog.show_stopped()
            elif job.state is JobState.FAILED:
                self.settings_dialog.show_failure(job.sentence)
        if job.topic in ("data", "metric") and self.data_dialog is not None and job.state is JobState.FAILED:
            self.data_dialog.show_failure(job.sentence)

    # --- parts ---------------------------------------------------------------------------------------------------

    def _load(self, path: Path) -> None:
        try:
            unknown = self._session.load_config(path)
        except QuantGuiError as error:
            self._complain_of_file(str(error))
            return
        more = self.tr(" ({n} names in all)").format(n=len(unknown)) if len(unknown) > 1 else ""
        self._complain_of_file(f"{unknown[0]}{more}" if unknown else "")

    def _save(self, path: str) -> bool:
        try:
            self._session.save_config(Path(path))
        except QuantGuiError as error:
            self._complain_of_file(str(error))
            return False
        self._complain_of_file("")
        self._window.status.show_notice(self.tr("Saved {name}").format(name=Path(path).name))
        return True

    def _complain_of_file(self, sentence: str) -> None:
        """Say what is wrong with a configuration file, or take back what was said of the last one."""
        if self._complaint:
            self.withdrawn.emit(self._complaint)
        self._complaint = sentence
        if sentence:
            self.noticed.emit(sentence, True)

    def _ask_to_save(self) -> Answer:
        box = QMessageBox(self._window)
        box.setIcon(QMessageBox.Icon.Question)
        box.setWindowTitle(self.tr("Unsaved configuration"))
        box.setText(self.tr("Save the configuration before you leave it?"))
        save = box.addButton(self.tr("Save"), QMessageBox.ButtonRole.AcceptRole)
        discard = box.addButton(self.tr("Discard"), QMessageBox.ButtonRole.DestructiveRole)
        box.addButton(self.tr("Cancel"), QMessageBox.ButtonRole.RejectRole)
        box.setDefaultButton(save)
        box.exec()
        clicked = box.clickedButton()
        box.deleteLater()
        return Answer.SAVE if clicked is save else Answer.DISCARD if clicked is discard else Answer.CANCEL

    def _setting_bits(self, bits: int) -> Callable[[], None]:
        return lambda: self._window.presenter.set_weight_format(IntFormat(bits))

    def _showing_tab(self, place: int) -> Callable[[], None]:
        return lambda: self.tab_chosen.emit(place)

    def _applying(self, preset: Preset) -> Callable[[], None]:
        return lambda: self._window.presenter.apply_preset(preset)

    def _selecting(self, name: str) -> Callable[[], None]:
        return lambda: self._session.select((name,))


def _is_configuration(path: Path) -> bool:
    """Return whether a file is a configuration of this program; one that cannot be read shall complain as such."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True
    return not isinstance(value, dict) or "default" in value


def _present(dialog: QWidget) -> None:
    dialog.show()
    dialog.raise_()
    dialog.activateWindow()
