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

from quantgui.errors import NetworkError
from quantgui.network.pytorch.archive import CheckedProgram, checked_program
from quantgui.network.pytorch.live import Live
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
    placeholders = _placeholders(program)
    inputs = _samples(checked, placeholders)
    symbolic = [
        tuple(axis for axis, size in enumerate(value.shape) if not isinstance(size, int)) for value in placeholders
    ]
    axes = tuple(
        tuple(sorted({*free, *(axis for axis in options.axes_of(place) if axis < value.ndim)}))
        for place, (free, value) in enumerate(zip(symbolic, placeholders, strict=True))
    )
    return Live(module, checked.inputs, inputs, axes, program)


def _placeholders(program: torch.export.ExportedProgram) -> list[Any]:
    """Return what is known of each tensor that the user feeds."""
    wanted = program.graph_signature.user_inputs
    found = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    values = [found.get(name) for name in wanted]
    if not values or not all(isinstance(value, Tensor) for value in values):
        raise NetworkError(
            "The program takes something else than tensors, which ONNX does not have; save one that does."
        )
    return values


def _samples(checked: CheckedProgram, placeholders: list[Any]) -> tuple[Tensor, ...]:
    """Return the example inputs of the archive, or made ones where they cannot be read without running code."""
    try:
        with quiet():
            loaded = torch.load(io.BytesIO(checked.samples), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, *_READ_ERRORS):
        loaded = None
    leaves = [leaf for leaf in torch.utils._pytree.tree_leaves(loaded) if isinstance(leaf, Tensor)]
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
