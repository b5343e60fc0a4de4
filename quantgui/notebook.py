"""The window on a live PyTorch module, from a script or a notebook: `explore`, offered as ``quantgui.explore``.

The module becomes ONNX in the caller's process, where its code is at home; the window is a program of its own beside
it, so that neither can take the other along. What crosses are files in a folder that is removed afterwards.
"""

from __future__ import annotations

import copy
import inspect
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from quantgui.errors import DataError, MetricError, NetworkError, QuantGuiError
from quantgui.spec.config import QuantConfig
from quantgui.spec.pytorch_source import BATCH_AXIS, Exporter, PytorchOptions
from quantgui.spec.serialization import load_config, save_config

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from quantgui.network.pytorch.export import Form
    from quantgui.results import Event

LABELS: Final = "labels"
MOST_SAMPLES: Final = 512
"""Samples taken from batches unless asked otherwise: a loader may go on for hours, or for ever."""


def explore(
    module: nn.Module,
    example_inputs: Any,
    *,
    data: Any = None,
    metric: str | Callable[[Any, Any], Any] | None = None,
    config: QuantConfig | None = None,
    free_axes: Sequence[Sequence[int]] = (BATCH_AXIS,),
    exporter: Exporter = "auto",
    samples: int = MOST_SAMPLES,
) -> QuantConfig | None:
    """Open the window on `module`, wait until it is closed, and return the configuration that it showed then.

    None is returned if everything was float then, or another network was open: nothing was chosen for this one. The
    module is not changed. Hooks on it run with its copy, as they may be a part of what it computes.

    Args:
        module: what is to be quantized; it is exported in evaluation mode, on the processor.
        example_inputs: a tensor, or a tuple of them, one for each input of ``forward``.
        data: to measure quality on and take ranges from: a path or ``random:N`` as on the command line; an array or
            tensor (the only input); a dict of them by the names of ``forward``; a tuple of them in its order; or an
            iterable of such batches, like a DataLoader. ``labels`` in a dict, or one more than the inputs at the end of
            a tuple, are labels.
        metric: ``FILE.py:function``, or a function at the top of a file; see `analysis.metric_function`.
        config: the configuration that the window begins with.
        free_axes: axes that may vary, for each input; the last entry counts for the inputs after it too.
        exporter: see `spec.pytorch_source.Exporter`.
        samples: most samples taken from batches.

    Raises:
        QuantGuiError: the module cannot be exported, the data or the metric is something else, or no window can be
            opened; the message says what to do.
    """
    function = metric_reference(metric)
    with tempfile.TemporaryDirectory(prefix="quantgui-") as folder:
        here = Path(folder)
        network, names = _write_network(module, example_inputs, here, free_axes, exporter)
        words = [str(network)]
        if data is not None:
            words += ["--data", write_data(data, names, here / "data.npz", samples)]
        if function:
            words += ["--metric", function]
        if config is not None:
            save_config(config, here / "begin.json")
            words += ["--config", str(here / "begin.json")]
        answer = here / "answer.json"
        _run_window([*words, "--answer", str(answer)])
        chosen = load_config(answer) if answer.exists() else None
    return None if chosen == QuantConfig() else chosen


def _write_network(
    module: nn.Module, example_inputs: Any, folder: Path, free_axes: Sequence[Sequence[int]], exporter: Exporter
) -> tuple[Path, tuple[str, ...]]:
    from quantgui.network.pytorch.opening import require_torch

    require_torch()
    from quantgui.network.pytorch.calls import as_inputs
    from quantgui.network.pytorch.export import export
    from quantgui.network.pytorch.live import live_module

    options = PytorchOptions(free_axes=tuple(tuple(axes) for axes in free_axes), exporter=exporter)
    own = _copied(module)
    live = live_module(own, as_inputs(example_inputs, "the module"), options)
    form = _finished(export(live, exporter))
    for note in form.notes:
        warnings.warn(note, stacklevel=3)
    if form.difference > live.tolerance:
        warnings.warn(f"The ONNX form differs from the module by up to {form.difference:.1e}.", stacklevel=3)
    path = folder / f"{type(module).__name__}.onnx"
    path.write_bytes(form.model.SerializeToString())
    return path, live.names


def _copied(module: nn.Module) -> nn.Module:
    """Return a copy that can be changed.

    Raises:
        NetworkError: there is none.
    """
    from torch import Tensor, no_grad
    from torch.utils import _pytree as pytree

    # What a run has left in the module (weights that a hook computes, kept activations) hangs on the run's gradients,
    # and torch copies no such tensor.
    held = [value for each in module.modules() for value in pytree.tree_leaves({**vars(each), "_modules": None})]
    left = {id(value): value.detach().clone() for value in held if isinstance(value, Tensor) and not value.is_leaf}
    try:
        with no_grad():  # weights of compiled code are copied by computing
            return copy.deepcopy(module, left)
    except (RuntimeError, TypeError, ValueError) as error:
        said = str(error).splitlines()[0].rstrip(" .")
        raise NetworkError(f"The module cannot be copied, which is needed to leave yours as it is: {said}.") from error


