"""The whole loop without a window: inspect, evaluate, export, verify, as a user or a script runs it."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import networks
import numpy as np
import onnxruntime
import pytest
from PIL import Image, ImageDraw, ImageFont

from quantgui.paths import sample_models
from quantgui.spec.formats import IntFormat
from quantgui.spec.quantizer import LayerSpec, QuantizerSpec
from quantgui.spec.serialization import layer_spec_to_json

ROOT = Path(__file__).parents[2]
FOLDER = sample_models() / "digits"
DIGITS, DATA = str(FOLDER / "digits.onnx"), str(FOLDER / "digits.evaluation.npz")
COMMAND = [sys.executable, "-m", "quantgui"]


class Run(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def run(*words: str | Path) -> Run:
    """Run the command line in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([*COMMAND, *map(str, words)], capture_output=True, text=True, env=environment, timeout=580)
    return Run(result.returncode, result.stdout, result.stderr)


def run_json(*words: str | Path) -> dict[str, Any]:
    """Run a command that ends well and return its JSON, refusing what other languages cannot read."""
    result = run(*words, "--json")
    assert result.code == 0, result.err

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    value: dict[str, Any] = json.loads(result.out, parse_constant=refuse)
    return value


def write_config(path: Path, layers: dict[str, int]) -> Path:
    """Write a configuration that gives layers their bits and keeps all others float."""
    specs = {name: layer_spec_to_json(LayerSpec(QuantizerSpec(IntFormat(bits)))) for name, bits in layers.items()}
    path.write_text(json.dumps({"version": 1, "layers": specs}))
    return path


def test_that_inspect_lists_every_layer_with_its_keys() -> None:
    found = run_json("inspect", DIGITS)
    assert found["network"] == "digits"
    keys = {"name", "op", "weight", "shape", "parameters", "macs", "bytes", "format"}
    assert all(keys <= layer.keys() for layer in found["layers"])
    assert {layer["op"] for layer in found["layers"]} == {"Conv", "Gemm"}
    assert sum(layer["parameters"] for layer in found["layers"]) <= found["parameters"]
    assert all(layer["bytes"] == 4 * math.prod(layer["shape"]) for layer in found["layers"])


def test_that_people_get_a_table() -> None:
    result = run("inspect", DIGITS)
    assert result.code == 0
    assert result.err == ""
    lines = result.out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[:1] == ["layer"])
    assert len(lines[start + 1 :]) == 10
    assert len({line.index("float32") for line in lines[start + 1 :]}) == 1


def test_that_evaluate_tells_quality_and_size() -> None:
    found = run_json("evaluate", DIGITS, "--data", DATA, "--preset", "W4")
    assert found["metric"] == "accuracy"
    assert found["float"]["samples"] == found["quantized"]["samples"] == found["samples"] == 1000
    assert found["quantized"]["value"] < found["float"]["value"]
    assert 0 < found["quantized"]["stderr"] < 0.02
    assert found["bytes"] == found["stored_bytes"] < found["float_bytes"] / 6
    assert found["config"]["name"] == "W4"
    assert {"output_sqnr_db", "cosine", "agreement", "kl"} <= found["scores"].keys()
    assert found["seconds"] > 0


def test_that_the_float_accuracy_is_that_of_the_file_in_its_runtime() -> None:
    found = run_json("evaluate", DIGITS, "--data", DATA)
    data = np.load(DATA)
    (logits,) = onnxruntime.InferenceSession(DIGITS).run(None, {"picture": data["picture"]})
    assert found["float"]["value"] == pytest.approx(np.mean(logits.argmax(1) == data["labels"]))
    assert found["quantized"] == found["float"]
    assert found["output_sqnr_db"] == "inf"
    assert found["bytes"] == found["float_bytes"]


def test_that_an_export_is_verified_with_the_configuration_it_tells(tmp_path: Path) -> None:
    out = tmp_path / "w8a8.onnx"
    evaluated = run_json("evaluate", DIGITS, "--data", DATA, "--preset", "W8A8")
    exported = run_json("export", DIGITS, "--data", DATA, "--preset", "W8A8", "-o", out)
    verified = run_json("verify", DIGITS, out, "--data", DATA)
    assert exported["file_bytes"] == verified["file_bytes"] == out.stat().st_size
    assert verified["float_file_bytes"] == Path(DIGITS).stat().st_size
    assert verified["file_bytes"] < verified["float_file_bytes"] / 2
    assert verified["config"] == exported["config"] == evaluated["config"]
    assert verified["simulated"] == evaluated["quantized"]
    assert abs(verified["deployed"]["value"] - verified["simulated"]["value"]) <= 0.01
    assert float(verified["output_sqnr_db"]) > 25
    assert verified["latency_ratio"] > 0
    assert {layer["name"] for layer in verified["layers"]} <= {layer["name"] for layer in inspected_layers()}


