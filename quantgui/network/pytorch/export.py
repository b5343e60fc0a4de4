"""A module or a saved program as ONNX, by torch's own exporters, held against the module.

Torch has two exporters. The new one (``dynamo``) reads the program as a whole and knows the module of every operation;
it may give axes that were asked to vary a fixed size without a word (recurrent networks, code that reads a size). The
old one (``old``) records one run; it keeps such axes free, but bakes in what the code decided by values. So with
``auto`` the new one is taken, what it made is looked at, and where it froze an axis, failed, or computes something else
than the module at another size, the old one gets its turn; where that does not do either (loops over time, decisions by
numbers), it gets the module as TorchScript, which keeps loops and decisions as they are, if the code can be compiled.
What does best is taken, and a note says so: nobody who asked for free axes should have to know of exporters, and nobody
should be left without knowing. A form that is known to compute something else for other numbers is refused.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import onnx
import torch
from torch import Tensor

from quantgui.errors import NetworkError
from quantgui.network.pytorch.live import Live, as_array, computed_types, failure_of, largest_difference
from quantgui.network.pytorch.module import one_line, quiet
from quantgui.network.pytorch.names import name_by_modules, name_outputs, name_sizes
from quantgui.network.session import create_session, runtime_errors
from quantgui.results import Event, Progress
from quantgui.spec.pytorch_source import Exporter

_OLD_OPSET: Final = 17
_NEW_OPSET: Final = 18
_MOST_BYTES: Final = 1_800_000_000
_TICK_SECONDS: Final = 0.5
_OTHER_NUMBERS: Final = 2
"""Times that a recorded run is held against the module on other numbers."""

R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Form:
    """An ONNX form of a module.

    Attributes:
        model: nodes and weights named by the module tree, inputs by the parameters of ``forward``.
        exporter: which one made it.
        frozen: axes that were asked to vary and do not, as ``input axis 1 (of 50)``.
        difference: from the module on the example inputs, as a share of the largest output.
        decided: whether it computes something else for other numbers, as the code decides by them.
        notes: sentences for the user.
    """

    model: onnx.ModelProto
    exporter: Exporter
    frozen: tuple[str, ...]
    difference: float
    decided: bool = False
    notes: tuple[str, ...] = ()


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
    form = yield from (_old(live, "") if exporter == "old" else _new(live, may_fall_back=exporter == "auto"))
    return replace(form, notes=(*form.notes, *live.notes))


def _new(live: Live, *, may_fall_back: bool) -> Generator[Event, None, Form]:
    """Return the form that the new exporter makes, or a better one of the old exporter."""
    may_fall_back = may_fall_back and live.program is None
    try:
        first = yield from _tried(live, "dynamo")
    except NetworkError as error:
        if not may_fall_back:
            raise
        try:
            return (
                yield from _old(live, "The new exporter of PyTorch cannot export this network, so the old one did.")
            )
        except _DecidedError:
            raise
        except NetworkError:
            raise error from None
    if not may_fall_back or not any(_faults(live, first)):
        return _with_frozen_note(live, first, both=False)
    why = f"freezes {_listed(first.frozen)}" if first.frozen else "computes something else than the module"
    try:
        second = yield from _old(live, f"The new exporter of PyTorch {why}, so the old one was used.")
    except NetworkError:
        return _with_frozen_note(live, first, both=True)
    return second if _faults(live, second) < _faults(live, first) else _with_frozen_note(live, first, both=True)


def _old(live: Live, reason: str) -> Generator[Event, None, Form]:
    """Return the form that the old exporter makes of one run, or of the compiled code where one run does not tell.

    Raises:
        NetworkError: it makes none, or one that is wrong for other numbers and was not asked for (`reason` is given).
    """
    found: list[Form] = []
    failure: NetworkError | None = None
    for compiled in (False, True):
        if compiled and "forward" in vars(live.run):
            break  # what is compiled is the code of the class, not what this module does
        try:
            found.append((yield from _tried(live, "old", compiled=compiled)))
        except NetworkError as error:
            failure = failure or error
        else:
            if not any(_faults(live, found[-1])):
                break
    if not found:
        raise failure or NetworkError("The old exporter of PyTorch cannot export the network.")
    form = min(found, key=lambda each: _faults(live, each))
    if form.decided:
        decided = "The code of the network decides by the numbers of its input, and its ONNX form keeps one decision"
        if reason:
            raise _DecidedError(
                f"{decided} only, so it would compute something else for other inputs: write the decision with "
                "torch.where or torch.cond, or choose the old exporter to open it as it is.",
                option="--exporter old",
            )
        form = _with_note(form, f"{decided} for all: for other inputs it computes something else than the module.")
    form = _with_frozen_note(live, form, both=bool(reason))
    return _with_note(form, reason) if reason else form


class _DecidedError(NetworkError):
    """The code decides by numbers, which no exporter keeps."""


def _faults(live: Live, form: Form) -> tuple[bool, int, bool]:
    """Return what is wrong with a form, worst first."""
    return form.decided, len(form.frozen), form.difference > live.tolerance


def _with_note(form: Form, *notes: str) -> Form:
    return replace(form, notes=(*notes, *form.notes))


def _with_frozen_note(live: Live, form: Form, *, both: bool) -> Form:
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


def _tried(live: Live, exporter: Exporter, *, compiled: bool = False) -> Generator[Event, None, Form]:
    label = "Exporting to ONNX" if exporter != "old" else "Exporting to ONNX by the old exporter"
    model = yield from _ticking(
        lambda: _write_old(live, compiled=compiled) if exporter == "old" else _write_new(live), label
    )
    yield Progress(0, 0, "Naming the layers")
    state = {name: as_array(values) for name, values in live.run.state_dict().items() if isinstance(values, Tensor)}
    modules = frozenset(name for name, _ in live.run.named_modules() if name)
    if live.program is not None:
        modules = frozenset(name.rpartition(".")[0] for name in state)
    name_by_modules(model, state, modules)
    name_outputs(model, live.answers)
    name_sizes(model)
    yield Progress(0, 0, "Comparing with the module")
    try:
        difference = compare(live, model, live.inputs)
    except NetworkError as error:
        if not (types := computed_types(live.run, live.inputs)):
            raise
        raise NetworkError(
            f"The network computes in {types}, which ONNX Runtime does not run on a processor: save it in float32, as "
            "module.float() makes it."
        ) from error
    decided = exporter == "old" and not compiled and _is_decided(live, model)
    # What is not the same at the size of its export tells nothing at others.
    frozen = _frozen(live, model, run=difference <= live.tolerance)
    return Form(model, exporter, frozen, difference, decided)


def _write_new(live: Live) -> onnx.ModelProto:
    what: Any = live.run
    arguments: tuple[Any, ...] = live.inputs
    shapes: Any = tuple(dict.fromkeys(axes, torch.export.Dim.AUTO) for axes in live.free_axes)
    if live.program is not None:
        what, arguments, shapes = live.program, (), None
    with quiet(), live.as_before(), _export_errors("PyTorch cannot export the network"):
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


def _write_old(live: Live, *, compiled: bool) -> onnx.ModelProto:
    axes = {
        name: {axis: "batch" if axis == 0 else f"axis{axis}" for axis in free}
        for name, free in zip(live.names, live.free_axes, strict=True)
    }
    buffer = io.BytesIO()
    with (
        quiet(),
        torch.no_grad(),
        live.as_before(),
        _no_printing(),
        _export_errors("The old exporter of PyTorch cannot export the network"),
    ):
        torch.onnx.export(
            torch.jit.script(live.run) if compiled else live.run,
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
def _no_printing() -> Iterator[None]:
    """Keep the old exporter from printing the whole graph to the program's standard output when it fails."""
    printing = torch._C._jit_onnx_log
    torch._C._jit_onnx_log = lambda *_: None
    try:
        yield
    finally:
        torch._C._jit_onnx_log = printing


