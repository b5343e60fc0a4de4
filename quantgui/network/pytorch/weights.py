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
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from quantgui.errors import NetworkError
from quantgui.network.pytorch.archive import is_torchscript, torchscript_sentence
from quantgui.network.pytorch.module import quiet

_NAMED_KEYS: Final = ("state_dict", "model_state_dict", "model_state", "model", "net", "weights", "params")
"""Under which training scripts keep the state dict in a checkpoint."""
_PREFIXES: Final = ("module.", "_orig_mod.", "model.")
"""What DataParallel, torch.compile and trainers put before every name."""


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
    require_values(module)
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
