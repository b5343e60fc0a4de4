"""The user's own module, made by a function of his code, and what it takes.

The code is run in this process, which the user has agreed to before (`PytorchOptions.trusted`).
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import inspect
import io
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from quantgui.errors import NetworkError
from quantgui.network.arrays import open_npy, open_npz
from quantgui.network.datasets import LABELS
from quantgui.network.pytorch.calls import as_inputs
from quantgui.network.pytorch.converted import hash_of_file
from quantgui.spec.pytorch_source import ExampleInput, PytorchOptions, split_factory

_EXAMPLES: Final = 2
"""Samples of the data that become example inputs; torch takes a size of 1 for a constant."""


def load_module(reference: str) -> tuple[nn.Module, tuple[Any, ...] | None]:
    """Run ``module:factory`` and return its module, and the example inputs if it brings any.

    Raises:
        NetworkError: there is no such file, module or function, it fails, or it returns something else.
    """
    split = split_factory(reference)
    if split is None:
        raise NetworkError(f"'{reference}' names no factory; write it as module:factory or FILE.py:factory.")
    source, name = split
    module = _run_file(Path(source).expanduser().resolve()) if source.endswith(".py") else _import(source)
    factory = getattr(module, name, None)
    if factory is None:
        raise NetworkError(
            f"'{source}' defines no '{name}'{_nearest(name, _callables(module, hidden=name.startswith('_')))}."
        )
    if isinstance(factory, nn.Module):
        return factory, None
    if not callable(factory):
        raise NetworkError(f"'{name}' of '{source}' is {type(factory).__name__}, no function that makes a module.")
    with user_code(f"'{name}' of '{Path(source).name}'", _file_of(module)):
        made = factory()
    return _module_and_inputs(made, name)


def _module_and_inputs(made: Any, name: str) -> tuple[nn.Module, tuple[Any, ...] | None]:
    if isinstance(made, nn.Module):
        return made, None
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module):
        module, inputs = made
        return module, as_inputs(inputs, f"'{name}'")
    raise NetworkError(
        f"'{name}' returned {type(made).__name__}; it must return a torch.nn.Module, or (module, example_inputs)."
    )


def _import(name: str) -> ModuleType:
    # As `python -m` would find it: what lies where the program was started comes first.
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        importlib.invalidate_caches()
        with user_code(f"The module '{name}'", None):
            return importlib.import_module(name)
    except _MissingModuleError as error:
        missing = error.name
        if missing and (name == missing or name.startswith(f"{missing}.")):
            raise NetworkError(
                f"There is no module '{missing}' to import; name a file as FILE.py:factory, or start where it lies."
            ) from error
        raise NetworkError(f"The module '{name}' needs the package '{missing}', which is not installed.") from error
    finally:
        sys.path.remove(folder)


def _module_name(path: Path) -> str:
    return f"quantgui_network_{path.stem}"


def _run_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise NetworkError(f"There is no file '{path}'.")
    spec = importlib.util.spec_from_file_location(_module_name(path), path)
    if spec is None or spec.loader is None:
        raise NetworkError(f"'{path.name}' is no Python file.")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name, and the file may import its neighbours.
    sys.modules[module.__name__] = module
    sys.path.insert(0, str(path.parent))
    try:
        with user_code(f"'{path.name}'", path):
            spec.loader.exec_module(module)
    except _MissingModuleError as error:
        raise NetworkError(f"'{path.name}' needs the package '{error.name}', which is not installed.") from error
    finally:
        sys.path.remove(str(path.parent))
    return module


class _MissingModuleError(Exception):
    """The user's code imports what is not there."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def example_inputs(
    module: nn.Module, brought: tuple[Tensor, ...] | None, options: PytorchOptions
) -> tuple[Tensor, ...]:
    """Return example inputs: those the user describes, those the factory brings, or the first samples of the data.

    Raises:
        NetworkError: there are none.
        DataError: the file of data cannot be read.
    """
    if options.inputs:
        return made_inputs(options.inputs)
    if brought is not None:
        return brought
    if options.data:
        return inputs_from_data(module, Path(options.data))
    raise NetworkError(
        f"The shape of the input of '{type(module).__name__}' is not known: give it, say 1x3x224x224 for each "
        "input, give a data file, or let the factory return (module, example_inputs).",
        option="--input-shape 1x3x224x224",
    )


