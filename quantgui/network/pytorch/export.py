"""A module or a saved program as ONNX, by torch's own exporters, held against the module.

Torch has two exporters. The new one (``dynamo``) reads the program as a whole and knows the module of every operation;
it may give axes that were asked to vary a fixed size without a word (recurrent networks, code that reads a size). The
old one (``old``) records one run; it keeps such axes free, but bakes in what the code decided by values. So with
``auto`` the new one is taken, what it made is looked at, and where it froze an axis, failed, or computes something else
than the module at another size, the old one gets its turn; it is taken when it does better, and a note says so: nobody
who asked for free axes should have to know of exporters, and nobody should be left without knowing.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from quantgui.errors import NetworkError
from quantgui.network.pytorch.limits import TOLERANCE
from quantgui.network.pytorch.module import one_line, quiet
from quantgui.network.pytorch.names import name_by_modules, name_sizes
from quantgui.network.session import create_session, runtime_errors
from quantgui.results import Array, Event, Progress
from quantgui.spec.pytorch_source import Exporter, PytorchOptions

_OLD_OPSET: Final = 17
_NEW_OPSET: Final = 18
_MOST_BYTES: Final = 1_800_000_000
_TICK_SECONDS: Final = 0.5

R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Form:
    """An ONNX form of a module.

    Attributes:
        model: nodes and weights named by the module tree, inputs by the parameters of ``forward``.
        exporter: which one made it.
        frozen: axes that were asked to vary and do not, as ``input axis 1 (of 50)``.
        difference: from the module on the example inputs, as a share of the largest output.
        notes: sentences for the user.
    """

    model: onnx.ModelProto
    exporter: Exporter
    frozen: tuple[str, ...]
    difference: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Live:
    """A module that runs, with example inputs.

    Attributes:
        run: the module in evaluation mode.
        names: of its inputs.
        inputs: one tensor for each.
        free_axes: which axes may vary, for each input.
        program: the saved program it was made from, if any.
    """

    run: nn.Module
    names: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    free_axes: tuple[tuple[int, ...], ...]
    program: torch.export.ExportedProgram | None = None

    def outputs(self, inputs: Sequence[Tensor]) -> list[Array]:
        """Return all tensors that the module answers."""
        with torch.no_grad(), quiet():
            answer = self.run(*(each.clone() for each in inputs))
        leaves = torch.utils._pytree.tree_leaves(answer)
        return [leaf.detach().cpu().numpy() for leaf in leaves if isinstance(leaf, Tensor)]

    def named(self, feed: Mapping[str, Array]) -> list[Tensor]:
        """Return the inputs that `feed` holds by name, in order."""
        return [torch.from_numpy(np.array(feed[name])) for name in self.names]


def input_names(module: nn.Module, count: int) -> tuple[str, ...]:
    """Return names for the first `count` inputs of ``forward``."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        parameters = {}.values()
    names = [each.name for each in parameters if each.kind in kinds][:count]
    return (*names, *(f"input{place}" for place in range(len(names), count)))


def live_module(module: nn.Module, inputs: Sequence[Tensor], options: PytorchOptions) -> Live:
    """Return `module` ready to be exported; a free axis of size 1 gets size 2, as torch takes 1 for a constant.

    Raises:
        NetworkError: it does not run on the example inputs.
    """
    module = module.eval().requires_grad_(requires_grad=False).to("cpu")
    names = input_names(module, len(inputs))
    axes = tuple(tuple(a for a in options.axes_of(i) if a < inputs[i].ndim) for i in range(len(inputs)))
    given = Live(module, names, tuple(each.detach().to("cpu") for each in inputs), axes)
    wide = tuple(_widened(each, free) for each, free in zip(given.inputs, axes, strict=True))
    # Code that squeezes, or holds a state of its own, may take one size alone.
    if not _failure(given, wide):
        return Live(module, names, wide, axes)
    if failure := _failure(given, given.inputs):
        shapes = ", ".join(f"{name} {tuple(each.shape)}" for name, each in zip(names, given.inputs, strict=True))
        raise NetworkError(f"The module does not run on example inputs of {shapes}: {failure}.")
    return given


def _failure(live: Live, inputs: Sequence[Tensor]) -> str:
    """Return why a module does not run on `inputs`; empty where it does."""
    try:
        live.outputs(inputs)
    except (Exception, SystemExit) as error:  # noqa: BLE001 -- the user's code may raise anything
        return one_line(error)
    return ""


