"""Why an exported file differs from the simulation: each reason is a run of the file with one thing changed.

What closes the gap to the simulation is named, with the gap that remains; what closes nothing is not. Sources: ONNX
Runtime 1.31, "Quantize ONNX models" (saturation of 8-bit products on processors without VNNI, and
``session.x64quantprecision`` against it); its optimizer ``WeightBiasQuantization``; ``MatMulNBits``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from quantgui.analysis.simulation import weight_spec
from quantgui.errors import ExportError
from quantgui.export.biases import stored_biases, with_biases
from quantgui.export.deployed import DeployedFile
from quantgui.network.batch import Batch
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.network.simulation import Simulation
from quantgui.numerics.metrics import sqnr_db
from quantgui.results import Array, LayerDeviation, LayerInfo
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import IntFormat

CLOSE_DB = 60.0
"""Above this, deployed and simulated outputs are the same for all that anyone needs."""
GAIN_DB = 6.0
"""What has to be gained for a change to be the reason."""
THREADS = 2
PLAIN = {"session.disable_quant_qdq": "1"}
_EXACT_MATMUL = {"session.qdq_matmulnbits_accuracy_level": "1"}
_EXACT_PRODUCTS = {"session.x64quantprecision": "1"}
"""Takes other instructions where sums of 8-bit products saturate at 16 bits, as on x86 without VNNI; else nothing."""
_REQUANTIZER = "WeightBiasQuantization"


@dataclass(frozen=True, eq=False)
class Comparison:
    """The file's outputs on one batch under changed options, against the simulated ones."""

    executor: Executor
    simulation: Simulation
    file: DeployedFile
    batch: Batch
    known: dict[object, dict[str, Array]] = field(default_factory=dict)

    def outputs(
        self,
        config: Mapping[str, str] | None = None,
        disabled: Sequence[str] = (),
        *,
        optimize: bool = True,
        model: onnx.ModelProto | None = None,
    ) -> dict[str, Array]:
        """Return the file's outputs; those of `model` in its place, if it is given."""
        key = (tuple((config or {}).items()), tuple(disabled), optimize)
        if model is None and key in self.known:
            return self.known[key]
        session = self.file.session(
            threads=THREADS, config=config, disabled_optimizers=disabled, optimize=optimize, model=model
        )
        found = self.file.run(session, self.batch)
        if model is None:
            self.known[key] = found
        return found

    def gap(
        self,
        config: Mapping[str, str] | None = None,
        disabled: Sequence[str] = (),
        *,
        model: onnx.ModelProto | None = None,
    ) -> float:
        """Return the SQNR of the file's outputs against the simulated ones, dB."""
        shown = self.executor.run(self.batch, self.simulation)
        return _sqnr(shown, self.outputs(config, disabled, model=model))

    def floor(self) -> float:
        """Return the SQNR between two exact runs of the file that add in another order, dB."""
        disabled = [_REQUANTIZER]
        return _sqnr(self.outputs(PLAIN, disabled), self.outputs(PLAIN, disabled, optimize=False))


def _sqnr(reference: Mapping[str, Array], answers: Mapping[str, Array]) -> float:
    """Return the SQNR of the worst float output, dB."""
    found = [math.inf]
    for name, values in reference.items():
        answer = answers[name]
        if values.dtype.kind == "f" and values.size:
            same = values.shape == answer.shape and bool(np.isfinite(answer).all())
            found.append(sqnr_db(values, answer) if same else -math.inf)
    return min(found)


def reasons(
    network: Network, config: QuantConfig, comparison: Comparison, gap: float, parted_at: LayerDeviation | None
) -> Iterator[str]:
    """Yield sentences on why deployed and simulated outputs differ.

    `gap` is their SQNR over all samples, dB, and `parted_at` the first layer where they part, if there is one.
    """
    floats = [layer.name for layer in network.summary.layers if _is_float_between_integers(layer, config)]
    requantized = list(_requantized(floats, comparison))
    yield from requantized
    if gap >= CLOSE_DB:
        return
    plain_gap = comparison.gap(PLAIN, [_REQUANTIZER])
    yield (
        f"Deployed and simulated outputs differ by {_db(gap)}; with the session option session.disable_quant_qdq=1, "
        f"which keeps float arithmetic, by {_db(plain_gap)}."
    )
    if parted_at is not None:
        ran = f", which ONNX Runtime runs as {parted_at.kernel}" if parted_at.kernel else ""
        yield f"They part first at the layer '{parted_at.layer}' ({_db(parted_at.sqnr_db)}){ran}."
    found = [
        *_rounded_matmul(comparison),
        *_saturated(network, config, comparison),
        *_stored_biases(network, comparison),
    ]
    yield from found
    floor = comparison.floor()
    if floor < comparison.gap() + GAIN_DB:
        rounding = "values near the border of two codes fall to either side"
        why = rounding if comparison.simulation.quantizers else "the network amplifies the rounding of float32"
        yield f"Two exact runs of this file that only add in another order differ by {_db(floor)} already: {why}."
    elif not found and not requantized and plain_gap > comparison.gap() + GAIN_DB:
        yield "The difference comes from ONNX Runtime's integer kernels, which round at other places."


