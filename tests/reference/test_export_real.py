"""Every real network, exported: smaller, loaded by ONNX Runtime, and computing what the simulation shows."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import export_examples as examples
import networks
import numpy as np
import pytest

from quantgui.analysis.simulation import build_simulation
from quantgui.network.batch import Batch, carry
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.network.reader import open_network
from quantgui.network.simulation import FLOAT_SIMULATION, Simulation
from quantgui.numerics.metrics import sqnr_db
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import CodebookFormat, IntFormat, MinifloatFormat, TableFormat
from quantgui.spec.granularity import PerBlock, PerGroup, PerTensor
from quantgui.spec.presets import find_preset, preset_config
from quantgui.spec.quantizer import BLOCK_FORMATS, LayerSpec, QuantizerSpec
from quantgui.spec.size import network_bytes

pytestmark = pytest.mark.network


@cache
def network(name: str) -> Network:
    return open_network(networks.network_path(name))


def worst_db(reference: dict[str, np.ndarray], answer: dict[str, np.ndarray]) -> float:
    """Return the SQNR of the worst float output."""
    return min(sqnr_db(x, answer[name]) for name, x in reference.items() if x.dtype.kind == "f")


def chain(executor: Executor, batches: list[Batch], simulation: Simulation) -> list[dict[str, np.ndarray]]:
    return [outputs for _, (outputs,) in filter(None, executor.run_sequence(batches, [simulation]))]


@pytest.mark.parametrize("preset", ["W8", "W8A8", "W4", "W2-g32"])
@pytest.mark.parametrize("name", networks.network_names())
def test_that_the_file_is_smaller_loads_and_computes_what_the_simulation_shows(
    tmp_path: Path, name: str, preset: str, record_property: pytest.RecordProperty
) -> None:
    net = network(name)
    config = preset_config(find_preset(preset), net.summary.layers)
    if all(layer.keeps_float for layer in net.summary.layers):
        # Presets leave a network that is one signal transform as it is; a person may ask for it.
        config = QuantConfig(find_preset(preset).spec)
    data = examples.data_for(net, 2)
    activations = examples.calibrated(net, config, data)
    path = tmp_path / "quantized.onnx"
    event = examples.exported(net, config, activations, path)
    assert event.file_bytes < net.summary.file_bytes
    batches = list(data.batches(2))
    executor = Executor(net)
    floats = chain(executor, batches, FLOAT_SIMULATION)
    shown = chain(executor, batches, build_simulation(net, config, activations))
    answers: dict[str, list[dict[str, np.ndarray]]] = {}
    for way in ("plain", "deployed"):
        answers[way] = []
        for batch in batches:
            before = answers[way][-1] if answers[way] else None
            answers[way].append(examples.run_file(path, carry(batch, before), fused=way == "deployed"))
    plain, deployed, quality = (
        min(worst_db(x, y) for x, y in zip(reference, answer, strict=True))
        for reference, answer in ((shown, answers["plain"]), (shown, answers["deployed"]), (floats, shown))
    )
    row = (name, preset, net.summary.opset, event.opset, net.summary.file_bytes, event.file_bytes)
    record_property("row", (*row, plain, deployed, quality))
    print(*row, *(f"{value:.1f}" for value in (plain, deployed, quality)))
    # Rounded activations turn the last bit of float32 into a step of 8 bits, which bad configurations amplify: then two
    # exact runs differ as well, but less than quantization itself changes the network.
    assert plain > (80 if preset != "W8A8" else min(80, quality))
    assert deployed > min(25, quality)


FORMATS = {
    "nf4": QuantizerSpec(TableFormat("nf4"), granularity=PerGroup(64), double_quantization=True),
    "mxfp4": BLOCK_FORMATS["mxfp4"],
    "nvfp4": BLOCK_FORMATS["nvfp4"],
    "float8_e4m3fn": QuantizerSpec(MinifloatFormat(4, 3)),
    "codebook4": QuantizerSpec(CodebookFormat(4), granularity=PerTensor()),
    "int4 block": QuantizerSpec(IntFormat(4), False, PerBlock(32, 32)),
}


@pytest.mark.parametrize("spec", FORMATS.values(), ids=FORMATS.keys())
@pytest.mark.parametrize("name", ["silero-ifless", "silero-op15", "magika", "efficientnet-lite0"])
def test_that_formats_without_kernels_compute_what_the_simulation_shows(
    tmp_path: Path, name: str, spec: QuantizerSpec, record_property: pytest.RecordProperty
) -> None:
    net = network(name)
    quantized = {layer.name: LayerSpec(spec) for layer in net.summary.layers if not layer.keeps_float}
    config = QuantConfig().with_overrides(quantized)
    batch = next(examples.data_for(net, 2).batches(2))
    path = tmp_path / "quantized.onnx"
    event = examples.exported(net, config, {}, path)
    shown = Executor(net, segmented=False).run(batch, build_simulation(net, config, {}))
    ways = [worst_db(shown, examples.run_file(path, batch, fused=fused)) for fused in (False, True)]
    counted = network_bytes(net.summary.float_bytes, net.summary.layers, config, stored=True)
    print(name, spec, net.summary.file_bytes, event.file_bytes, counted, *ways)
    record_property("row", (name, str(spec), net.summary.file_bytes, event.file_bytes, counted, *ways))
    assert min(ways) > 80
    assert event.file_bytes < net.summary.file_bytes