def _widened(values: Tensor, axes: Sequence[int]) -> Tensor:
    for axis in axes:
        if values.shape[axis] == 1:
            values = torch.cat([values, values], axis)
    return values


# --- exporting ---------------------------------------------------------------------------------------------------


def export(live: Live, exporter: Exporter) -> Generator[Event, None, Form]:
    """Yield progress while `live` is exported; return the ONNX form.

    Raises:
        NetworkError: no exporter can.
    """
    size = sum(each.nbytes for each in (*live.run.parameters(), *live.run.buffers()))
    if size > _MOST_BYTES:
        raise NetworkError(
            f"The network has {size / 1e9:.1f} GB of weights; PyTorch networks are opened up to "
            f"{_MOST_BYTES / 1e9:.1f} GB. Export it with torch.onnx.export and open the .onnx file."
        )
    if exporter == "old":
        return _with_frozen_note(live, (yield from _tried(live, "old")))
    if exporter == "dynamo" or live.program is not None:
        return _with_frozen_note(live, (yield from _tried(live, "dynamo")))
    try:
        first, failure = (yield from _tried(live, "dynamo")), None
    except NetworkError as error:
        first, failure = None, error
    if first is not None and not first.frozen and first.difference <= TOLERANCE:
        return first
    try:
        second = yield from _tried(live, "old")
    except NetworkError:
        if first is None:
            raise failure or AssertionError from None
        return _with_frozen_note(live, first, both=True)
    if first is None:
        return _with_note(second, "The new exporter of PyTorch cannot export this network, so the old one did.")
    better = (len(second.frozen), second.difference > TOLERANCE) < (len(first.frozen), first.difference > TOLERANCE)
    if not better:
        return _with_frozen_note(live, first, both=True)
    why = f"freezes {_listed(first.frozen)}" if first.frozen else "computes something else than the module"
    return _with_note(second, f"The new exporter of PyTorch {why}, so the old one was used.")


def _with_note(form: Form, *notes: str) -> Form:
    return Form(form.model, form.exporter, form.frozen, form.difference, (*notes, *form.notes))


def _with_frozen_note(live: Live, form: Form, *, both: bool = False) -> Form:
    """Return `form` with a note on the axes that do not vary; `both` if no exporter does better."""
    if not form.frozen:
        return form
    what = _listed(form.frozen)
    if live.program is not None:
        note = f"The program fixes {what}: save it with dynamic_shapes for sizes that vary."
    elif both:
        note = f"No exporter of PyTorch keeps {what} free: the code of the network fixes it. Use that size alone."
    elif form.exporter == "dynamo":
        note = f"The new exporter of PyTorch froze {what}, though it was asked to vary; the old exporter may keep it."
    else:
        note = f"The old exporter of PyTorch froze {what}, though it was asked to vary; the new exporter may keep it."
    return _with_note(form, note)


def _listed(frozen: Sequence[str]) -> str:
    return " and ".join(frozen) if len(frozen) < 3 else f"{', '.join(frozen[:-1])} and {frozen[-1]}"


def _tried(live: Live, exporter: Exporter) -> Generator[Event, None, Form]:
    label = "Exporting to ONNX" if exporter != "old" else "Exporting to ONNX by the old exporter"
    write = _write_old if exporter == "old" else _write_new
    model = yield from _ticking(lambda: write(live), label)
    yield Progress(0, 0, "Naming the layers")
    state = {name: _array(values) for name, values in live.run.state_dict().items() if isinstance(values, Tensor)}
    modules = frozenset(name for name, _ in live.run.named_modules() if name)
    if live.program is not None:
        modules = frozenset(name.rpartition(".")[0] for name in state)
    name_by_modules(model, state, modules)
    name_sizes(model)
    yield Progress(0, 0, "Comparing with the module")
    difference = compare(live, model, live.inputs)
    return Form(model, exporter, _frozen(live, model), difference)


def _array(values: Tensor) -> Array:
    values = values.detach().cpu()
    array: Array = values.float().numpy() if values.dtype == torch.bfloat16 else values.numpy()
    return array


def _write_new(live: Live) -> onnx.ModelProto:
    what: Any = live.run
    arguments: tuple[Any, ...] = live.inputs
    shapes: Any = tuple(dict.fromkeys(axes, torch.export.Dim.AUTO) for axes in live.free_axes)
    if live.program is not None:
        what, arguments, shapes = live.program, (), None
    with quiet(), _export_errors("PyTorch cannot export the network"):
        program = torch.onnx.export(
            what,
            arguments,
            dynamo=True,
            dynamic_shapes=_for_signature(live, shapes),
            input_names=None if live.program is not None else list(live.names),
            opset_version=_NEW_OPSET,
            verbose=False,
        )
        assert program is not None
        model: onnx.ModelProto = program.model_proto
    return model


