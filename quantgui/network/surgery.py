"""Graph surgery: inserts quantizers of activations. The simulation and the exported file share it.

An integer quantizer is Clip (only where the range is narrower than the stored type) + QuantizeLinear +
DequantizeLinear with 8- or 16-bit storage; a float one is a Cast there and back. 16-bit QuantizeLinear exists since
opset 21, any QuantizeLinear since opset 10: below them the operators of the domain com.microsoft are used.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, assert_never

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from quantgui.network.simulation import TensorQuantizer
from quantgui.spec.formats import CodebookFormat, FloatFormat, IntFormat, MinifloatFormat, TableFormat

MICROSOFT = "com.microsoft"
_OPSET_QUANTIZE, _OPSET_QUANTIZE_16, _OPSET_CLIP_INPUTS, _OPSET_BFLOAT16 = 10, 21, 11, 13
Float8Operators = Literal["arithmetic", "Cast", "QuantizeLinear"]
FLOATS8 = {
    MinifloatFormat(4, 3): TensorProto.FLOAT8E4M3FN,
    MinifloatFormat(5, 2, "ieee"): TensorProto.FLOAT8E5M2,
    MinifloatFormat(4, 3, "fnuz"): TensorProto.FLOAT8E4M3FNUZ,
    MinifloatFormat(5, 2, "fnuz"): TensorProto.FLOAT8E5M2FNUZ,
}
"""What ONNX has types for."""
# Veltkamp's splitting constant that leaves the 8 significant bits of bfloat16 of the 24 of float32.
_SPLIT = float(2**16 + 1)


@dataclass(frozen=True)
class Inserted:
    """What has come into a model.

    Attributes:
        defaults: names of the default (``consumers=None``) quantized tensors by the name of the float tensor.
        fed: names of the inputs of each exchanged quantizer, by tensor and position among its quantizers; their values
            are `fed_values`.
    """

    defaults: Mapping[str, str]
    fed: Mapping[tuple[str, int], tuple[str, ...]]


def insert_quantizers(
    model: onnx.ModelProto,
    quantizers: Mapping[str, Sequence[TensorQuantizer]],
    *,
    types: Mapping[str, int] | None = None,
    quantize_outputs: bool = True,
    float8_operators: Float8Operators = "arithmetic",
) -> Inserted:
    """Insert `quantizers` (by tensor name) into `model`, in place, nested bodies included.

    A quantizer with ``consumers=None`` also serves the network output of that name (`quantize_outputs`): the output
    keeps its name and the float tensor is renamed. Tensors that the model does not have are left out.

    Args:
        model: what to change.
        quantizers: quantizers by tensor name.
        types: ONNX element types of the tensors, float32 where not given. Others are cast to float32 and back.
        quantize_outputs: whether a tensor that is a network output is quantized there too.
        float8_operators: what makes 8-bit floats; Cast and QuantizeLinear (opset 19) compute the same.
    """
    wanted = {tensor: tuple(each) for tensor, each in quantizers.items() if each}
    if not wanted:
        return Inserted({}, {})
    job = _Insertion(opset_of(model), types or {}, set(all_names(model.graph)), float8_operators)
    defaults = job.into(model.graph, wanted)
    if quantize_outputs:
        produced = {name for node in model.graph.node for name in node.output}
        for tensor in {value.name for value in model.graph.output} & defaults.keys() & produced:
            inner = job.unique(f"{tensor}_float")
            _rename_everywhere(model.graph, {tensor: inner, defaults[tensor]: tensor})
            defaults[tensor] = tensor
    if job.uses_microsoft:
        import_domain(model, MICROSOFT, 1)
    model.graph.input.extend(job.inputs)
    return Inserted(defaults, job.fed)


def stored_type(fmt: IntFormat) -> np.dtype[Any]:
    """Return the integer type that activations of `fmt` are stored as: 8 or 16 bits."""
    return np.dtype(f"{'int' if fmt.signed else 'uint'}{8 if fmt.bits <= 8 else 16}")


def fed_values(quantizer: TensorQuantizer) -> tuple[np.ndarray, ...]:
    """Return lower and upper limit, scale and zero point of an integer quantizer, as an exchanged one takes them."""
    if not isinstance(quantizer.format, IntFormat):
        raise ValueError(f"{quantizer.format} cannot be exchanged")
    fmt, scale = quantizer.format, np.float32(quantizer.scale)
    low, high = (scale * np.float32(limit - quantizer.zero_point) for limit in (fmt.quant_min, fmt.quant_max))
    return np.array(low), np.array(high), np.array(scale), np.array(quantizer.zero_point, stored_type(fmt))


def opset_of(model: onnx.ModelProto, domain: str = "") -> int:
    """Return the version of the operator set `domain` that `model` imports; 0 if it does not."""
    aliases = {"", "ai.onnx"} if domain in ("", "ai.onnx") else {domain}
    return max((opset.version for opset in model.opset_import if opset.domain in aliases), default=0)


def import_domain(model: onnx.ModelProto, domain: str, version: int) -> None:
    """Import the operator set `domain` unless `model` does so already."""
    if not opset_of(model, domain):
        model.opset_import.append(helper.make_opsetid(domain, version))


def subgraphs(node: NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the bodies of an If, Loop or Scan node."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield `graph` and its nested bodies."""
    yield graph
    for node in graph.node:
        for body in subgraphs(node):
            yield from all_graphs(body)


