"""Every action of the window, declared once: menus, toolbar, shortcuts and the help page of keys come from here."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtGui import QKeySequence

from quantgui.gui.needs import Need
from quantgui.gui.texts import QT_TR_NOOP, translate

Key = QKeySequence.StandardKey


@dataclass(frozen=True, slots=True)
class ActionSpec:
    """One action. Handlers are looked up by `id`; `toolbar` is the short text on its button, empty for none.

    `keys` work where no widget with the focus wants them, as lines of text do; `shortcut` works everywhere.
    """

    id: str
    text: str
    menu: str
    help: str
    shortcut: Key | str = ""
    icon: str = ""
    toolbar: str = ""
    needs: tuple[Need, ...] = ()
    checkable: bool = False
    keys: str = ""
    separator: bool = False
    """Whether a line stands above it in the menu."""
    number: int = 0
    """What stands for ``{n}`` in its texts."""

    def words(self, text: str) -> str:
        """Return one of its texts in the user's language."""
        return tr(text).replace("{n}", str(self.number))


FILE, EDIT, LAYERS, QUALITY = QT_TR_NOOP("&File"), QT_TR_NOOP("&Edit"), QT_TR_NOOP("&Layers"), QT_TR_NOOP("&Quality")
ANALYZE, REPAIR, VIEW = QT_TR_NOOP("&Analyze"), QT_TR_NOOP("&Repair"), QT_TR_NOOP("&View")
HELP = QT_TR_NOOP("&Help")
MENUS = (FILE, EDIT, LAYERS, QUALITY, ANALYZE, REPAIR, VIEW, HELP)

_N, _S = (Need.NETWORK,), (Need.NETWORK, Need.SELECTION, Need.EDITABLE)