def _finished(exporting: Generator[Event, None, Form]) -> Form:
    while True:
        try:
            next(exporting)
        except StopIteration as stop:
            form: Form = stop.value
            return form


# --- the metric --------------------------------------------------------------------------------------------------


def metric_reference(metric: str | Callable[[Any, Any], Any] | None) -> str:
    """Return ``FILE.py:function`` for a metric; empty for None.

    Raises:
        MetricError: another process cannot find it.
    """
    if metric is None:
        return ""
    if isinstance(metric, str):
        if ":" not in metric:
            raise MetricError(f"'{metric}' names no metric; write it as FILE.py:function.")
        return metric
    name = getattr(metric, "__qualname__", "")
    try:
        file = inspect.getsourcefile(metric)
    except TypeError:
        file = None
    at_the_top = name.isidentifier() and getattr(metric, "__module__", "__main__") != "__main__"
    if not at_the_top or file is None or not Path(file).is_file():
        raise MetricError(
            f"The metric '{name or metric}' runs in another process, which has to find it: put it at the top of a file "
            "of its own, and pass the function or 'FILE.py:function'."
        )
    return f"{Path(file).resolve()}:{name}"


# --- the data ----------------------------------------------------------------------------------------------------


def write_data(data: Any, names: Sequence[str], path: Path, samples: int = MOST_SAMPLES) -> str:
    """Return the source of `data` as the command line takes it; what is no path is written to the .npz file `path`.

    Args:
        data: see `explore`.
        names: of the inputs.
        path: where arrays are written.
        samples: most samples taken from batches.

    Raises:
        DataError: it is something else, or batches do not go together.
    """
    if isinstance(data, str | os.PathLike):
        return os.fspath(data)
    if _is_array(data) or isinstance(data, Mapping | tuple):
        columns = _columns(data, names)
    elif isinstance(data, Iterable):
        columns = _gathered(data, names, samples)
    else:
        raise DataError(f"{type(data).__name__} is no data; give a path, arrays, or an iterable of batches.")
    np.savez(path, **columns)  # type: ignore[arg-type]
    return str(path)


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") and hasattr(value, "shape")


def _columns(batch: Any, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return the arrays of one batch by the names of inputs, and its labels."""
    if _is_array(batch):
        batch = (batch,)
    if isinstance(batch, Mapping):
        return {str(name): _array(values) for name, values in batch.items()}
    if not isinstance(batch, Sequence) or not all(_is_array(each) for each in batch):
        raise DataError(f"A batch of {type(batch).__name__} is no data; give arrays, a tuple or a dict of them.")
    if len(batch) not in (len(names), len(names) + 1):
        raise DataError(
            f"A batch has {len(batch)} arrays, but the module takes {len(names)} inputs ({', '.join(names)}), and "
            "labels."
        )
    return {name: _array(values) for name, values in zip((*names, LABELS), batch, strict=False)}


def _array(values: Any) -> NDArray[Any]:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    return np.asarray(values)


def _gathered(batches: Iterable[Any], names: Sequence[str], samples: int) -> dict[str, NDArray[Any]]:
    """Return the first samples of all batches, put together."""
    parts: dict[str, list[NDArray[Any]]] = {}
    count = 0
    for batch in batches:
        columns = _columns(batch, names)
        if parts and parts.keys() != columns.keys():
            raise DataError(f"Batches must hold the same arrays, but one has {', '.join(columns)}.")
        for name, values in columns.items():
            parts.setdefault(name, []).append(values)
        count += len(next(iter(columns.values()), ()))
        if count >= samples:
            break
    if not count:
        raise DataError("The data holds no samples.")
    try:
        return {name: np.concatenate(values)[:samples] for name, values in parts.items()}
    except ValueError as error:
        raise DataError("Batches must have samples of one shape; pad them, or give arrays.") from error


# --- the window --------------------------------------------------------------------------------------------------


def window_command(words: Sequence[str]) -> list[str]:
    """Return the command that opens the window."""
    return [sys.executable, "-m", "quantgui", *words]


def _run_window(words: Sequence[str]) -> None:
    """Open the window and wait for its end.

    Raises:
        QuantGuiError: it could not be opened.
    """
    package = str(Path(__file__).resolve().parents[1])
    found = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", ""))))
    with subprocess.Popen(
        window_command(words), env={**os.environ, "PYTHONPATH": found}, stderr=subprocess.PIPE, text=True
    ) as window:
        try:
            _, said = window.communicate()
        except KeyboardInterrupt:
            # Of a notebook's stop button, which reaches this process alone.
            window.terminate()
            raise
    if window.returncode:
        last = next((line for line in reversed(said.splitlines()) if line.strip()), "it said nothing")
        raise QuantGuiError(f"The window could not be opened: {last.removeprefix('quantgui: ').rstrip('.')}.")