def _for_signature(live: Live, shapes: Any) -> Any:
    """Return the free axes in the form of the arguments: those of ``*inputs`` are one of their own."""
    if shapes is None:
        return None
    parameters = list(inspect.signature(live.run.forward).parameters.values())
    for place, each in enumerate(parameters[: len(shapes)]):
        if each.kind is inspect.Parameter.VAR_POSITIONAL:
            return (*shapes[:place], tuple(shapes[place:]))
    return shapes


def _write_old(live: Live) -> onnx.ModelProto:
    axes = {
        name: {axis: "batch" if axis == 0 else f"axis{axis}" for axis in free}
        for name, free in zip(live.names, live.free_axes, strict=True)
    }
    buffer = io.BytesIO()
    with quiet(), torch.no_grad(), _export_errors("The old exporter of PyTorch cannot export the network"):
        torch.onnx.export(
            live.run,
            live.inputs,
            buffer,
            input_names=list(live.names),
            dynamic_axes=axes,
            opset_version=_OLD_OPSET,
            dynamo=False,
            do_constant_folding=False,
        )
    return onnx.load_from_string(buffer.getvalue())


@contextlib.contextmanager
def _export_errors(what: str) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:  # exporting runs the user's code, which may raise anything
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise NetworkError(f"{what}: {one_line(cause)}.") from error


def _ticking(work: Callable[[], R], label: str) -> Generator[Event, None, R]:
    """Do `work` in a thread and yield progress meanwhile: it takes long, and nothing else would be heard.

    Whoever stops listening waits for its end, as torch's exporters cannot be stopped and run one at a time.
    """
    result: list[R] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:  # noqa: BLE001 -- raised again where it is waited for
            failure.append(error)

    thread = threading.Thread(target=run, name="export", daemon=True)
    yield Progress(0, 0, label)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_TICK_SECONDS)
            if thread.is_alive():
                yield Progress(0, 0, label)
    finally:
        thread.join()
    if failure:
        raise failure[0]
    return result[0]


# --- holding it against the module -------------------------------------------------------------------------------


def compare(live: Live, model: onnx.ModelProto, inputs: Sequence[Tensor]) -> float:
    """Return the largest difference of the ONNX form from the module, as a share of the largest value of an output.

    Raises:
        NetworkError: ONNX Runtime cannot run the form.
    """
    wanted = live.outputs(inputs)
    session = create_session(model, {})
    feed = {value.name: each.numpy() for value, each in zip(session.get_inputs(), inputs, strict=False)}
    with runtime_errors("run"):
        found = session.run(None, feed)
    return largest_difference(wanted, found)


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


def _frozen(live: Live, model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the axes that should vary and do not: by what the form declares, then by running it at another size."""
    frozen: list[str] = []
    for name, value, axes, each in zip(live.names, model.graph.input, live.free_axes, live.inputs, strict=False):
        dims = value.type.tensor_type.shape.dim
        frozen += [f"axis {a} of '{name}' at {each.shape[a]}" for a in axes if not dims[a].dim_param]
    if frozen or not any(live.free_axes):
        return tuple(frozen)
    every = sorted({axis for axes in live.free_axes for axis in axes})
    for axis in every:
        inputs = [
            _resized(each, axis) if axis in axes else each
            for each, axes in zip(live.inputs, live.free_axes, strict=True)
        ]
        if _failure(live, inputs):
            continue  # the module itself takes no such size
        try:
            same = compare(live, model, inputs) <= TOLERANCE
        except NetworkError:
            same = False
        if not same:
            place = next(i for i, axes in enumerate(live.free_axes) if axis in axes)
            frozen.append(f"axis {axis} of '{live.names[place]}' at {live.inputs[place].shape[axis]}")
    return tuple(frozen)


def _resized(values: Tensor, axis: int) -> Tensor:
    """Return `values` with another size of `axis`, made of what is there."""
    size = values.shape[axis]
    # Pictures are halved several times on their way; sizes that suit that are tried.
    wanted = size + 32 if size >= 64 and axis > 0 else size + 1
    return values.index_select(axis, torch.arange(wanted) % size)
