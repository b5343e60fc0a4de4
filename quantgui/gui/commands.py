"""What the actions do: ask the user what is needed, tell the session."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QObject, QSettings, Signal
from PySide6.QtWidgets import QMessageBox, QWidget

from quantgui import __version__
from quantgui.gui.actions import ACTIONS
from quantgui.gui.dialogs.files import FileChooser
from quantgui.gui.dialogs.help import SHORTCUTS, HelpDialog
from quantgui.gui.dialogs.palette import Entry, SearchDialog
from quantgui.gui.menus import plain_text
from quantgui.gui.needs import why_not
from quantgui.gui.presenters.configuration_file import ConfigurationFilePresenter
from quantgui.gui.presenters.data import DataPresenter
from quantgui.gui.presenters.export import ExportPresenter
from quantgui.gui.presenters.network_comparison import NetworkComparisonPresenter
from quantgui.gui.presenters.preferences import PreferencesPresenter
from quantgui.gui.presenters.pytorch import PytorchPresenter
from quantgui.gui.presenters.settings_files import SUFFIXES, SettingsFilesPresenter
from quantgui.gui.widgets.front import bring_to_front
from quantgui.gui.workspace import Workspace
from quantgui.session.document import Side
from quantgui.session.recent import RecentFile
from quantgui.session.samples import Sample
from quantgui.session.session import Session
from quantgui.spec.formats import IntFormat
from quantgui.spec.presets import PRESETS, Preset
from quantgui.spec.pytorch_source import DEFAULT_OPTIONS, PytorchOptions, is_factory, is_weights

NETWORKS = "Networks (*.onnx *.pt2);;PyTorch code (*.py);;All files (*)"
TABS = ("weights", "channels", "activations", "graph", "sensitivity", "noise", "data", "training")
"""The tabs in their order, as the actions that show them name them."""


class Commands(QObject):
    """Handlers of all actions; those that need dialogs have presenters of their own.

    Args:
        session: the open document.
        workspace: the panels that actions turn to.
        chooser: asks for files.
        settings: where look and language are kept.
        window: what dialogs belong to; closing it leaves the program.

    Signals:
        noticed: a sentence on why something cannot be done.
    """

    noticed = Signal(str)

    def __init__(
        self, session: Session, workspace: Workspace, chooser: FileChooser, settings: QSettings, window: QWidget
    ) -> None:
        super().__init__(window)
        self._session = session
        self._workspace = workspace
        self._chooser = chooser
        self._window = window
        self.configuration_file = ConfigurationFilePresenter(session, chooser, window, self)
        self.data = DataPresenter(session, chooser, window, self)
        self.exports = ExportPresenter(session, chooser, workspace.status, window, self)
        self.settings_files = SettingsFilesPresenter(session, chooser, window, self)
        self.network_comparison = NetworkComparisonPresenter(session, chooser, window, self)
        self.pytorch = PytorchPresenter(session, chooser, window, self.configuration_file.may_leave, self)
        self.preferences = PreferencesPresenter(settings, window, self)
        self.help_dialog: HelpDialog | None = None
        self.search_dialog: SearchDialog | None = None
        self.configuration_file.saved.connect(self._on_saved)
        session.network_opened.connect(lambda summary: chooser.visit(summary.path))

    def handlers(self) -> dict[str, Callable[[], object]]:
        """Return what each action does, by the action's id."""
        bits = {f"bits_{n}": self._setting_bits(n) for n in range(2, 9)}
        tabs = {f"tab_{name}": self._showing_tab(place) for place, name in enumerate(TABS)}
        return {
            "open": self.open_network,
            "open_pytorch": self.pytorch.ask,
            "data": self.data.show,
            "load_config": self.configuration_file.choose,
            "save_config": self.configuration_file.save,
            "save_config_as": self.configuration_file.save_as,
            "export": self.exports.show,
            "verify": self.exports.verify,
            "write_settings": self.settings_files.show,
            "read_settings": self.settings_files.choose,
            "compare_network": self.network_comparison.choose,
            "report": self.exports.write_report,
            "close": self.close_network,
            "preferences": self.preferences.show,
            "quit": self._window.close,
            "undo": self.undo,
            "redo": self.redo,
            "search": self.search,
            "filter": self.focus_filter,
            "target": self.choose_target,
            "select_all": self.select_all,
            "select_similar": self.select_similar,
            **bits,
            "float": lambda: self._workspace.presenter.set_weight_format(None),
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
            **tabs,
            "theme": self.preferences.toggle_theme,
            "reset_layout": self.reset_layout,
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
        elif self.configuration_file.may_leave():
            chosen = self.configuration_file.read(Path(config)) if config else None
            if config and chosen is None:
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
        settings = [path for path in paths if path.lower().endswith(SUFFIXES)]
        data = [path for path in paths if path not in networks + configs + settings + weights]
        if networks:
            self.open_path(networks[0], data[0] if data else "")
        elif weights and not code:
            self.pytorch.ask_for_code(weights[0], data[0] if data else "")
        elif code and (weights or self._session.summary is None):
            self.pytorch.ask(code[0], PytorchOptions(next(iter(weights), "")), data[0] if data else "")
        elif self._session.summary is None:
            self.noticed.emit(self.tr("Drop a network (.onnx, .pt2) first: what you dropped belongs to one."))
        elif settings:
            self._session.read_settings(settings[0])
        elif configs and not _is_configuration(Path(configs[0])):
            self._session.read_settings(configs[0])
        elif configs:
            self.configuration_file.load(Path(configs[0]))
        elif data:
            self._session.open_data(data[0])

    def close_network(self) -> None:
        """Close the network."""
        if self.configuration_file.may_leave():
            self._session.close_network()

    # --- layers --------------------------------------------------------------------------------------------------

    def undo(self) -> None:
        """Undo, and say what."""
        stack = self._session.undo_stack
        text = stack.undoText()
        stack.undo()
        if text:
            self._workspace.status.show_notice(self.tr("Undone: {what}").format(what=text))

    def redo(self) -> None:
        """Redo, and say what."""
        stack = self._session.undo_stack
        text = stack.redoText()
        stack.redo()
        if text:
            self._workspace.status.show_notice(self.tr("Done again: {what}").format(what=text))

    def focus_filter(self) -> None:
        """Let the next keys go to the filter of the layers table."""
        self._workspace.panels.layers.focus_filter()

    def select_all(self) -> None:
        """Select all layers shown in the table."""
        self._workspace.panels.layers.table.selectAll()

    def choose_target(self) -> None:
        """Open the list of targets."""
        self._workspace.status.focus_target()

    def apply_to_similar(self) -> None:
        """Give all layers of the current one's operator its spec."""
        self._workspace.presenter.apply_to_similar()

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
        self._workspace.tabs.setCurrentWidget(self._workspace.panels.sensitivity)
        self._workspace.presenter.sensitivity.measure()

    def find_mix(self) -> None:
        """Show the dialog that looks for a mix."""
        self._workspace.presenter.trade_off.find_mix()

    def compare(self) -> None:
        """Show A and B layer by layer."""
        self._workspace.presenter.pins.compare()

    def flip(self) -> None:
        """Put A to use, or B if A is in use, and say which."""
        self._workspace.presenter.pins.flip()
        first, second = self._session.pins
        side = "A" if self._session.config == first else "B"
        if first is not None and second is not None:
            self._workspace.status.show_notice(self.tr("{side} is in use").format(side=side))

    def _pin(self, side: Side) -> None:
        self._workspace.presenter.pins.pin(side)
        self._workspace.status.show_notice(self.tr("Pinned the present configuration as {side}").format(side=side))

    def trace_noise(self) -> None:
        """Show the noise tab, and trace the present configuration."""
        self._workspace.tabs.setCurrentWidget(self._workspace.panels.noise)
        self._workspace.presenter.noise.trace()

    def check_data(self) -> None:
        """Show the data tab, and check the data with the present configuration."""
        self._workspace.tabs.setCurrentWidget(self._workspace.panels.data_check)
        self._workspace.presenter.data_check.check()

    def train(self) -> None:
        """Show the training tab, and train as its settings say."""
        self._workspace.tabs.setCurrentWidget(self._workspace.panels.training)
        self._workspace.presenter.training.train()

    def keep_training(self) -> None:
        """Make what training has found the configuration, and say so."""
        self._session.keep_training()
        self._workspace.status.show_notice(self.tr("Trained weights are in use; Undo brings the former ones back"))

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
        bring_to_front(self.help_dialog)

    def reset_layout(self) -> None:
        """Put all panels back to where they were at first."""
        self._workspace.reset(self._window.size())

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

    # --- parts ---------------------------------------------------------------------------------------------------

    def _on_saved(self, path: str) -> None:
        self._workspace.status.show_notice(self.tr("Saved {name}").format(name=Path(path).name))

    def _setting_bits(self, bits: int) -> Callable[[], None]:
        return lambda: self._workspace.presenter.set_weight_format(IntFormat(bits))

    def _showing_tab(self, place: int) -> Callable[[], None]:
        return lambda: self._workspace.tabs.setCurrentIndex(place)

    def _applying(self, preset: Preset) -> Callable[[], None]:
        return lambda: self._workspace.presenter.apply_preset(preset)

    def _selecting(self, name: str) -> Callable[[], None]:
        return lambda: self._session.select((name,))


def _is_configuration(path: Path) -> bool:
    """Return whether a file is a configuration of this program; one that cannot be read shall complain as such."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True
    return not isinstance(value, dict) or "default" in value
