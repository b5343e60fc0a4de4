"""The command ``quantgui mix`` on a sample network."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from quantgui.cli.main import EXIT_MISTAKE, main
from quantgui.engine.bench import Bench
from quantgui.interrupts import EXIT_INTERRUPTED
from quantgui.paths import sample_models, state_folder
from quantgui.results import MixReady

DIGITS = str(sample_models() / "digits" / "digits.onnx")
DATA = str(sample_models() / "digits" / "digits.calibration.npz")
LABELLED_DATA = str(sample_models() / "digits" / "digits.evaluation.npz")
COMMAND = ["mix", DIGITS, "--data", DATA, "--bits", "2,4,8", "--samples", "32"]
LABELLED = ["mix", DIGITS, "--data", LABELLED_DATA, "--bits", "2,4,8", "--samples", "200"]


def run_json(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def sentence(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == EXIT_MISTAKE
    told = capsys.readouterr()
    assert not told.out
    lines = [line for line in told.err.splitlines() if line.startswith("quantgui: ")]
    assert len(lines) == 1
    return lines[0]


def test_that_the_mix_keeps_the_size_and_can_be_evaluated(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = str(tmp_path / "C.json")
    answer = run_json([*COMMAND, "--size", "0.2", "-o", config], capsys)
    best = answer["refined"]
    assert best["bytes"] <= 0.2 * answer["float"]["bytes"]
    assert best["bytes"] == pytest.approx(best["cost"])
    assert answer["chosen"]["bytes"] == answer["frontier"][answer["chosen"]["index"]]["bytes"]
    assert all({"bytes", "predicted", "measured", "stderr"} <= point.keys() for point in answer["frontier"])
    assert sum(point["measured"] is not None for point in answer["frontier"]) >= 5
    assert answer["seconds"] > 0
    assert answer["complete"]
    found = run_json(["evaluate", DIGITS, "--data", DATA, "--samples", "32", "--config", config], capsys)
    assert found["bytes"] == best["bytes"]
    assert found["output_sqnr_db"] == pytest.approx(best["measured"])


def test_that_bytes_bit_operations_and_loss_are_limits_too(capsys: pytest.CaptureFixture[str]) -> None:
    answer = run_json([*COMMAND, "--bytes", "50000"], capsys)
    assert answer["refined"]["bytes"] <= 50000
    answer = run_json([*COMMAND, "--bops", "0.02", "--what", "both"], capsys)
    whole = answer["frontier"][-1]["cost"]
    assert answer["limit"] == pytest.approx(0.02 * whole)
    assert answer["refined"]["cost"] <= 0.02 * whole
    answer = run_json([*COMMAND, "--drop", "25", "--metric", "output_sqnr_db"], capsys)
    assert answer["refined"]["measured"] >= 25
    assert answer["drop_metric"] == "output_sqnr_db"


def test_that_a_loss_without_a_metric_is_of_accuracy_in_points_of_a_hundred(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer = run_json([*LABELLED, "--drop", "0.5"], capsys)
    assert (answer["metric"], answer["drop_metric"], answer["drop"]) == ("output_sqnr_db", "accuracy", 0.005)
    assert answer["margin"]["value"] >= 0
    assert answer["margin"]["stderr"] > 0
    assert answer["refined"]["limited"]["value"] > 0.95
    assert main([*LABELLED, "--drop", "0.5", "--no-refine"]) == 0
    assert "within the limit by" in capsys.readouterr().out


def test_that_a_sensitivity_from_a_file_is_not_measured_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = str(tmp_path / "s.json")
    measured = ["sensitivity", DIGITS, "--data", DATA, "--bits", "2,4,8", "--samples", "32", "-o", file]
    assert main(measured) == 0
    capsys.readouterr()
    before = sorted((state_folder() / "sweeps").iterdir())
    plain = run_json([*COMMAND, "--size", "0.2", "--no-refine"], capsys)
    words = ["mix", DIGITS, "--data", DATA, "--samples", "32", "--size", "0.2", "--no-refine", "--sensitivity", file]
    # The bit-widths are those of the file.
    assert run_json(words, capsys)["frontier"] == plain["frontier"]
    assert sorted((state_folder() / "sweeps").iterdir()) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda told: told["layers"][0].update(name="other"), "no such layer 'other'"),
        (lambda told: told.update(fingerprint="0"), "its weights or graph differ"),
        (lambda told: told.update(metric="kl"), "tells KL divergence"),
        (lambda told: told["layers"].pop(), "does not tell what int"),
        (lambda told: told.pop("layers"), "is no answer of 'quantgui sensitivity'"),
        (lambda told: told["config"]["default"].update(weights={"format": "int8"}), "needs it from the float network"),
    ],
)
def test_that_a_sensitivity_of_something_else_is_refused(
    change, words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "s.json"
    measured = ["sensitivity", DIGITS, "--data", DATA, "--bits", "4,8", "--samples", "8", "-o", str(file)]
    assert main(measured) == 0
    told = json.loads(file.read_text())
    change(told)
    file.write_text(json.dumps(told))
    capsys.readouterr()
    metric = ["--metric", "output_sqnr_db"]
    assert words in sentence([*COMMAND, "--bits", "4,8", *metric, "--size", "0.3", "--sensitivity", str(file)], capsys)


def test_that_pins_groups_and_exclusions_hold(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", DIGITS, "--json"]) == 0
    names = [layer["name"] for layer in json.loads(capsys.readouterr().out)["layers"]]
    words = ["--pin", f"{names[0]}=W8", "--pin", f"{names[1]}=float32", "--exclude", f"{names[2]}=4"]
    answer = run_json([*COMMAND, "--size", "0.3", "--no-refine", *words, "--group", *names[3:5]], capsys)
    layers = {name: answer["config"]["layers"].get(name) for name in names}
    assert layers[names[0]]["weights"]["format"] == "int8"
    assert layers[names[1]] is None
    assert layers[names[2]] is None or layers[names[2]]["weights"]["format"] != "int4"
    assert layers[names[3]] == layers[names[4]]


def test_that_mistakes_are_told_in_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert sentence([*COMMAND, "--size", "0.01"], capsys).endswith(
        "the smallest one takes 18,024 bytes, 0.075 of the float network's 239,288."
    )
    assert "One of the arguments" in sentence(COMMAND, capsys)
    assert "--image-size" in sentence([*COMMAND, "--size", "224x224"], capsys)
    assert "the layer 'nowhere'" in sentence([*COMMAND, "--size", "0.2", "--pin", "nowhere=4"], capsys)
    assert "'int99x' is no format" in sentence([*COMMAND, "--size", "0.2", "--pin", "a=int99x"], capsys)
    assert "loses as little" in sentence(
        [*COMMAND, "--drop", "300", "--metric", "output_sqnr_db", "--bits", "2", *excluded_float()], capsys
    )
    missing = str(tmp_path / "missing.json")
    assert "Cannot read the sensitivity" in sentence([*COMMAND, "--size", "0.2", "--sensitivity", missing], capsys)

    assert "must be a number, got 'nan'" in sentence([*COMMAND, "--drop", "nan"], capsys)
    twice = ["--pin", "/head/Gemm=4", "--pin", "/head/Gemm=8"]
    assert "'/head/Gemm' at two formats" in sentence([*COMMAND, "--size", "0.2", *twice], capsys)
    hopeless = sentence([*COMMAND, "--size", "0.2", "--bits", "2-99999999999"], capsys)
    assert "must be bit-widths from 2 to 16" in hopeless


def test_that_nothing_is_measured_for_an_answer_that_could_not_be_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    nowhere = str(tmp_path / "missing" / "C.json")
    for words in ([*COMMAND, "--size", "0.2"], ["sensitivity", "no network", "--data", DATA]):
        assert "Cannot write" in sentence([*words, "-o", nowhere], capsys)
    assert "is no file" in sentence(["sensitivity", "no network", "--data", DATA, "-o", str(tmp_path)], capsys)


def test_that_a_network_without_layers_is_refused_and_not_its_limit(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 8]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    path = tmp_path / "bare.onnx"
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    said = sentence(["mix", str(path), "--data", "random:2", "--size", "0.5"], capsys)
    assert "no layer whose bits could be changed" in said


def excluded_float() -> list[str]:
    bench = Bench()
    from quantgui.engine.requests import OpenNetwork

    list(bench.handle(OpenNetwork(DIGITS)))
    return [word for layer in bench.network.layers for word in ("--exclude", f"{layer}=float32")]


def test_that_an_interrupt_keeps_the_best_mix_so_far(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = Bench.handle
    config = tmp_path / "C.json"

    def interrupted(bench: Bench, request: object):
        for event in handle(bench, request):
            yield event
            if isinstance(event, MixReady) and event.points[event.chosen].measured is not None:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Bench, "handle", interrupted)
        assert main([*COMMAND, "--size", "0.2", "-o", str(config)]) == EXIT_INTERRUPTED
    assert "holds the best mix so far" in capsys.readouterr().err
    found = run_json(["evaluate", DIGITS, "--data", DATA, "--config", str(config)], capsys)
    assert found["bytes"] <= 0.2 * found["float_bytes"]


def test_that_the_text_tells_the_mix_and_the_frontier(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--size", "0.2"]) == 0
    text = capsys.readouterr().out
    assert "smaller, output SQNR" in text
    assert "chosen" in text
    assert "predicted and measured differ by" in text


def names_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main(["inspect", DIGITS, "--json"]) == 0
    return [layer["name"] for layer in json.loads(capsys.readouterr().out)["layers"]]


def test_that_a_group_of_one_layer_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    name = names_of(capsys)[0]
    for group in ([name], [name, name]):
        assert "names only" in sentence([*COMMAND, "--size", "0.3", "--group", *group], capsys)


def test_that_a_target_that_runs_none_of_the_formats_is_named_with_its_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = sentence([*COMMAND, "--size", "0.3", "--target", "qnn", "--bits", "8"], capsys)
    assert "None of the formats that are tried is left for 'qnn'" in told
    assert "does not run float32 activations beside int8 weights" in told
    assert "--what both" in told


def test_that_layers_for_which_only_float_is_left_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    names = names_of(capsys)
    words = [*COMMAND, "--size", "0.95", "--bits", "8", "--no-refine"]
    assert main([*words, "--exclude", f"{names[0]}=8", "--json"]) == 0
    told = capsys.readouterr()
    assert f"Nothing but float is left for '{names[0]}'" in told.err
    everything = [word for name in names for word in ("--exclude", f"{name}=8")]
    assert "leaves no layer a format but float" in sentence([*words, *everything], capsys)