def test_that_verification_on_other_data_keeps_the_ranges_of_the_file(tmp_path: Path) -> None:
    out, calibration = tmp_path / "w8a8.onnx", FOLDER / "digits.calibration.npz"
    run_json("export", DIGITS, "--data", calibration, "--preset", "W8A8", "-o", out)
    with_calibration = run_json("verify", DIGITS, out, "--data", DATA, "--calibration", calibration)
    without = run_json("verify", DIGITS, out, "--data", DATA)
    assert without["simulated"] == with_calibration["simulated"]
    assert without["output_sqnr_db"] > 45


def inspected_layers() -> list[dict[str, Any]]:
    layers: list[dict[str, Any]] = run_json("inspect", DIGITS)["layers"]
    return layers


def test_that_weights_alone_are_exported_without_data(tmp_path: Path) -> None:
    out = tmp_path / "w4.onnx"
    result = run("export", DIGITS, "--preset", "W4", "-o", out)
    assert result.code == 0
    assert out.name in result.out
    onnxruntime.InferenceSession(str(out))


def test_that_a_file_that_tells_no_configuration_is_refused(tmp_path: Path) -> None:
    result = run("verify", DIGITS, DIGITS, "--data", DATA)
    assert result.code == 2
    assert "--config or --preset" in result.err


def test_that_a_configuration_that_names_no_layer_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.json", {"/residual1/conv1/Con": 4})
    result = run("evaluate", DIGITS, "--data", DATA, "--config", config)
    assert result.code == 2
    assert "did you mean '/residual1/conv1/Conv'" in result.err
    two = write_config(tmp_path / "two.json", {"/residual1/conv1/Con": 4, "nowhere": 4})
    assert (
        "'/residual1/conv1/Con' (did you mean '/residual1/conv1/Conv'?), 'nowhere' (did"
        in run("evaluate", DIGITS, "--data", DATA, "--config", two).err
    )
    found = run_json("evaluate", DIGITS, "--data", DATA, "--config", config, "--ignore-unknown")
    assert found["unknown_names"] == [{"name": "/residual1/conv1/Con", "nearest": "/residual1/conv1/Conv"}]
    assert found["bytes"] == found["float_bytes"]


def test_that_the_users_metric_may_print_and_is_the_headline(tmp_path: Path) -> None:
    metric = tmp_path / "metric.py"
    metric.write_text(
        "import os\n"
        "def hits(outputs, labels):\n"
        "    print('a print')\n"
        "    os.write(1, b'a native print')\n"
        "    return outputs.argmax(1) == labels\n"
    )
    words = ["evaluate", DIGITS, "--data", DATA, "--preset", "W8", "--samples", "64"]
    found = run_json(*words, "--metric", f"{metric}:hits")
    assert found["metric"] == "hits"
    assert found["quantized"]["value"] == run_json(*words)["quantized"]["value"]
    assert found["samples"] == 64


def test_that_random_data_is_marked(tmp_path: Path) -> None:
    result = run("evaluate", DIGITS, "--data", "random:8", "--preset", "W8")
    assert result.code == 0
    assert "note: Random numbers" in result.err


