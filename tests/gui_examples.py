"""Values for tests of panels: made from random weights with plain numpy, not with the code under test."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from PySide6.QtCore import QEvent, QPoint, QPointF, Qt
from PySide6.QtGui import QMouseEvent
from PySide6.QtWidgets import QAbstractScrollArea, QApplication, QWidget

from quantgui.numerics.statistics import channel_statistics, collect
from quantgui.results import (
    ActivationReady,
    GraphNode,
    Histogram,
    LayerInfo,
    NetworkSummary,
    TensorError,
    TensorInfo,
    WeightView,
)
from quantgui.spec.formats import IntFormat
from quantgui.spec.granularity import PerChannel, PerTensor
from quantgui.spec.quantizer import QuantizerSpec

W4_TENSOR = QuantizerSpec(IntFormat(4), True, PerTensor())
W4_CHANNEL = QuantizerSpec(IntFormat(4), True, PerChannel())
W8_TENSOR = QuantizerSpec(IntFormat(8), True, PerTensor())
A8 = QuantizerSpec(IntFormat(8, signed=False), False, PerTensor())


def weights(channels: int = 64, elements: int = 576, outliers: tuple[int, ...] = (7, 12, 40), seed: int = 0):
    """Return a weight (C, K): channels of different width, some of them much wider."""
    random = np.random.default_rng(seed)
    width = 0.03 * np.exp(0.35 * random.standard_normal(channels))
    width[[channel for channel in outliers if channel < channels]] *= 5
    values = random.laplace(size=(channels, elements)) * width[:, None] * (1 + 0.1 * random.standard_normal())
    return values.astype(np.float32)


def layer(name: str = "layer3.0.conv2", channels: int = 64, inputs: int = 64, **changes) -> LayerInfo:
    """Return a convolution of 3 x 3."""
    values = {
        "name": name,
        "op": "Conv",
        "weight": f"{name}.weight",
        "shape": (channels, inputs, 3, 3),
        "channel_axis": 0,
        "channels": channels,
        "elements_per_channel": inputs * 9,
        "users": (name,),
        "node": name,
        "input_tensor": f"{name}_input",
        "output_tensor": f"{name}_output",
        "quantizes_activations": True,
    }
    return LayerInfo(**(values | changes))


def weight_view(matrix, spec: QuantizerSpec | None, name: str = "layer3.0.conv2") -> WeightView:
    """Return the view of a weight (C, K) under a symmetric min-max spec."""
    matrix = matrix.astype(np.float32)
    if spec is None:
        scales, error, fake = np.zeros(0), np.zeros_like(matrix), matrix
        low, high = float(matrix.min()), float(matrix.max())
    else:
        per_channel = isinstance(spec.granularity, PerChannel)
        absmax = np.abs(matrix).max(axis=1) if per_channel else np.abs(matrix).max(keepdims=True).ravel()
        scales = (absmax / spec.format.quant_max).astype(np.float32)
        steps = scales[:, None] if per_channel else scales
        fake = np.clip(np.rint(matrix / steps), spec.format.quant_min, spec.format.quant_max) * steps
        error = matrix - fake
        low, high = -float(absmax.max()), float(absmax.max())
    noise = float((error.astype(np.float64) ** 2).sum())
    signal = float((matrix.astype(np.float64) ** 2).sum())
    db = 10 * math.log10(signal / noise) if noise else math.inf
    if len(scales) == 1 and spec.bits <= 8:
        levels = np.arange(spec.format.quant_min, spec.format.quant_max + 2) - 0.5
        edges = levels * scales[0]
    else:
        edges = np.linspace(low, high, 513)
    reach = float(np.abs(error).max()) or 1e-6
    error_edges = np.linspace(-reach, reach, 102)
    return WeightView(
        layer=name,
        spec=spec,
        statistics=collect(matrix),
        channels=_channels(matrix, error),
        error=TensorError(db, noise / matrix.size, float(np.abs(error).max()), 0.0),
        quantized=Histogram(edges, np.histogram(fake, edges)[0]),
        error_histogram=Histogram(error_edges, np.histogram(error, error_edges)[0]),
        scales=scales,
        zero_points=np.zeros(len(scales), np.int32),
        low=low,
        high=high,
    )


def _channels(matrix, error):
    noise = np.maximum((error.astype(np.float64) ** 2).sum(axis=1), 1e-30)
    signal = (matrix.astype(np.float64) ** 2).sum(axis=1)
    return replace(channel_statistics(matrix), sqnr_db=10 * np.log10(signal / noise))


def activation(tensor: str, samples: int = 64, seed: int = 1, *, relu: bool = True) -> ActivationReady:
    """Return what a calibration of `samples` samples would have found at a tensor."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((samples, 4096)) * np.exp(0.25 * random.standard_normal((samples, 1)))
    values[samples // 3] *= 2.4
    values = np.maximum(values, 0) if relu else values
    return ActivationReady(tensor, collect(values.astype(np.float32)), samples, values.min(axis=1), values.max(axis=1))


def network(blocks: int = 8) -> NetworkSummary:
    """Return a residual network of `blocks` blocks as it is drawn."""
    nodes: list[GraphNode] = []
    layers: list[LayerInfo] = []

    def add(op: str, *inputs: int, weighted: bool = False) -> int:
        name = f"{op.lower()}{len(nodes)}"
        nodes.append(GraphNode(name, op, inputs, name if weighted else ""))
        if weighted:
            layers.append(layer(name, op=op))
        return len(nodes) - 1

    last = add("Relu", add("Conv", weighted=True))
    for _ in range(blocks):
        branch = add("Relu", add("Conv", last, weighted=True))
        last = add("Relu", add("Add", add("Conv", branch, weighted=True), last))
    add("Gemm", add("Flatten", add("GlobalAveragePool", last)), weighted=True)
    return NetworkSummary(
        name="resnet",
        path="resnet.onnx",
        fingerprint="0",
        opset=17,
        ir_version=8,
        producer="tests",
        parameters=1,
        file_bytes=1,
        float_bytes=1,
        inputs=(TensorInfo("x", "float32", (1, 3, 32, 32)),),
        outputs=(TensorInfo("y", "float32", (1, 10)),),
        layers=tuple(layers),
        nodes=tuple(nodes),
    )


def drag(area: QAbstractScrollArea, start: QPoint, end: QPoint, steps: int = 8, *, release: bool = True) -> None:
    """Drag with the left button from `start` to `end` in the viewport, as a hand does.

    `QTest.mouseMove` holds no button, and pyqtgraph asks for it.
    """
    left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
    _mouse(area, QEvent.Type.MouseMove, start, none, none)
    _mouse(area, QEvent.Type.MouseButtonPress, start, left, left)
    for step in range(1, steps + 1):
        point = start + (end - start) * step / steps
        _mouse(area, QEvent.Type.MouseMove, point, none, left)
    if release:
        _mouse(area, QEvent.Type.MouseButtonRelease, end, left, none)


def hover(area: QAbstractScrollArea, point: QPoint) -> None:
    """Move the pointer to a place in the viewport."""
    _mouse(area, QEvent.Type.MouseMove, point, Qt.MouseButton.NoButton, Qt.MouseButton.NoButton)


def click(area: QAbstractScrollArea, point: QPoint) -> None:
    """Click with the left button at a place in the viewport."""
    drag(area, point, point, 0)


def _mouse(area, kind, point: QPoint, button, buttons) -> None:
    viewport = area.viewport()
    event = QMouseEvent(
        kind, QPointF(point), QPointF(viewport.mapToGlobal(point)), button, buttons, Qt.KeyboardModifier.NoModifier
    )
    QApplication.sendEvent(viewport, event)
    QApplication.processEvents()


def shown(qtbot, widget: QWidget, width: int = 680, height: int = 600) -> None:
    """Show a widget as a window of its own."""
    qtbot.addWidget(widget)
    widget.resize(width, height)
    with qtbot.waitExposed(widget):
        widget.show()
    QApplication.processEvents()


def in_viewport(plot, x: float, y: float) -> QPoint:
    """Return where a place of a plot lies in its viewport."""
    return plot.mapFromScene(plot.view.mapViewToScene(QPointF(x, y)))
