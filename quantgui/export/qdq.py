"""The quantized network as an ONNX file: what `analysis.simulation` computes, written with Q/DQ operators.

Weights lie in the file as integers; DequantizeLinear makes floats of them under the weight's own name. Activations go
through the same nodes as in the simulation. So the file, run without fusing anything, gives the simulated values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from quantgui.analysis.importance import used_squares
from quantgui.analysis.simulation import (
    Ranges,
    plan_biases,
    quantizers_for,
)
from quantgui.analysis.tensorrt import in_front_of_operators
from quantgui.errors import DataError, ExportError, NetworkError
from quantgui.export.constants import store_constants
from quantgui.export.files import refuse_source, write_network
from quantgui.export.matmulnbits import replace_products
from quantgui.export.metadata import sign
from quantgui.export.notes import export_notes, profile_notes
from quantgui.export.opset import opset_for_activations, raise_opset
from quantgui.export.placement import insert_stored
from quantgui.export.stored import StoredWeight, initializer
from quantgui.export.tensorrt import refuse_for_tensorrt
from quantgui.network.datasets import open_dataset
from quantgui.network.network import Network
from quantgui.network.segments import tensor_types
from quantgui.network.session import create_session, runtime_errors
from quantgui.network.simulation import TensorQuantizer
from quantgui.network.surgery import Float8Operators, insert_quantizers, opset_of
from quantgui.results import ActivationReady, Array, Event, Exported, Progress
from quantgui.spec.config import QuantConfig
from quantgui.spec.profiles import ExportProfile

_CHECKED_BYTES = 1 << 29
"""Networks up to this size are run once before the file is put in place, and when their opset is raised."""
_RAISED_TOLERANCE = 1e-4


def export_qdq(
    network: Network,
    config: QuantConfig,
    activations: Mapping[str, ActivationReady],
    path: Path | str,
    *,
    profile: ExportProfile = "qdq",
    sample: Mapping[str, Array] | None = None,
) -> Iterator[Event]:
    """Write the network quantized by `config` to `path`: yields Progress ... and Exported.

    The file is run once on the inputs `sample` before it is put in place, on random numbers if there are none.

    Raises:
        ExportError: the formats need operators that this network cannot have, or the file cannot be written.
        DataError: `config` needs statistics of an activation that `activations` does not hold.
        NetworkError, SpecError: `config` names trained weights that cannot be had, or do not fit.
    """
    path = Path(path)
    refuse_source(path, Path(network.summary.path))
    ranges: Ranges = {}
    quantizers = quantizers_for(network, config, activations, ranges)
    biases = plan_biases(network, config, quantizers)
    if profile == "tensorrt":
        refuse_for_tensorrt(network, config)
        # TensorRT dequantizes no int32: it rounds biases by itself.
        quantizers, biases = in_front_of_operators(network, config, quantizers), {}
    constants = yield from store_constants(network, config, activations, quantizers, biases, profile)
    stored, blocked, total = constants.stored, constants.blocked, constants.total
    opset = max([each.opset for each in stored.values()] + [_opset_of_quantizers(quantizers)], default=1)
    yield Progress(total - 2, total, "Building the network")
    model = raise_opset(network.skeleton, opset)
    probe = _inputs_to_try(network, sample)
    if probe is not None and opset_of(model) > network.summary.opset:
        _check_raised(network, model, probe)
    if quantizers:
        types = {name: inner.kind for name, inner in network.inner.items()}
        types |= {name: each.kind for name, each in tensor_types(network).items()}
        float8: Float8Operators = "QuantizeLinear" if profile == "tensorrt" else "Cast"
        insert_quantizers(model, quantizers, types=types, float8_operators=float8)
    data = _take_initializers(model, network.constants, stored)
    insert_stored(model, stored)
    replace_products(model, blocked)
    _declare_outputs(model, network)
    sign(model, config, ranges, profile, used_squares(network, config, activations))
    yield Progress(total - 1, total, "Writing the file")
    size = write_network(path, model, data, probe=probe, fused=profile != "tensorrt")
    notes = export_notes(network, config, activations, opset_of(model))
    notes += profile_notes(network, config, profile, frozenset(blocked))
    yield Exported(str(path), config, size, opset_of(model), notes)


def _opset_of_quantizers(quantizers: Mapping[str, Sequence[TensorQuantizer]]) -> int:
    formats = {quantizer.format for each in quantizers.values() for quantizer in each}
    return max((opset_for_activations(fmt) for fmt in formats), default=1)


def _take_initializers(
    model: onnx.ModelProto, constants: Mapping[str, Array], stored: Mapping[str, StoredWeight]
) -> dict[str, Array]:
    """Remove the initializers of `model` that are replaced; return the data of all that the file is to hold."""
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in stored]
    data = {each.tensor.name: each.data for weight in stored.values() for each in weight.initializers}
    for tensor in kept:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            each = initializer(tensor.name, constants[tensor.name])
            tensor.CopyFrom(each.tensor)
            data[tensor.name] = each.data
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return data


# --- the graph ---------------------------------------------------------------------------------------------------


def _inputs_to_try(network: Network, sample: Mapping[str, Array] | None) -> Mapping[str, Array] | None:
    """Return inputs on which the network runs; None if it is too large to be tried, or they could not be guessed."""
    if network.summary.float_bytes > _CHECKED_BYTES:
        return None
    if sample is not None:
        return sample
    try:
        data = open_dataset("random:1", network.summary.inputs, network.summary, network=network)
    except DataError:
        return None
    return dict(next(data.batches()).inputs)


def _check_raised(network: Network, raised: onnx.ModelProto, inputs: Mapping[str, Array]) -> None:
    """Run the float network in both opsets.

    Raises:
        ExportError: the answers differ.
    """
    outputs = []
    for model in (network.skeleton, raised):
        try:
            session = create_session(model, network.constants)
            with runtime_errors("run"):
                outputs.append(session.run(None, dict(inputs)))
        except NetworkError as error:
            raise ExportError(
                f"The chosen formats need opset {opset_of(raised)}, and the network does not run in it: {error}"
            ) from error
    names = [output.name for output in network.skeleton.graph.output]
    for name, before, after in zip(names, *outputs, strict=True):
        if isinstance(before, np.ndarray) and before.dtype.kind == "f" and not _equal(before, after):
            raise ExportError(
                f"The chosen formats need opset {opset_of(raised)}, but conversion to it changes the output '{name}'; "
                "choose 8-bit formats, or export the network again with a newer opset."
            )


def _equal(before: Array, after: Array) -> bool:
    if before.shape != after.shape:
        return False
    size = float(np.abs(before[np.isfinite(before)], dtype=np.float64).max(initial=0.0))
    return np.allclose(before, after, rtol=_RAISED_TOLERANCE, atol=_RAISED_TOLERANCE * size, equal_nan=True)


def _declare_outputs(model: onnx.ModelProto, network: Network) -> None:
    """Give outputs without a shape the one that ONNX Runtime infers, as a valid network needs one."""
    bare = [output for output in model.graph.output if not output.type.tensor_type.HasField("shape")]
    if not bare:
        return
    session = create_session(
        network.skeleton, network.constants, optimize=False, config={"session.disable_prepacking": "1"}
    )
    shapes = {info.name: info.shape for info in session.get_outputs()}
    for output in bare:
        shape = shapes[output.name]
        if shape:  # ONNX Runtime tells a scalar and an unknown rank apart by nothing
            kind = output.type.tensor_type.elem_type
            output.CopyFrom(helper.make_tensor_value_info(output.name, kind, shape))
