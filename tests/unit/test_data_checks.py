"""The data check against numpy, on networks and data made for each mistake."""

from __future__ import annotations

import json

import numpy as np
import pytest
from builders import model_of, network_of, tensor_info, values
from onnx import helper

from quantgui.analysis.data_checks import examine_data, near_duplicates
from quantgui.analysis.preparations import undo_preparation
from quantgui.analysis.range_checks import (
    check_convergence,
    check_setters,
    check_values,
    dead_channels,
    fewest_setters,
    outlier_ratio,
    range_growths,
)
from quantgui.cli.main import main
from quantgui.engine.bench import Bench
from quantgui.engine.requests import ExamineData, OpenData, OpenNetwork
from quantgui.errors import DataError
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.numerics.statistics import collect
from quantgui.results import ActivationReady, DataExamined, DataReport, ImageOptions, Progress
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import IntFormat
from quantgui.spec.presets import activation_spec
from quantgui.spec.quantizer import FixedRange, LayerSpec, PerTensor, QuantizerSpec

RNG = np.random.default_rng(0)


def ready(name: str, array: np.ndarray) -> ActivationReady:
    rows = array.reshape(len(array), -1)
    return ActivationReady(name, collect(array.astype(np.float32)), len(array), rows.min(1), rows.max(1))


def spec(low: float, high: float, *, symmetric: bool = False) -> QuantizerSpec:
    return QuantizerSpec(
        IntFormat(8, signed=symmetric),
        granularity=PerTensor(),
        symmetric=symmetric,
        range_estimator=FixedRange(low, high),
    )


# --- ranges -------------------------------------------------------------------------------------------------------


def test_that_growth_is_the_range_of_the_first_samples_over_that_of_all() -> None:
    array = RNG.standard_normal((40, 50)).astype(np.float32)
    growth = range_growths({"t": ready("t", array)}, {"t": ("conv",)})["t"]
    widths = [max(array[: n + 1].max(), 0) - min(array[: n + 1].min(), 0) for n in range(40)]
    np.testing.assert_allclose(growth.shares, np.array(widths) / widths[-1], rtol=1e-6)
    assert growth.enough == next(n for n, width in enumerate(widths, 1) if width >= 0.99 * widths[-1])
    assert growth.highest == int(array.max(1).argmax())
    assert growth.lowest == int(array.min(1).argmin())
    assert growth.layers == ("conv",)


def test_that_the_samples_that_set_ranges_give_the_same_ranges_alone() -> None:
    arrays = {f"t{i}": np.maximum(RNG.standard_normal((64, 30)), 0).astype(np.float32) for i in range(5)}
    growths = range_growths({name: ready(name, array) for name, array in arrays.items()}, {})
    few = list(fewest_setters(growths))
    assert len(few) <= 5
    for array in arrays.values():
        assert array[few].max() == array.max()


def test_that_ranges_that_still_grow_are_told_with_the_layer() -> None:
    still = np.tile(np.linspace(-1, 1, 20), (16, 1))
    grows = still * np.linspace(0.1, 2, 16)[:, None]
    growths = range_growths({"a": ready("a", still), "b": ready("b", grows)}, {"b": ("conv7",)})
    (finding,) = check_convergence(growths)
    assert "1 of 2 activations still grow" in finding.sentence
    assert finding.layers == ("conv7",)
    assert not list(check_convergence(range_growths({"a": ready("a", still)}, {})))


def test_that_a_sample_that_sets_most_ranges_alone_is_named() -> None:
    arrays = {f"t{i}": RNG.uniform(-1, 1, (20, 30)) for i in range(6)}
    for array in arrays.values():
        array[13] *= 4
    activations = {name: ready(name, array) for name, array in arrays.items()}
    (finding,) = check_setters(range_growths(activations, {}), activations)
    assert finding.samples == (13,)
    assert finding.numbers["tensors"] == 6
    assert 3 < finding.numbers["excess"] < 5
    even = {f"t{i}": ready(f"t{i}", RNG.uniform(-1, 1, (20, 300))) for i in range(6)}
    assert not list(check_setters(range_growths(even, {}), even))


