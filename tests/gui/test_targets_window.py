from __future__ import annotations

import math

from quantgui.gui.models.filter import LayerFacts, parse_filter
from quantgui.gui.preset_groups import preset_groups
from quantgui.session.project import Project, project_from_json, project_to_json
from quantgui.spec.presets import PRESETS
from quantgui.spec.targets import TARGETS, find_target


def test_that_a_format_is_found_by_its_name_beside_bits() -> None:
    facts = LayerFacts("conv1", "Conv", "nf4 / int8", 4, 8, math.nan, 1, 1, 1)
    assert parse_filter("w=nf4").accepts(facts)
    assert parse_filter("a=int8 w=4").accepts(facts)
    assert not parse_filter("w=mxfp4").accepts(facts)
    assert not parse_filter("w!=nf4").accepts(facts)


def test_that_violating_layers_are_found_by_a_word() -> None:
    good = LayerFacts("conv1", "Conv", "int8", 8, 32, math.nan, 1, 1, 1)
    bad = LayerFacts("conv2", "Conv", "int3", 3, 32, math.nan, 1, 1, 1, violates=True)
    assert [parse_filter("violates").accepts(each) for each in (good, bad)] == [False, True]
    assert [parse_filter("-violates").accepts(each) for each in (good, bad)] == [True, False]


def test_that_the_project_keeps_the_target() -> None:
    project = Project("net.onnx", target="qnn")
    assert project_from_json(project_to_json(project)).target == "qnn"
    older = {key: value for key, value in project_to_json(project).items() if key != "target"}
    assert project_from_json(older).target == "simulation"


def test_that_every_preset_stands_in_one_group() -> None:
    assert sorted(x.name for _, group in preset_groups() for x in group) == sorted(x.name for x in PRESETS)
    assert all(group for _, group in preset_groups())


def test_that_every_target_says_where_its_rules_come_from() -> None:
    assert all(find_target(target.name).source for target in TARGETS)
