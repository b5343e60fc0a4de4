"""Names of the module tree for the nodes and weights of an exported network.

A layer is called as its node is (`network.layers`), so the node that uses the weight of the module ``blocks.3.conv1``
is called ``blocks.3.conv1``, and every other node of that module ``blocks.3.conv1/Relu``. What a weight is called tells
most: its owner is the module. Where the exporter has changed a weight (transposed it, folded something into it) its
values tell, and where those are new, the path of modules that the exporter notes at each node:

    new exporter    metadata ``pkg.torch.onnx.name_scopes``, such as ``['', 'blocks', 'blocks.3', 'conv2d_2']``
    old exporter    the node's name, such as ``/blocks/blocks.3/conv1/Conv``
"""

from __future__ import annotations

import ast
import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import onnx

from quantgui.network.surgery import all_graphs
from quantgui.results import Array

_SCOPES: Final = "pkg.torch.onnx.name_scopes"
_RECURRENT: Final = ("LSTM", "GRU", "RNN")
_WEIGHT_INPUTS: Final = {
    "Conv": (1,), "ConvTranspose": (1,), "Gemm": (1, 0), "MatMul": (1, 0), "Gather": (0,), "Einsum": (1, 0, 2),
    **dict.fromkeys(_RECURRENT, (1,)),
}  # fmt: skip
_NORMALIZING: Final = (
    "Add", "Sub", "Mul", "Div", "Sqrt", "Reciprocal", "Pow", "Neg", "Abs", "Exp", "Tanh", "Sigmoid", "Round", "Clip",
    "Sign", "MatMul", "Gemm", "BatchNormalization", "ReduceMean", "ReduceSum", "ReduceL2", "ReduceMax", "Reshape",
    "Squeeze", "Unsqueeze", "Transpose", "Identity", "Concat", "Slice", "Cast", "Expand",
)  # fmt: skip
"""Operators that make a weight of others."""
_PARAMETRIZED = re.compile(r"\.parametrizations\..*$")


def name_by_modules(model: onnx.ModelProto, state: Mapping[str, Array], modules: frozenset[str]) -> None:
    """Rename the nodes of `model`, and the weights that are known by their values, in place.

    Args:
        model: as torch exported it.
        state: parameters and buffers of the module by name.
        modules: names of all modules of the tree.
    """
    _name_weights(model, state)
    weights = _weights(model)
    nodes = [node for graph in all_graphs(model.graph) for node in graph.node]
    alike = _alike(state)
    parameters = [_own(node, _parameter(node, weights, state), alike) for node in nodes]
    # A cell with a weight for its input and one for its state, or a list of parameters, has several layers.
    several = Counter(_module_of(name) for name in {name for name in parameters if name})
    found = [
        (node, _owner(node, parameter, modules, several), _is_layer(node, weights))
        for node, parameter in zip(nodes, parameters, strict=True)
    ]
    steps = Counter(owner for node, owner, is_layer in found if is_layer and node.op_type in _RECURRENT)
    names: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for node, owner, is_layer in found:
        wish = owner if is_layer and owner else f"{owner}/{node.op_type}" if owner else node.op_type
        if is_layer and owner and node.op_type in _RECURRENT and steps[owner] > 1:
            # As torch counts the layers inside a recurrent module: weight_ih_l0, weight_ih_l1.
            wish = f"{owner}.l{seen[owner]}"
            seen[owner] += 1
        names[wish] += 1
        node.name = wish if names[wish] == 1 else f"{wish}#{names[wish]}"


def _weights(model: onnx.ModelProto) -> dict[str, str]:
    """Return the constants of two or more axes by the names of all values that hold them, as they are or transposed.

    What is computed of constants alone (a normalized weight) is a constant by its own name.
    """
    weights: dict[str, str] = {}
    constants: set[str] = set()
    for graph in all_graphs(model.graph):
        constants |= {tensor.name for tensor in graph.initializer}
        weights |= {tensor.name: tensor.name for tensor in graph.initializer if len(tensor.dims) > 1}
        for node in graph.node:
            if node.op_type == "Constant":
                constants.add(node.output[0])
                weights[node.output[0]] = node.output[0]
            elif node.op_type in ("Transpose", "Identity") and node.input[0] in weights:
                weights[node.output[0]] = weights[node.input[0]]
            elif node.op_type in _NORMALIZING and all(name in constants for name in node.input if name):
                weights |= {name: name for name in node.output}
            else:
                continue
            constants |= set(node.output)
    return weights


def _parameter(node: onnx.NodeProto, weights: Mapping[str, str], state: Mapping[str, Array]) -> str:
    """Return the parameter of the module that is the weight of `node`; empty where there is none."""
    for place in _WEIGHT_INPUTS.get(node.op_type, ()):
        name = weights.get(node.input[place], "") if place < len(node.input) else ""
        if name in state:
            return name
    return ""


def _alike(state: Mapping[str, Array]) -> dict[str, tuple[str, ...]]:
    """Return all names of parameters that have more than one, such as those of tied embeddings."""
    names: dict[bytes, list[str]] = {}
    for name, values in state.items():
        if values.ndim > 1:
            names.setdefault(_digest(values), []).append(name)
    return {name: tuple(group) for group in names.values() if len(group) > 1 for name in group}


