"""A module that runs, with example inputs: what its ONNX form is made of and held against."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils import _pytree as pytree

from quantgui.errors import NetworkError
from quantgui.network.pytorch.calls import Call, call_of, names_in, others_in, take_tensors, tensors_in
from quantgui.network.pytorch.limits import HALF_TOLERANCE, TOLERANCE
from quantgui.network.pytorch.module import one_line, quiet
from quantgui.network.pytorch.weights import require_values
from quantgui.results import Array
from quantgui.spec.pytorch_source import PytorchOptions

_NOT_RUN: Final = (torch.bfloat16, torch.float64)
"""Types that ONNX Runtime has few operators for on a processor."""


@dataclass(frozen=True, eq=False)
class Live:
    """A module that runs, with example inputs.

    Attributes:
        run: the module in evaluation mode.
        names: of its inputs.
        inputs: one tensor for each.
        free_axes: which axes may vary, for each input.
        program: the saved program it was made from, if any.
        held: buffers that a run changes, with what they held before; every run begins with that.
        notes: sentences for the user.
        answers: names of the tensors it answers, by the keys of a dict; empty where one has none.
        call: how `run` is called where it takes something else than `inputs` one after another.
    """

    run: nn.Module
    names: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    free_axes: tuple[tuple[int, ...], ...]
    program: torch.export.ExportedProgram | None = None
    held: Mapping[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    call: Call | None = None

    @property
    def tolerance(self) -> float:
        """Return the largest difference that rounding explains, as a share of the largest output."""
        return HALF_TOLERANCE if torch.float16 in float_types(self.run, self.inputs) else TOLERANCE

    def outputs(self, inputs: Sequence[Tensor]) -> list[Array]:
        """Return all tensors that the module answers."""
        own = [each.clone() for each in inputs]
        positional, keywords = self.call.arguments(own) if self.call is not None else (own, {})
        with torch.no_grad(), quiet(), self.as_before():
            answer = self.run(*positional, **keywords)
        return [as_array(leaf) for leaf in tensors_in(answer)]

    @contextlib.contextmanager
    def as_before(self) -> Iterator[None]:
        """Give the buffers that a run changes back what they held."""
        try:
            yield
        finally:
            if self.held:
                restore(self.run, self.held)

    def named(self, feed: Mapping[str, Array]) -> list[Tensor]:
        """Return the inputs that `feed` holds by name, in order."""
        return [torch.from_numpy(np.array(feed[name])) for name in self.names]


def live_module(module: nn.Module, inputs: Sequence[Any], options: PytorchOptions) -> Live:
    """Return `module` ready to be exported; a free axis of size 1 gets size 2, as torch takes 1 for a constant.

    Args:
        module: changed in place: to evaluation, float32 where ONNX Runtime runs nothing else, and plain tensors.
        inputs: its arguments, see `as_inputs`.
        options: which axes are free.

    Raises:
        NetworkError: it does not run on the example inputs, or lacks weights.
    """
    module = _unwrapped(module)
    require_values(module)
    module.eval().to("cpu")
    _bake(module)
    for parameter in module.parameters():
        parameter.requires_grad_(requires_grad=False)
    call, changed = _computable(module, call_of(module, inputs))
    answer = _answer(module, call, changed)
    notes = (
        [f"Its numbers of {changed} are float32 here: ONNX Runtime does not compute with others."] if changed else []
    )
    others = others_in(answer)
    if others:
        notes.append(f"Outputs that are no tensors are left out ({', '.join(others)}).")
    if not call.is_plain or len(tensors_in(answer)) != len(torch.utils._pytree.tree_leaves(answer)):
        take_tensors(module, call)
    axes = tuple(tuple(a for a in options.axes_of(i) if a < each.ndim) for i, each in enumerate(call.tensors))
    tensors = tuple(each.detach().to("cpu") for each in call.tensors)
    held = changed_by(module, tensors)
    notes += held_notes(held)
    given = Live(module, call.names, tensors, axes, held=held, notes=tuple(notes), answers=names_in(answer))
    if largest_difference(given.outputs(tensors), given.outputs(tensors)) > given.tolerance:
        notes.append(
            "The module answers the same inputs differently each time: it draws random numbers, or keeps a state that "
            "is no buffer. Its ONNX form cannot be held against it."
        )
    wide = tuple(_widened(each, free) for each, free in zip(given.inputs, axes, strict=True))
    # Code that squeezes, or holds a state of its own, may take one size alone.
    return replace(given, inputs=tensors if failure_of(given, wide) else wide, notes=tuple(notes))


def largest_difference(wanted: Sequence[Array], found: Sequence[Array]) -> float:
    """Return the largest difference over all outputs, each as a share of its largest value; inf if shapes differ."""
    if len(wanted) != len(found):
        return float("inf")
    worst = 0.0
    for first, second in zip(wanted, found, strict=True):
        if first.shape != np.shape(second):
            return float("inf")
        if not first.size:
            continue
        exact, other = first.astype(np.float64), np.asarray(second).astype(np.float64)
        finite = np.isfinite(exact)
        if not np.array_equal(exact[~finite], other[~finite], equal_nan=True):
            return float("inf")
        if finite.any():
            largest = float(np.abs(exact[finite]).max())
            worst = max(worst, float(np.abs(exact[finite] - other[finite]).max()) / (largest or 1.0))
    return worst


def failure_of(live: Live, inputs: Sequence[Tensor]) -> str:
    """Return why a module does not run on `inputs`; empty where it does."""
    try:
        live.outputs(inputs)
    except (Exception, SystemExit) as error:  # noqa: BLE001 -- the user's code may raise anything
        return one_line(error)
    return ""


def _unwrapped(module: nn.Module) -> nn.Module:
    """Return what a module of torch's own runs (compiled, or spread over devices), under names without its prefix."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def _bake(module: nn.Module) -> None:
    """Replace weights that are computed of others (normalized, orthogonal ...) by what they are in evaluation.

    Exporters have no form for all that such a computation may do, and what is computed of weights alone is a weight.
    """
    for each in list(module.modules()):
        if not parametrize.is_parametrized(each):
            continue
        assert isinstance(each.parametrizations, nn.ModuleDict)
        with torch.no_grad(), quiet():
            values = {name: getattr(each, name).detach().clone() for name in each.parametrizations}
        # Not by `remove_parametrizations`, which changes the class, and that is one with the module this is a copy of.
        each.__class__ = parametrize.type_before_parametrizations(each)
        del each.parametrizations
        for name, value in values.items():
            each.register_parameter(name, nn.Parameter(value, requires_grad=False))