def test_that_dead_constant_clipped_and_infinite_activations_are_told_apart() -> None:
    normal = RNG.standard_normal((10, 1000)).astype(np.float32)
    broken = normal.copy()
    broken[3, 5] = np.nan
    activations = {
        "dead": ready("dead", np.zeros((10, 8))),
        "constant": ready("constant", np.full((10, 8), 2.5)),
        "clipped": ready("clipped", normal),
        "whole": ready("whole", normal),
        "broken": ready("broken", broken),
    }
    specs = {"clipped": (spec(-2, 2),), "whole": (spec(-8, 8),)}
    found = {f.kind: f for f in check_values(activations, specs, {"clipped": ("conv3",)})}
    assert {name: found[name].tensor for name in found} == {
        "not finite": "broken",
        "dead": "dead",
        "constant": "constant",
        "clipped": "clipped",
    }
    assert found["clipped"].layers == ("conv3",)
    grid = 4 / 255
    share = float((np.abs(normal) > 2 + grid).mean())
    assert found["clipped"].numbers["clipped"] == pytest.approx(share, rel=0.1)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("ends", [(0, 6), (-1, 1), (-1, 6)], ids=["relu6", "tanh", "clip"])
def test_that_the_full_range_of_saturated_activations_is_not_called_clipped(bits: int, ends: tuple[int, int]) -> None:
    """Nearly all values lie at the ends, where rounding the zero point may take half a step from the range."""
    values = np.clip(RNG.standard_normal((10, 1000)) * 20, *ends)
    activations = {"y": ready("y", values)}
    full = QuantizerSpec(IntFormat(bits, signed=False), False, PerTensor())
    assert not [f for f in check_values(activations, {"y": (full,)}, {}) if f.kind == "clipped"]


def test_that_far_outliers_and_lopsided_ranges_are_hints() -> None:
    far = RNG.standard_normal((100, 10_000)).astype(np.float32)
    far[7, 3] = 100
    lopsided = np.maximum(RNG.standard_normal((10, 1000)), -0.05)
    assert outlier_ratio(ready("far", far)) == pytest.approx(100 / np.quantile(np.abs(far), 0.9999), rel=0.05)
    found = {
        f.kind: f
        for f in check_values(
            {"far": ready("far", far), "side": ready("side", lopsided)}, {"side": (spec(-4, 4, symmetric=True),)}, {}
        )
    }
    assert found["outliers"].tensor == "far"
    assert found["lopsided"].tensor == "side"
    assert {f.severity for f in found.values()} == {"hint"}


def test_that_channels_that_never_change_are_counted() -> None:
    array = RNG.standard_normal((4, 6, 5, 5))
    array[:, 2] = 0
    array[:, 4] = 1.5
    assert dead_channels(array, 1) == 2


# --- inputs -------------------------------------------------------------------------------------------------------


def test_that_near_copies_are_found_and_varied_samples_are_not() -> None:
    prints = list(RNG.standard_normal((30, 64)))
    prints[20] = prints[4] + 0.001
    assert near_duplicates(prints) == [20]
    assert near_duplicates(prints, {20}) == []


def test_that_a_preparation_is_undone_to_zero_to_one() -> None:
    pixels = RNG.random((4, 3, 8, 8)).astype(np.float32)
    mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
    prepared = (pixels - mean[:, None, None]) / std[:, None, None]
    title, (back,) = undo_preparation([prepared], 1, None)
    assert "ImageNet" in title
    np.testing.assert_allclose(back, pixels, atol=1e-5)
    options = ImageOptions(8, 8, scale=255.0, mean=(127.0,) * 3, std=(128.0,) * 3)
    _, (back,) = undo_preparation([(pixels * 255 - 127) / 128], 1, options)
    np.testing.assert_allclose(back, pixels, atol=1e-5)


