from __future__ import annotations

import itertools
import math

import pytest
from gui_examples import click, network, shown
from hypothesis import given
from hypothesis import strategies as st
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QWheelEvent
from PySide6.QtWidgets import QApplication

from quantgui.gui.colormap import ANCHORS, color_of
from quantgui.gui.graph_layout import layout, spread
from quantgui.gui.panels.graph import GraphPanel
from quantgui.gui.widgets.network_view import node_size
from quantgui.results import NetworkSummary

NETWORK = network(6)


def panel(qtbot, summary: NetworkSummary = NETWORK) -> GraphPanel:
    result = GraphPanel()
    shown(qtbot, result)
    result.show_network(summary)
    qtbot.waitUntil(result.is_ready)
    return result


def node_place(panel: GraphPanel, index: int) -> QPoint:
    return panel.view.mapFromScene(panel.view.items_by_index[index].pos())


@st.composite
def graphs(draw) -> list[list[int]]:
    size = draw(st.integers(1, 40))
    return [draw(st.lists(st.integers(0, max(index - 1, 0)), max_size=3)) if index else [] for index in range(size)]


@given(graphs())
def test_that_every_node_lies_below_all_that_feed_it(inputs: list[list[int]]) -> None:
    result = layout(inputs, [100.0] * len(inputs))
    for node, sources in enumerate(inputs):
        assert all(result.layer[source] < result.layer[node] for source in sources)


@given(graphs())
def test_that_nodes_of_a_layer_do_not_overlap(inputs: list[list[int]]) -> None:
    result = layout(inputs, [100.0] * len(inputs))
    for layer in range(result.layers):
        places = sorted(x for x, other in zip(result.x, result.layer, strict=True) if other == layer)
        assert all(b - a >= 100.0 for a, b in itertools.pairwise(places))


@given(graphs())
def test_that_every_edge_has_a_way_with_a_point_in_each_layer_it_passes(inputs: list[list[int]]) -> None:
    result = layout(inputs, [100.0] * len(inputs))
    edges = {(source, node) for node, sources in enumerate(inputs) for source in sources}
    assert {(route.source, route.target) for route in result.routes} == edges
    for route in result.routes:
        between = range(result.layer[route.source] + 1, result.layer[route.target])
        assert [layer for _, layer in route.points] == list(between)


def test_that_long_edges_do_not_cross_nodes() -> None:
    inputs = [[], [0], [1], [2], [3, 0]]
    result = layout(inputs, [100.0] * 5)
    [route] = [route for route in result.routes if route.source == 0 and route.target == 4]
    for x, layer in route.points:
        node = result.layer.index(layer)
        assert abs(x - result.x[node]) >= 50.0


def test_that_a_chain_is_drawn_straight() -> None:
    result = layout([[], *([index] for index in range(300))], [100.0] * 301)
    assert max(result.x) - min(result.x) < 1.0


def test_that_a_tall_network_does_not_drift_to_the_side() -> None:
    nodes = network(100).nodes
    result = layout([node.inputs for node in nodes], [150.0 if node.layer else 40.0 for node in nodes])
    assert max(result.x) - min(result.x) < 300.0


def test_that_a_loop_in_a_broken_file_does_not_hang_the_drawing() -> None:
    assert len(layout([[1], [0]], [10.0, 10.0]).x) == 2


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=12))
def test_that_boxes_are_spread_without_overlap_and_stay_where_there_is_room(wanted: list[float]) -> None:
    places = spread(wanted, [10.0] * len(wanted))
    assert all(b - a >= 10.0 for a, b in itertools.pairwise(places))
    assert math.isclose(sum(places), sum(wanted), abs_tol=1e-6)


def test_that_colours_go_from_dark_to_bright() -> None:
    brightness = [color_of(step / 100).lightnessF() for step in range(101)]
    assert brightness == sorted(brightness)
    assert color_of(-1.0).name() == ANCHORS[0]
    assert color_of(2.0).name() == ANCHORS[-1]


def test_that_a_network_is_arranged_only_when_it_is_looked_at(qtbot) -> None:
    result = GraphPanel()
    qtbot.addWidget(result)
    result.show_network(NETWORK)
    QApplication.processEvents()
    assert not result.is_ready()
    result.show()
    qtbot.waitUntil(result.is_ready)
    assert len(result.view.items_by_index) == len(NETWORK.nodes)


def test_that_a_large_network_is_drawn_in_parts_of_equal_effort(qtbot) -> None:
    summary = network(400)
    result = GraphPanel()
    qtbot.addWidget(result)
    inputs, widths = [node.inputs for node in summary.nodes], [node_size(node).width() for node in summary.nodes]
    steps = result.view.graph_steps(summary.nodes, layout(inputs, widths))
    drawn = [0, *(len(result.view.scene().items()) for _ in steps)]
    assert max(after - before for before, after in itertools.pairwise(drawn)) <= 250
    assert len(result.view.items_by_index) == len(summary.nodes) > 500


def test_that_only_what_is_selected_is_framed(qtbot) -> None:
    result = panel(qtbot)
    for name in [layer.name for layer in NETWORK.layers[:3]]:
        result.select(name)
        framed = {item.node.layer for item in result.view.items_by_index if item.is_marked}
        raised = {item.node.layer for item in result.view.items_by_index if item.zValue() > 1.0}
        assert framed == raised == {name}