def test_that_an_interrupt_ends_at_once_without_a_traceback(tmp_path: Path) -> None:
    metric = tmp_path / "slow.py"
    metric.write_text(
        "import sys, time\ndef slow(outputs, labels):\n    print('begun', file=sys.stderr, flush=True)\n"
        "    time.sleep(1000)\n"
    )
    process = subprocess.Popen(
        [*COMMAND, "evaluate", DIGITS, "--data", DATA, "--metric", f"{metric}:slow", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err


@pytest.mark.parametrize("module", ["quantgui.cli", "numpy", "onnxruntime"])
def test_that_an_interrupt_while_modules_are_imported_ends_without_a_traceback(module: str) -> None:
    # The hook interrupts the process itself, right when the module is asked for.
    code = (
        "import os, runpy, signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        f"sys.argv = ['quantgui', 'inspect', {DIGITS!r}]\n"
        "runpy.run_module('quantgui', run_name='__main__')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_that_an_answer_that_cannot_be_written_is_a_sentence() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [*COMMAND, "inspect", DIGITS], stdout=full, stderr=subprocess.PIPE, text=True, env=environment, timeout=60
        )
    assert result.returncode == 2
    assert result.stderr == "quantgui: Cannot write the answer to standard output: No space left on device.\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_that_a_missing_stream_is_no_failure(closed: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = f"{sys.executable} -m quantgui inspect {DIGITS} --json {closed}"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=environment, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    assert closed == ">&-" or json.loads(result.stdout)["network"] == "digits"


def test_that_a_reader_that_goes_away_gets_no_traceback() -> None:
    process = subprocess.Popen(
        [*COMMAND, "inspect", DIGITS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    process.wait()


def write_text_lines(folder: Path) -> Path:
    """Write pictures of words, as recognisers of text lines see them, and return their folder."""
    folder.mkdir()
    words = ["quantized", "networks", "read", "these", "lines", "of", "text", "with", "fewer", "bits", "than", "before"]
    font = ImageFont.load_default(size=34)
    for index, word in enumerate(words):
        picture = Image.new("RGB", (320, 48), "white")
        ImageDraw.Draw(picture).text((6, 2), word, fill="black", font=font)
        picture.save(folder / f"{index:02}.png")
    return folder


@pytest.mark.network
@pytest.mark.timeout(600)
def test_that_activations_that_would_ruin_a_recogniser_stay_float_and_are_named(tmp_path: Path) -> None:
    network = networks.network_path("ppocr-rec")
    lines = write_text_lines(tmp_path / "lines")
    words = ["evaluate", network, "--data", lines, "--preset", "W8A8"]
    guarded = run(*words, "--json")
    assert guarded.code == 0
    found = json.loads(guarded.out)
    ruined = run_json(*words, "--as-is")
    assert ruined["advice"] is None
    assert found["advice"]["layers"]
    assert found["advice"]["sentence"] in guarded.err
    assert found["advice"]["layers"][0] in guarded.err
    assert found["quantized"]["value"] > ruined["quantized"]["value"]
    assert found["output_sqnr_db"] > ruined["output_sqnr_db"] + 4
    assert found["float_bytes"] / found["bytes"] > 3


@pytest.mark.network
def test_that_folders_of_pictures_take_their_options_from_the_arguments(tmp_path: Path) -> None:
    lines = write_text_lines(tmp_path / "lines")
    words = ["evaluate", networks.network_path("ppocr-rec"), "--data", lines, "--preset", "W8", "--samples", "2"]
    guessed = run_json(*words)
    same = run_json(*words, "--size", "48x320", "--layout", "NCHW", "--mean", "0.5", "--std", "0.5,0.5,0.5")
    assert same["scores"] == guessed["scores"]
    assert run_json(*words, "--size", "48x160", "--bgr")["scores"] != guessed["scores"]


@pytest.mark.network
def test_that_demosaicking_by_the_command_line_tells_the_story_of_the_window(tmp_path: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    from demosaic import write_material

    material = write_material(tmp_path, pictures=4)
    common = ["--data", material.data, "--metric", material.metric]
    names = [layer["name"] for layer in run_json("inspect", material.network)["layers"]]
    config = write_config(tmp_path / "three.json", dict.fromkeys(names[2:5], 4))

    untouched = run_json("evaluate", material.network, *common)
    three = run_json("evaluate", material.network, *common, "--config", config)
    w8a8 = run_json("evaluate", material.network, *common, "--preset", "W8A8")
    out = tmp_path / "w8a8.onnx"
    run_json("export", material.network, *common, "--preset", "W8A8", "-o", out)
    verified = run_json("verify", material.network, out, *common)

    assert untouched["metric"] == "psnr"
    assert untouched["quantized"]["value"] == untouched["float"]["value"] > 35
    assert three["quantized"]["value"] < untouched["float"]["value"] - 1
    assert verified["simulated"] == w8a8["quantized"]
    assert verified["deployed"]["value"] == pytest.approx(w8a8["quantized"]["value"], abs=0.5)
    assert verified["file_bytes"] < verified["float_file_bytes"] / 3


def test_that_a_window_without_a_display_is_a_sentence() -> None:
    hidden = {"DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"}
    environment = {k: v for k, v in os.environ.items() if k not in hidden} | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run([*COMMAND, DIGITS], capture_output=True, text=True, env=environment, timeout=60)
    assert result.returncode == 2
    assert result.stderr.startswith("quantgui: There is no display")
    assert result.stderr.count("\n") == 1


def test_that_make_run_ends_with_a_result_without_a_display() -> None:
    hidden = {"DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"}
    environment = {k: v for k, v in os.environ.items() if k not in hidden} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "quantgui.demo"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)
    assert result.returncode == 0, result.stderr
    assert "output of the file against the simulation" in result.stdout
