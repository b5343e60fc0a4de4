"""A saved program (.pt2) as a module that runs, after it has been looked through."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._export.serde.serialize import SerializeError
from torch._export.verifier import SpecViolationError
from torch.export.graph_signature import OutputKind, TensorArgument
from torch.utils import _pytree as pytree

from quantgui.errors import NetworkError
from quantgui.network.pytorch.archive import CheckedProgram, checked_program
from quantgui.network.pytorch.calls import CONSTANTS, Call, names_in
from quantgui.network.pytorch.live import Live, changed_by, held_notes, restore
from quantgui.network.pytorch.module import made_inputs, one_line, quiet
from quantgui.spec.pytorch_source import ExampleInput, PytorchOptions

_READ_ERRORS = (
    RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, NameError, SyntaxError,
    ArithmeticError, ImportError, MemoryError, SerializeError, SpecViolationError,
)  # fmt: skip
"""What torch raises over a program that is damaged; it is not written to be read carefully."""


def load_program(path: Path, options: PytorchOptions) -> Live:
    """Return the program at `path`, ready to be run and exported.

    Raises:
        NetworkError: see `checked_program`; or torch cannot read it.
    """
    checked = checked_program(path)
    try:
        with quiet():
            program = torch.export.load(checked.archive)
            module = program.module()
    except _READ_ERRORS as error:
        raise NetworkError(
            f"PyTorch {torch.__version__} cannot read '{path.name}', which may be damaged or of another version: "
            f"{one_line(error)}."
        ) from error
    arguments = _placeholders(program)
    places = tuple(place for place, value in enumerate(arguments) if isinstance(value, Tensor))
    placeholders = [arguments[place] for place in places]
    structure = program.call_spec.in_spec
    inputs = _samples(checked, placeholders, structure)
    constants = tuple(None if isinstance(value, Tensor) else value for value in arguments)
    call = Call(checked.inputs, inputs, constants, places, structure)
    symbolic = [
        tuple(axis for axis, size in enumerate(value.shape) if not isinstance(size, int)) for value in placeholders
    ]
    axes = tuple(
        tuple(sorted({*free, *(axis for axis in options.axes_of(place) if axis < value.ndim)}))
        for place, (free, value) in enumerate(zip(symbolic, placeholders, strict=True))
    )
    held = _held(module, call)
    answers = _answers(program)
    others = _leave_out_others(program)
    notes = [f"Outputs that are no tensors are left out ({', '.join(others)})."] if others else []
    notes += held_notes(held)
    return Live(module, checked.inputs, inputs, axes, program, held, tuple(notes), answers, call)


def _placeholders(program: torch.export.ExportedProgram) -> list[Any]:
    """Return what is known of each argument that the user gives: the tensors' shapes, and constants as they are."""
    known = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    # A number, or None, that was given when the program was saved is listed by its value.
    values = [known.get(each, each) if isinstance(each, str) else each for each in program.graph_signature.user_inputs]
    tensors = [value for value in values if isinstance(value, Tensor)]
    if not tensors or not all(isinstance(value, (Tensor, *CONSTANTS)) for value in values):
        raise NetworkError(
            "The program takes something else than tensors, which ONNX does not have; save one that does."
        )
    return values


def _held(module: torch.nn.Module, call: Call) -> dict[str, Tensor]:
    """Return the buffers that a run of the program changes; none where it does not run on made example inputs."""
    # Its buffers are those of the program, which is exported with what they hold.
    restore(module, dict(module.named_buffers()))
    try:
        return changed_by(module, *call.arguments(call.tensors))
    except _READ_ERRORS:
        return {}  # comparing says why


def _answers(program: torch.export.ExportedProgram) -> tuple[str, ...]:
    """Return the names of the tensors that the program answers, see `names_in`."""
    nodes = {node.name: node.meta.get("val") for node in program.graph.nodes}
    values = [nodes.get(each) if isinstance(each, str) else each for each in program.graph_signature.user_outputs]
    return names_in(pytree.tree_unflatten(values, program.call_spec.out_spec))


def _leave_out_others(program: torch.export.ExportedProgram) -> tuple[str, ...]:
    """Leave out the outputs of `program` that are no tensors, in place, as its exporter fails over them.

    Returns:
        their kinds, without None.
    """
    (output,) = program.graph.find_nodes(op="output")
    specs = program.graph_signature.output_specs
    kept = [spec.kind != OutputKind.USER_OUTPUT or isinstance(spec.arg, TensorArgument) for spec in specs]
    if all(kept):
        return ()
    values = [getattr(spec.arg, "value", 0) for spec, keep in zip(specs, kept, strict=True) if not keep]
    output.args = (tuple(each for each, keep in zip(output.args[0], kept, strict=True) if keep),)
    specs[:] = [spec for spec, keep in zip(specs, kept, strict=True) if keep]
    structure = pytree.tree_structure(tuple(0 for spec in specs if spec.kind == OutputKind.USER_OUTPUT))
    for entry in program.module_call_graph:
        if not entry.fqn and entry.signature is not None:
            entry.signature.out_spec = structure
    program.graph_module.recompile()
    return tuple(dict.fromkeys(type(value).__name__ for value in values if value is not None))


def _samples(checked: CheckedProgram, placeholders: list[Any], structure: pytree.TreeSpec) -> tuple[Tensor, ...]:
    """Return the example inputs of the archive, or made ones where they cannot be read without running code."""
    try:
        with quiet():
            loaded = torch.load(io.BytesIO(checked.samples), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, *_READ_ERRORS):
        loaded = None
    leaves = [leaf for leaf in pytree.tree_leaves(_in_order(loaded, structure)) if isinstance(leaf, Tensor)]
    fits = len(leaves) == len(placeholders) and all(
        leaf.ndim == value.ndim and leaf.dtype == value.dtype for leaf, value in zip(leaves, placeholders, strict=True)
    )
    if fits:
        return tuple(leaf.detach() for leaf in leaves)
    return made_inputs(
        [
            ExampleInput(tuple(int(size) for size in value.shape), str(value.dtype).removeprefix("torch."))
            for value in placeholders
        ]
    )


def _in_order(samples: Any, structure: pytree.TreeSpec) -> Any:
    """Return example inputs with those by keyword in the order of the program."""
    if not (isinstance(samples, tuple) and len(samples) == 2 and isinstance(samples[1], dict)):
        return samples
    names = structure.child(1).context if structure.num_children == 2 else ()
    return (samples[0], {name: samples[1][name] for name in names if name in samples[1]}) if names else samples