def test_that_a_click_on_a_layer_picks_it(qtbot) -> None:
    result = panel(qtbot)
    with qtbot.waitSignal(result.layer_picked) as told:
        click(result.view, node_place(result, 0))
    assert told.args == ["conv0"]
    assert result.view.items_by_index[0].is_marked


def test_that_a_click_on_another_operator_picks_nothing(qtbot) -> None:
    result = panel(qtbot)
    relu = next(index for index, node in enumerate(NETWORK.nodes) if not node.layer)
    with qtbot.assertNotEmitted(result.layer_picked):
        click(result.view, node_place(result, relu))


def test_that_a_selected_layer_comes_into_sight_and_is_not_told_back(qtbot) -> None:
    result = panel(qtbot)
    last = NETWORK.layers[-1].name
    with qtbot.assertNotEmitted(result.layer_picked):
        result.select(last)
    index = next(index for index, node in enumerate(NETWORK.nodes) if node.layer == last)
    assert result.view.viewport().rect().contains(node_place(result, index))


def test_that_a_selection_made_before_the_network_is_drawn_is_kept(qtbot) -> None:
    result = GraphPanel()
    shown(qtbot, result)
    result.show_network(NETWORK)
    result.select("conv2")
    qtbot.waitUntil(result.is_ready)
    assert [item.node.layer for item in result.view.items_by_index if item.is_marked] == ["conv2"]


def test_that_a_selected_layer_stays_in_sight_when_the_room_changes(qtbot) -> None:
    result = panel(qtbot)
    last = NETWORK.layers[-1].name
    result.select(last)
    index = next(index for index, node in enumerate(NETWORK.nodes) if node.layer == last)
    result.resize(result.width() - 100, result.height() // 2)
    QApplication.processEvents()
    assert result.view.viewport().rect().contains(node_place(result, index))


def test_that_layers_are_coloured_by_value_and_others_stay_plain(qtbot) -> None:
    result = panel(qtbot)
    names = [layer.name for layer in NETWORK.layers]
    result.color_by({names[0]: 10.0, names[1]: 40.0, names[2]: math.inf}, "SQNR (dB)")
    fills = {item.node.layer: item.fill for item in result.view.items_by_index if item.node.layer}
    assert fills[names[0]].name() == ANCHORS[0]
    assert fills[names[1]].name() == ANCHORS[-1]
    assert fills[names[2]] is None
    assert result.legend.accessibleName() == "Colour: SQNR (dB), 10.0 to 40.0"
    result.color_by({}, "")
    assert not result.legend.isVisible()


def test_that_the_search_goes_from_match_to_match(qtbot) -> None:
    result = panel(qtbot)
    told = []
    result.layer_picked.connect(told.append)
    qtbot.keyClicks(result.search, "Conv")
    convs = [node.name for node in NETWORK.nodes if node.op == "Conv"]
    assert result._found.text() == f"{len(convs)} found"
    for _ in range(2):
        qtbot.keyClick(result.search, Qt.Key.Key_Return)
    assert told == convs[:2]
    assert result._found.text() == f"2 of {len(convs)}"


def test_that_a_search_without_match_does_nothing(qtbot) -> None:
    result = panel(qtbot)
    qtbot.keyClicks(result.search, "no such node")
    qtbot.keyClick(result.search, Qt.Key.Key_Return)
    assert result._found.text() == "0 found"


def test_that_arrow_keys_go_from_layer_to_layer(qtbot) -> None:
    result = panel(qtbot)
    told = []
    result.layer_picked.connect(told.append)
    for key in (Qt.Key.Key_Down, Qt.Key.Key_Down, Qt.Key.Key_Up):
        qtbot.keyClick(result.view, key)
    assert told == ["conv0", "conv2", "conv0"]


def test_that_the_wheel_zooms_and_never_beyond_the_whole(qtbot) -> None:
    result = panel(qtbot)
    view = result.view
    for delta, steps in ((120, 5), (-120, 60)):
        before = view.zoom_factor()
        for _ in range(steps):
            center = QPointF(view.viewport().rect().center())
            event = QWheelEvent(
                center,
                QPointF(view.viewport().mapToGlobal(center.toPoint())),
                QPoint(),
                QPoint(0, delta),
                Qt.MouseButton.NoButton,
                Qt.KeyboardModifier.NoModifier,
                Qt.ScrollPhase.NoScrollPhase,
                False,
            )
            QApplication.sendEvent(view.viewport(), event)
        assert (view.zoom_factor() > before) == (delta > 0)
    whole = view.sceneRect().height() * view.zoom_factor()
    assert whole == pytest.approx(view.viewport().height(), rel=0.05)


def test_that_fit_shows_the_whole_network(qtbot) -> None:
    result = panel(qtbot)
    result.zoom_buttons.all.click()
    seen = result.view.viewport().rect()
    assert all(seen.contains(node_place(result, index)) for index in range(len(NETWORK.nodes)))
    assert not result.grab().isNull()


def test_that_closing_the_network_empties_the_panel(qtbot) -> None:
    result = panel(qtbot)
    result.show_network(None)
    assert result.state.heading() == "No network open"
    assert not result.is_ready()
    result.select("conv0")
    result.color_by({"conv0": 1.0}, "x")


def test_that_another_network_replaces_the_first(qtbot) -> None:
    result = panel(qtbot)
    other = network(2)
    result.show_network(other)
    qtbot.waitUntil(result.is_ready)
    assert len(result.view.items_by_index) == len(other.nodes)
