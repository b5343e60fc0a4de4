"""Design tokens, and what they become: palette, style sheet, fonts. Light and dark, switched while running.

All colours of the window come from one `Tokens` value. `apply_theme` turns it into a palette and a style sheet on the
Fusion style; things that paint themselves (plots, the graph, icons) listen to ``theme_events().changed``.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from functools import cache
from typing import Literal

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QColor, QFont, QFontDatabase, QPalette
from PySide6.QtWidgets import QApplication

from quantgui.paths import resources

Scheme = Literal["system", "light", "dark"]

FONT_PIXELS = 13
SMALL_PIXELS = 12
AXIS_PIXELS = 11
GAP = 8
"""Pixels between cards."""
FONT_FAMILIES = ("Inter", "Noto Sans", "DejaVu Sans", "sans-serif")
MONO_FAMILIES = ("JetBrains Mono", "DejaVu Sans Mono", "monospace")


@dataclass(frozen=True, slots=True)
class Tokens:
    """The colours of one scheme, as ``#rrggbb``.

    `float_` and `quantized` are a colour-blind safe pair (blue, orange); `error` is used for errors alone.
    """

    window: str
    base: str
    panel: str
    raised: str
    border: str
    text: str
    muted: str
    accent: str
    on_accent: str
    float_: str
    quantized: str
    error: str
    good: str
    warning: str
    bad: str

    @property
    def is_dark(self) -> bool:
        """Whether light text stands on dark ground."""
        return QColor(self.window).lightness() < 128

    def color(self, name: str, alpha: float = 1.0) -> QColor:
        """Return the token called `name` with an opacity of 0 ... 1."""
        color = QColor(getattr(self, name))
        color.setAlphaF(alpha)
        return color

    def mixed(self, front: str, back: str, share: float) -> str:
        """Return the opaque colour of token `front` laid over token `back` with opacity `share`."""
        a, b = QColor(getattr(self, front)), QColor(getattr(self, back))
        channels = zip((a.red(), a.green(), a.blue()), (b.red(), b.green(), b.blue()), strict=True)
        return QColor(*(round(x * share + y * (1 - share)) for x, y in channels)).name()


DARK = Tokens(
    window="#1a1c22",
    base="#14161b",
    panel="#1f2229",
    raised="#2a2e37",
    border="#31353f",
    text="#dfe2e8",
    muted="#8d94a3",
    accent="#4f8ff7",
    on_accent="#ffffff",
    float_="#6ea8fe",
    quantized="#ffb454",
    error="#f2777a",
    good="#56c596",
    warning="#f0b429",
    bad="#ef5b5b",
)
LIGHT = Tokens(
    window="#f3f4f7",
    base="#ffffff",
    panel="#fbfbfd",
    raised="#ffffff",
    border="#d5d9e0",
    text="#1d2127",
    muted="#667080",
    accent="#2563eb",
    on_accent="#ffffff",
    float_="#2f6fde",
    quantized="#d9730d",
    error="#c9362e",
    good="#1a8754",
    warning="#b7791f",
    bad="#cf3b33",
)


class ThemeEvents(QObject):
    """Holds the colours in use and tells when they change. One per application, see `theme_events`.

    Signals:
        changed: the new `Tokens`, after palette and style sheet have been set; or the same, to be drawn anew.
    """

    changed = Signal(object)

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self.tokens = DARK
        self.scheme: Scheme = "system"

    def set_tokens(self, tokens: Tokens) -> None:
        if tokens != self.tokens:
            self.tokens = tokens
            self.changed.emit(tokens)

    def draw_anew(self, _screen: object) -> None:
        """Let everything be drawn for one more screen, which may be sharper than the others."""
        self.changed.emit(self.tokens)

    def follow_system(self, _scheme: Qt.ColorScheme) -> None:
        app = QApplication.instance()
        if self.scheme == "system" and isinstance(app, QApplication):
            _use(app, self, _system_tokens(app))


def theme_events() -> ThemeEvents:
    """Return the application's `ThemeEvents`; it lives and dies with the application.

    Raises:
        RuntimeError: there is no QApplication yet.
    """
    app = QApplication.instance()
    if not isinstance(app, QApplication):
        raise RuntimeError("The theme needs a QApplication.")
    events = app.findChild(ThemeEvents)
    if events is None:
        events = ThemeEvents(app)
        app.styleHints().colorSchemeChanged.connect(events.follow_system)
        app.screenAdded.connect(events.draw_anew)
    return events


def current() -> Tokens:
    """Return the colours in use."""
    return theme_events().tokens


def apply_theme(app: QApplication, scheme: Scheme) -> Tokens:
    """Give the application the look of `scheme` and return its colours; may be called at any time."""
    events = theme_events()
    events.scheme = scheme
    hints = app.styleHints()
    if scheme == "system":
        hints.unsetColorScheme()
        tokens = _system_tokens(app)
    else:
        # Native title bars follow this where the platform can.
        hints.setColorScheme(Qt.ColorScheme.Dark if scheme == "dark" else Qt.ColorScheme.Light)
        tokens = DARK if scheme == "dark" else LIGHT
    load_fonts()
    app.setFont(ui_font())
    _use(app, events, tokens)
    return tokens


def load_fonts() -> None:
    """Make the bundled fonts known to Qt; a second call changes nothing."""
    known = set(QFontDatabase.families())
    if {FONT_FAMILIES[0], MONO_FAMILIES[0]} <= known and QFontDatabase.hasFamily(FONT_FAMILIES[0]):
        return
    for path in sorted((resources() / "fonts").glob("*.[ot]tf")):
        QFontDatabase.addApplicationFont(str(path))


def ui_font(pixels: int = FONT_PIXELS, weight: QFont.Weight = QFont.Weight.Normal) -> QFont:
    """Return the font of the window with figures of equal width."""
    return QFont(_font(FONT_FAMILIES, pixels, weight))


def mono_font(pixels: int = SMALL_PIXELS) -> QFont:
    """Return the font of codes."""
    return QFont(_font(MONO_FAMILIES, pixels, QFont.Weight.Normal))


@cache
def _font(families: tuple[str, ...], pixels: int, weight: QFont.Weight) -> QFont:
    font = QFont()
    font.setFamilies(list(families))
    font.setPixelSize(pixels)
    font.setWeight(weight)
    if hasattr(QFont, "Tag"):  # Qt 6.7
        font.setFeature(QFont.Tag("tnum"), 1)
    return font


def _system_tokens(app: QApplication) -> Tokens:
    # Light unless the desktop asks for dark; many platforms answer "unknown".
    return DARK if app.styleHints().colorScheme() == Qt.ColorScheme.Dark else LIGHT


def _use(app: QApplication, events: ThemeEvents, tokens: Tokens) -> None:
    if app.style().objectName().lower() != "fusion":
        app.setStyle("Fusion")
    app.setPalette(palette(tokens))
    sheet = style_sheet(tokens)
    if app.styleSheet() != sheet:
        app.setStyleSheet(sheet)
    events.set_tokens(tokens)


def palette(tokens: Tokens) -> QPalette:
    """Return the palette of `tokens`, so that whatever the style sheet does not name fits too."""
    role = QPalette.ColorRole
    result = QPalette()
    for key, name in {
        role.Window: "window",
        role.WindowText: "text",
        role.Base: "base",
        role.AlternateBase: "panel",
        role.Text: "text",
        role.Button: "raised",
        role.ButtonText: "text",
        role.BrightText: "bad",
        role.PlaceholderText: "muted",
        role.ToolTipBase: "raised",
        role.ToolTipText: "text",
        role.Highlight: "accent",
        role.HighlightedText: "on_accent",
        role.Link: "accent",
        role.LinkVisited: "accent",
        role.Accent: "accent",
        role.Light: "raised",
        role.Midlight: "border",
        role.Mid: "border",
        role.Dark: "base",
        role.Shadow: "base",
    }.items():
        result.setColor(key, tokens.color(name))
    disabled = tokens.color("muted", 0.55)
    for key in (role.WindowText, role.Text, role.ButtonText, role.HighlightedText):
        result.setColor(QPalette.ColorGroup.Disabled, key, disabled)
    result.setColor(QPalette.ColorGroup.Disabled, role.Highlight, tokens.color("border"))
    return result


def style_sheet(tokens: Tokens) -> str:
    """Return the style sheet of `tokens`."""
    values = {name: getattr(tokens, name) for name in Tokens.__slots__}
    values |= {
        "hover": tokens.mixed("text", "raised", 0.06),
        "pressed": tokens.mixed("text", "raised", 0.12),
        "faint": tokens.mixed("text", "panel", 0.05),
        "line": tokens.mixed("border", "panel", 0.55),
        "selected": tokens.mixed("accent", "panel", 0.22 if tokens.is_dark else 0.16),
        "accent_hover": QColor(tokens.accent).lighter(110).name(),
        "accent_pressed": QColor(tokens.accent).darker(112).name(),
        "disabled": tokens.mixed("muted", "panel", 0.55),
        "handle": tokens.mixed("muted", "panel", 0.45),
        "icons": (resources() / "icons" / "style").as_posix(),
        "shade": "dark" if tokens.is_dark else "light",
    }
    return string.Template(_SHEET).substitute(values)


_SHEET = """
QWidget { color: $text; font-size: 13px; }
QMainWindow, QDialog { background: $window; }
QToolTip { background: $raised; color: $text; border: 1px solid $border; padding: 5px 7px; font-size: 12px; }