ACTIONS: tuple[ActionSpec, ...] = (
    ActionSpec(
        "open",
        QT_TR_NOOP("&Open network…"),
        FILE,
        QT_TR_NOOP("Open a network (.onnx, or .pt2 of torch.export)."),
        Key.Open,
        "folder-open",
        QT_TR_NOOP("Open"),
    ),
    ActionSpec(
        "open_pytorch",
        QT_TR_NOOP("Open &PyTorch network…"),
        FILE,
        QT_TR_NOOP("Open a network that Python code makes, with its weights; the code is run once you agree."),
        "Ctrl+Shift+O",
    ),
    ActionSpec(
        "data",
        QT_TR_NOOP("Open &data…"),
        FILE,
        QT_TR_NOOP("Open data to calibrate on and to measure quality with, or choose your own metric."),
        "Ctrl+D",
        "database",
        QT_TR_NOOP("Data"),
        _N,
    ),
    ActionSpec(
        "load_config",
        QT_TR_NOOP("&Load configuration…"),
        FILE,
        QT_TR_NOOP("Take over a configuration from a JSON file, in one undo step."),
        "Ctrl+L",
        needs=_N,
        separator=True,
    ),
    ActionSpec(
        "save_config",
        QT_TR_NOOP("&Save configuration"),
        FILE,
        QT_TR_NOOP("Write the configuration as JSON."),
        Key.Save,
        "save",
        needs=_N,
    ),
    ActionSpec(
        "save_config_as",
        QT_TR_NOOP("Save configuration &as…"),
        FILE,
        QT_TR_NOOP("Write the configuration to another JSON file."),
        "Ctrl+Shift+S",
        needs=_N,
    ),
    ActionSpec(
        "export",
        QT_TR_NOOP("&Export…"),
        FILE,
        QT_TR_NOOP("Write the quantized network as ONNX with QuantizeLinear and DequantizeLinear."),
        "Ctrl+E",
        "file-output",
        QT_TR_NOOP("Export"),
        (Need.NETWORK, Need.NO_EXPORT_RUNNING),
        separator=True,
    ),
    ActionSpec(
        "verify",
        QT_TR_NOOP("&Verify…"),
        FILE,
        QT_TR_NOOP("Run an exported file as a user's runtime would, and compare it with what the window shows."),
        "Ctrl+Shift+E",
        "shield-check",
        QT_TR_NOOP("Verify"),
        (Need.NETWORK, Need.DATA),
    ),
    ActionSpec(
        "write_settings",
        QT_TR_NOOP("Export for other &tools…"),
        FILE,
        QT_TR_NOOP("Write the configuration as the file of another tool: AIMET, torchao, Quark and others."),
        "Ctrl+Alt+E",
        needs=_N,
    ),
    ActionSpec(
        "read_settings",
        QT_TR_NOOP("&Import settings…"),
        FILE,
        QT_TR_NOOP("Look at the file of another tool, and take it over in one undo step."),
        "Ctrl+I",
        needs=_N,
    ),
    ActionSpec(
        "compare_network",
        QT_TR_NOOP("Compare with a quantized &file…"),
        FILE,
        QT_TR_NOOP("Run a network that another tool has quantized beside the configuration, layer by layer."),
        "Ctrl+Shift+I",
        needs=(Need.NETWORK, Need.DATA),
    ),
    ActionSpec(
        "report",
        QT_TR_NOOP("&Write report…"),
        FILE,
        QT_TR_NOOP("Write all that is known of the configuration as one HTML file that opens without network."),
        "Ctrl+R",
        needs=_N,
    ),
    ActionSpec(
        "close",
        QT_TR_NOOP("&Close network"),
        FILE,
        QT_TR_NOOP("Close the network and go back to the welcome page."),
        Key.Close,
        needs=_N,
        separator=True,
    ),
    ActionSpec(
        "preferences",
        QT_TR_NOOP("&Preferences…"),
        FILE,
        QT_TR_NOOP("Choose the look of the window and its language."),
        "Ctrl+,",
        "settings",
    ),
    ActionSpec("quit", QT_TR_NOOP("&Quit"), FILE, QT_TR_NOOP("Leave the program."), "Ctrl+Q"),
    ActionSpec(
        "undo",
        QT_TR_NOOP("&Undo"),
        EDIT,
        QT_TR_NOOP("Take back the last change of the configuration."),
        Key.Undo,
        "undo-2",
        QT_TR_NOOP("Undo"),
        (Need.UNDO,),
    ),
    ActionSpec(
        "redo",
        QT_TR_NOOP("&Redo"),
        EDIT,
        QT_TR_NOOP("Repeat the change that was taken back last."),
        "Ctrl+Shift+Z",
        "redo-2",
        QT_TR_NOOP("Redo"),
        (Need.REDO,),
    ),
    ActionSpec(
        "search",
        QT_TR_NOOP("&Search…"),
        EDIT,
        QT_TR_NOOP("Find a layer, an action or a preset by typing a part of its name."),
        "Ctrl+K",
        "search",
        QT_TR_NOOP("Search"),
        separator=True,
    ),
    ActionSpec(
        "filter",
        QT_TR_NOOP("&Filter layers"),
        EDIT,
        QT_TR_NOOP("Put the cursor into the filter of the layers table."),
        Key.Find,
        "filter",
        needs=_N,
    ),
    ActionSpec(
        "target",
        QT_TR_NOOP("Choose the &target"),
        EDIT,
        QT_TR_NOOP("Open the list of what the network can be meant to run on."),
        "Ctrl+G",
        needs=_N,
    ),
    ActionSpec(
        "select_all",
        QT_TR_NOOP("Select &all layers"),
        LAYERS,
        QT_TR_NOOP("Select every layer that the filter shows."),
        keys="Ctrl+A",
        needs=_N,
    ),
    ActionSpec(
        "select_similar",
        QT_TR_NOOP("Select layers of the same &operator"),
        LAYERS,
        QT_TR_NOOP("Select every layer with the operator of the current one."),
        "Ctrl+Shift+A",
        needs=(Need.NETWORK, Need.SELECTION),
    ),
    *(
        ActionSpec(
            f"bits_{bits}",
            QT_TR_NOOP("Weights of &{n} bits"),
            LAYERS,
            QT_TR_NOOP("Give the weights of the selected layers {n} bits."),
            keys=str(bits),
            needs=_S,
            separator=bits == 2,
            number=bits,
        )
        for bits in range(2, 9)
    ),
    ActionSpec(
        "float",
        QT_TR_NOOP("&Float"),
        LAYERS,
        QT_TR_NOOP("Keep weights and activations of the selected layers float32."),
        keys="F",
        needs=_S,
    ),
    ActionSpec(
        "apply_similar",
        QT_TR_NOOP("Apply to all of the same operator"),
        LAYERS,
        QT_TR_NOOP("Give every layer of the same operator the settings of the current one."),
        needs=_S,
        separator=True,
    ),
    ActionSpec(
        "evaluate",
        QT_TR_NOOP("&Evaluate"),
        QUALITY,
        QT_TR_NOOP("Measure the quality of the current configuration on all samples."),
        "F5",
        "play",
        QT_TR_NOOP("Evaluate"),
        (Need.NETWORK, Need.DATA, Need.NOT_EVALUATED),
    ),
    ActionSpec(
        "automatic",
        QT_TR_NOOP("Evaluate by &itself"),
        QUALITY,
        QT_TR_NOOP("Evaluate after every change; the newest change wins."),
        checkable=True,
    ),
    ActionSpec(
        "calibrate",
        QT_TR_NOOP("&Calibrate"),
        QUALITY,
        QT_TR_NOOP("Collect the ranges of all activations from the data."),
        needs=(Need.NETWORK, Need.DATA),
    ),
    ActionSpec(
        "stop",
        QT_TR_NOOP("&Stop all jobs"),
        QUALITY,
        QT_TR_NOOP("Stop everything the engine is doing."),
        "Ctrl+.",
        "square",
        needs=(Need.JOBS,),
        separator=True,
    ),
    ActionSpec(
        "restart",
        QT_TR_NOOP("&Restart the engine"),
        QUALITY,
        QT_TR_NOOP("End the engine process and start a new one; your work is kept."),
        icon="refresh-cw",
    ),
    ActionSpec(
        "sensitivity",
        QT_TR_NOOP("Measure &sensitivity"),
        ANALYZE,
        QT_TR_NOOP("Measure how much the network suffers when one layer at a time gets fewer bits."),
        "F6",
        "gauge",
        QT_TR_NOOP("Sensitivity"),
        (Need.NETWORK, Need.LAYERS, Need.DATA, Need.NO_SWEEP_RUNNING),
    ),
    ActionSpec(
        "find_mix",
        QT_TR_NOOP("Find &mix…"),
        ANALYZE,
        QT_TR_NOOP("Find the best format for each layer within a limit of size, quality or time."),
        "F7",
        "chart-scatter",
        QT_TR_NOOP("Find mix"),
        (Need.NETWORK, Need.LAYERS),
    ),
    ActionSpec(
        "noise",
        QT_TR_NOOP("Trace &noise"),
        ANALYZE,
        QT_TR_NOOP("Find out where the present configuration makes noise, and which samples pay for it."),
        "F8",
        "activity",
        needs=(Need.NETWORK, Need.DATA, Need.NO_TRACE_RUNNING, Need.QUANTIZED),
    ),
    ActionSpec(
        "check_data",
        QT_TR_NOOP("Check the &data"),
        ANALYZE,
        QT_TR_NOOP("See whether the data fits the network, and what the ranges of activations rest on."),
        "F10",
        "database",
        needs=(Need.NETWORK, Need.DATA),
    ),
    ActionSpec(
        "pin_a",
        QT_TR_NOOP("Pin as &A"),
        ANALYZE,
        QT_TR_NOOP("Hold the present configuration as A."),
        "Ctrl+1",
        needs=_N,
        separator=True,
    ),
    ActionSpec(
        "pin_b",
        QT_TR_NOOP("Pin as &B"),
        ANALYZE,
        QT_TR_NOOP("Hold the present configuration as B."),
        "Ctrl+2",
        needs=_N,
    ),
    ActionSpec(
        "flip",
        QT_TR_NOOP("&Flip A | B"),
        ANALYZE,
        QT_TR_NOOP("Put A to use, or B if A is in use; any number of flips in a row are one undo step."),
        "Ctrl+B",
        "git-compare-arrows",
        QT_TR_NOOP("A | B"),
        (Need.NETWORK, Need.PINS),
        checkable=True,
    ),
    ActionSpec(
        "compare",
        QT_TR_NOOP("&Compare A and B…"),
        ANALYZE,
        QT_TR_NOOP("See which layers differ between A and B, in formats, bytes and error."),
        "Ctrl+Shift+B",
        needs=(Need.NETWORK, Need.PINS),
    ),
    ActionSpec(
        "train",
        QT_TR_NOOP("&Train"),
        REPAIR,
        QT_TR_NOOP("Let weights and scales adapt to their formats in small steps; nothing changes until you keep it."),
        "F9",
        "graduation-cap",
        QT_TR_NOOP("Train"),
        (Need.NETWORK, Need.DATA, Need.NO_TRAINING_RUNNING, Need.QUANTIZED),
    ),
    ActionSpec(
        "keep_training",
        QT_TR_NOOP("&Keep trained weights"),
        REPAIR,
        QT_TR_NOOP("Make the best that training has found the configuration, in one undo step; training stops."),
        "Shift+F9",
        needs=(Need.NETWORK, Need.TRAINED),
    ),
    ActionSpec(
        "tab_weights",
        QT_TR_NOOP("&Weights tab"),
        VIEW,
        QT_TR_NOOP("Show the weights of the current layer."),
        "Alt+1",
        needs=_N,
    ),
    ActionSpec(
        "tab_channels",
        QT_TR_NOOP("&Channels tab"),
        VIEW,
        QT_TR_NOOP("Show the range of every channel."),
        "Alt+2",
        needs=_N,
    ),
    ActionSpec(
        "tab_activations",
        QT_TR_NOOP("&Activations tab"),
        VIEW,
        QT_TR_NOOP("Show what flows through the current layer."),
        "Alt+3",
        needs=_N,
    ),
    ActionSpec(
        "tab_graph", QT_TR_NOOP("&Graph tab"), VIEW, QT_TR_NOOP("Show the network drawn as a graph."), "Alt+4", needs=_N
    ),
    ActionSpec(
        "tab_sensitivity",
        QT_TR_NOOP("&Sensitivity tab"),
        VIEW,
        QT_TR_NOOP("Show how much the network suffers from each layer."),
        "Alt+5",
        needs=_N,
    ),
    ActionSpec(
        "tab_noise",
        QT_TR_NOOP("&Noise tab"),
        VIEW,
        QT_TR_NOOP("Show where noise is made and what it does."),
        "Alt+6",
        needs=_N,
    ),
    ActionSpec(
        "tab_data",
        QT_TR_NOOP("&Data tab"),
        VIEW,
        QT_TR_NOOP("Show the samples and whether they fit the network."),
        "Alt+7",
        needs=_N,
    ),
    ActionSpec(
        "tab_training",
        QT_TR_NOOP("&Training tab"),
        VIEW,
        QT_TR_NOOP("Show the training: loss, quality and settings."),
        "Alt+8",
        needs=_N,
    ),
    ActionSpec(
        "theme",
        QT_TR_NOOP("Light or dark"),
        VIEW,
        QT_TR_NOOP("Switch between the light and the dark look."),
        "Ctrl+T",
        "sun-moon",
        separator=True,
    ),
    ActionSpec(
        "reset_layout",
        QT_TR_NOOP("&Reset the layout"),
        VIEW,
        QT_TR_NOOP("Put all panels back to where they were at first."),
    ),
    ActionSpec(
        "help",
        QT_TR_NOOP("&Help"),
        HELP,
        QT_TR_NOOP("Read what the panels and settings mean."),
        Key.HelpContents,
        "circle-help",
    ),
    ActionSpec(
        "shortcuts", QT_TR_NOOP("&Keyboard shortcuts"), HELP, QT_TR_NOOP("See every key."), "Ctrl+/", "keyboard"
    ),
    ActionSpec("about", QT_TR_NOOP("&About quantgui"), HELP, QT_TR_NOOP("See version and licence."), separator=True),
)


def tr(text: str) -> str:
    """Return a text of the table in the user's language; outside of classes QT_TR_NOOP marks it for no context."""
    return translate("", text)
