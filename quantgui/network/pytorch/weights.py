"""Weights of a PyTorch network: read without running anything, and given to the module by name.

A file is .safetensors, or a state dict (also inside a checkpoint) that ``torch.load(weights_only=True)`` reads.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from quantgui.errors import NetworkError
from quantgui.network.pytorch.archive import is_torchscript, torchscript_sentence
from quantgui.network.pytorch.module import quiet

_NAMED_KEYS: Final = ("state_dict", "model_state_dict", "model_state", "model", "net", "weights", "params")
"""Under which training scripts keep the state dict in a checkpoint."""
_MOST_DEPTH: Final = 2
_PREFIXES: Final = ("module.", "_orig_mod.", "model.")
"""What DataParallel, torch.compile and trainers put before every name."""


class _Unread:
    """Stands for each object of a checkpoint that is no weight (its settings, numbers of numpy); it holds nothing."""

    def __new__(cls, *_: object, **__: object) -> Self:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


@dataclass(frozen=True, eq=False)
class WeightSets:
    """The state dicts of a file.

    Attributes:
        file: its name.
        states: by where they lie in the file: ``model``, ``model_ema``; the file itself is the empty name.
    """

    file: str
    states: Mapping[str, Mapping[str, Tensor]]


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the first state dict in the file at `path`; see `read_sets`."""
    return dict(next(iter(read_sets(path).states.values())))


def read_sets(path: Path) -> WeightSets:
    """Return the state dicts in the file at `path`; nothing of it is run.

    Raises:
        NetworkError: it is missing, holds a module or code, or is no file of weights.
    """
    if not path.is_file():
        raise NetworkError(f"There is no file of weights '{path}'.")
    if path.suffix.lower() == ".safetensors":
        return WeightSets(path.name, {"": _read_safetensors(path)})
    _refuse_torchscript(path)
    try:
        with quiet(), torch.serialization.safe_globals([(_Unread, name) for name in _others_in(path)]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise NetworkError(_objects_sentence(path.name)) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise NetworkError(f"'{path.name}' is damaged, incomplete or no file of weights.") from error
    return WeightSets(path.name, _sets_in(loaded, path.name))


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


def _others_in(path: Path) -> list[str]:
    """Return the names of what a file of weights refers to beside tensors; none where that cannot be told."""
    try:
        return list(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except (ValueError, RuntimeError, pickle.UnpicklingError):
        return []


def _objects_sentence(name: str) -> str:
    return (
        f"'{name}' holds more than weights (a whole module, or objects of your code), which is not opened "
        "because it may run code: save module.state_dict(), or the network with torch.export.save as .pt2."
    )


def _sets_in(loaded: Any, name: str) -> dict[str, Mapping[str, Tensor]]:
    """Return the state dicts in what a file holds, those under the usual names first."""
    found: dict[str, Mapping[str, Tensor]] = {}
    waiting = [("", loaded, 0)]
    while waiting:
        place, value, depth = waiting.pop(0)
        if not isinstance(value, Mapping):
            continue
        tensors = {str(key): each for key, each in value.items() if isinstance(each, Tensor)}
        inner = {str(key): each for key, each in value.items() if isinstance(each, Mapping)}
        # A counter of steps beside the state dicts is none.
        if tensors and not (inner and all(each.ndim == 0 for each in tensors.values())):
            found[place] = tensors
        elif depth < _MOST_DEPTH:
            order = sorted(inner, key=lambda key: _NAMED_KEYS.index(key) if key in _NAMED_KEYS else len(_NAMED_KEYS))
            waiting += [(f"{place}.{key}" if place else key, inner[key], depth + 1) for key in order]
    if found:
        return found
    leaves = loaded.values() if isinstance(loaded, Mapping) else [loaded]
    if not any(isinstance(each, _Unread) for each in leaves):
        raise NetworkError(f"'{name}' holds no weights by name; save module.state_dict().")
    raise NetworkError(_objects_sentence(name))


def fill_from(module: nn.Module, sets: WeightSets) -> tuple[str, ...]:
    """Give `module` the weights of the first set of a file that fits, see `fill`; return what to say of the others.

    Raises:
        NetworkError: none fits; the sentence is of the first.
    """
    own = module.state_dict()
    fitting = [place for place, state in sets.states.items() if _fits(state, own)]
    place = fitting[0] if fitting else next(iter(sets.states))
    notes = fill(module, sets.states[place], sets.file)
    if len(fitting) > 1:
        others = " and ".join(f"'{each}'" for each in fitting[1:])
        told = (
            f"'{sets.file}' holds several sets of weights; those of '{place}' are opened, not those of {others}: save "
            "the ones you mean alone to open them."
        )
        return (told, *notes)
    return notes


def _fits(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    state = _without_prefix(state, own)
    return all(name in state and state[name].shape == values.shape for name, values in own.items() if values.ndim)


def fill(module: nn.Module, state: Mapping[str, Tensor], file: str) -> tuple[str, ...]:
    """Give `module` the weights of `state`; prefixes that trainers put before every name are taken off.

    Returns:
        What to say of weights that stand beside those of the module (of a loss), and are left out.

    Raises:
        NetworkError: names or shapes do not fit, with the first of them and the nearest name.
    """
    require_values(module)
    own = module.state_dict()
    given, state = state, _without_prefix(state, own)
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
    left = len(given) - len(state)
    if not left:
        return ()
    first = next(name for name in given if not any(name.endswith(f".{each}") for each in state))
    are = "is" if left == 1 else "are"
    return (f"Of the weights of '{file}', {left} {are} not of the module ('{first}'), and left out.",)


def require_values(module: nn.Module) -> None:
    """Check that all weights of `module` are there.

    Raises:
        NetworkError: some have no size yet (lazy layers), or no values (the meta device).
    """
    for name, each in (*module.named_parameters(), *module.named_buffers()):
        if is_lazy(each):
            raise NetworkError(
                f"The weight '{name}' has no size before the module has run: run it once on an example where it is "
                "made, before its weights are loaded."
            )
        if each.is_meta:
            raise NetworkError(f"The weight '{name}' has no values (it is on the meta device): load the weights first.")


def _without_prefix(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the weights under the prefix that all weights of the module have in `state`, without it."""
    if any(name in own for name in state):
        return state
    needed = [name for name in own if not name.endswith("num_batches_tracked")]
    if needed:
        prefixes = [name.removesuffix(needed[0]) for name in state if name.endswith(f".{needed[0]}")]
        for prefix in prefixes:
            if all(prefix + name in state for name in needed):
                return {name.removeprefix(prefix): each for name, each in state.items() if name.startswith(prefix)}
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