Card, StatePage[framed="true"] { background: $panel; border: 1px solid $border; border-radius: 7px; }
QLabel { background: transparent; }
*[role="title"] { font-weight: 600; }
*[role="heading"] { font-size: 17px; font-weight: 600; }
*[role="note"] { color: $muted; font-size: 12px; }
*[role="small-metric"] { font-size: 14px; font-weight: 600; }
*[role="metric"] { font-size: 17px; font-weight: 600; }
*[tone="text"] { color: $text; }
*[tone="muted"] { color: $muted; }
*[tone="good"] { color: $good; }
*[tone="warning"] { color: $warning; }
*[tone="bad"] { color: $bad; }
*[tone="accent"] { color: $accent; }
*[tone="quantized"] { color: $quantized; }
*[role="mono"] { font-family: "JetBrains Mono"; font-size: 12px; }

QToolBar { background: $window; border: none; border-bottom: 1px solid $border; padding: 6px 8px; spacing: 4px;
  qproperty-iconSize: 17px; }
QToolBar::separator { background: $border; width: 1px; margin: 5px 6px; }
QStatusBar { background: $window; border-top: 1px solid $border; }
QStatusBar::item { border: none; }
QStatusBar QLabel { color: $muted; font-size: 12px; padding: 0 4px; }
QStatusBar QComboBox { background: transparent; border-color: transparent; font-size: 12px; min-height: 16px;
  padding: 1px 5px; }
