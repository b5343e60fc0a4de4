from __future__ import annotations

import re
from pathlib import Path

import pytest
from gui_examples import shown
from PySide6.QtCore import QSize
from PySide6.QtGui import QFontInfo, QFontMetricsF, QIcon, QImage, QPalette
from PySide6.QtWidgets import QPushButton

from quantgui.gui.icons import icon, pixmap, set_icon
from quantgui.gui.plots.histogram import HistogramPlot
from quantgui.gui.theme import DARK, LIGHT, Tokens, apply_theme, current, mono_font, theme_events, ui_font
from quantgui.gui.widgets.card import Card
from quantgui.paths import resources

ICONS = sorted(path.stem for path in (resources() / "icons").glob("*.svg"))


def luminance(color: str) -> float:
    """Return the relative luminance of ``#rrggbb`` (Web Content Accessibility Guidelines 2.1)."""
    channels = (int(color[index : index + 2], 16) / 255 for index in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_that_the_scheme_sets_palette_and_colours(qapp, scheme: str) -> None:
    tokens = apply_theme(qapp, scheme)
    assert tokens == current() == (DARK if scheme == "dark" else LIGHT)
    assert qapp.palette().color(QPalette.ColorRole.Window).name() == tokens.window
    assert tokens.is_dark == (scheme == "dark")


def test_that_a_change_of_scheme_is_told_once(qapp, qtbot) -> None:
    apply_theme(qapp, "dark")
    heard: list[Tokens] = []
    theme_events().changed.connect(heard.append)
    apply_theme(qapp, "light")
    apply_theme(qapp, "light")
    theme_events().changed.disconnect(heard.append)
    assert heard == [LIGHT]


@pytest.mark.parametrize("tokens", [DARK, LIGHT], ids=["dark", "light"])
def test_that_text_can_be_read(tokens: Tokens) -> None:
    for ground in (tokens.window, tokens.base, tokens.panel, tokens.raised):
        assert contrast(tokens.text, ground) >= 7.0
    for ground in (tokens.window, tokens.base, tokens.panel):
        assert contrast(tokens.muted, ground) >= 4.5


def test_that_the_bundled_fonts_are_used(qapp) -> None:
    apply_theme(qapp, "dark")
    assert QFontInfo(ui_font()).family() == "Inter"
    assert QFontInfo(mono_font()).family() == "JetBrains Mono"


def test_that_figures_have_equal_widths(qapp) -> None:
    apply_theme(qapp, "dark")
    metrics = QFontMetricsF(ui_font())
    assert metrics.horizontalAdvance("1111") == metrics.horizontalAdvance("8888")


@pytest.mark.parametrize("name", ICONS)
def test_that_every_icon_is_drawn_in_the_colour_asked_for(qapp, name: str) -> None:
    picture = pixmap(name, 24, "#ff0000").toImage().convertToFormat(QImage.Format.Format_ARGB32)
    colors = {
        picture.pixelColor(x, y).name() for x in range(24) for y in range(24) if picture.pixelColor(x, y).alpha() > 250
    }
    assert colors == {"#ff0000"}


def test_that_an_unknown_icon_is_refused(qapp) -> None:
    with pytest.raises(FileNotFoundError):
        icon("no-such-icon")


def test_that_icons_of_buttons_are_sharp_on_every_screen(qapp, qtbot) -> None:
    button = QPushButton()
    qtbot.addWidget(button)
    set_icon(button, "play")
    for screen in qapp.screens():
        ratio = screen.devicePixelRatio()
        for mode in (QIcon.Mode.Normal, QIcon.Mode.Disabled):
            assert button.icon().pixmap(QSize(16, 16), ratio, mode).width() == round(16 * ratio)


def test_that_everything_is_drawn_anew_for_one_more_screen(qapp, qtbot) -> None:
    with qtbot.waitSignal(theme_events().changed):
        qapp.screenAdded.emit(qapp.primaryScreen())


def test_that_icons_follow_the_theme(qapp, qtbot) -> None:
    apply_theme(qapp, "dark")
    button = QPushButton()
    qtbot.addWidget(button)
    set_icon(button, "play")
    dark = button.icon().pixmap(16).toImage()
    apply_theme(qapp, "light")
    assert button.icon().pixmap(16).toImage() != dark


def test_that_a_plot_on_screen_takes_the_new_colours(qapp, qtbot) -> None:
    apply_theme(qapp, "dark")
    plot = HistogramPlot("name", "x", "y")
    shown(qtbot, plot, 300, 200)
    for scheme, tokens in (("light", LIGHT), ("dark", DARK)):
        apply_theme(qapp, scheme)
        qapp.processEvents()
        assert plot.grab().toImage().pixelColor(2, 2).name() == tokens.panel


def test_that_every_icon_named_in_the_code_exists() -> None:
    folder = Path(__file__).parents[2] / "quantgui" / "gui"
    named = set()
    for path in folder.rglob("*.py"):
        named |= set(
            re.findall(
                r'(?:set_icon\([^,]+,|pixmap\(|icon\(|state\.show_(?:state|busy)\()\s*"([a-z0-9-]+)"', path.read_text()
            )
        )
    assert named
    assert named <= set(ICONS)


def test_that_all_third_party_files_are_listed_with_their_licence() -> None:
    text = (resources() / "LICENSES.md").read_text()
    for path in (resources() / "fonts").glob("*.[ot]tf"):
        assert path.stem.split("-")[0] in text
    for licence in ("fonts/OFL-Inter.txt", "fonts/OFL-JetBrainsMono.txt", "icons/LICENSE"):
        assert licence in text
        assert (resources() / licence).is_file()


def test_that_a_card_shows_title_and_note(qapp, qtbot) -> None:
    card = Card("Weights")
    shown(qtbot, card, 300, 100)
    card.set_note("12 values")
    assert (card.title(), card.note(), card.accessibleName()) == ("Weights", "12 values", "Weights")
