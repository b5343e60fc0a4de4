"""The user's own module: made by a function of his code, filled with the weights of a file.

The code is run in this process, which the user has agreed to before (`PytorchOptions.trusted`). Weights are read
without running anything: .safetensors, or a state dict by ``torch.load(weights_only=True)``.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import inspect
import io
import logging
import pickle
import sys
import traceback
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from quantgui.errors import NetworkError
from quantgui.network.arrays import open_npy, open_npz
from quantgui.network.converted import hash_of_file
from quantgui.network.datasets import LABELS
from quantgui.network.pytorch_archive import is_torchscript, torchscript_sentence
from quantgui.spec.pytorch_source import ExampleInput, PytorchOptions, split_factory

_NAMED_KEYS: Final = ("state_dict", "model_state_dict", "model_state", "model", "net", "weights", "params")
"""Under which training scripts keep the state dict in a checkpoint."""
_PREFIXES: Final = ("module.", "_orig_mod.", "model.")
"""What DataParallel, torch.compile and trainers put before every name."""
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


def as_inputs(inputs: Any, who: str) -> tuple[Any, ...]:
    """Return example inputs as the tuple of tensors that ``forward`` takes.

    Raises:
        NetworkError: they are no tensors.
    """
    found = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
    if not found or not all(isinstance(each, Tensor) for each in found):
        kinds = ", ".join(type(each).__name__ for each in found) or "nothing"
        raise NetworkError(f"The example inputs of {who} must be tensors, one for each input, but are {kinds}.")
    return found


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


def _run_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise NetworkError(f"There is no file '{path}'.")
    spec = importlib.util.spec_from_file_location(f"quantgui_network_{path.stem}", path)
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
        f"The shape of the input of '{type(module).__name__}' is not known: give it with --input-shape 1x3x224x224 "
        "(once for each input), give a data file, or let the factory return (module, example_inputs)."
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


def inputs_from_data(module: nn.Module, path: Path) -> tuple[Tensor, ...]:
    """Return the first samples of a .npz or .npy file as example inputs: by name where names fit, else in order.

    Raises:
        NetworkError: the file has fewer arrays than the module has inputs.
        DataError: the file cannot be read.
    """
    columns = {"": open_npy(path)} if path.suffix.lower() == ".npy" else open_npz(path)
    parameters = inspect.signature(module.forward).parameters.values()
    wanted = [
        each.name for each in parameters if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD
    ]
    arrays = [name for name in columns if name != LABELS]
    names = wanted if set(wanted) <= set(arrays) else arrays[: len(wanted) or None]
    if len(names) < len(wanted) or not names:
        raise NetworkError(
            f"'{path.name}' has {len(arrays)} arrays, but the module takes {len(wanted)} inputs ({', '.join(wanted)}): "
            "describe them with --input-shape."
        )
    float_type = next((each.dtype for each in module.parameters() if each.is_floating_point()), torch.float32)
    rows = (torch.from_numpy(np.array(columns[name].read(0, _EXAMPLES))) for name in names)
    return tuple(each.to(float_type) if each.is_floating_point() else each for each in rows)


def code_parts(reference: str, module: nn.Module) -> Iterator[bytes]:
    """Yield everything that the answers of `module` depend on: its weights, its shape, the files of its code."""
    yield reference.encode()
    yield repr(module).encode()
    for name, values in module.state_dict().items():
        if isinstance(values, Tensor):
            yield f"{name} {values.dtype} {tuple(values.shape)}".encode()
            yield values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    source = (split_factory(reference) or ("", ""))[0]
    folder = Path(source).expanduser().resolve().parent if source.endswith(".py") else None
    tops = {type(each).__module__.partition(".")[0] for each in module.modules()} | {source.partition(".")[0]}
    for name, loaded in sorted(sys.modules.items()):
        file = getattr(loaded, "__file__", None)
        if not file or name.startswith("torch."):
            continue
        beside = folder is not None and Path(file).is_relative_to(folder) and "site-packages" not in file
        if (beside or name.partition(".")[0] in tops - {"torch"}) and Path(file).is_file():
            yield name.encode()
            yield hash_of_file(Path(file))


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
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
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


# --- weights -----------------------------------------------------------------------------------------------------


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the state dict in the file at `path`; nothing of it is run.

    Raises:
        NetworkError: it is missing, holds a module or code, or is no file of weights.
    """
    if not path.is_file():
        raise NetworkError(f"There is no file of weights '{path}'.")
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    _refuse_torchscript(path)
    try:
        with quiet():
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise NetworkError(
            f"'{path.name}' holds more than weights (a whole module, or objects of your code), which is not opened "
            "because it may run code: save module.state_dict(), or the network with torch.export.save as .pt2."
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise NetworkError(f"'{path.name}' is damaged, incomplete or no file of weights.") from error
    return _state_in(loaded, path.name)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    if importlib.util.find_spec("safetensors") is None:
        raise NetworkError("The package safetensors is not installed; install it to read .safetensors files.")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        loaded: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise NetworkError(f"'{path.name}' is damaged, incomplete or no safetensors file.") from error
    return loaded


def _refuse_torchscript(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        return
    with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        names = {name.partition("/")[2] for name in archive.namelist()}
        if is_torchscript(names):
            raise NetworkError(torchscript_sentence(path.name))
        if "models/model.json" in names:
            raise NetworkError(f"'{path.name}' is a whole network (.pt2), not weights alone; open it as the network.")


def _state_in(loaded: Any, name: str) -> dict[str, Tensor]:
    for _ in range(3):
        if not isinstance(loaded, Mapping):
            break
        tensors = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
        loaded = next((loaded[key] for key in _NAMED_KEYS if isinstance(loaded.get(key), Mapping)), None)
    raise NetworkError(f"'{name}' holds no weights by name; save module.state_dict().")


def fill(module: nn.Module, state: Mapping[str, Tensor], file: str) -> None:
    """Give `module` the weights of `state`; prefixes that trainers put before every name are taken off.

    Raises:
        NetworkError: names or shapes do not fit, with the first of them and the nearest name.
    """
    own = module.state_dict()
    state = _without_prefix(state, own)
    optional = {name for name in own if name.endswith("num_batches_tracked")}
    missing = [name for name in own if name not in state and name not in optional]
    unexpected = [name for name in state if name not in own]
    if missing or unexpected:
        raise NetworkError(
            f"The weights of '{file}' do not fit the module: {_misfit(missing, unexpected, state, own)}."
        )
    for name, values in state.items():
        if values.shape != own[name].shape:
            raise NetworkError(
                f"The weights of '{file}' do not fit the module: '{name}' has the shape {tuple(values.shape)} in the "
                f"file and {tuple(own[name].shape)} in the module."
            )
    module.load_state_dict(dict(state), strict=False)


def _without_prefix(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    for _ in range(len(_PREFIXES)):
        if any(name in own for name in state):
            return state
        prefix = next((each for each in _PREFIXES if all(name.startswith(each) for name in state)), "")
        if not prefix:
            return state
        state = {name.removeprefix(prefix): values for name, values in state.items()}
    return state


def _misfit(
    missing: Sequence[str], unexpected: Sequence[str], state: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> str:
    parts = []
    if missing:
        near = difflib.get_close_matches(missing[0], unexpected or list(state), n=1, cutoff=0.7)
        hint = f" (the file has '{near[0]}')" if near else ""
        parts.append(f"it lacks '{missing[0]}'{hint}{_more(missing)}")
    if unexpected:
        near = difflib.get_close_matches(unexpected[0], missing or list(own), n=1, cutoff=0.7)
        hint = f" (the module has '{near[0]}')" if near else ""
        parts.append(f"it has '{unexpected[0]}', which the module has not{hint}{_more(unexpected)}")
    return ", and ".join(parts)


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