QStatusBar QComboBox:hover { background: $hover; border-color: $border; }
QStatusBar QComboBox:focus { border-color: $accent; }
QStatusBar QPushButton { font-size: 12px; min-height: 16px; padding: 1px 8px; background: transparent;
  border-color: transparent; }
QStatusBar QPushButton:hover { background: $hover; border-color: $border; }
QStatusBar QPushButton:focus { border-color: $accent; }
QMenuBar { background: $window; padding: 2px 4px; }
QMenuBar::item { background: transparent; padding: 4px 9px; border-radius: 5px; }
QMenuBar::item:selected { background: $hover; }
QMenu { background: $raised; border: 1px solid $border; padding: 5px; }
QMenu::item { padding: 5px 26px 5px 10px; border-radius: 5px; }
QMenu::item:selected { background: $selected; color: $text; }
QMenu::item:disabled { color: $disabled; }
QMenu::icon { padding-left: 8px; }
QMenu::separator { background: $border; height: 1px; margin: 5px 6px; }
QMenu::indicator { width: 14px; height: 14px; left: 6px; }

QPushButton, QToolButton { background: $raised; border: 1px solid $border; border-radius: 5px; padding: 4px 11px; }
QPushButton { min-height: 17px; }
QDialogButtonBox { dialogbuttonbox-buttons-have-icons: 0; }
QToolButton { padding: 4px; }
QToolBar QToolButton { background: transparent; border-color: transparent; padding: 5px 9px; }
QToolButton[flat="true"] { background: transparent; border-color: transparent; }
QPushButton:hover, QToolButton:hover, QToolButton[flat="true"]:hover, QToolBar QToolButton:hover {
  background: $hover; border-color: $border; }
