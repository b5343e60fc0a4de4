"""Trained PyTorch networks from packages: opened by code and weights, and as saved programs, they are what they were.

Exports take seconds each and are kept in ``tests/.networks`` like the ONNX networks of the suite.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pytorch_modules
import torch
from networks import CACHE
from pytorch_networks import SOURCES

import quantgui.engine.bench as engine_bench
from quantgui.engine.bench import Bench
from quantgui.engine.requests import Evaluate, OpenData, OpenNetwork
from quantgui.errors import NetworkError
from quantgui.network.pytorch.module import load_module, made_inputs
from quantgui.network.pytorch.weights import read_weights
from quantgui.network.session import create_session
from quantgui.results import EvaluationReady, NetworkOpened, NetworkSummary
from quantgui.spec.presets import find_preset, preset_config
from quantgui.spec.pytorch_source import ExampleInput, PytorchOptions

pytestmark = [pytest.mark.network, pytest.mark.timeout(300)]
NAMES = list(SOURCES)
FREE = {"resemblyzer": ((0, 1),), "demosaicnet": ((0, 2, 3),), "minilm": ((0, 1), (0, 1))}
DIFFERENCE = 1e-4


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what is converted from one run of the tests to the next."""
    monkeypatch.setattr(engine_bench, "state_folder", lambda: CACHE)


def options(name: str) -> PytorchOptions:
    source = SOURCES[name]
    return PytorchOptions(str(source.weights), True, source.inputs, free_axes=FREE.get(name, ((0,),)))


def opened(bench: Bench, path: str, pytorch: PytorchOptions) -> NetworkSummary:
    *_, last = bench.handle(OpenNetwork(path, pytorch))
    assert isinstance(last, NetworkOpened)
    return last.summary


def module_of(name: str) -> torch.nn.Module:
    """Return the trained module, filled by torch itself."""
    module, _ = load_module(f"tests.pytorch_networks:{name}")
    module.load_state_dict(read_weights(SOURCES[name].weights))
    return module.eval()


