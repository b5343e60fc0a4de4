"""The network as a drawing that can be zoomed, moved and clicked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cache
from itertools import pairwise

from PySide6.QtCore import QPointF, QRectF, QSizeF, Qt, Signal
from PySide6.QtGui import (
    QColor,
    QFont,
    QFontMetricsF,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPainterPath,
    QPen,
    QResizeEvent,
    QWheelEvent,
)
from PySide6.QtWidgets import (
    QGraphicsItem,
    QGraphicsPathItem,
    QGraphicsScene,
    QGraphicsView,
    QStyleOptionGraphicsItem,
    QWidget,
)

from quantgui.gui.colormap import text_on
from quantgui.gui.graph_layout import Layout, Route
from quantgui.gui.theme import Tokens, current, theme_events, ui_font
from quantgui.results import GraphNode

LAYER_SIZE = QSizeF(168.0, 38.0)
SMALL_HEIGHT = 18.0
TEXT_ZOOM = 0.35
"""Below this zoom, text is not drawn: nobody could read it."""

READING_ZOOM = 0.8
_SMALL_PADDING = 18.0
_ROW_GAP = 18.0
_BAND = 40
"""Edges of this many layers are one item: few items, and those out of sight are not drawn."""

_NODES_AT_A_TIME = 250
_WHEEL = 1.0015
_CLICK = 4


def node_size(node: GraphNode) -> QSizeF:
    """Return the size of the box of a node: large for layers, small for all else."""
    return LAYER_SIZE if node.layer else QSizeF(_small_width(node.op), SMALL_HEIGHT)


@cache
def _small_width(op: str) -> float:
    return QFontMetricsF(_font(10)).horizontalAdvance(op) + _SMALL_PADDING


class NodeItem(QGraphicsItem):
    """The box of one node."""

    def __init__(self, index: int, node: GraphNode) -> None:
        super().__init__()
        self.index = index
        self.node = node
        self.fill: QColor | None = None
        self.is_marked = False
        self.is_match = False
        size = node_size(node)
        self.setZValue(1.0)
        self._box = QRectF(-size.width() / 2, -size.height() / 2, size.width(), size.height())
        self._name = ""

    def boundingRect(self) -> QRectF:
        return self._box.adjusted(-4, -4, 4, 4)

    def paint(self, painter: QPainter, option: QStyleOptionGraphicsItem, widget: QWidget | None = None) -> None:
        tokens = current()
        zoom = option.levelOfDetailFromTransform(painter.worldTransform())
        fill = self.fill or tokens.color("raised" if self.node.layer else "panel")
        if zoom < TEXT_ZOOM:
            color = fill if self.fill else tokens.color("muted", 0.75 if self.node.layer else 0.35)
            painter.fillRect(self._box, tokens.color("accent") if self.is_marked or self.is_match else color)
            if self.is_marked:
                painter.setPen(_cosmetic(tokens.color("accent"), 3.0))
                painter.drawRect(self._box)
            return
        if self.node.layer and not self._name:
            metrics = QFontMetricsF(_font(10))
            self._name = metrics.elidedText(self.node.name, Qt.TextElideMode.ElideLeft, self._box.width() - 16)
        border = tokens.color("accent") if self.is_marked or self.is_match else tokens.color("border")
        painter.setPen(_cosmetic(border, 2.5 if self.is_marked else 1.5 if self.is_match else 1.0))
        painter.setBrush(fill)
        radius = 6.0 if self.node.layer else SMALL_HEIGHT / 2
        painter.drawRoundedRect(self._box, radius, radius)
        if self.node.layer:
            text = text_on(fill) if self.fill else tokens.color("text")
            painter.setPen(text)
            painter.setFont(_font(11, QFont.Weight.DemiBold))
            upper = self._box.adjusted(8, 4, -8, -self._box.height() / 2)
            painter.drawText(upper, int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter), self.node.op)
            text.setAlphaF(0.8)
            painter.setPen(text)
            painter.setFont(_font(10))
            lower = self._box.adjusted(8, self._box.height() / 2 - 1, -8, -3)
            painter.drawText(lower, int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter), self._name)
        else:
            painter.setPen(tokens.color("muted"))
            painter.setFont(_font(10))
            painter.drawText(self._box, int(Qt.AlignmentFlag.AlignCenter), self.node.op)


class NetworkView(QGraphicsView):
    """A drawing of a network, inputs at the top.

    The wheel zooms around the pointer, dragging moves; plus, minus and 0 zoom, up and down go from layer to layer.

    Signals:
        node_picked: index of the node the user clicked or went to.
    """

    node_picked = Signal(int)

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        self._scene = QGraphicsScene()
        super().__init__(self._scene, parent)
        self._scene.setParent(self)
        self.setAccessibleName(name)
        self.setRenderHint(QPainter.RenderHint.Antialiasing)
        self.setDragMode(QGraphicsView.DragMode.ScrollHandDrag)
        self.setTransformationAnchor(QGraphicsView.ViewportAnchor.AnchorUnderMouse)
        self.setResizeAnchor(QGraphicsView.ViewportAnchor.AnchorViewCenter)
        self.setViewportUpdateMode(QGraphicsView.ViewportUpdateMode.BoundingRectViewportUpdate)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMinimumSize(120, 90)
        self.setFrameShape(QGraphicsView.Shape.NoFrame)
        self.items_by_index: list[NodeItem] = []
        self._bands: list[QGraphicsPathItem] = []
        self._marked: frozenset[int] = frozenset()
        self._pressed: QPointF | None = None
        self._untouched = True
        theme_events().changed.connect(self.restyle)
        self.restyle(current())

    # --- values in ---

    def show_graph(self, nodes: Sequence[GraphNode], layout: Layout) -> None:
        """Draw a network anew."""
        for _ in self.graph_steps(nodes, layout):
            pass

    def graph_steps(self, nodes: Sequence[GraphNode], layout: Layout) -> Iterator[None]:
        """Draw a network anew, and yield after each part of it: a thousand layers take longer than one frame."""
        self.clear()
        items: list[NodeItem] = []
        rows = _row_centers([node_size(node).height() for node in nodes], layout)
        whole = QRectF()
        for index, node in enumerate(nodes):
            item = NodeItem(index, node)
            item.setPos(layout.x[index], rows[layout.layer[index]])
            whole |= item.sceneBoundingRect()
            self._scene.addItem(item)
            items.append(item)
            if index % _NODES_AT_A_TIME == _NODES_AT_A_TIME - 1:
                yield
        for path in self._edge_paths(items, layout, rows):
            band = QGraphicsPathItem(path)
            band.setPen(_edge_pen(current()))
            band.setZValue(0.0)
            whole |= band.boundingRect()
            self._scene.addItem(band)
            self._bands.append(band)
            yield
        self.items_by_index = items
        self._scene.setSceneRect(whole.adjusted(-60, -40, 60, 40))
        self._untouched = True
        self.show_start()

    def clear(self) -> None:
        """Draw nothing."""
        self.items_by_index = []
        self._bands = []
        self._marked = frozenset()
        self._scene.clear()

    def set_fills(self, fills: Mapping[int, QColor]) -> None:
        """Colour the nodes of `fills`, by index; all others are plain."""
        for item in self.items_by_index:
            item.fill = fills.get(item.index)
        self.viewport().update()

    def set_tooltips(self, texts: Mapping[int, str]) -> None:
        """Say what the pointer is told at each node."""
        for item in self.items_by_index:
            item.setToolTip(texts.get(item.index, ""))

    def mark(self, indices: AbstractSet[int]) -> None:
        """Draw a frame around nodes, and bring the first of them into sight."""
        for index in self._marked ^ indices:
            item = self.items_by_index[index]
            item.is_marked = index in indices
            item.setZValue(2.0 if item.is_marked else 1.0)
        self._marked = frozenset(indices)
        self.viewport().update()
        if indices:
            self.reveal(min(indices))

    def set_matches(self, indices: AbstractSet[int]) -> None:
        """Emphasize what a search has found."""
        for item in self.items_by_index:
            item.is_match = item.index in indices
        self.viewport().update()

    def reveal(self, index: int, *, readable: bool = False) -> None:
        """Bring a node into sight; large enough to be read, if `readable`."""
        item = self.items_by_index[index]
        if readable and self.zoom_factor() < READING_ZOOM:
            self.resetTransform()
            self.scale(READING_ZOOM, READING_ZOOM)
        seen = self.mapToScene(self.viewport().rect()).boundingRect()
        if not seen.contains(item.sceneBoundingRect()):
            self.centerOn(item)

    # --- view ---

    def zoom_factor(self) -> float:
        """Return the zoom, 1 for the size in which text is 10 pixels high."""
        return float(self.transform().m11())

    def zoom(self, factor: float) -> None:
        """Zoom by `factor` around the middle."""
        self._untouched = False
        anchor = self.transformationAnchor()
        self.setTransformationAnchor(QGraphicsView.ViewportAnchor.AnchorViewCenter)
        self._scale(factor)
        self.setTransformationAnchor(anchor)

    def fit(self) -> None:
        """Show the whole network."""
        self._untouched = False
        self._fit(self._scene.sceneRect())

    def show_start(self) -> None:
        """Show the whole width at the top of the network, in readable size."""
        whole = self._scene.sceneRect()
        if whole.isEmpty():
            return
        size = self.viewport().size()
        factor = min(1.0, size.width() / whole.width())
        factor = max(factor, min(1.0, size.height() / whole.height()), TEXT_ZOOM)
        self.resetTransform()
        self.scale(factor, factor)
        if whole.height() * factor > size.height():
            self.centerOn(self._top_center(), whole.top() + size.height() / factor / 2)
        else:
            self.centerOn(whole.center())

    def _top_center(self) -> float:
        top = min(item.y() for item in self.items_by_index)
        first = [item.x() for item in self.items_by_index if item.y() <= top + LAYER_SIZE.height()]
        return sum(first) / len(first)

    def _fit(self, rect: QRectF) -> None:
        if not rect.isEmpty():
            self.fitInView(rect, Qt.AspectRatioMode.KeepAspectRatio)
            if self.zoom_factor() > 1.0:
                self.resetTransform()
                self.centerOn(rect.center())

    def _scale(self, factor: float) -> None:
        whole, size = self._scene.sceneRect(), self.viewport().size()
        if whole.isEmpty():
            return
        least = min(size.width() / whole.width(), size.height() / whole.height(), 1.0)
        wanted = min(max(self.zoom_factor() * factor, least), 3.0)
        self.scale(wanted / self.zoom_factor(), wanted / self.zoom_factor())

    # --- drawing ---

    def _edge_paths(self, items: Sequence[NodeItem], layout: Layout, rows: Sequence[float]) -> Iterator[QPainterPath]:
        """Yield the edges of one band of layers after the other."""
        bands: dict[int, list[Route]] = {}
        for route in layout.routes:
            bands.setdefault(layout.layer[route.source] // _BAND, []).append(route)
        heights = [item.boundingRect().height() / 2 - 4 for item in items]
        for routes in bands.values():
            path = QPainterPath()
            for route in routes:
                start = QPointF(layout.x[route.source], rows[layout.layer[route.source]] + heights[route.source])
                end = QPointF(layout.x[route.target], rows[layout.layer[route.target]] - heights[route.target])
                path.moveTo(start)
                for a, b in pairwise([start, *(QPointF(x, rows[layer]) for x, layer in route.points), end]):
                    if abs(a.x() - b.x()) < 0.5:
                        path.lineTo(b)
                    else:
                        middle = (a.y() + b.y()) / 2
                        path.cubicTo(QPointF(a.x(), middle), QPointF(b.x(), middle), b)
            yield path

    def restyle(self, tokens: Tokens) -> None:
        """Take the colours of `tokens`."""
        self.setBackgroundBrush(tokens.color("panel"))
        for band in self._bands:
            band.setPen(_edge_pen(tokens))
        self.viewport().update()

    # --- input ---

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        if self._untouched:
            self.show_start()
            if self._marked:
                self.reveal(min(self._marked))

    def wheelEvent(self, event: QWheelEvent) -> None:
        self._untouched = False
        self._scale(_WHEEL ** event.angleDelta().y())
        event.accept()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        self._pressed = event.position()
        super().mousePressEvent(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        super().mouseReleaseEvent(event)
        pressed, self._pressed = self._pressed, None
        if pressed is None or (pressed - event.position()).manhattanLength() > _CLICK:
            self._untouched = False
            return
        item = self.itemAt(event.position().toPoint())
        if isinstance(item, NodeItem):
            self.node_picked.emit(item.index)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        match event.key():
            case Qt.Key.Key_Plus | Qt.Key.Key_Equal:
                self.zoom(1.25)
            case Qt.Key.Key_Minus:
                self.zoom(0.8)
            case Qt.Key.Key_0:
                self.fit()
            case Qt.Key.Key_Up:
                self._step(-1)
            case Qt.Key.Key_Down:
                self._step(1)
            case _:
                super().keyPressEvent(event)
                return
        event.accept()

    def _step(self, step: int) -> None:
        order = [item.index for item in self.items_by_index if item.node.layer]
        if not order:
            return
        marked = min(self._marked, default=-1)
        later = [place for place, index in enumerate(order) if index >= marked]
        place = later[0] if later else len(order) - 1
        if marked in order:
            place = min(max(place + step, 0), len(order) - 1)
        self.node_picked.emit(order[place])


def _row_centers(heights: Sequence[float], layout: Layout) -> list[float]:
    tallest = [SMALL_HEIGHT] * layout.layers
    for height, layer in zip(heights, layout.layer, strict=True):
        tallest[layer] = max(tallest[layer], height)
    centers, y = [], 0.0
    for height in tallest:
        centers.append(y + height / 2)
        y += height + _ROW_GAP
    return centers


@cache
def _font(pixels: int, weight: QFont.Weight = QFont.Weight.Normal) -> QFont:
    return ui_font(pixels, weight)


def _edge_pen(tokens: Tokens) -> QPen:
    return _cosmetic(QColor(tokens.mixed("muted", "panel", 0.55)), 1.2)


def _cosmetic(color: QColor, width: float) -> QPen:
    result = QPen(color, width)
    result.setCosmetic(True)
    return result