QPushButton:pressed, QToolButton:pressed { background: $pressed; }
QPushButton:focus, QToolButton:focus { border-color: $accent; }
QToolButton:checked { background: $selected; border-color: $accent; }
QPushButton:disabled, QToolButton:disabled { color: $disabled; }
QPushButton[primary="true"] { background: $accent; border-color: $accent; color: $on_accent; font-weight: 600; }
QPushButton[primary="true"]:hover { background: $accent_hover; border-color: $accent_hover; }
QPushButton[primary="true"]:pressed { background: $accent_pressed; }
QPushButton[primary="true"]:focus { border-color: $text; }
QPushButton[primary="true"]:disabled { background: $border; border-color: $border; color: $muted; }
QToolButton::menu-indicator { image: none; width: 0; }

SegmentedButtons > QToolButton { background: $base; border: 1px solid $border; border-left-width: 0; border-radius: 0;
  padding: 4px 3px; font-size: 12px; }
SegmentedButtons > QToolButton[place="first"] { border-left-width: 1px; border-top-left-radius: 5px;
  border-bottom-left-radius: 5px; }
SegmentedButtons > QToolButton[place="last"] { border-top-right-radius: 5px; border-bottom-right-radius: 5px; }
SegmentedButtons > QToolButton[place="only"] { border-left-width: 1px; border-radius: 5px; }
SegmentedButtons > QToolButton:hover { background: $hover; }
SegmentedButtons > QToolButton:checked { background: $accent; border-color: $accent; color: $on_accent; }
ToggleButtons > QToolButton:checked { background: $selected; border-color: $accent; color: $text; }
SegmentedButtons > QToolButton:focus { color: $accent; }
SegmentedButtons > QToolButton:checked:focus { color: $on_accent; border-color: $text; border-left-width: 1px; }
SegmentedButtons > QToolButton:disabled { color: $disabled; }
SegmentedButtons > QToolButton:checked:disabled { background: $border; border-color: $border; color: $muted; }

QLineEdit, QSpinBox, QDoubleSpinBox, QComboBox, QPlainTextEdit, QTextEdit { background: $base; color: $text;
  border: 1px solid $border; border-radius: 5px; padding: 3px 7px; selection-background-color: $accent;
  selection-color: $on_accent; }
QComboBox { background: $raised; }
QLineEdit, QSpinBox, QDoubleSpinBox, QComboBox { min-height: 19px; }
QLineEdit:hover, QSpinBox:hover, QDoubleSpinBox:hover, QComboBox:hover { border-color: $handle; }
QLineEdit:focus, QSpinBox:focus, QDoubleSpinBox:focus, QComboBox:focus, QPlainTextEdit:focus, QTextEdit:focus {
  border-color: $accent; }
QLineEdit:disabled, QSpinBox:disabled, QDoubleSpinBox:disabled, QComboBox:disabled { color: $disabled;
  background: $panel; }
QComboBox::drop-down { border: none; width: 22px; }
QComboBox::down-arrow { image: url("$icons/down-$shade.svg"); width: 13px; height: 13px; }
QComboBox QAbstractItemView { background: $raised; border: 1px solid $border; padding: 3px; outline: 0; }
QComboBox QAbstractItemView::item { min-height: 25px; padding: 0 7px; border-radius: 4px; }
QComboBox QAbstractItemView::item:selected { background: $selected; color: $text; }
QAbstractSpinBox QLineEdit { border: none; background: transparent; padding: 0 5px; min-height: 0; }
QSpinBox, QDoubleSpinBox { padding: 3px 2px; }
QSpinBox::up-button, QDoubleSpinBox::up-button { border: none; width: 18px; subcontrol-position: top right; }
QSpinBox::down-button, QDoubleSpinBox::down-button { border: none; width: 18px; subcontrol-position: bottom right; }
QSpinBox::up-arrow, QDoubleSpinBox::up-arrow { image: url("$icons/up-$shade.svg"); width: 10px; height: 10px; }
QSpinBox::down-arrow, QDoubleSpinBox::down-arrow { image: url("$icons/down-$shade.svg"); width: 10px; height: 10px; }

QCheckBox, QRadioButton { spacing: 7px; background: transparent; }
QCheckBox:disabled, QRadioButton:disabled { color: $disabled; }
QCheckBox::indicator, QRadioButton::indicator, QGroupBox::indicator { width: 14px; height: 14px;
  border: 1px solid $handle; background: $base; border-radius: 4px; }