def classifier(*, normalization: bool = False):
    """Return a network of pictures (N, 3, 16, 16) -> 10 classes, whose first layer expects -1 ... 1."""
    weight = values(8, 3, 3, 3, scale=0.3)
    constants = {"w": weight, "fc": values(8, 10, seed=2)}
    nodes = []
    if normalization:
        constants |= {"g": np.ones(3, np.float32), "b": np.zeros(3, np.float32)}
        constants |= {"m": np.zeros(3, np.float32), "v": np.full(3, 1 / 3, np.float32)}
        nodes.append(helper.make_node("BatchNormalization", ["x", "g", "b", "m", "v"], ["n"]))
    constants["bias"] = values(8, seed=1, scale=0.7)
    nodes += [
        helper.make_node("Conv", ["n" if normalization else "x", "w", "bias"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("ReduceMean", ["r"], ["p"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["p", "fc"], ["y"]),
    ]
    return model_of(nodes, [tensor_info("x", ("N", 3, 16, 16))], [tensor_info("y", ("N", 10))], constants)


def opened(tmp_path, model, **arrays):
    import onnx

    from quantgui.network.reader import open_network

    path = tmp_path / "net.onnx"
    onnx.save(model, str(path))
    network = open_network(path)
    np.savez(tmp_path / "data.npz", **arrays)
    dataset = open_dataset(str(tmp_path / "data.npz"), network.summary.inputs, network.summary)
    return network, dataset


def report_on(network, dataset) -> DataReport:
    *_, last = examine_data(Executor(network), dataset)
    assert isinstance(last, DataExamined)
    return last.report


def pictures(count: int = 12) -> np.ndarray:
    """Return smooth pictures, -1 ... 1."""
    coarse = RNG.uniform(-1, 1, (count, 3, 4, 4))
    return np.kron(coarse, np.ones((4, 4))).astype(np.float32)


def kinds(report: DataReport) -> dict[str, str]:
    return {finding.kind: finding.severity for finding in report.findings}


@pytest.mark.parametrize("normalization", [False, True])
def test_that_pixels_up_to_255_are_told_where_the_network_saw_minus_one_to_one(tmp_path, normalization) -> None:
    x = pictures()
    network, right = opened(tmp_path, classifier(normalization=normalization), x=x)
    assert "range of inputs" not in kinds(report_on(network, right))
    network, wrong = opened(tmp_path, classifier(normalization=normalization), x=(x + 1) * 127.5)
    (finding,) = [f for f in report_on(network, wrong).findings if f.kind == "range of inputs"]
    assert finding.severity == "error"
    assert "(scale 1," in finding.advice
    # Only a normalization tells the preparation for sure; a bias tells the scale.
    assert not normalization or "−1 … 1" in finding.advice


def test_that_each_mistake_in_the_samples_is_named_with_the_sample(tmp_path) -> None:
    x = pictures()
    x[3] = 0.5
    x[7] = x[6]
    labels = np.arange(12) % 10
    labels[9] = 10
    report = report_on(*opened(tmp_path, classifier(), x=x, labels=labels))
    found = {f.kind: f for f in report.findings}
    assert found["constant sample"].samples == (3,)
    assert found["identical samples"].samples == (7,)
    assert found["labels"].samples == (9,)
    assert [f.severity for f in report.findings] == sorted(
        (f.severity for f in report.findings), key=["error", "warning", "hint"].index
    )
    x[5, 0, 0, 0] = np.inf
    found = {f.kind: f for f in report_on(*opened(tmp_path, classifier(), x=x)).findings}
    assert found["not finite input"].samples == (5,)


def test_that_labels_counted_from_one_are_recognised(tmp_path) -> None:
    report = report_on(*opened(tmp_path, classifier(), x=pictures(), labels=np.arange(12) % 10 + 1))
    (finding,) = [f for f in report.findings if f.kind == "labels"]
    assert "subtract 1" in finding.advice


def test_that_reshaped_instead_of_transposed_pictures_are_told(tmp_path) -> None:
    upright = np.repeat(np.cumsum(RNG.uniform(-0.05, 0.05, (12, 16, 16, 1)), 2), 3, 3) + np.array([-0.6, 0.0, 0.6])
    upright = upright.astype(np.float32)
    transposed = report_on(*opened(tmp_path, classifier(), x=np.ascontiguousarray(upright.transpose(0, 3, 1, 2))))
    assert "layout" not in kinds(transposed)
    reshaped = report_on(*opened(tmp_path, classifier(), x=upright.reshape(12, 3, 16, 16)))
    assert kinds(reshaped)["layout"] == "error"


def test_that_random_numbers_are_marked_and_their_preparation_is_not_judged(tmp_path) -> None:
    network, _ = opened(tmp_path, classifier(), x=pictures())
    data = open_dataset("random:12", network.summary.inputs, network.summary, network=network)
    report = report_on(network, data)
    assert kinds(report)["synthetic"] == "warning"
    assert "range of inputs" not in kinds(report)
    assert any("random" in sentence for sentence in report.unknown)


def test_that_the_first_samples_come_along_as_the_network_gets_them(tmp_path) -> None:
    x = pictures()
    report = report_on(*opened(tmp_path, classifier(), x=x))
    assert report.preview_input == "x"
    np.testing.assert_array_equal(np.stack(report.previews), x[:8])


def test_that_an_input_that_all_samples_share_is_not_called_empty_or_repeated(tmp_path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"], name="head"),
        helper.make_node("ReduceSum", ["past"], ["sum"], keepdims=0),
        helper.make_node("Add", ["product", "sum"], ["y"]),
    ]
    inputs = [tensor_info("x", [1, 8]), tensor_info("past", [1, 4, 16])]
    model = model_of(nodes, inputs, [tensor_info("y", [1, 3])], {"w": values(8, 3, seed=1)})
    x = RNG.standard_normal((12, 8)).astype(np.float32)
    network, dataset = opened(tmp_path, model, x=x, past=np.zeros((1, 4, 16), np.float32))
    report = report_on(network, dataset)
    assert report.preview_input == "x"
    assert not {"constant sample", "identical samples"} & kinds(report).keys()


def test_that_numbers_of_words_given_as_floating_point_are_checked_as_they_are(tmp_path) -> None:
    nodes = [
        helper.make_node("Cast", ["words"], ["numbers"], to=7),
        helper.make_node("Gather", ["table", "numbers"], ["vectors"], name="lookup"),
        helper.make_node("MatMul", ["vectors", "w"], ["y"], name="head"),
    ]
    constants = {"table": values(40, 8, seed=1), "w": values(8, 3, seed=2)}
    model = model_of(nodes, [tensor_info("words", ["n", "length"])], [tensor_info("y", ["n", "length", 3])], constants)
    words = RNG.integers(1, 40, (12, 5)).astype(np.float32)
    report = report_on(*opened(tmp_path, model, words=words))
    assert "range" not in kinds(report)
    assert any("cannot be told" in sentence for sentence in report.unknown)


def test_that_tiny_networks_without_pictures_are_checked_as_well(tmp_path) -> None:
    model = model_of(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"])],
        [tensor_info("x", ("N", 8))],
        [tensor_info("y", ("N", 4))],
        {"w": values(8, 4), "b": values(4, seed=1)},
    )
    assert network_of(model).summary.inputs[0].name == "x"
    x = values(16, 8)
    assert "range of inputs" not in kinds(report_on(*opened(tmp_path, model, x=x)))
    loud = report_on(*opened(tmp_path, model, x=x * 32768))
    assert kinds(loud)["range of inputs"] == "error"


def test_that_an_array_with_the_colours_at_the_wrong_end_is_refused_with_the_way_to_mend_it(tmp_path) -> None:
    with pytest.raises(DataError, match=r"move the colours before height and width, array.transpose\(0, 3, 1, 2\)"):
        opened(tmp_path, classifier(), x=pictures().transpose(0, 2, 3, 1))


def test_that_the_command_tells_the_findings_and_the_bench_looks_at_inputs_only_once(tmp_path, capsys) -> None:
    opened(tmp_path, classifier(), x=(pictures() + 1) * 127.5)
    arguments = ["check", str(tmp_path / "net.onnx"), "--data", str(tmp_path / "data.npz"), "--preset", "W8A8"]
    assert main([*arguments, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["findings"][0]["kind"] == "range of inputs"
    assert answer["samples"] == 12
    assert answer["activations"][0]["samples_for_99_percent"] <= 12
    assert main(arguments) == 0
    assert "error    The values of 'x' (0 … 255)" in capsys.readouterr().out

    bench = Bench()
    for request in (OpenNetwork(str(tmp_path / "net.onnx")), OpenData(str(tmp_path / "data.npz")), ExamineData()):
        *_, quick = bench.handle(request)
    assert quick.report.config is None
    assert not quick.report.growths
    *_, full = bench.handle(ExamineData(QuantConfig()))
    assert full.report.growths
    assert set(quick.report.findings) <= set(full.report.findings)
    assert full.report.previews is quick.report.previews


def test_that_ranges_are_judged_anew_for_another_configuration_and_nothing_else_is_done_twice(tmp_path) -> None:
    opened(tmp_path, classifier(), x=pictures())
    bench = Bench(cache_bytes=2**26)
    list(bench.handle(OpenNetwork(str(tmp_path / "net.onnx"))))
    list(bench.handle(OpenData(str(tmp_path / "data.npz"))))
    narrow = LayerSpec(None, activation_spec(8, FixedRange(-0.01, 0.01)))
    reports, steps = [], []
    for spec in (narrow, LayerSpec(), narrow):
        events = list(bench.handle(ExamineData(QuantConfig(spec))))
        steps.append([event.label for event in events if isinstance(event, Progress)])
        reports.append(events[-1].report)
    assert ["clipped" in kinds(report) for report in reports] == [True, False, True]
    assert "Looking for dead channels" in steps[0]
    assert "Looking for dead channels" not in steps[1] + steps[2]
    assert {k for k in kinds(reports[0]) if k != "clipped"} == set(kinds(reports[1]))
    assert all(report.checked == reports[0].checked for report in reports)
    *_, inputs = bench.handle(ExamineData())
    assert inputs.report.config is None
    assert not inputs.report.growths