def all_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield all names of tensors and nodes of `graph` and of its nested bodies."""
    for value in (*graph.input, *graph.output, *graph.initializer):
        yield value.name
    for node in graph.node:
        yield node.name
        yield from node.input
        yield from node.output
        for body in subgraphs(node):
            yield from all_names(body)


def captured_names(graph: onnx.GraphProto) -> set[str]:
    """Return the names that a nested body takes from the graphs around it."""
    defined = {value.name for value in (*graph.input, *graph.initializer)}
    captured: set[str] = set()
    for node in graph.node:
        captured |= used_names(node) - defined
        defined |= set(node.output)
    return captured | ({value.name for value in graph.output} - defined)


def used_names(node: NodeProto) -> set[str]:
    """Return the names of all tensors that `node` reads, those captured by its bodies included."""
    names = {name for name in node.input if name}
    for body in subgraphs(node):
        names |= captured_names(body)
    return names


@dataclass
class _Insertion:
    """One call of `insert_quantizers`."""

    opset: int
    types: Mapping[str, int]
    taken: set[str]
    float8_operators: Float8Operators = "arithmetic"
    uses_microsoft: bool = False
    constants: list[TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    fed: dict[tuple[str, int], tuple[str, ...]] = field(default_factory=dict)

    def unique(self, name: str) -> str:
        result, number = name, 1
        while result in self.taken:
            result, number = f"{name}_{number}", number + 1
        self.taken.add(result)
        return result

    def into(self, graph: onnx.GraphProto, wanted: Mapping[str, tuple[TensorQuantizer, ...]]) -> dict[str, str]:
        """Insert into `graph` and its bodies; return the default quantized name of each tensor of this graph."""
        initializers = {tensor.name for tensor in graph.initializer}
        nodes: list[NodeProto] = []
        defaults: dict[str, str] = {}
        views: dict[str, dict[str | None, str]] = {}
        first_constant = len(self.constants)

        def define(tensor: str) -> None:
            for position, quantizer in enumerate(wanted.get(tensor, ())):
                view = views.setdefault(tensor, {})
                quantized = self.quantize(tensor, position, quantizer, nodes)
                if quantizer.consumers is None:
                    view[None] = defaults[tensor] = quantized
                else:
                    view.update(dict.fromkeys(quantizer.consumers, quantized))

        for value in graph.input:
            if value.name not in initializers:
                define(value.name)
        for original in graph.node:
            node = NodeProto()
            node.CopyFrom(original)
            _redirect(node, views)
            for body in subgraphs(node):
                self.into(body, wanted)
            nodes.append(node)
            for output in node.output:
                define(output)
        del graph.node[:]
        graph.node.extend(nodes)
        graph.initializer.extend(self.constants[first_constant:])
        del self.constants[first_constant:]
        return defaults

    def quantize(self, tensor: str, position: int, quantizer: TensorQuantizer, nodes: list[NodeProto]) -> str:
        """Append the nodes that quantize `tensor`; return the name of the result."""
        kind = self.types.get(tensor, TensorProto.FLOAT)
        source = tensor
        if kind != TensorProto.FLOAT:
            source = self.add(nodes, "Cast", [source], tensor, to=TensorProto.FLOAT)
        match quantizer.format:
            case IntFormat() as fmt if quantizer.exchanged:
                result = self.through_fed_integers(tensor, position, source, quantizer, fmt, nodes)
            case IntFormat() as fmt:
                result = self.through_integers(tensor, source, quantizer, fmt, nodes)
            case FloatFormat(name):
                result = self.through_floats(tensor, source, name, nodes)
            case MinifloatFormat() as fmt if self.float8_operators != "arithmetic" and fmt in FLOATS8:
                result = self.through_floats8(tensor, source, quantizer.scale, fmt, nodes)
            case MinifloatFormat() as fmt:
                result = self.through_minifloats(tensor, source, quantizer.scale, fmt, nodes)
            case TableFormat() | CodebookFormat():
                raise ValueError(f"Activations cannot be {quantizer.format}.")
            case _:
                assert_never(quantizer.format)
        if kind != TensorProto.FLOAT:
            result = self.add(nodes, "Cast", [result], tensor, to=kind)
        return result

    def through_integers(
        self, tensor: str, source: str, quantizer: TensorQuantizer, fmt: IntFormat, nodes: list[NodeProto]
    ) -> str:
        storage = stored_type(fmt)
        low, high, scale, zero_point = fed_values(quantizer)
        limits = np.iinfo(storage)
        if (fmt.quant_min, fmt.quant_max) != (limits.min, limits.max):
            source = self.clip(tensor, source, float(low), float(high), nodes)
        parameters = [self.constant(f"{tensor}_scale", scale), self.constant(f"{tensor}_zero_point", zero_point)]
        return self.there_and_back(tensor, source, storage, parameters, nodes)

    def through_fed_integers(
        self,
        tensor: str,
        position: int,
        source: str,
        quantizer: TensorQuantizer,
        fmt: IntFormat,
        nodes: list[NodeProto],
    ) -> str:
        """Append the same with its parameters as inputs of the main graph; it clips whatever the bits are."""
        names = [self.unique(f"{tensor}_{part}") for part in ("low", "high", "scale", "zero_point")]
        for name, value in zip(names, fed_values(quantizer), strict=True):
            self.inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), ()))
        self.fed[tensor, position] = tuple(names)
        low, high, *parameters = names
        if self.opset < _OPSET_CLIP_INPUTS:
            source = self.add(nodes, "Min", [self.add(nodes, "Max", [source, low], tensor), high], tensor)
        else:
            source = self.add(nodes, "Clip", [source, low, high], tensor)
        return self.there_and_back(tensor, source, stored_type(fmt), parameters, nodes)

    def there_and_back(
        self, tensor: str, source: str, storage: np.dtype[Any], parameters: list[str], nodes: list[NodeProto]
    ) -> str:
        """Append QuantizeLinear and DequantizeLinear."""
        opset = _OPSET_QUANTIZE if storage.itemsize == 1 else _OPSET_QUANTIZE_16
        domain = "" if self.opset >= opset else MICROSOFT
        self.uses_microsoft |= bool(domain)
        codes = self.add(nodes, "QuantizeLinear", [source, *parameters], tensor, domain)
        return self.add(nodes, "DequantizeLinear", [codes, *parameters], tensor, domain)

    def clip(self, tensor: str, source: str, low: float, high: float, nodes: list[NodeProto]) -> str:
        if self.opset < _OPSET_CLIP_INPUTS:
            return self.add(nodes, "Clip", [source], tensor, min=low, max=high)
        limits = [
            self.constant(f"{tensor}_{end}", np.array(value, np.float32))
            for end, value in (("low", low), ("high", high))
        ]
        return self.add(nodes, "Clip", [source, *limits], tensor)

    def through_floats8(
        self, tensor: str, source: str, scale: float, fmt: MinifloatFormat, nodes: list[NodeProto]
    ) -> str:
        """Append what rounds to a type that ONNX has, by Cast, or by QuantizeLinear as TensorRT wants it.

        QuantizeLinear would do the same, but ONNX Runtime 1.31 fuses it with its neighbours as if it made integers, and
        then does not load the file, or computes something else.
        """
        step = self.constant(f"{tensor}_scale", np.array(scale, np.float32))
        if self.float8_operators == "QuantizeLinear":
            zero = TensorProto(name=self.unique(f"{tensor}_zero_point"), data_type=FLOATS8[fmt], raw_data=b"\0")
            self.constants.append(zero)
            codes = self.add(nodes, "QuantizeLinear", [source, step, zero.name], tensor)
            return self.add(nodes, "DequantizeLinear", [codes, step, zero.name], tensor)
        units = self.add(nodes, "Div", [source, step], tensor)
        codes = self.add(nodes, "Cast", [units], tensor, to=FLOATS8[fmt], saturate=1)
        units = self.add(nodes, "Cast", [codes], tensor, to=TensorProto.FLOAT)
        return self.add(nodes, "Mul", [units, step], tensor)

    def through_minifloats(
        self, tensor: str, source: str, scale: float, fmt: MinifloatFormat, nodes: list[NodeProto]
    ) -> str:
        """Append what rounds to a minifloat by arithmetic alone, which every opset has; bit for bit as Cast does it.

        The power of two below a value comes from its products with ``2**23 + 1`` and ``1 - 2**-24`` (S. Rump,
        T. Ogita and S. Oishi, "Accurate floating-point summation", 2008). 1.5 * 2**23 steps of the value's precision
        added to it leave float32 no digits below a step; taking them off again is exact.
        """

        def number(name: str, value: float) -> str:
            return self.constant(f"{tensor}_{name}", np.array(value, np.float32))

        def apply(op: str, *inputs: str) -> str:
            return self.add(nodes, op, list(inputs), tensor)

        step = number("scale", scale)
        units = self.clip(tensor, apply("Div", source, step), -fmt.largest, fmt.largest, nodes)
        stretched = apply("Mul", units, number("stretch", 2.0**23 + 1.0))
        shortened = apply("Mul", stretched, number("shorten", 1.0 - 2.0**-24))
        power = apply("Abs", apply("Sub", stretched, shortened))
        power = apply("Max", power, number("smallest", 2.0**fmt.smallest_exponent))
        magic = apply("Mul", power, number("magic", 1.5 * 2.0 ** (23 - fmt.mantissa_bits)))
        return apply("Mul", apply("Sub", apply("Add", units, magic), magic), step)

    def through_floats(self, tensor: str, source: str, name: str, nodes: list[NodeProto]) -> str:
        if name == "bfloat16" and self.opset < _OPSET_BFLOAT16:
            # Cast knows no bfloat16 yet: round to 8 significant bits by arithmetic (Dekker 1971, Veltkamp's splitting).
            split = self.constant(f"{tensor}_split", np.array(_SPLIT, np.float32))
            large = self.add(nodes, "Mul", [source, split], tensor)
            rest = self.add(nodes, "Sub", [large, source], tensor)
            return self.add(nodes, "Sub", [large, rest], tensor)
        half = self.add(nodes, "Cast", [source], tensor, to=TensorProto.DataType.Value(name.upper()))
        return self.add(nodes, "Cast", [half], tensor, to=TensorProto.FLOAT)

    def add(
        self, nodes: list[NodeProto], op: str, inputs: list[str], tensor: str, domain: str = "", **attributes: Any
    ) -> str:
        output = self.unique(f"{tensor}_{op}")
        nodes.append(helper.make_node(op, inputs, [output], name=self.unique(output), domain=domain, **attributes))
        return output

    def constant(self, name: str, value: np.ndarray) -> str:
        unique = self.unique(name)
        self.constants.append(numpy_helper.from_array(value, unique))
        return unique


def _redirect(node: NodeProto, views: Mapping[str, Mapping[str | None, str]]) -> None:
    """Let `node`, and the nodes of its bodies, read what is meant for them."""

    def rename(reader: NodeProto, visible: Mapping[str, Mapping[str | None, str]]) -> None:
        for index, name in enumerate(reader.input):
            if name in visible:
                view = visible[name]
                reader.input[index] = (
                    view.get(reader.name, view.get(None, name)) if reader.name else view.get(None, name)
                )
        for body in subgraphs(reader):
            own = {value.name for value in (*body.input, *body.initializer)} | {
                output for inner in body.node for output in inner.output
            }
            rest = {name: view for name, view in visible.items() if name not in own}
            for inner in body.node:
                rename(inner, rest)
            _redirect_outputs(body, rest)

    rename(node, views)


def _redirect_outputs(body: onnx.GraphProto, views: Mapping[str, Mapping[str | None, str]]) -> None:
    """Let a body that returns a captured tensor return its default quantized form."""
    for value in body.output:
        if value.name in views:
            value.name = views[value.name].get(None, value.name)


def _rename_everywhere(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename tensors in the nodes of `graph` and of its bodies; graph outputs keep their names."""
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)
        for index, name in enumerate(node.output):
            node.output[index] = names.get(name, name)
        for body in subgraphs(node):
            inner = names.keys() - {value.name for value in (*body.input, *body.initializer)}
            _rename_everywhere(body, {name: names[name] for name in inner})
            for value in body.output:
                value.name = names.get(value.name, value.name)


def node_names(nodes: Collection[NodeProto]) -> set[str]:
    """Return the names of `nodes` and of the nodes in their bodies."""
    names: set[str] = set()
    for node in nodes:
        names.add(node.name)
        for body in subgraphs(node):
            names |= node_names(body.node)
    return names