QRadioButton::indicator { border-radius: 8px; }
QCheckBox::indicator:hover, QRadioButton::indicator:hover { border-color: $accent; }
QCheckBox:focus, QRadioButton:focus { color: $accent; }
QCheckBox::indicator:checked { background: $accent; border-color: $accent; image: url("$icons/check-$shade.svg"); }
QCheckBox::indicator:indeterminate { background: $accent; border-color: $accent;
  image: url("$icons/minus-$shade.svg"); }
QCheckBox::indicator:disabled { border-color: $border; background: $panel; }
QRadioButton::indicator:checked { background: $on_accent; border: 4px solid $accent; width: 8px; height: 8px; }

QSlider:horizontal { min-height: 20px; }
QSlider::groove:horizontal { height: 4px; background: $border; border-radius: 2px; }
QSlider::sub-page:horizontal { background: $accent; border-radius: 2px; }
QSlider::handle:horizontal { background: $panel; border: 1.5px solid $accent; width: 13px; height: 13px; margin: -6px 0;
  border-radius: 8px; }
QSlider::handle:horizontal:hover, QSlider::handle:horizontal:focus { background: $accent; }
QSlider::sub-page:horizontal:disabled { background: $border; }
QSlider::handle:horizontal:disabled { border-color: $border; }

QProgressBar { background: $border; border: none; border-radius: 2px; max-height: 5px; min-height: 5px;
  color: transparent; }
QProgressBar::chunk { background: $accent; border-radius: 2px; }
QProgressBar[tone="bad"]::chunk { background: $bad; }
QProgressBar[tone="good"]::chunk { background: $good; }

QAbstractItemView { background: $panel; alternate-background-color: $panel; border: none; outline: 0;
  selection-background-color: $selected; selection-color: $text; gridline-color: $line; }
QTableView::item, QTreeView::item, QListView::item { padding: 0 5px; }
QTableView::item:selected, QTreeView::item:selected, QListView::item:selected { background: $selected; color: $text; }
QListView::item { min-height: 26px; border-radius: 5px; }
QListView::item:hover { background: $faint; }
QHeaderView { background: $panel; border: none; }
QHeaderView::section { background: $panel; color: $muted; border: none; border-bottom: 1px solid $border;
  padding: 5px; font-size: 12px; }
QHeaderView::section:hover { color: $text; }
QTableCornerButton::section { background: $panel; border: none; }

QScrollBar:vertical { background: transparent; width: 10px; margin: 0; }
QScrollBar:horizontal { background: transparent; height: 10px; margin: 0; }
QScrollBar::handle { background: $handle; border-radius: 3px; }
QScrollBar::handle:vertical { min-height: 26px; margin: 2px; }
QScrollBar::handle:horizontal { min-width: 26px; margin: 2px; }
QScrollBar::handle:hover { background: $muted; }
QScrollBar::add-line, QScrollBar::sub-line { width: 0; height: 0; }
QScrollBar::add-page, QScrollBar::sub-page { background: transparent; }
QAbstractScrollArea { background: transparent; }
QAbstractScrollArea::corner { background: transparent; }
QScrollArea, QScrollArea > QWidget > QWidget { background: transparent; border: none; }
QGraphicsView { border: none; }

QTabWidget::pane { border: none; }
QTabBar { background: transparent; qproperty-drawBase: 0; }
QTabBar::tab { background: transparent; color: $muted; padding: 6px 6px; margin: 0 1px; border: none;
  border-bottom: 2px solid transparent; }
QTabBar::tab:hover { color: $text; }
QTabBar::tab:selected { color: $text; border-bottom-color: $accent; font-weight: 600; }
QTabBar::tab:focus { color: $accent; }
QTabBar::tab:disabled { color: $disabled; }

QDockWidget { font-weight: 600; titlebar-close-icon: none; titlebar-normal-icon: none; }
QDockWidget::title { background: $window; padding: 6px 8px; border: none; }
QSplitter::handle { background: transparent; }
QSplitter::handle:horizontal { width: 8px; }
QSplitter::handle:vertical { height: 8px; }
QSplitter::handle:hover { background: $selected; }
QMainWindow::separator { background: $window; width: 8px; height: 8px; }
QMainWindow::separator:hover { background: $selected; }
QGroupBox { border: 1px solid $border; border-radius: 6px; margin-top: 9px; padding-top: 6px; }
QGroupBox::title { subcontrol-origin: margin; left: 9px; padding: 0 4px; color: $muted; }
"""
