"""Runs a network in torch, so that gradients flow to its weights and activations.

ONNX Runtime stays the engine (it is faster, and exact); this is for what needs gradients: proxies of sensitivity,
learned rounding, training. Importing this module imports torch, so it is imported only where it is used: through
`network.differentiation`.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import onnx
import torch
from torch import Tensor

from quantgui.errors import DataError, NetworkError, is_out_of_memory
from quantgui.network.network import Network
from quantgui.network.surgery import subgraphs
from quantgui.network.torch_operators.arrangement import ARRANGEMENT
from quantgui.network.torch_operators.convolution import CONVOLUTION
from quantgui.network.torch_operators.elementwise import ELEMENTWISE
from quantgui.network.torch_operators.node import Operator, OperatorNode, as_tensor
from quantgui.network.torch_operators.recurrent import RECURRENT
from quantgui.network.torch_operators.reduction import REDUCTION
from quantgui.network.torch_operators.resizing import RESIZING
from quantgui.network.torch_operators.spectrum import SPECTRUM
from quantgui.results import Array

OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {**ELEMENTWISE, **ARRANGEMENT, **REDUCTION, **CONVOLUTION, **RESIZING, **RECURRENT, **SPECTRUM}
)
"""Operators of the standard domain that are covered, beside `CONTROL`."""
CONTROL = frozenset({"If", "Loop", "Scan"})

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class TensorHook:
    """What some nodes see instead of a tensor, such as its fake-quantized form.

    `consumers` has the meaning it has in `network.simulation.TensorQuantizer`: names of the nodes, or None for all
    that no other hook of the tensor names, and for the network output of that name.
    """

    function: Callable[[Tensor], Tensor]
    consumers: frozenset[str] | None = None


Hooks = Mapping[str, Sequence[TensorHook]]


@dataclass(frozen=True, eq=False)
class _Step:
    """A node with its operator, or with its bodies where it is one of `CONTROL`; `last` is not used after it."""

    node: OperatorNode
    operator: Operator | None
    inputs: tuple[str, ...]
    bodies: Mapping[str, _Body]
    last: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Body:
    """A graph ready to run: the main one, or one of If, Loop or Scan."""

    inputs: tuple[str, ...]
    steps: tuple[_Step, ...]
    outputs: tuple[str, ...]


@dataclass(eq=False)
class _Run:
    """One run under way: what is wanted of it, and what its hooks have made so far."""

    fetch: frozenset[str]
    hooks: Hooks
    hooked: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    fetched: dict[str, Tensor] = field(default_factory=dict)

    def made(self, name: str, value: Tensor) -> None:
        """Take note of a new value (of a name that a loop may have made before)."""
        self.forget(name)
        if name in self.fetch:
            self.fetched[name] = value

    def forget(self, name: str) -> None:
        for index in range(len(self.hooks.get(name, ()))):
            self.hooked.pop((name, index), None)

    def seen(self, name: str, value: Tensor, node: str | None) -> Tensor:
        """Return what the node (None: the network's output) sees of a tensor."""
        hooks = self.hooks.get(name, ())
        named = [i for i, hook in enumerate(hooks) if hook.consumers is not None and node in hook.consumers]
        default = [i for i, hook in enumerate(hooks) if hook.consumers is None]
        for index in [*named, *default][:1]:
            if (name, index) not in self.hooked:
                self.hooked[name, index] = hooks[index].function(value)
            return self.hooked[name, index]
        return value


class DifferentiableNetwork:
    """A network in torch.

    Raises:
        NetworkError: the network has an operator that is not covered; the sentence names it.
    """

    def __init__(self, network: Network) -> None:
        graph = network.skeleton.graph
        opsets = {each.domain: each.version for each in network.skeleton.opset_import}
        self.network = network
        self.initializers = frozenset(tensor.name for tensor in graph.initializer)
        self._body = _compiled(graph, opsets.get("", 1), self.initializers)
        self._constants: dict[str, Tensor] = {}

    def constant(self, name: str) -> Tensor:
        """Return an initializer; it shares the memory of the network's array and is not to be written to."""
        if name not in self._constants:
            self._constants[name] = as_tensor(self.network.constants[name])
        return self._constants[name]

    def run(
        self,
        inputs: Mapping[str, Array | Tensor],
        weights: Mapping[str, Tensor] = _NOTHING,
        fetch: Collection[str] = (),
        quantize: Hooks = _NOTHING,
    ) -> dict[str, Tensor]:
        """Return the network's outputs and the tensors `fetch`, by name.

        Whether gradients are recorded is up to torch's mode and to which tensors require them. Without, each tensor
        is freed after its last use.

        Args:
            inputs: one array or tensor for each input of the network.
            weights: tensors that stand for initializers, by name.
            fetch: names of further tensors; those in bodies of If, Loop and Scan too, where the last value counts and
                a body that does not run gives none. They are as they are before `quantize`.
            quantize: what consumers see instead of a tensor (of an input or an activation).

        Raises:
            DataError: an input is missing.
            NetworkError: torch cannot run an operator on these tensors.
        """
        if unknown := weights.keys() - self.initializers:
            raise ValueError(f"{min(unknown)} is no initializer")
        values: dict[str, Tensor] = {}
        run = _Run(frozenset(fetch), quantize)
        for name in self._body.inputs:
            if name not in inputs:
                raise DataError(f"The data lacks the network's input '{name}'.")
            values[name] = as_tensor(inputs[name])
            run.made(name, values[name])
        constants = _Constants(self, weights)
        self._execute(self._body, ChainMap(values, constants), run)
        outputs = {name: run.seen(name, values[name], None) for name in self._body.outputs}
        known = {name: constants[name] for name in run.fetch & self.initializers}
        return {**known, **run.fetched, **outputs}

    # --- one graph -----------------------------------------------------------------------------------------------

    def _execute(self, body: _Body, values: MutableMapping[str, Tensor], run: _Run) -> list[Tensor]:
        for step in body.steps:
            node = step.node
            given = [run.seen(name, values[name], node.name) if name else None for name in step.inputs]
            if step.operator is None:
                results = self._control(step, given, values, run)
            else:
                results = _applied(step.operator, node, given)
            del given
            for name, value in zip(node.outputs, results, strict=False):
                if name:
                    values[name] = value
                    run.made(name, value)
            for name in step.last:
                del values[name]
                run.forget(name)
        return [values[name] for name in body.outputs]

    def _control(
        self, step: _Step, given: Sequence[Tensor | None], values: MutableMapping[str, Tensor], run: _Run
    ) -> Sequence[Tensor]:
        match step.node.op:
            case "If":
                chosen = "then_branch" if bool(_present(given[0])) else "else_branch"
                return self._body_run(step.bodies[chosen], (), values, run)
            case "Loop":
                return self._loop(step, given, values, run)
            case _:
                return self._scan(step, [_present(each) for each in given], values, run)

    def _body_run(
        self, body: _Body, given: Iterable[Tensor], values: MutableMapping[str, Tensor], run: _Run
    ) -> list[Tensor]:
        own: dict[str, Tensor] = dict(zip(body.inputs, given, strict=True))
        for name, value in own.items():
            run.made(name, value)
        return self._execute(body, ChainMap(own, values), run)

    def _loop(
        self, step: _Step, given: Sequence[Tensor | None], values: MutableMapping[str, Tensor], run: _Run
    ) -> list[Tensor]:
        body = step.bodies["body"]
        most = None if given[0] is None else int(given[0])
        going = given[1] is None or bool(given[1])
        carried = [_present(each) for each in given[2:]]
        scanned: list[list[Tensor]] = [[] for _ in body.outputs[1 + len(carried) :]]
        count = 0
        while going and (most is None or count < most):
            inputs = [torch.tensor(count), torch.tensor(going), *carried]
            condition, *results = self._body_run(body, inputs, values, run)
            carried = results[: len(carried)]
            for rows, value in zip(scanned, results[len(carried) :], strict=True):
                rows.append(value)
            going = bool(condition)
            count += 1
        return [*carried, *(self._stacked(step.node, rows, 0) for rows in scanned)]

    def _scan(
        self, step: _Step, given: Sequence[Tensor], values: MutableMapping[str, Tensor], run: _Run
    ) -> list[Tensor]:
        node, body = step.node, step.bodies["body"]
        if node.opset < 9:
            raise node.uncovered("the form of opset 8")
        count = node.attributes["num_scan_inputs"]
        states, sequences = list(given[:-count]), given[-count:]
        axes = node.get("scan_input_axes", [0] * count)
        backwards = node.get("scan_input_directions", [0] * count)
        lines = [
            list(each.unbind(axis))[:: -1 if back else 1]
            for each, axis, back in zip(sequences, axes, backwards, strict=True)
        ]
        scanned: list[list[Tensor]] = [[] for _ in body.outputs[len(states) :]]
        for elements in zip(*lines, strict=True):
            results = self._body_run(body, (*states, *elements), values, run)
            for rows, value in zip(scanned, results[len(states) :], strict=True):
                rows.append(value)
            states = results[: len(states)]
        out_axes = node.get("scan_output_axes", [0] * len(scanned))
        out_backwards = node.get("scan_output_directions", [0] * len(scanned))
        return [
            *states,
            *(
                self._stacked(node, rows[:: -1 if back else 1], axis)
                for rows, axis, back in zip(scanned, out_axes, out_backwards, strict=True)
            ),
        ]

    @staticmethod
    def _stacked(node: OperatorNode, rows: Sequence[Tensor], axis: int) -> Tensor:
        if not rows:
            raise node.uncovered("a loop of no rounds")
        return torch.stack(list(rows), axis)


class _Constants(dict[str, Tensor]):
    """Initializers, made into tensors when they are needed; replaced ones first."""

    def __init__(self, network: DifferentiableNetwork, weights: Mapping[str, Tensor]) -> None:
        super().__init__(weights)
        self._network = network

    def __missing__(self, name: str) -> Tensor:
        return self._network.constant(name)


def _present(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise NetworkError("A node of the network lacks an input it needs, so the file is damaged.")
    return tensor


def _applied(operator: Operator, node: OperatorNode, given: Sequence[Tensor | None]) -> Sequence[Tensor]:
    try:
        results = operator(node, *given)
    except (RuntimeError, IndexError) as error:
        if is_out_of_memory(error):
            raise MemoryError(f"for the operator {node.op} (node '{node.name}')") from error
        detail = " ".join(str(error).split())[:200].rstrip(". ")
        raise NetworkError(f"torch cannot run the operator {node.op} (node '{node.name}'): {detail}.") from error
    return (results,) if isinstance(results, Tensor) else results


# --- from ONNX ---------------------------------------------------------------------------------------------------


def uncovered_operators(network: Network) -> tuple[str, ...]:
    """Return the operators of the network that `DifferentiableNetwork` does not cover, in alphabetical order."""
    return tuple(sorted({_label(node) for node in _nodes(network.skeleton.graph) if not is_covered(node)}))


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for body in subgraphs(node):
            yield from _nodes(body)


def is_covered(node: onnx.NodeProto) -> bool:
    """Return whether the operator of a node is covered; bodies are not looked into."""
    return not node.domain and (node.op_type in OPERATORS or node.op_type in CONTROL)


def _label(node: onnx.NodeProto) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else str(node.op_type)


def _compiled(graph: onnx.GraphProto, opset: int, initializers: Collection[str]) -> _Body:
    outputs = tuple(value.name for value in graph.output)
    inputs = tuple(value.name for value in graph.input if value.name not in initializers)
    own = {*inputs, *(name for node in graph.node for name in node.output if name)} - set(outputs)
    steps: list[_Step] = []
    for node in reversed(graph.node):
        used = {*filter(None, node.input), *(name for body in subgraphs(node) for name in _free(body))}
        # Outputs that nothing uses go at once.
        last = tuple(name for name in dict.fromkeys((*sorted(used), *node.output)) if name in own)
        own.difference_update(last)
        steps.append(_step(node, opset, initializers, last))
    return _Body(inputs, tuple(reversed(steps)), outputs)


def _free(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield all names that a body mentions; names are unique, so its own do no harm."""
    for node in graph.node:
        yield from filter(None, node.input)
        for body in subgraphs(node):
            yield from _free(body)
    yield from (value.name for value in graph.output)


def _step(node: onnx.NodeProto, opset: int, initializers: Collection[str], last: tuple[str, ...]) -> _Step:
    if not is_covered(node):
        raise NetworkError(
            f"The network cannot be differentiated: the operator {_label(node)} (node '{node.name}') is not covered."
        )
    attributes, bodies = {}, {}
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            bodies[attribute.name] = _compiled(attribute.g, opset, initializers)
        else:
            attributes[attribute.name] = _value(attribute)
    seen = OperatorNode(node.name, node.op_type, opset, MappingProxyType(attributes), tuple(node.output))
    return _Step(seen, OPERATORS.get(node.op_type), tuple(node.input), bodies, last)


def _value(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if attribute.type == onnx.AttributeProto.STRINGS:
        return [each.decode("utf-8", "replace") for each in value]
    if attribute.type == onnx.AttributeProto.TENSOR:
        return onnx.numpy_helper.to_array(value)
    return list(value) if attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS) else value
