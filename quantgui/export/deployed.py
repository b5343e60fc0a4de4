"""A network file as its user's runtime runs it: ONNX Runtime with all its optimizations, and with single ones off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx
import onnxruntime
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from quantgui.errors import ExportError
from quantgui.export.files import external_files
from quantgui.export.metadata import PROFILE_KEY
from quantgui.network.batch import Batch
from quantgui.network.network import Network
from quantgui.network.outputs import as_array
from quantgui.network.runtime_faults import faulty_optimizers
from quantgui.network.session import RUNTIME_ERRORS, describe_error
from quantgui.results import Array

_FOLDER = "session.model_external_initializers_file_folder_path"
_QUANTIZES = {"Clip": "QuantizeLinear", "QuantizeLinear": "DequantizeLinear"}


@dataclass(frozen=True, eq=False)
class DeployedFile:
    """A network file. `model` holds no external data."""

    path: Path
    model: onnx.ModelProto

    @property
    def file_bytes(self) -> int:
        """Size on disk, with external data."""
        return self.path.stat().st_size + sum(file.stat().st_size for file in external_files(self.path, self.model))

    @property
    def metadata(self) -> dict[str, str]:
        """What the program that wrote the file noted in it."""
        return {entry.key: entry.value for entry in self.model.metadata_props}

    def session(
        self,
        *,
        threads: int = 2,
        optimize: bool = True,
        config: Mapping[str, str] | None = None,
        disabled_optimizers: Sequence[str] = (),
        outputs: Sequence[str] = (),
        optimized: Path | None = None,
        model: onnx.ModelProto | None = None,
    ) -> onnxruntime.InferenceSession:
        """Return a session with default options but for the arguments; `outputs` are tensors to return as well.

        The graph as ONNX Runtime has optimized it is written to `optimized`. A changed `model` takes the place of the
        file's own, with the weights that lie beside the file.

        Raises:
            ExportError: ONNX Runtime does not load the file.
        """
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        if not optimize:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Waiting threads that spin slow other sessions of this process down, and change no number.
        entries = {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0", **(config or {})}
        if self.metadata.get(PROFILE_KEY) == "tensorrt":
            # The fusions for a processor's integer kernels tell nothing of TensorRT, and fail with 8-bit floats.
            entries["session.disable_quant_qdq"] = "1"
            if optimize:
                options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        if outputs or model is not None:
            entries[_FOLDER] = str(self.path.parent.resolve())
        if optimized is not None:
            options.optimized_model_filepath = str(optimized)
        for key, value in entries.items():
            options.add_session_config_entry(key, value)
        with self._errors("load"):
            return onnxruntime.InferenceSession(
                str(self.path) if model is None and not outputs else self._with_outputs(outputs, model or self.model),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=[*disabled_optimizers, *faulty_optimizers(model or self.model)] or None,
            )

    def run(self, session: onnxruntime.InferenceSession, batch: Batch) -> dict[str, Array]:
        """Return the outputs of `session` by name.

        Raises:
            ExportError: ONNX Runtime cannot run the file.
        """
        names = [info.name for info in session.get_outputs()]
        with self._errors("run"):
            answers = session.run(names, {info.name: batch.inputs[info.name] for info in session.get_inputs()})
        return {name: as_array(answer) for name, answer in zip(names, answers, strict=True)}

    def deployed_form(self, tensor: str) -> tuple[str, bool]:
        """Return the name of `tensor` behind its quantizer, and whether it has one; ("", False) if it does not exist.

        Looking at the float tensor in front of a quantizer would keep ONNX Runtime from fusing the two.
        """
        if tensor not in self._makers:
            return "", False
        for reader in self._readers.get(tensor, ()):
            node = reader
            while node.op_type in _QUANTIZES:
                following = self._readers.get(node.output[0], ())
                node = next((n for n in following if n.op_type == _QUANTIZES[node.op_type]), onnx.NodeProto())
            if node.op_type == "DequantizeLinear" and node is not reader:
                return node.output[0], True
        return tensor, False

    @cached_property
    def _makers(self) -> dict[str, onnx.NodeProto]:
        return {name: node for node in self.model.graph.node for name in node.output if name}

    @cached_property
    def _readers(self) -> dict[str, list[onnx.NodeProto]]:
        readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.model.graph.node:
            for name in dict.fromkeys(node.input):
                readers.setdefault(name, []).append(node)
        return readers

    def _with_outputs(self, outputs: Sequence[str], model: onnx.ModelProto) -> bytes:
        present = {output.name for output in model.graph.output}
        extra = onnx.ModelProto()
        extra.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs if name not in present)
        # Messages concatenated are messages merged, so the weights are not copied once more.
        return bytes(model.SerializeToString() + extra.SerializeToString())

    @contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except RUNTIME_ERRORS as error:
            raise ExportError(f"'{self.path.name}' cannot be verified: {describe_error(error, action)}") from error


def open_deployed(path: Path, network: Network) -> DeployedFile:
    """Open the file at `path`, which must have the inputs and outputs of `network`.

    Raises:
        ExportError: there is no such file, it is no ONNX network, or it belongs to another one.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise ExportError(f"Cannot read '{path}': {error.strerror or error}.") from error
    except DecodeError as error:
        raise ExportError(f"'{path.name}' is damaged, incomplete or no ONNX network.") from error
    if not model.graph.node:
        raise ExportError(f"'{path.name}' is damaged, incomplete or no ONNX network.")
    held = {tensor.name for tensor in model.graph.initializer}
    difference = _difference(
        "input", network.skeleton.graph.input, [v for v in model.graph.input if v.name not in held]
    )
    difference = difference or _difference("output", network.skeleton.graph.output, model.graph.output)
    if difference:
        raise ExportError(f"'{path.name}' is not the quantized form of '{network.summary.name}': {difference}.")
    return DeployedFile(path, model)


def _difference(kind: str, wanted: Sequence[onnx.ValueInfoProto], found: Sequence[onnx.ValueInfoProto]) -> str | None:
    expected = {value.name: value.type.tensor_type.elem_type for value in wanted}
    present = {value.name: value.type.tensor_type.elem_type for value in found}
    for name in dict.fromkeys((*expected, *present)):
        if name not in present:
            return f"it lacks the {kind} '{name}'"
        if name not in expected:
            return f"it has another {kind}, '{name}'"
        if expected[name] != present[name]:
            return f"its {kind} '{name}' has another type"
    return None
