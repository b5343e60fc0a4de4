"""How a module is called: with tensors one after another, whatever it takes and gives.

ONNX knows tensors in an order. A module may take some by keyword, some in tuples (the state of a recurrent network),
with constants between them, and may give what is no tensor beside those that are. Such a module gets a ``forward`` of
its own that takes and gives plain tensors; its tree, and so the names of its layers, stay as they are.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from quantgui.errors import NetworkError

CONSTANTS: Final = (bool, int, float, str, type(None))


@dataclass(frozen=True, eq=False)
class Call:
    """A call of a module: its tensors in order, and how the arguments are made of them.

    Attributes:
        names: of the tensors.
        tensors: one for each name.
        leaves: all arguments, flat; constants as they are, None where a tensor belongs.
        places: of the tensors among `leaves`.
        shape: of the arguments, ``(positional, by keyword)``.
    """

    names: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    leaves: tuple[Any, ...]
    places: tuple[int, ...]
    shape: Any

    @property
    def is_plain(self) -> bool:
        """Return whether the arguments are the tensors, one after another."""
        positional, keywords = self.arguments(self.tensors)
        return not keywords and len(positional) == len(self.tensors) and all(isinstance(a, Tensor) for a in positional)

    def arguments(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with `tensors` in their places: positional ones, and those by keyword."""
        leaves = list(self.leaves)
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        positional, keywords = pytree.tree_unflatten(leaves, self.shape)
        return positional, keywords

    def with_tensors(self, tensors: Sequence[Tensor]) -> Call:
        """Return the same call with other tensors."""
        return replace(self, tensors=tuple(tensors))


def as_inputs(inputs: Any, who: str) -> tuple[Any, ...]:
    """Return example inputs as a tuple of arguments; a dict at its end holds those by keyword, as torch writes it.

    Raises:
        NetworkError: there is no tensor, or something that is neither a tensor nor a constant.
    """
    found = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
    leaves = pytree.tree_leaves(found)
    wrong = [leaf for leaf in leaves if not isinstance(leaf, (Tensor, *CONSTANTS))]
    if wrong or not any(isinstance(leaf, Tensor) for leaf in leaves):
        kinds = ", ".join(dict.fromkeys(type(each).__name__ for each in wrong or leaves)) or "nothing"
        raise NetworkError(
            f"The example inputs of {who} must be tensors, in the order of forward or in a dict by its names, but are "
            f"{kinds}."
        )
    return found


def call_of(module: nn.Module, inputs: Sequence[Any]) -> Call:
    """Return the call of `module` with example inputs, see `as_inputs`."""
    parameters = _parameters(module)
    keywords = inputs[-1] if inputs and _is_keywords(inputs[-1], parameters) else {}
    positional = tuple(inputs[:-1]) if keywords else tuple(inputs)
    order = {name: place for place, name in enumerate(parameters)}
    given = {name: keywords[name] for name in sorted(keywords, key=lambda name: order.get(name, len(order)))}
    found, shape = pytree.tree_flatten_with_path((positional, given))
    names = input_names(module, len(positional))
    places = [place for place, (_, leaf) in enumerate(found) if isinstance(leaf, Tensor)]
    return Call(
        _unique([_name(found[place][0], names) for place in places]),
        tuple(found[place][1] for place in places),
        tuple(None if isinstance(leaf, Tensor) else leaf for _, leaf in found),
        tuple(places),
        shape,
    )


def input_names(module: nn.Module, count: int) -> tuple[str, ...]:
    """Return names for the first `count` inputs of ``forward``."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [name for name, each in _parameters(module).items() if each.kind in kinds][:count]
    return (*names, *(f"input{place}" for place in range(len(names), count)))


def tensors_in(answer: Any) -> list[Tensor]:
    """Return all tensors of what a module answers, in order."""
    return [leaf for leaf in pytree.tree_leaves(answer) if isinstance(leaf, Tensor)]


def names_in(answer: Any) -> tuple[str, ...]:
    """Return a name for each tensor of what a module answers, of the keys that lead to it; empty where it has none."""
    found, _ = pytree.tree_flatten_with_path(answer)
    return tuple(_keys(path) for path, leaf in found if isinstance(leaf, Tensor))


def _keys(path: tuple[Any, ...]) -> str:
    """Return ``boxes``, or ``levels_0`` for what lies in a list under a key; empty for places in tuples alone."""
    parts = [_step(each) for each in path]
    return _joined(parts) if any(isinstance(part, str) and part for part in parts) else ""


def others_in(answer: Any) -> tuple[str, ...]:
    """Return the kinds of what a module answers beside tensors and None."""
    leaves = pytree.tree_leaves(answer)
    return tuple(dict.fromkeys(type(each).__name__ for each in leaves if not isinstance(each, Tensor | None)))


def take_tensors(module: nn.Module, call: Call) -> None:
    """Let `module` take the tensors of `call` one after another, and give all its tensors in a tuple."""
    forward = module.forward

    def plain(*tensors: Tensor) -> tuple[Tensor, ...]:
        positional, keywords = call.arguments(tensors)
        return tuple(tensors_in(forward(*positional, **keywords)))

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    plain.__signature__ = inspect.Signature([inspect.Parameter(n, kind) for n in call.names])  # type: ignore[attr-defined]
    module.forward = plain


def _parameters(module: nn.Module) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(module.forward).parameters
    except (TypeError, ValueError):
        return {}


def _is_keywords(value: Any, parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Return whether a dict at the end of the arguments holds arguments, and is none itself."""
    if not isinstance(value, Mapping) or not value:
        return False
    any_name = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    return all(isinstance(key, str) and (any_name or key in parameters) for key in value)


def _name(path: tuple[Any, ...], names: Sequence[str]) -> str:
    """Return the name of the tensor at `path` among the arguments: ``x``, or ``state_1`` inside of one."""
    side, first, *inner = (_step(each) for each in path)
    argument = str(first) if side else names[int(first)]
    return _joined((argument, *inner))


def _step(key: Any) -> Any:
    """Return the place in a tuple, the key of a dict, or the name of a field that a step of a path goes by."""
    return getattr(key, "idx", getattr(key, "key", getattr(key, "name", "")))


def _joined(parts: Sequence[Any]) -> str:
    return "_".join(re.sub(r"\W", "_", str(part)) for part in parts)


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return tuple(found)
