"""The user's own metric: ``metric(outputs, labels) -> per-sample scores`` from a Python file.

`outputs` is the array of the network's output (samples first), or a dict from output names to arrays where the network
has several; `labels` is what the data holds, or None. The function returns one number per sample, or one number for
the whole batch. More is better unless the function has the attribute ``higher_is_better = False``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from quantgui.errors import MetricError
from quantgui.results import Array


@dataclass(frozen=True, eq=False)
class Metric:
    """A metric function of the user.

    Attributes:
        name: name of the function; shown to people.
        file: the file it stands in.
        function: the function itself.
        higher_is_better: direction, from the attribute of that name.
    """

    name: str
    file: Path
    function: Callable[[Any, Any], Any]
    higher_is_better: bool = True


def load_metric(reference: str) -> Metric:
    """Return the function that ``FILE.py:function`` names.

    Raises:
        MetricError: the file or the function does not exist, the file fails when it runs, or the function does not
            take two arguments.
    """
    file_name, colon, name = reference.rpartition(":")
    if not colon or not file_name or not name:
        raise MetricError(f"'{reference}' names no metric; write it as FILE.py:function.")
    path = Path(file_name).expanduser().resolve()
    if not path.is_file():
        raise MetricError(f"There is no metric file '{path}'.")
    function = getattr(_run_file(path), name, None)
    if not callable(function):
        raise MetricError(f"'{path.name}' defines no function '{name}'.")
    try:
        inspect.signature(function).bind(None, None)
    except TypeError as error:
        raise MetricError(
            f"The metric '{name}' of '{path.name}' must take two arguments, outputs and labels: {error}."
        ) from error
    except ValueError:
        pass  # functions written in C may not tell their signature
    return Metric(name, path, function, bool(getattr(function, "higher_is_better", True)))


def batch_scores(metric: Metric, outputs: Mapping[str, Array], labels: Array | None, samples: int) -> Array:
    """Return the user's scores of one batch, float64 of shape (samples,), or (1,) for one score of the whole batch.

    Raises:
        MetricError: the function fails, or returns something else.
    """
    # Copies, because a function that changes its arguments in place would change cached activations.
    copies = {name: values.copy() for name, values in outputs.items()}
    argument: Any = next(iter(copies.values())) if len(copies) == 1 else copies
    with _user_code(metric.file, f"The metric '{metric.name}'"):
        result = metric.function(argument, None if labels is None else labels.copy())
        scores = np.asarray(result)
    if scores.dtype.kind not in "fiub":
        raise MetricError(
            f"The metric '{metric.name}' returned {type(result).__name__}; it must return one number per sample."
        )
    if scores.size == 1:
        return scores.reshape(1).astype(np.float64)
    if scores.shape != (samples,) and scores.shape != (samples, 1):
        raise MetricError(
            f"The metric '{metric.name}' returned an array of shape {scores.shape} for {samples} samples; "
            "it must return one number per sample, or one number for the batch."
        )
    return scores.reshape(samples).astype(np.float64)


def _run_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"quantgui_metric_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise MetricError(f"'{path.name}' is no Python file; a metric is written as FILE.py:function.")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name, and the file may import its neighbours.
    sys.modules[module.__name__] = module
    sys.path.insert(0, str(path.parent))
    try:
        with _user_code(path, f"The metric file '{path.name}'"):
            spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


@contextlib.contextmanager
def _user_code(file: Path, what: str) -> Iterator[None]:
    """Run the user's code: what it prints goes to standard error, what it raises becomes a sentence."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except SyntaxError as error:
        raise MetricError(f"{what} is no valid Python: {error.msg} (line {error.lineno}).") from error
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
        place = f" in line {lines[-1]} of '{file.name}'" if lines else ""
        said = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(" :.")
        raise MetricError(f"{what} failed{place}: {said}.") from error