@contextlib.contextmanager
def _export_errors(what: str) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:  # exporting runs the user's code, which may raise anything
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise NetworkError(f"{what}: {_missing_operator(str(cause)) or one_line(cause)}.") from error


def _missing_operator(said: str) -> str:
    """Return what to do where the new exporter has no form of an operator; empty where it says something else."""
    found = re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", said)
    if found is None:
        return ""
    if "complex-valued" in said:
        return (
            f"it has no form of {found[1]} for complex numbers, which ONNX does not have; write it with real ones "
            "(torch.view_as_real)"
        )
    return f"it has no form of {found[1]}; write it with other operators"


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


def _is_decided(live: Live, model: onnx.ModelProto) -> bool:
    """Return whether a form computes something else than the module for other numbers than those of its export."""
    generator = torch.Generator().manual_seed(0)
    for turn in range(_OTHER_NUMBERS):
        inputs = [_other_numbers(each, turn, generator) for each in live.inputs]
        if failure_of(live, inputs):
            continue  # the module itself takes no such numbers
        try:
            if compare(live, model, inputs) > live.tolerance:
                return True
        except NetworkError:
            return True
    return False


def _other_numbers(values: Tensor, turn: int, generator: torch.Generator) -> Tensor:
    """Return numbers of the other sign, then normal ones of the same size; whole numbers in another order."""
    if not values.is_floating_point():
        return values.flip(-1) if values.ndim else values
    if turn == 0:
        return -values
    size = float(values.float().abs().mean()) or 1.0
    return (torch.randn(values.shape, generator=generator) * size).to(values.dtype)


def _frozen(live: Live, model: onnx.ModelProto, *, run: bool) -> tuple[str, ...]:
    """Return the axes that should vary and do not: by what the form declares, then by a `run` at another size."""
    frozen: list[str] = []
    for name, value, axes, each in zip(live.names, model.graph.input, live.free_axes, live.inputs, strict=False):
        dims = value.type.tensor_type.shape.dim
        frozen += [f"axis {a} of '{name}' at {each.shape[a]}" for a in axes if not dims[a].dim_param]
    if frozen or not run or not any(live.free_axes):
        return tuple(frozen)
    every = sorted({axis for axes in live.free_axes for axis in axes})
    for axis in every:
        inputs = [
            _resized(each, axis) if axis in axes else each
            for each, axes in zip(live.inputs, live.free_axes, strict=True)
        ]
        if failure_of(live, inputs):
            continue  # the module itself takes no such size
        try:
            same = compare(live, model, inputs) <= live.tolerance
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