def _requantized(floats: Sequence[str], comparison: Comparison) -> Iterator[str]:
    """Yield a sentence where ONNX Runtime rounds float weights, or float biases, that lie between integers."""
    held = stored_biases(comparison.file.model).floats
    if not floats and not held:
        return
    with_it, without = comparison.gap(), comparison.gap(disabled=[_REQUANTIZER])
    if without <= with_it + 1.0:
        return
    away = (
        f"the file is {_db(with_it)} from the simulation, and {_db(without)} with its optimizer {_REQUANTIZER} disabled"
    )
    if floats:
        yield (
            f"ONNX Runtime rounds weights that stay float ({named(floats)}) to 8 bits per tensor, as their "
            f"activations are quantized: {away}. Give these layers 8-bit weights, or float activations."
        )
    elif without > with_it + GAIN_DB:
        yield (
            f"Bias rounding: ONNX Runtime rounds biases that the file keeps as floats (of {named(held)}) to 32-bit "
            f"integers in the scale of input times weight, which cannot hold them: {away}. Give these layers 8-bit "
            "weights and activations, or float activations."
        )


def _rounded_matmul(comparison: Comparison) -> Iterator[str]:
    other = comparison.gap(_EXACT_MATMUL)
    if other > comparison.gap() + GAIN_DB:
        yield (
            "ONNX Runtime rounds the activations of MatMul to 8 bits where it fuses it with its weight (MatMulNBits); "
            f"with the session option session.qdq_matmulnbits_accuracy_level=1 the difference is {_db(other)}."
        )


def _saturated(network: Network, config: QuantConfig, comparison: Comparison) -> Iterator[str]:
    if not any(_multiplies_bytes(layer, config) for layer in network.summary.layers):
        return
    try:
        other = comparison.gap(_EXACT_PRODUCTS)
    except ExportError:
        # ONNX Runtime 1.31 fails with this option where a weight is shared or its zero points are per channel; then
        # the question stays open, and nothing is said.
        return
    if other > comparison.gap() + GAIN_DB:
        yield (
            "Saturation: this processor adds two 8-bit products at a time in 16 bits, which large weights beside large "
            f"activations exceed; with the session option session.x64quantprecision=1 the difference is {_db(other)}. "
            "Processors with VNNI do not saturate, nor do weights of 7 bits."
        )


def _stored_biases(network: Network, comparison: Comparison) -> Iterator[str]:
    """Yield a sentence where the file differs no more once it has the biases of the simulation."""
    held = stored_biases(comparison.file.model).integers
    wanted = {}
    for node in network.skeleton.graph.node:
        if node.name in held and len(node.input) > 2 and node.input[2] in network.constants:
            override = comparison.simulation.weights.get(node.input[2])
            wanted[node.name] = network.constants[node.input[2]] if override is None else override.load()
    if not wanted:
        return
    other = comparison.gap(model=with_biases(comparison.file.model, wanted))
    if other > comparison.gap() + GAIN_DB:
        yield (
            f"Bias rounding: the file's integer biases (of {named(list(wanted))}) are not those of the simulation; "
            f"with the simulated ones the difference is {_db(other)}."
        )


def _multiplies_bytes(layer: LayerInfo, config: QuantConfig) -> bool:
    """Return whether integers of 8 bits meet in a layer."""
    activations, weights = config.spec_for(layer.name).activations, weight_spec(layer, config)
    if activations is None or weights is None or not layer.quantizes_activations:
        return False
    return all(isinstance(each.format, IntFormat) and each.bits == 8 for each in (activations, weights))


def _is_float_between_integers(layer: LayerInfo, config: QuantConfig) -> bool:
    activations, weights = config.spec_for(layer.name).activations, weight_spec(layer, config)
    if activations is None or not layer.quantizes_activations or not activations.is_integer:
        return False
    return weights is None or not weights.is_integer


def _db(value: float) -> str:
    return "nothing" if value == math.inf else f"{value:.1f} dB"


def named(names: Sequence[str]) -> str:
    """Return the first of `names`, and how many more there are."""
    return f"'{names[0]}'" if len(names) == 1 else f"'{names[0]}' and {len(names) - 1} more"
