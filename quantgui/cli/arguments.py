"""Arguments that several commands share, and the texts they are read from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final, get_args

from quantgui.errors import SpecError
from quantgui.spec.presets import PRESETS
from quantgui.spec.pytorch_source import (
    BATCH_AXIS,
    ExampleInput,
    Exporter,
    PytorchOptions,
    is_factory,
    read_axes,
    read_example_input,
)
from quantgui.spec.targets import TARGETS

DATA_HELP: Final = ".npz or .npy file, folder of images, or random:N"
METRIC, METRIC_HELP = "FILE.py:FUNCTION", "your metric(outputs, labels) -> score per sample"


NETWORK_HELP: Final = "an ONNX file, a .pt2 file of torch.export, or module:factory (FILE.py:factory) of PyTorch code"


def add_network_argument(parser: argparse.ArgumentParser, help_text: str = NETWORK_HELP) -> None:
    """Add the network, the first argument of most commands, and how PyTorch networks are opened."""
    parser.add_argument("network", metavar="NETWORK", help=help_text)
    add_pytorch_arguments(parser)


def add_pytorch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the code of a PyTorch network does not say."""
    group = parser.add_argument_group("PyTorch networks")
    group.add_argument("--weights", metavar="FILE", default="", help="state dict: .pth, .pt or .safetensors")
    group.add_argument("--trust", action="store_true", help="agree that the code of module:factory is run")
    group.add_argument(
        "--input-shape", metavar="SHAPE", dest="input_shapes", action="append", default=[], type=_example_input,
        help="example input such as 1x3x224x224 or 1x128:int64, once for each input; else the first samples of --data",
    )  # fmt: skip
    group.add_argument(
        "--free-axes", metavar="AXES", dest="free_axes", action="append", default=[], type=_axes,
        help="axes that may vary, such as 0,2,3, or none; once for each input, default 0",
    )  # fmt: skip
    group.add_argument(
        "--exporter", choices=get_args(Exporter), default="auto",
        help="torch's exporter: the new one (dynamo), the old one, or the old one where the new one loses free axes",
    )  # fmt: skip


def pytorch_options(arguments: argparse.Namespace) -> PytorchOptions:
    """Return what the arguments say of a PyTorch network.

    Raises:
        SpecError: they say it of a network that is none.
    """
    given = [
        name
        for name, value in (
            ("--weights", arguments.weights), ("--trust", arguments.trust), ("--input-shape", arguments.input_shapes)
        )
        if value
    ]  # fmt: skip
    if given and not is_factory(arguments.network or ""):
        raise SpecError(
            f"{given[0]} belongs to a network that is made by code, such as net.py:factory; '{arguments.network}' is "
            "opened without it."
        )
    data = getattr(arguments, "data", None) or ""
    return PytorchOptions(
        str(Path(arguments.weights).expanduser()) if arguments.weights else "",
        arguments.trust,
        tuple(arguments.input_shapes),
        data if data.lower().endswith((".npz", ".npy")) else "",
        tuple(arguments.free_axes) or (BATCH_AXIS,),
        arguments.exporter,
    )


def add_data_arguments(
    parser: argparse.ArgumentParser,
    *,
    required: bool,
    metric: str = METRIC,
    metric_help: str = METRIC_HELP,
    size: str = "--size",
) -> None:
    """Add the data, the metric, and how pictures are read."""
    group = parser.add_argument_group("data")
    group.add_argument("--data", metavar="DATA", required=required, help=DATA_HELP)
    group.add_argument("--calibration", metavar="DATA", help="other data to take the ranges of activations from")
    group.add_argument("--samples", metavar="N", type=positive, help="use only the first N samples")
    group.add_argument("--metric", metavar=metric, help=metric_help)
    pictures = parser.add_argument_group(
        "folders of images", "x = (pixel / 255 * scale - mean) / std; what is not given is guessed from the network"
    )
    pictures.add_argument(size, dest="size", metavar="HxW", type=_image_size, help="height and width")
    pictures.add_argument("--layout", choices=("NCHW", "NHWC"), help="order of the axes")
    pictures.add_argument("--mean", metavar="M[,M,M]", type=_numbers, help="mean of each channel")
    pictures.add_argument("--std", metavar="S[,S,S]", type=_numbers, help="standard deviation of each channel")
    pictures.add_argument("--scale", metavar="X", type=float, help="largest value before mean and std: 1 or 255")
    pictures.add_argument("--bgr", action="store_true", help="blue first")


def add_config_arguments(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add the configuration: a file or a preset."""
    group = parser.add_argument_group("configuration")
    choice = group.add_mutually_exclusive_group(required=required)
    choice.add_argument("--config", metavar="C.json", help="a configuration saved in the window")
    choice.add_argument("--preset", metavar="NAME", help=", ".join(preset.name for preset in PRESETS))
    group.add_argument(
        "--as-is", action="store_true", help="quantize activations even where that ruins the network (with --preset)"
    )
    group.add_argument(
        "--ignore-unknown", action="store_true", help="go on where the configuration names layers that do not exist"
    )


def add_target_argument(parser: argparse.ArgumentParser, help_text: str) -> None:
    """Add the runtime that the configuration is for."""
    names = ", ".join(target.name for target in TARGETS)
    parser.add_argument("--target", metavar="NAME", help=f"{help_text}: {names}")


def positive(text: str) -> int:
    """Return a whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got '{text}'")
    return int(text)


def _image_size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"must be height x width such as 224x224, got '{text}'")
    return int(height), int(width)


def _example_input(text: str) -> ExampleInput:
    try:
        return read_example_input(text)
    except SpecError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from None


def _axes(text: str) -> tuple[int, ...]:
    try:
        return read_axes(text)
    except SpecError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from None


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers with commas between them, got '{text}'") from None
