"""The commands that take work away: files of other tools, the report, what runtimes refuse."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from quantgui.cli.commands import COMMANDS
from quantgui.cli.main import EXIT_MISTAKE, main
from quantgui.export.dialects.table import DIALECTS
from quantgui.paths import sample_models
from quantgui.spec.dialects import DIALECTS as INFOS
from quantgui.spec.serialization import load_config

DIGITS = str(sample_models() / "digits" / "digits.onnx")
DATA = str(sample_models() / "digits" / "digits.calibration.npz")


def run_json(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def sentence(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == EXIT_MISTAKE
    told = capsys.readouterr()
    assert not told.out
    return next(line for line in told.err.splitlines() if line.startswith("quantgui: "))


@pytest.fixture(scope="module")
def sensitivity(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("sensitivity") / "S.json")
    assert main(["sensitivity", DIGITS, "--data", DATA, "--samples", "8", "--bits", "4,8", "-o", path]) == 0
    return path


def test_that_what_the_command_line_offers_is_what_can_be_written() -> None:
    assert [dialect.info for dialect in DIALECTS] == list(INFOS)
    assert all((dialect.read is not None) == dialect.info.readable for dialect in DIALECTS)


@pytest.mark.parametrize("info", INFOS, ids=lambda info: info.name)
def test_that_every_form_is_written(info, sensitivity: str, tmp_path: Path, capsys) -> None:
    path = tmp_path / f"out{info.suffix}"
    words = ["export", DIGITS, "--data", DATA, "--samples", "8", "--preset", "W8A8", "--as", info.name]
    answer = run_json([*words, "--sensitivity", sensitivity, "-o", str(path)], capsys)
    assert answer["as"] == info.name
    assert answer["file_bytes"] == path.stat().st_size > 0


def test_that_a_configuration_survives_a_file_of_another_tool(tmp_path: Path, capsys) -> None:
    encodings, config = str(tmp_path / "E.encodings"), str(tmp_path / "C.json")
    words = ["export", DIGITS, "--data", DATA, "--preset", "W8A8", "--as", "aimet-1.0", "-o", encodings]
    before = run_json(words, capsys)
    read = run_json(["import", encodings, "--network", DIGITS, "-o", config], capsys)
    assert read["from"] == "AIMET encodings 1.0.0"
    assert read["unknown_names"] == []
    assert read["layers"] == 10
    assert read["bytes"] < 0.3 * read["float_bytes"]
    there, back = before["config"]["default"], load_config(Path(config))
    assert str(back.spec_for("head/Gemm").weights or "") in ("", there["weights"]["format"])
    evaluated = run_json(["evaluate", DIGITS, "--data", DATA, "--samples", "32", "--config", config], capsys)
    assert evaluated["output_sqnr_db"] > 20


def test_that_unknown_names_are_told_and_a_file_of_nothing_else_is_a_mistake(tmp_path: Path, capsys) -> None:
    path, config = tmp_path / "T.json", tmp_path / "C.json"
    run_json(["export", DIGITS, "--preset", "W8", "--as", "torchao", "-o", str(path)], capsys)
    settings = json.loads(path.read_text())
    settings["_data"]["fqn_to_config"]["haed"] = settings["_data"]["fqn_to_config"]["head"]
    path.write_text(json.dumps(settings))
    words = ["import", str(path), "--network", DIGITS, "-o", str(config)]
    assert run_json(words, capsys)["unknown_names"] == [{"name": "haed", "nearest": "head"}]
    del settings["_data"]["fqn_to_config"]["head"]
    path.write_text(json.dumps(settings))
    config.unlink()
    assert "nearest to 'haed' is 'head'" in sentence(words, capsys)
    assert not config.exists()


def test_that_the_report_shows_a_sensitivity(sensitivity: str, tmp_path: Path, capsys) -> None:
    path = tmp_path / "R.html"
    words = ["report", DIGITS, "--data", DATA, "--samples", "8", "--preset", "W8", "--sensitivity", sensitivity]
    answer = run_json([*words, "-o", str(path)], capsys)
    assert answer["file_bytes"] == path.stat().st_size
    assert "alone" in path.read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["export", DIGITS, "-o", "x", "--as", "torchao"], "--config --preset is required"),
        (["export", DIGITS, "-o", "x", "--as", "aimet-sensitivity"], "add --sensitivity FILE"),
        (["export", DIGITS, "-o", "x", "--as", "tarchoa", "--preset", "W8"], "invalid choice: 'tarchoa'"),
        (["export", DIGITS, "-o", "x", "--as", "qnn", "--preset", "W8A8"], "come from data"),
        (["import", "missing.json", "--network", DIGITS, "-o", "x"], "Cannot read 'missing.json'"),
        (["evaluate", DIGITS, "--data", DATA, "--preset", "W8", "--target", "tpu"], "There is no target 'tpu'"),
        (["report", DIGITS, "--preset", "W8", "-o", "r", "--sensitivity", __file__], "is no JSON file"),
    ],
)
def test_that_mistakes_are_sentences(words: list[str], told: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert told in sentence(words, capsys)
    assert not list(tmp_path.iterdir())


def test_that_a_target_says_what_it_cannot_run(tmp_path: Path, capsys) -> None:
    path = str(tmp_path / "out.onnx")
    words = ["export", DIGITS, "--preset", "W3-g32", "-o", path, "--target", "tensorrt"]
    assert main(words) == 0
    assert "note: TensorRT (explicit Q/DQ) does not run int3 weights" in capsys.readouterr().err
    violations = run_json(words, capsys)["violations"]
    assert len(violations) == 10
    assert all("int3" in each["sentence"] for each in violations)
    assert run_json(words[:-2], capsys)["violations"] == []


def test_that_a_mix_chooses_only_what_the_target_runs(capsys) -> None:
    words = ["mix", DIGITS, "--data", DATA, "--samples", "8", "--bits", "3,4,8", "--size", "0.3", "--no-refine"]
    answer = run_json([*words, "--target", "coreml"], capsys)
    assert answer["violations"] == []
    formats = {str(layer["weights"]) for layer in answer["config"]["layers"].values()}
    assert formats
    assert not any("int3" in each for each in formats)


def test_that_targets_are_listed(capsys) -> None:
    names = [target["name"] for target in run_json(["targets"], capsys)["targets"]]
    assert {"ort-cpu", "tensorrt", "qnn"} <= set(names)


def test_that_every_command_says_what_it_does(capsys) -> None:
    for name, command in COMMANDS.items():
        assert main([name, "--help"]) == 0
        assert command.help in capsys.readouterr().out


def test_that_what_tensorrt_refuses_is_converted_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.onnx"
    words = ["export", str(DIGITS), "--data", str(DATA), "--preset", "W4A8", "--as-is", "-o", str(out)]
    assert main([*words, "--as", "tensorrt"]) == 2
    assert not out.exists()
    answer = run_json([*words, "--as", "tensorrt", "--convert"], capsys)
    (note,) = (note for note in answer["notes"] if note.startswith("Converted: "))
    assert "weights int4 per channel with activations asymmetric uint8" in note
    assert "became weights int8 per channel with activations int8 per tensor" in note
    kinds = {tensor.name: tensor.data_type for tensor in onnx.load(out).graph.initializer}
    assert {kind for name, kind in kinds.items() if name.endswith("_zero_point")} <= {onnx.TensorProto.INT8}
    # The configuration in the answer is the one in the file, so that Verify compares the two.
    config = tmp_path / "C.json"
    config.write_text(json.dumps(answer["config"]))
    words = ["verify", str(DIGITS), str(out), "--data", str(DATA), "--config", str(config)]
    assert run_json(words, capsys)["output_sqnr_db"] > 60


def test_that_only_a_file_for_tensorrt_is_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", str(DIGITS), "--preset", "W8", "--convert", "-o", str(tmp_path / "out.onnx")]
    assert main(words) == 2
    assert "--as tensorrt" in capsys.readouterr().err


def test_that_a_report_shows_the_frontier_that_a_mix_has_printed(tmp_path: Path, capsys) -> None:
    few = ["--data", DATA, "--samples", "8"]
    words = ["mix", DIGITS, *few, "--bits", "4,8", "--size", "0.2", "--no-refine"]
    answer = run_json([*words, "-o", str(tmp_path / "C.json")], capsys)
    told = tmp_path / "M.json"
    told.write_text(json.dumps(answer))
    report = tmp_path / "report.html"
    words = ["report", DIGITS, *few, "--config", str(tmp_path / "C.json"), "-o", str(report)]
    run_json(words, capsys)
    assert "Size and quality" not in report.read_text()
    run_json([*words, "--mix", str(told)], capsys)
    text = report.read_text()
    assert "Size and quality" in text
    assert "8 samples, larger is better" in text
    measured = [point for point in answer["frontier"] if point["measured"] is not None]
    assert text.count("<circle") >= len([point for point in measured if point["measured"] != "inf"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is no JSON file"),
        ("[]", "is no answer of 'quantgui mix --json'"),
        ('{"float": {"bytes": 1}, "network": "digits"}', "is of another network"),
    ],
)
def test_that_a_mix_of_something_else_is_a_sentence(text: str, words: str, tmp_path: Path, capsys) -> None:
    told = tmp_path / "M.json"
    told.write_text(text)
    command = ["report", DIGITS, "--preset", "W8", "--mix", str(told), "-o", str(tmp_path / "r.html")]
    assert words in sentence(command, capsys)
