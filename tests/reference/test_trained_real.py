"""Trained weights in real networks: simulated, exported and verified alike."""

from __future__ import annotations

from pathlib import Path

import export_examples as examples
import networks
import pytest
import trained_examples

from quantgui.analysis.simulation import build_simulation
from quantgui.engine.bench import Bench
from quantgui.engine.requests import Evaluate, Export, OpenData, OpenNetwork, Verify
from quantgui.export.metadata import exported_config
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network
from quantgui.numerics.metrics import sqnr_db
from quantgui.paths import trained_folder
from quantgui.results import EvaluationReady, Exported, Verification
from quantgui.spec.presets import activation_spec, weight_spec
from quantgui.spec.quantizer import LayerSpec
from quantgui.spec.serialization import load_config, save_config

pytestmark = pytest.mark.network


@pytest.mark.parametrize(("name", "bits"), [("efficientnet-lite0", 4), ("ppocr-cls", 2), ("silero-ifless", 4)])
def test_that_the_file_computes_what_the_simulation_shows(tmp_path: Path, name: str, bits: int) -> None:
    network = open_network(networks.network_path(name))
    config, state = trained_examples.trained_config(network, LayerSpec(weight_spec(bits)))
    batch = next(examples.data_for(network, 2).batches(2))
    path = tmp_path / "quantized.onnx"
    examples.exported(network, config, {}, path)
    shown = Executor(network, segmented=False).run(batch, build_simulation(network, config, {}))
    floats = Executor(network, segmented=False).run(batch)
    answers = examples.run_file(path, batch)
    for output, values in shown.items():
        if values.dtype.kind == "f":
            assert sqnr_db(values, answers[output]) > 80
            assert sqnr_db(floats[output], values) < 40
    kept = sum(each.stat().st_size for each in trained_folder().iterdir())
    assert kept < 1.2 * sum(layer.weight.nbytes for layer in state.layers.values()) + (1 << 20)


def test_that_a_configuration_that_is_taken_elsewhere_exports_and_verifies_as_it_evaluates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = networks.network_path("mtcnn-rnet")
    spec = LayerSpec(weight_spec(8), activation_spec(8))
    config, _ = trained_examples.trained_config(open_network(path), spec)
    save_config(config, tmp_path / "config.json")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    config = load_config(tmp_path / "config.json")
    bench = Bench(threads=2)
    for request in (OpenNetwork(str(path)), OpenData("random:16")):
        list(bench.handle(request))
    *_, evaluated = (event for event in bench.handle(Evaluate(config)) if isinstance(event, EvaluationReady))
    exported = str(tmp_path / "quantized.onnx")
    assert isinstance(list(bench.handle(Export(config, exported)))[-1], Exported)
    assert exported_config(Path(exported)) == config
    *_, verified = bench.handle(Verify(config, exported))
    assert isinstance(verified, Verification)
    assert verified.simulated.output_sqnr_db == pytest.approx(evaluated.evaluation.output_sqnr_db, abs=0.01)
    assert verified.deployed.output_sqnr_db == pytest.approx(evaluated.evaluation.output_sqnr_db, abs=1.0)
