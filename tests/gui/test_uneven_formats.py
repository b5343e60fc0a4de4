"""Formats with uneven levels in the panels, which next to integers have no step."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from gui_examples import W4_TENSOR, drag, in_viewport, layer, shown, weight_view, weights
from PySide6.QtWidgets import QApplication

from quantgui.gui.layer_words import format_text, scheme_text
from quantgui.gui.panels.activations import ActivationsPanel
from quantgui.gui.panels.channels import ChannelsPanel
from quantgui.gui.panels.inspector import InspectorPanel
from quantgui.gui.panels.weights import WeightsPanel
from quantgui.numerics.affine import measure_weight
from quantgui.numerics.levels import quantized_levels
from quantgui.numerics.statistics import collect
from quantgui.results import ActivationReady, ChannelStatistics, WeightView
from quantgui.spec.formats import CodebookFormat, IntFormat, MinifloatFormat, TableFormat
from quantgui.spec.granularity import PerBlock, PerTensor
from quantgui.spec.presets import PRESETS
from quantgui.spec.quantizer import (
    BLOCK_FORMATS,
    FixedRange,
    LayerSpec,
    LeastSquaredError,
    MovingAverage,
    QuantizerSpec,
)

WEIGHTS = weights(16, 256)
LAYER = layer(channels=16)
SPECS = [
    BLOCK_FORMATS["mxfp4"],
    BLOCK_FORMATS["nvfp4"],
    QuantizerSpec(MinifloatFormat(4, 3), granularity=PerTensor()),
    QuantizerSpec(TableFormat("nf4"), granularity=PerTensor()),
    QuantizerSpec(TableFormat("binary"), range_estimator=LeastSquaredError()),
    QuantizerSpec(CodebookFormat(4), granularity=PerTensor()),
    QuantizerSpec(IntFormat(4), granularity=PerBlock(4, 64)),
]


def view_under(spec: QuantizerSpec) -> WeightView:
    measured = measure_weight(WEIGHTS, spec, 0)
    plain = weight_view(WEIGHTS, None)
    channels = plain.channels
    levels = quantized_levels(measured.qparams, spec.format, int(np.argmax(measured.qparams.scale)))
    is_codebook = measured.qparams.levels is not None
    return WeightView(
        plain.layer,
        spec,
        plain.statistics,
        ChannelStatistics(channels.minimum, channels.maximum, channels.mean, channels.std, measured.channel_sqnr_db),
        measured.error,
        measured.quantized,
        measured.error_histogram,
        measured.qparams.scale[: 0 if is_codebook else None],
        measured.qparams.zero_point[: 0 if is_codebook else None],
        float(levels[0]),
        float(levels[-1]),
        levels,
    )


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_that_the_weights_and_channels_tabs_show_the_format(qtbot, spec) -> None:
    view = view_under(spec)
    panel, channels = WeightsPanel(), ChannelsPanel()
    for each in (panel, channels):
        shown(qtbot, each)
        each.show_layer(LAYER)
        each.show_view(view)
    QApplication.processEvents()
    assert panel.sqnr.text() == f"{view.error.sqnr_db:.1f} dB"
    assert panel._quantized_chip.text() == str(spec)
    assert panel._grid_chip.isVisible()


@pytest.mark.parametrize(
    "spec",
    [
        QuantizerSpec(MinifloatFormat(2, 1), granularity=PerTensor()),
        QuantizerSpec(MinifloatFormat(4, 3), granularity=PerTensor()),
        QuantizerSpec(TableFormat("nf4"), granularity=PerTensor()),
        QuantizerSpec(MinifloatFormat(2, 1), granularity=PerTensor(), scale_format="e8m0"),
        QuantizerSpec(IntFormat(4), granularity=PerTensor(), scale_format="e8m0"),
        W4_TENSOR,
    ],
    ids=lambda spec: f"{spec}-{spec.scale_format}",
)
def test_that_a_dragged_limit_shows_the_error_that_the_range_will_have(qtbot, spec) -> None:
    panel = WeightsPanel()
    shown(qtbot, panel)
    panel.show_layer(LAYER)
    panel.show_view(view_under(spec))
    QApplication.processEvents()
    chosen = []
    panel.limits_chosen.connect(lambda low, high: chosen.append((low, high)))
    plot = panel.histogram
    _, high = plot.limits()
    drag(plot, in_viewport(plot, high, 1.0), in_viewport(plot, high / 2, 1.0))
    ((low, high),) = chosen
    assert low == -high
    assert panel.sqnr.text().startswith("≈ ")
    shown_db = float(panel.sqnr.text().removeprefix("≈ ").removesuffix(" dB").replace("−", "-"))
    fixed = replace(spec, range_estimator=FixedRange(low, high))
    assert shown_db == pytest.approx(measure_weight(WEIGHTS, fixed, 0).error.sqnr_db, abs=0.1)
    # What comes of it stands where it was dropped.
    panel.show_view(view_under(fixed))
    assert plot.limits() == pytest.approx((low, high))


def test_that_codebooks_have_no_limits_to_drag(qtbot) -> None:
    panel = WeightsPanel()
    shown(qtbot, panel)
    panel.show_layer(LAYER)
    panel.show_view(view_under(QuantizerSpec(CodebookFormat(4), granularity=PerTensor())))
    panel.limits_dragged.connect(lambda *_: pytest.fail("dragged"))
    drag(panel.histogram, in_viewport(panel.histogram, 0.1, 1.0), in_viewport(panel.histogram, 0.05, 1.0))


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float4_e2m1fn])
def test_that_limits_of_small_floats_of_activations_can_be_dragged(qtbot, dtype) -> None:
    x = np.random.default_rng(0).laplace(size=(20, 3000)).astype(np.float32)
    ready = ActivationReady("x", collect(x), 20, x.min(1), x.max(1))
    info = ml_dtypes.finfo(dtype)
    fmt = MinifloatFormat(4, 3) if info.bits == 8 else MinifloatFormat(2, 1)
    panel = ActivationsPanel()
    shown(qtbot, panel)
    panel.show_layer(LAYER)
    panel.show_statistics(ready, ready, QuantizerSpec(fmt, granularity=PerTensor()))
    QApplication.processEvents()
    chosen = []
    panel.limits_chosen.connect(lambda low, high: chosen.append((low, high)))
    plot = panel.input.histogram
    drag(plot, in_viewport(plot, plot.limits()[1], 1.0), in_viewport(plot, 2.5, 1.0))
    ((low, high),) = chosen
    assert low == -high
    # By ml_dtypes, from the values themselves.
    largest = float(info.max)
    scale = np.float32(high / largest)
    made = np.clip(x / scale, -largest, largest).astype(dtype).astype(np.float32) * scale
    wanted = 10 * np.log10(np.square(x).sum() / np.square(x - made).sum())
    assert float(panel.input.sqnr.text().removeprefix("≈ ")) == pytest.approx(wanted, abs=0.15)


def test_that_the_activations_tab_shows_8_bit_floats_with_their_error(qtbot) -> None:
    x = np.random.default_rng(0).laplace(size=(20, 3000)).astype(np.float32)
    ready = ActivationReady("x", collect(x), 20, x.min(1), x.max(1))
    spec = QuantizerSpec(MinifloatFormat(4, 3), granularity=PerTensor(), range_estimator=MovingAverage())
    panel = ActivationsPanel()
    shown(qtbot, panel)
    panel.show_layer(LAYER)
    panel.show_statistics(ready, ready, spec)
    QApplication.processEvents()
    low, high = panel.input.histogram.limits()
    assert low == -high
    assert 5.0 < high < np.abs(x).max()


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_that_the_inspector_and_the_table_have_words_for_every_preset(qtbot, preset) -> None:
    panel = InspectorPanel()
    shown(qtbot, panel)
    panel.show_layers([LAYER], [preset.spec])
    QApplication.processEvents()
    weights_spec = preset.spec.weights
    assert format_text(None if weights_spec is None else weights_spec.format)
    assert scheme_text(weights_spec)
    panel.show_layers([LAYER, layer("other")], [preset.spec, LayerSpec()])