def made_inputs(described: Sequence[ExampleInput]) -> tuple[Tensor, ...]:
    """Return tensors of made numbers: normal ones for floats, 0 and 1 for whole numbers, True for booleans."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for each in described:
        dtype = getattr(torch, each.dtype)
        if dtype == torch.bool:
            made.append(torch.ones(each.shape, dtype=dtype))
        elif dtype.is_floating_point:
            made.append(torch.randn(each.shape, generator=generator).to(dtype))
        else:
            made.append(torch.randint(0, 2, each.shape, generator=generator).to(dtype))
    return tuple(made)


def inputs_from_data(module: nn.Module, path: Path) -> tuple[Any, ...]:
    """Return the first samples of a .npz or .npy file as example inputs: by name where names fit, else in order.

    Raises:
        NetworkError: the file has fewer arrays than the module has inputs.
        DataError: the file cannot be read.
    """
    columns = {"": open_npy(path)} if path.suffix.lower() == ".npy" else open_npz(path)
    parameters = inspect.signature(module.forward).parameters.values()
    by_name = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    required = [each.name for each in by_name if each.default is each.empty]
    arrays = [name for name in columns if name != LABELS]
    known = [each.name for each in by_name if each.name in arrays]
    named = bool(known) and set(required) <= set(known)
    names = known if named else arrays[: len(required) or None]
    if len(names) < len(required) or not names:
        raise NetworkError(
            f"'{path.name}' has {len(arrays)} arrays, but the module takes {len(required)} inputs "
            f"({', '.join(required)}): describe their shapes.",
            option="--input-shape, once for each",
        )
    float_type = next((each.dtype for each in module.parameters() if each.is_floating_point()), torch.float32)
    rows = (torch.from_numpy(np.array(columns[name].read(0, _EXAMPLES))) for name in names)
    tensors = tuple(each.to(float_type) if each.is_floating_point() else each for each in rows)
    first = [each.name for each in by_name[: len(names)] if each.kind is each.POSITIONAL_OR_KEYWORD]
    in_order = list(names) == first
    return (dict(zip(names, tensors, strict=True)),) if named and not in_order else tensors


def code_parts(reference: str, module: nn.Module) -> Iterator[bytes]:
    """Yield everything that the answers of `module` depend on: its weights, its shape, the files of its code."""
    yield reference.encode()
    yield repr(module).encode()
    for name, values in module.state_dict().items():
        if isinstance(values, Tensor):
            yield f"{name} {values.dtype} {tuple(values.shape)}".encode()
            yield values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    for name in sorted(_code_of(reference, module)):
        yield name.encode()
        yield hash_of_file(Path(str(sys.modules[name].__file__)))


def _code_of(reference: str, module: nn.Module) -> set[str]:
    """Return the names of the user's modules of Python that the factory and the classes of `module` lead to.

    What a function imports only when it runs is not seen, so an answer that rests on these files has to be checked.
    """
    source = (split_factory(reference) or ("", ""))[0]
    path = Path(source).expanduser().resolve() if source.endswith(".py") else None
    first = source if path is None else _module_name(path)
    start = {first, *(type(each).__module__ for each in module.modules())}
    tops = {name.partition(".")[0] for name in start} - {"torch"}
    found: set[str] = set()
    waiting = list(start)
    while waiting:
        name = waiting.pop()
        loaded = sys.modules.get(name)
        file = getattr(loaded, "__file__", None)
        if loaded is None or not file or name in found or not Path(file).is_file():
            continue
        beside = path is not None and Path(file).is_relative_to(path.parent) and "site-packages" not in file
        if not beside and name.partition(".")[0] not in tops:
            continue
        found.add(name)
        for value in vars(loaded).values():
            other = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            if isinstance(other, str):
                waiting.append(other)
    return found


@contextlib.contextmanager
def user_code(what: str, file: Path | None) -> Iterator[None]:
    """Run the user's code: what it prints goes to standard error, what it raises becomes a sentence."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except ModuleNotFoundError as error:
        raise _MissingModuleError(error.name or str(error)) from error
    except SyntaxError as error:
        raise NetworkError(f"{what} is no valid Python: {error.msg} (line {error.lineno}).") from error
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if file is not None and Path(frame.filename) == file]
        place = f" in line {lines[-1]} of '{file.name}'" if lines and file is not None else ""
        raise NetworkError(f"{what} failed{place}: {one_line(error)}.") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the warnings of torch's exporters to themselves; what matters of them is looked at and said."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def one_line(error: BaseException) -> str:
    """Return the first line an error says, with its kind, without a full stop."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {said[:400]}".rstrip(" :.")


def _callables(module: ModuleType, *, hidden: bool) -> list[str]:
    return [name for name, value in vars(module).items() if callable(value) and name.startswith("_") is hidden]


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file) if file else None


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""