def differences(bench: Bench, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[float]:
    """Return the difference of each output of the open network from the module's, as a share of its largest value."""
    network = bench.network
    feed = {info.name: each.numpy() for info, each in zip(network.summary.inputs, inputs, strict=True)}
    found = create_session(network.skeleton, network.constants).run(None, feed)
    with torch.no_grad():
        answer = module(*inputs)
    wanted = [each.numpy() for each in (answer if isinstance(answer, tuple) else (answer,))]
    return [float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(wanted, found, strict=True)]


def saved_program(name: str) -> Path:
    """Return the network saved by torch.export, made once."""
    path = CACHE / f"{name}.pt2"
    if not path.exists():
        inputs = made_inputs([ExampleInput((2, *each.shape[1:]), each.dtype) for each in SOURCES[name].inputs])
        shapes = tuple({0: torch.export.Dim("batch", min=1, max=4096)} for _ in inputs)
        program = torch.export.export(module_of(name), inputs, dynamic_shapes=shapes)
        path.parent.mkdir(exist_ok=True)
        torch.export.save(program, path.with_suffix(".tmp.pt2"))
        path.with_suffix(".tmp.pt2").replace(path)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_that_code_with_weights_opens_as_the_network_it_is(name) -> None:
    bench = Bench()
    summary = opened(bench, f"tests.pytorch_networks:{name}", options(name))
    module = module_of(name)
    paths = {path for path, _ in module.named_modules()}
    layers = [layer.name for layer in summary.layers]
    assert set(SOURCES[name].layers) <= set(layers)
    assert {layer.partition("/")[0].partition(".l")[0] if "LSTM" in layer else layer for layer in layers} - paths <= {
        layer for layer in layers if layer.startswith("lstm.l")
    }
    assert summary.conversion.frozen == ()
    assert summary.conversion.difference < DIFFERENCE
    free = (FREE.get(name) or ((0,),))[0]
    assert [axis for axis, size in enumerate(summary.inputs[0].shape) if isinstance(size, str)] == list(free)
    # Another batch, and another size of whatever may vary, than the export has seen.
    inputs = made_inputs(
        [
            ExampleInput(
                tuple(s + (16 if axis else 2) if axis in free else s for axis, s in enumerate(each.shape)), each.dtype
            )
            for each in SOURCES[name].inputs
        ]
    )
    assert max(differences(bench, module, inputs)) < DIFFERENCE
    list(bench.handle(OpenData("random:4")))
    config = preset_config(find_preset("W8"), summary.layers)
    *_, last = bench.handle(Evaluate(config))
    assert isinstance(last, EvaluationReady)
    assert last.evaluation.output_sqnr_db > 15


@pytest.mark.parametrize("name", [name for name in NAMES if name != "resemblyzer"])
def test_that_a_saved_program_opens_as_the_network_it_is(name) -> None:
    bench = Bench()
    summary = opened(bench, str(saved_program(name)), PytorchOptions())
    assert set(SOURCES[name].layers) <= {layer.name for layer in summary.layers}
    assert summary.conversion.frozen == ()
    inputs = made_inputs([ExampleInput((3, *each.shape[1:]), each.dtype) for each in SOURCES[name].inputs])
    assert max(differences(bench, module_of(name), inputs)) < DIFFERENCE
    assert opened(Bench(), str(saved_program(name)), PytorchOptions()).fingerprint == summary.fingerprint


def test_that_the_old_exporter_names_the_same_layers() -> None:
    for name in ("svhn", "rnet"):
        new = opened(Bench(), f"tests.pytorch_networks:{name}", options(name))
        old_way = PytorchOptions(**{**_fields(options(name)), "exporter": "old"})
        old = opened(Bench(), f"tests.pytorch_networks:{name}", old_way)
        assert [layer.name for layer in old.layers] == [layer.name for layer in new.layers]
        assert (old.conversion.exporter, new.conversion.exporter) == ("old", "dynamo")


def _fields(value: PytorchOptions) -> dict[str, object]:
    return {name: getattr(value, name) for name in value.__slots__}


@pytest.mark.parametrize(
    ("module", "exporter", "said"),
    [
        ("frames", "dynamo", "old exporter may"),
        ("counted", "old", "new exporter may"),
        ("counted", "auto", "No"),
    ],
)
def test_that_an_axis_that_the_code_fixes_is_found_out_and_told(module, exporter, said) -> None:
    """The module divides by the number of steps, read as a number of Python: the form declares the axis to be free."""
    code = f"{Path(__file__).parents[1] / 'pytorch_modules.py'}:{module}"
    way = PytorchOptions("", True, (ExampleInput((2, 7, 6)),), free_axes=((0, 1),), exporter=exporter)
    summary = opened(Bench(), code, way)
    assert summary.conversion.frozen == ("axis 1 of 'frames' at 7",)
    assert summary.conversion.difference < DIFFERENCE
    (note,) = [note for note in summary.warnings if "axis 1 of 'frames' at 7" in note]
    assert said in note


@pytest.mark.parametrize("exporter", ["old", "auto"])
def test_that_the_old_exporter_keeps_an_axis_free_that_only_compiled_code_does(exporter) -> None:
    code = f"{Path(__file__).parents[1] / 'pytorch_modules.py'}:frames"
    way = PytorchOptions("", True, (ExampleInput((2, 7, 6)),), free_axes=((0, 1),), exporter=exporter)
    bench = Bench()
    summary = opened(bench, code, way)
    assert (summary.conversion.exporter, summary.conversion.frozen) == ("old", ())
    longer = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 19, 6)).astype(np.float32))
    assert max(differences(bench, pytorch_modules.frames().eval(), (longer,))) < DIFFERENCE


def test_that_the_old_exporter_takes_over_where_the_new_one_cannot() -> None:
    code = f"{Path(__file__).parents[1] / 'pytorch_modules.py'}:checked"
    way = PytorchOptions("", True, (ExampleInput((2, 3, 16, 16)),))
    summary = opened(Bench(), code, way)
    assert (summary.conversion.exporter, summary.conversion.frozen) == ("old", ())
    assert "so the old one did" in summary.warnings[0]
    assert summary.layers[1].name == "blocks.0.conv1"
    with pytest.raises(NetworkError, match="PyTorch cannot export the network"):
        opened(Bench(), code, PytorchOptions(**{**_fields(way), "exporter": "dynamo"}))


def test_that_data_is_held_against_the_module(tmp_path) -> None:
    bench = Bench()
    opened(bench, "tests.pytorch_networks:mnist", options("mnist"))
    samples = tmp_path / "x.npz"
    np.savez(samples, x=np.random.default_rng(0).normal(size=(12, 1, 28, 28)).astype(np.float32))
    *_, last = bench.handle(OpenData(str(samples)))
    assert last.summary.notes == ()
    # A module that is not the network any more is found out.
    for values in bench._open.original.live.run.parameters():
        values.mul_(1.5)
    *_, last = bench.handle(OpenData(str(samples)))
    assert "is not the PyTorch network" in last.summary.notes[-1]


def test_that_the_voice_encoder_takes_any_number_of_frames() -> None:
    bench = Bench()
    opened(bench, "tests.pytorch_networks:resemblyzer", options("resemblyzer"))
    module = module_of("resemblyzer")
    for frames in (1, 40, 333):
        assert max(differences(bench, module, (torch.rand(2, frames, 40),))) < DIFFERENCE
