"""How a PyTorch network is opened: what its file does not say.

    network.pt2               a program saved by torch.export; nothing else is needed, and no code of it is run
    pkg.module:factory        user's code that makes the module, with a file of weights; run only when trusted
    path/file.py:factory

Texts of the command line and of the dialog are read here: an example input is ``1x3x224x224`` or ``1x128:int64``, axes
that may vary are ``0`` or ``0,2,3`` or ``none``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

from quantgui.errors import SpecError

Exporter = Literal["auto", "dynamo", "old"]
"""Which of torch's exporters writes the ONNX form; ``auto`` takes the old one where the new one loses free axes."""

DTYPES: Final = (
    "float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool",
)  # fmt: skip
"""Types of example inputs."""
BATCH_AXIS: Final = (0,)
PROGRAM_SUFFIX: Final = ".pt2"
WEIGHT_SUFFIXES: Final = (".pth", ".pt", ".safetensors", ".bin", ".ckpt")
_MOST_ELEMENTS: Final = 1 << 28

_FACTORY = re.compile(r"(?P<module>.+):(?P<factory>[A-Za-z_]\w*)")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True, slots=True)
class ExampleInput:
    """Shape and type of one example input; its numbers are made."""

    shape: tuple[int, ...]
    dtype: str = "float32"

    def __str__(self) -> str:
        sizes = "x".join(map(str, self.shape)) or "scalar"
        return sizes if self.dtype == "float32" else f"{sizes}:{self.dtype}"


@dataclass(frozen=True, slots=True)
class PytorchOptions:
    """How a PyTorch network is opened; all of it is ignored for an ONNX file.

    Attributes:
        weights: file of the state dict; empty where the factory brings its own.
        trusted: whether the user has agreed that the code of the network is run.
        inputs: example inputs, in the order of ``forward``; none where the factory, the program or `data` has them.
        data: .npz or .npy file whose first samples are the example inputs.
        free_axes: which axes may vary, for each input; the last entry counts for the inputs after it too.
        exporter: see `Exporter`.
    """

    weights: str = ""
    trusted: bool = False
    inputs: tuple[ExampleInput, ...] = ()
    data: str = ""
    free_axes: tuple[tuple[int, ...], ...] = (BATCH_AXIS,)
    exporter: Exporter = "auto"

    def axes_of(self, place: int) -> tuple[int, ...]:
        """Return the axes of the input number `place` that may vary."""
        return self.free_axes[min(place, len(self.free_axes) - 1)] if self.free_axes else ()

    def untrusted(self) -> PytorchOptions:
        """Return the same without the user's consent, as it is remembered beyond a session."""
        return replace(self, trusted=False)


DEFAULT_OPTIONS: Final = PytorchOptions()


# --- what a text names -------------------------------------------------------------------------------------------


def is_factory(network: str) -> bool:
    """Return whether `network` is written ``pkg.module:factory`` or ``FILE.py:factory``."""
    return split_factory(network) is not None


def split_factory(network: str) -> tuple[str, str] | None:
    """Return file or module, and factory; None where `network` is the path of a file."""
    found = _FACTORY.fullmatch(network)
    if found is None:
        return None
    module = found["module"]
    if not (module.endswith(".py") or _MODULE.fullmatch(module)):
        return None
    # A drive is no module.
    return None if len(module) == 1 else (module, found["factory"])


def is_program(network: str) -> bool:
    """Return whether `network` is the path of a saved torch.export program."""
    return network.lower().endswith(PROGRAM_SUFFIX)


def is_pytorch(network: str) -> bool:
    """Return whether `network` is opened through PyTorch."""
    return is_program(network) or is_factory(network)


def is_weights(path: str) -> bool:
    """Return whether `path` looks like a file of weights, which belongs to a network but is none."""
    return path.lower().endswith(WEIGHT_SUFFIXES)


# --- texts -------------------------------------------------------------------------------------------------------


def read_example_input(text: str) -> ExampleInput:
    """Return the example input that ``1x3x224x224`` or ``1x128:int64`` describes.

    Raises:
        SpecError: `text` describes none.
    """
    sizes, _, dtype = text.strip().partition(":")
    dtype = dtype.strip() or "float32"
    if dtype not in DTYPES:
        raise SpecError(f"'{dtype}' is no type of an input; types are {', '.join(DTYPES)}.")
    if sizes == "scalar":
        return ExampleInput((), dtype)
    parts = sizes.lower().replace("×", "x").split("x")
    if not all(part.strip().isdecimal() and len(part) < 10 and int(part) for part in parts):
        raise SpecError(f"'{text}' is no shape of an input; write it as 1x3x224x224, or 1x128:int64.")
    shape = tuple(int(part) for part in parts)
    elements = 1
    for size in shape:
        elements *= size
    if elements > _MOST_ELEMENTS:
        raise SpecError(f"An example input of shape {sizes} has {elements} numbers, more than {_MOST_ELEMENTS}.")
    return ExampleInput(shape, dtype)


def read_axes(text: str) -> tuple[int, ...]:
    """Return the axes that ``0,2,3`` names; none for ``none``.

    Raises:
        SpecError: `text` names none.
    """
    if text.strip() in ("", "none"):
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 3 for part in parts):
        raise SpecError(f"'{text}' names no axes; write them as 0 or 0,2,3, or none.")
    return tuple(dict.fromkeys(int(part) for part in parts))


def axes_text(axes: Sequence[int]) -> str:
    """Return axes as `read_axes` reads them."""
    return ",".join(map(str, axes)) or "none"


# --- JSON --------------------------------------------------------------------------------------------------------


def options_to_json(options: PytorchOptions | None) -> dict[str, Any] | None:
    """Return `options` as JSON values."""
    if options is None:
        return None
    return {
        "weights": options.weights,
        "trusted": options.trusted,
        "inputs": [str(each) for each in options.inputs],
        "data": options.data,
        "free_axes": [list(axes) for axes in options.free_axes],
        "exporter": options.exporter,
    }


def options_from_json(value: Mapping[str, Any] | None) -> PytorchOptions | None:
    """Return the options that `value` describes.

    Raises:
        SpecError: it describes none.
    """
    if value is None:
        return None
    try:
        exporter = value["exporter"]
        if exporter not in get_args(Exporter):
            raise SpecError(f"There is no exporter '{exporter}'.")
        return PytorchOptions(
            str(value["weights"]),
            value["trusted"] is True,
            tuple(read_example_input(str(text)) for text in value["inputs"]),
            str(value["data"]),
            tuple(tuple(int(axis) for axis in axes) for axes in value["free_axes"]),
            exporter,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError(f"This does not say how a PyTorch network is opened: {error}.") from error