def _own(node: onnx.NodeProto, parameter: str, alike: Mapping[str, Sequence[str]]) -> str:
    """Return by which of its names the module of `node` has a parameter."""
    scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "")
    if not scopes or parameter not in alike:
        return parameter
    module = _PARAMETRIZED.sub("", _deepest(scopes))
    return next((name for name in alike[parameter] if _module_of(name) == module), parameter)


def _owner(node: onnx.NodeProto, parameter: str, modules: frozenset[str], several: Mapping[str, int]) -> str:
    if parameter:
        module = _module_of(parameter)
        return module if several[module] == 1 or node.op_type in _RECURRENT else parameter
    scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "")
    if scopes:
        return _PARAMETRIZED.sub("", _deepest(scopes))
    return _from_path(node.name, modules)


def _module_of(parameter: str) -> str:
    """Return the module that a parameter belongs to; one of the whole network's own goes by its own name."""
    if _PARAMETRIZED.search(parameter):
        return _PARAMETRIZED.sub("", parameter)
    return parameter.rpartition(".")[0] or parameter


def _deepest(scopes: str) -> str:
    try:
        path = ast.literal_eval(scopes)
    except (SyntaxError, ValueError):
        return ""
    # The last entry is the operation itself; entries that are no path of the tree begin with an underline twice.
    return next((str(each) for each in reversed(path[:-1]) if each and not str(each).startswith("_empty_nn")), "")


def _from_path(name: str, modules: frozenset[str]) -> str:
    """Return the module in the path that the old exporter gives a node."""
    if not name.startswith("/"):
        return ""
    found = ""
    for part in name.split("/")[1:-1]:
        # Parts of a ModuleList or Sequential repeat the name of what holds them.
        last = found.rpartition(".")[2]
        for candidate in (
            f"{found}.{part}" if found else part,
            f"{found}{part.removeprefix(last)}" if last and part.startswith(f"{last}.") else "",
            f"{found}.{part.rpartition('.')[2]}" if found else "",
        ):
            if candidate in modules:
                found = candidate
                break
    return found


def _is_layer(node: onnx.NodeProto, weights: Mapping[str, str]) -> bool:
    places = _WEIGHT_INPUTS.get(node.op_type, ())
    # What a recurrent node computes with may be put together in the graph.
    return node.op_type in _RECURRENT or any(p < len(node.input) and node.input[p] in weights for p in places)


def _name_weights(model: onnx.ModelProto, state: Mapping[str, Array]) -> None:
    """Give initializers the names of the parameters whose values they hold, as they are or transposed."""
    known: dict[bytes, str] = {}
    for name, values in state.items():
        if values.ndim < 1 or values.dtype.kind != "f":
            continue
        known.setdefault(_digest(values), name)
        if values.ndim == 2:
            known.setdefault(_digest(values.T), name)
    taken = {tensor.name for tensor in model.graph.initializer}
    renamed: dict[str, str] = {}
    for tensor in model.graph.initializer:
        if tensor.name in state or len(tensor.dims) < 1:
            continue
        wish = known.get(_digest(onnx.numpy_helper.to_array(tensor)))
        if wish and wish not in taken:
            taken.add(wish)
            renamed[tensor.name] = wish
            tensor.name = wish
    if renamed:
        for graph in all_graphs(model.graph):
            for node in graph.node:
                for place, name in enumerate(node.input):
                    node.input[place] = renamed.get(name, name)


def _digest(values: Array) -> bytes:
    array = np.ascontiguousarray(values)
    digest = hashlib.blake2b(f"{array.dtype.str}{array.shape}".encode(), digest_size=16)
    digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.digest()


def name_outputs(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Give the outputs of `model` the names that the module's answer has for them, in place.

    Args:
        model: as torch exported it.
        names: one for each output, empty where there is none; a name that another value has gets a number.
    """
    if len(names) != len(model.graph.output):
        return
    graphs = list(all_graphs(model.graph))
    fixed = {each.name for graph in graphs for each in (*graph.input, *graph.initializer)}
    taken = fixed | {name for graph in graphs for node in graph.node for name in node.output}
    outputs = Counter(value.name for value in model.graph.output)
    renamed: dict[str, str] = {}
    for value, name in zip(model.graph.output, names, strict=True):
        # What is an input as it is, or is given twice, stays what it is called.
        if not name or name == value.name or value.name in fixed or outputs[value.name] > 1:
            continue
        wishes = (name if number == 1 else f"{name}_{number}" for number in itertools.count(1))
        wish = next(each for each in wishes if each not in taken)
        taken.add(wish)
        renamed[value.name] = wish
    for graph in graphs if renamed else ():
        for value in (*graph.output, *graph.value_info):
            value.name = renamed.get(value.name, value.name)
        for node in graph.node:
            node.input[:] = [renamed.get(name, name) for name in node.input]
            node.output[:] = [renamed.get(name, name) for name in node.output]


def name_sizes(model: onnx.ModelProto) -> None:
    """Call the free sizes of inputs ``batch`` and ``axis2`` instead of ``s77``, in place."""
    words: dict[str, str] = {}
    for value in model.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param and dim.dim_param.isidentifier() and dim.dim_param not in words:
                wish = "batch" if axis == 0 else f"axis{axis}"
                number = sum(1 for word in words.values() if word == wish or word.startswith(f"{wish}_"))
                words[dim.dim_param] = f"{wish}_{number + 1}" if number else wish
    if not words:
        return
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, words)) + r")\b")
    for graph in all_graphs(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param:
                    dim.dim_param = pattern.sub(lambda found: words[found[0]], dim.dim_param)