def float_types(module: nn.Module, inputs: Sequence[Tensor]) -> set[torch.dtype]:
    """Return the types of the floating-point numbers that a module computes with."""
    return {each.dtype for each in (*module.parameters(), *module.buffers(), *inputs) if each.is_floating_point()}


def as_array(values: Tensor) -> Array:
    """Return a tensor as an array; bfloat16, which numpy has not, as float32."""
    values = values.detach().cpu()
    array: Array = values.float().numpy() if values.dtype == torch.bfloat16 else values.numpy()
    return array


def computed_types(module: nn.Module, inputs: Sequence[Tensor]) -> str:
    """Return the types of a module that ONNX Runtime has few operators for on a processor; empty for none."""
    known = float_types(module, inputs)
    return " and ".join(str(each).removeprefix("torch.") for each in _NOT_RUN if each in known)


def _computable(module: nn.Module, call: Call) -> tuple[Call, str]:
    """Turn `module` to float32 where ONNX Runtime runs nothing else; return the call of it, and what it was before."""
    changed = computed_types(module, call.tensors)
    if changed:
        module.float()
        return call.with_tensors([each.float() if each.dtype in _NOT_RUN else each for each in call.tensors]), changed
    if float_types(module, ()) == {torch.float16}:
        return call.with_tensors([each.half() if each.is_floating_point() else each for each in call.tensors]), ""
    return call, ""


def _answer(module: nn.Module, call: Call, changed: str) -> Any:
    """Return what `module` answers to its example inputs.

    Raises:
        NetworkError: it fails.
    """
    positional, keywords = call.arguments([each.clone() for each in call.tensors])
    before = {name: values.clone() for name, values in module.named_buffers()}
    try:
        with torch.no_grad(), quiet():
            return module(*positional, **keywords)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        shapes = ", ".join(f"{n} {tuple(each.shape)}" for n, each in zip(call.names, call.tensors, strict=True))
        what = f"made float32 (it is {changed}, which ONNX Runtime does not compute with) " if changed else ""
        raise NetworkError(
            f"The module does not run {what}on example inputs of {shapes}: {one_line(error)}."
        ) from error
    finally:
        restore(module, before)


def changed_by(
    module: nn.Module, inputs: Sequence[Any], keywords: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """Return the buffers that a run changes, with what they held before it, which they hold again."""
    before = {name: values.clone() for name, values in module.named_buffers()}
    with torch.no_grad(), quiet():
        module(*pytree.tree_map(_cloned, tuple(inputs)), **pytree.tree_map(_cloned, dict(keywords or {})))
    after = dict(module.named_buffers())
    changed = {n: v for n, v in before.items() if n not in after or not _same(v, after[n])}
    restore(module, changed)
    return changed


def _cloned(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def held_notes(held: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return what to say of buffers that a run changes."""
    if not held:
        return ()
    listed = ", ".join(f"'{name}'" for name in list(held)[:3]) + (" ..." if len(held) > 3 else "")
    note = (
        f"The module changes its {listed} whenever it runs. Its ONNX form does not: each run begins with what was "
        "there when it was opened. Make such a state an input and an output to keep it."
    )
    return (note,)


def _same(first: Tensor, second: Tensor) -> bool:
    return (
        first.shape == second.shape
        and first.dtype == second.dtype
        and bool(((first == second) | first.ne(first)).all())
    )


def restore(module: nn.Module, buffers: Mapping[str, Tensor]) -> None:
    """Give `module` tensors of its own that hold what `buffers` do, by name."""
    for name, values in buffers.items():
        owner, _, last = name.rpartition(".")
        setattr(module.get_submodule(owner), last, values.clone())


def _widened(values: Tensor, axes: Sequence[int]) -> Tensor:
    for axis in axes:
        if values.shape[axis] == 1:
            values = torch.cat([values, values], axis)
    return values
