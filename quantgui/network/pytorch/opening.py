"""The door to PyTorch networks: a saved program, or the user's module with weights, opened as ONNX networks are.

Torch takes seconds to import and is optional, so nothing else imports it by itself (`network.differentiation` is the
other door). A saved program that was converted before is opened without torch. The user's code is run each time, and
what is kept of it is held against the module again: a hash can see the code only as far as it knows its files.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from quantgui import __version__
from quantgui.errors import NetworkError
from quantgui.network.network import Network
from quantgui.network.pytorch.converted import Converted, find, hash_of, hash_of_file, store
from quantgui.network.pytorch.limits import HALF_TOLERANCE, TOLERANCE
from quantgui.network.reader import read_network
from quantgui.network.session import create_session, runtime_errors
from quantgui.results import Array, Conversion, Event, NetworkOpened, Progress
from quantgui.spec.pytorch_source import PytorchOptions, axes_text, is_program, split_factory

if TYPE_CHECKING:
    from quantgui.network.datasets import Dataset
    from quantgui.network.pytorch.live import Live

_VERSION: Final = 4
_HELD_SAMPLES: Final = 8
"""Samples of the data on which module and ONNX form are compared."""


@dataclass(eq=False)
class Original:
    """The PyTorch network that an open one was made from, to be held against it; loaded when it is first needed."""

    path: str
    options: PytorchOptions
    live: Live | None = None

    def outputs(self, feed: Mapping[str, Array]) -> list[Array]:
        """Return what the module answers to the inputs `feed`, by the names of the ONNX form.

        Raises:
            NetworkError: it cannot be loaded, or does not run on them.
        """
        if self.live is None:
            from quantgui.network.pytorch.program import load_program

            self.live = load_program(Path(self.path), self.options)
        from quantgui.network.pytorch.module import one_line

        try:
            return self.live.outputs(self.live.named(feed))
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            raise NetworkError(f"The PyTorch module does not run on the data: {one_line(error)}.") from error


def read_pytorch(path: str, options: PytorchOptions, folder: Path) -> Generator[Event, None, tuple[Network, Original]]:
    """Yield progress and `NetworkOpened` while a PyTorch network is opened; return it and what it was made from.

    Args:
        path: a .pt2 file, or ``module:factory``.
        options: see there.
        folder: where converted networks are kept.

    Raises:
        NetworkError: it cannot be opened, or the user has not agreed that its code is run.
    """
    if is_program(path):
        converted, live = yield from _from_program(Path(path), options, folder)
        name = Path(path).stem
    else:
        converted, live = yield from _from_code(path, options, folder)
        name = (split_factory(path) or ("", path))[1]
    reading = read_network(converted.path)
    network = yield from _without_opened(reading)
    conversion = Conversion(options, converted.exporter, converted.difference, converted.frozen)
    warnings = (*converted.notes, *_difference_note(converted, network), *network.summary.warnings)
    summary = replace(network.summary, name=name, path=path, warnings=warnings, conversion=conversion)
    network = Network(summary, network.skeleton, network.constants)
    yield NetworkOpened(summary)
    return network, Original(path, options, live)


def _without_opened(reading: Generator[Event, None, Network]) -> Generator[Event, None, Network]:
    while True:
        try:
            event = next(reading)
        except StopIteration as stop:
            network: Network = stop.value
            return network
        if isinstance(event, Progress):
            yield event


def _difference_note(converted: Converted, network: Network) -> tuple[str, ...]:
    is_half = any(constant.dtype.name == "float16" for constant in network.constants.values())
    if converted.difference <= (HALF_TOLERANCE if is_half else TOLERANCE):
        return ()
    share = f"{converted.difference:.1e}"
    return (f"The ONNX form is not the PyTorch network: outputs differ by up to {share} of their largest value.",)


# --- a saved program ---------------------------------------------------------------------------------------------


def _from_program(
    path: Path, options: PytorchOptions, folder: Path
) -> Generator[Event, None, tuple[Converted, Live | None]]:
    yield Progress(0, 0, "Reading the file")
    if path.is_dir():
        raise NetworkError(f"'{path.name}' is a folder; choose a .pt2 file.")
    key = hash_of([hash_of_file(path), *_circumstances(options)])
    if (known := find(folder, key)) is not None:
        return known, None
    yield from _import_torch()
    from quantgui.network.pytorch.export import export
    from quantgui.network.pytorch.program import load_program

    yield Progress(0, 0, "Reading the program")
    live = load_program(path, options)
    form = yield from export(live, "dynamo")
    content = form.model.SerializeToString()
    about = Converted(path, form.exporter, form.frozen, form.difference, form.notes)
    return store(folder, key, content, about), live


# --- the user's code ---------------------------------------------------------------------------------------------


def _from_code(reference: str, options: PytorchOptions, folder: Path) -> Generator[Event, None, tuple[Converted, Live]]:
    if not options.trusted:
        raise NetworkError(
            f"'{reference}' is Python code that has to be run to open the network: agree to that, in the window by "
            "File, Open PyTorch network, if you trust it and its weights.",
            option="--trust",
        )
    if options.weights and not Path(options.weights).is_file():
        raise NetworkError(f"There is no file of weights '{options.weights}'.")
    yield from _import_torch()
    from quantgui.network.pytorch.export import compare, export
    from quantgui.network.pytorch.live import live_module
    from quantgui.network.pytorch.module import code_parts, example_inputs, load_module
    from quantgui.network.pytorch.weights import fill_from, read_sets

    yield Progress(0, 0, "Running the code of the network")
    module, brought = load_module(reference)
    notes: tuple[str, ...] = ()
    if options.weights:
        yield Progress(0, 0, "Reading the weights")
        notes = fill_from(module, read_sets(Path(options.weights)))
    yield Progress(0, 0, "Running the module")
    live = live_module(module, example_inputs(module, brought, options), options)
    yield Progress(0, 0, "Looking for what is known")
    shapes = [f"{each.dtype}{tuple(each.shape)}".encode() for each in live.inputs]
    key = hash_of([*code_parts(reference, module), *shapes, *_circumstances(options)])
    if (known := find(folder, key)) is not None:
        import onnx

        if compare(live, onnx.load(known.path), live.inputs) <= max(live.tolerance, 2 * known.difference):
            return replace(known, notes=(*notes, *known.notes)), live
    form = yield from export(live, options.exporter)
    about = Converted(Path(), form.exporter, form.frozen, form.difference, form.notes)
    stored = store(folder, key, form.model.SerializeToString(), about)
    return replace(stored, notes=(*notes, *stored.notes)), live


def require_torch() -> None:
    """Check that PyTorch can be imported, and let its threads be considerate.

    Raises:
        NetworkError: a package is missing.
    """
    for package in ("torch", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise NetworkError(
                f"PyTorch networks need the package {package}, which is not installed: pip install quantgui[pytorch]."
            )
    # Threads of torch must not spin while they wait, see `network.differentiation`.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def _import_torch() -> Generator[Event, None, None]:
    require_torch()
    yield Progress(0, 0, "Importing PyTorch")
    import torch  # noqa: F401 -- what takes long is done here, after the progress is told


def _circumstances(options: PytorchOptions) -> Sequence[bytes]:
    """Return what a form depends on beside the network itself."""
    axes = ";".join(axes_text(each) for each in options.free_axes)
    packages = [_version_of(package) for package in ("torch", "onnxscript")]
    return [each.encode() for each in (str(_VERSION), __version__, options.exporter, axes, *packages)]


def _version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


# --- held against the data ----------------------------------------------------------------------------------------


def hold_against(original: Original, network: Network, data: Dataset) -> Generator[Event, None, tuple[str, ...]]:
    """Yield progress while the PyTorch network and its ONNX form run on the first samples of `data`; return notes.

    There is a note where they differ by more than rounding, or where the network itself does not run on the data.
    """
    batch = next(data.batches(_HELD_SAMPLES, _HELD_SAMPLES), None)
    if batch is None:
        return ()
    if original.live is None:
        yield from _import_torch()
    yield Progress(0, 0, "Comparing with the PyTorch network")
    from quantgui.network.pytorch.live import largest_difference

    try:
        wanted = original.outputs(batch.inputs)
    except NetworkError as error:
        return (str(error),)
    session = create_session(network.skeleton, network.constants)
    with runtime_errors("run"):
        found = session.run([output.name for output in network.summary.outputs], dict(batch.inputs))
    difference = largest_difference(wanted, found)
    if original.live is not None and difference <= original.live.tolerance:
        return ()
    note = (
        f"On the first {batch.samples} samples the ONNX form is not the PyTorch network: outputs differ by up to "
        f"{difference:.1e} of their largest value."
    )
    return (note,)
