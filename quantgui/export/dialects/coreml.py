"""coremltools' settings for one op at a time, as a Python file that makes an `OptimizationConfig` (coremltools 9).

coremltools reads settings for linear quantization and palettization from Python only, so this is a program; it is read
back without running it, from the literal table in it.
"""

from __future__ import annotations

import re
from pprint import pformat
from typing import Any

from quantgui.export.dialects.material import Imported, Material, Parameter, Written, group_size, is_simple, left_out
from quantgui.export.dialects.reading import ReadLayer, imported, literal, matching, module_name
from quantgui.results import LayerInfo, NetworkSummary
from quantgui.spec.formats import CodebookFormat, IntFormat, parse_format
from quantgui.spec.granularity import Granularity, PerChannel, PerGroup, PerTensor
from quantgui.spec.quantizer import MinMax, QuantizerSpec

_HEAD = '''"""Weights of a Core ML network, layer by layer: apply(mlmodel) returns the compressed one."""

import difflib

import coremltools.optimize.coreml as cto
import numpy as np

# Layer -> kind of compression and its settings; None leaves the layer as it is.
'''
_TAIL = '''
# Layer -> names that its weight may have in the Core ML network.
CONSTANTS = {constants}

# Layer -> number of its weights, and some of them evenly spread: what was folded into another weight has lost its name.
VALUES = {values}

KINDS = {{"linear": cto.OpLinearQuantizerConfig, "palette": cto.OpPalettizerConfig}}


def is_weight(array, size, told):
    """Return whether an array of the Core ML network, float16 perhaps, is the weight that `told` are values of."""
    flat, told = np.asarray(array, np.float32).reshape(-1), np.array(told, np.float32)
    if flat.size != size:
        return False
    places = np.linspace(0, size - 1, len(told)).astype(int)
    return bool(np.abs(flat[places] - told).max() <= 2e-3 * np.abs(told).max())


def constants(mlmodel):
    """Return the name of each layer's weight in `mlmodel`; a layer that is not found ends the program."""
    arrays = {{name: each.val for name, each in cto.get_weights_metadata(mlmodel, weight_threshold=0).items()}}
    present = {{name.removesuffix("_to_fp16"): name for name in arrays}}
    found, missing = {{}}, []
    for layer, names in CONSTANTS.items():
        alike = [present[each] for each in names if each in present]
        alike = alike or [name for name, array in arrays.items() if is_weight(array, *VALUES[layer])]
        if len(alike) == 1:
            found[layer] = alike[0]
        else:
            near = difflib.get_close_matches(names[0], present, n=1, cutoff=0.0)
            missing.append(f"{{layer}} as {{' or '.join(names)}}" + (f" (the nearest is {{near[0]}})" if near else ""))
    if missing:
        raise ValueError("These layers are not in the Core ML network; correct CONSTANTS: " + "; ".join(missing))
    return found


def config(kind, names):
    """Return the settings for the weights that are compressed in this way; all others are left alone."""
    ops = {{names[layer]: KINDS[k](**settings) for layer, (k, settings) in LAYERS.items() if k == kind}}
    return cto.OptimizationConfig(op_name_configs=ops)


def apply(mlmodel):
    """Return `mlmodel` with its weights compressed."""
    names = constants(mlmodel)
    if any(kind == "linear" for kind, _ in LAYERS.values()):
        mlmodel = cto.linear_quantize_weights(mlmodel, config=config("linear", names))
    if any(kind == "palette" for kind, _ in LAYERS.values()):
        mlmodel = cto.palettize_weights(mlmodel, config=config("palette", names))
    return mlmodel
'''
_WIDTHS = (4, 8)
_PALETTES = (1, 2, 3, 4, 6, 8)


def write(material: Material) -> Written:
    """Return the program: linear quantization for 4- and 8-bit integers, palettes for codebooks."""
    layers: dict[str, tuple[str, dict[str, Any]]] = {}
    unknown, activations, blocked = [], [], []
    tables = 0
    for layer in material.summary.layers:
        spec = material.spec_of(layer)
        if spec.weights is None or layer.read_only:
            continue
        settings = _settings(spec.weights)
        if settings is not None and not _blocks_fit(Parameter(layer, spec.weights)):
            blocked.append(layer.name)
            continue
        if settings is None or layer.rows is not None:
            unknown.append(layer.name)
            continue
        layers[layer.name] = settings
        tables += isinstance(spec.weights.format, CodebookFormat) and spec.weights.scale_format != "float32"
        if spec.activations is not None:
            activations.append(layer.name)
    notes = (
        *left_out(unknown, "as Core ML has no such compression"),
        *left_out(blocked, "as Core ML's blocks are whole kernels of input channels, and leave no remainder"),
        *left_out(activations, "as their activations need coremltools' own calibration"),
        "The program looks weights up by the names of PyTorch modules, or by values, and says so where it finds none.",
    )
    if tables:
        notes += (f"{tables} layers: Core ML stores the levels of a palette in the network's own float type.",)
    sizes = {layer.name: layer.parameters for layer in material.summary.layers}
    constants = {layer.name: _constants(layer) for layer in material.summary.layers if layer.name in layers}
    values = {name: (sizes[name], list(material.probes[name])) for name in layers}
    tail = _TAIL.format(
        constants=pformat(constants, width=110, sort_dicts=False),
        values=pformat(values, width=110, sort_dicts=False, compact=True),
    )
    return Written(f"{_HEAD}LAYERS = {pformat(layers, width=110, sort_dicts=False)}\n{tail}", notes)


def _blocks_fit(parameter: Parameter) -> bool:
    """Return whether groups lie along one axis and fit in it, so that coremltools makes the same ones."""
    size, axis = group_size(parameter.spec.granularity), parameter.block_axis
    return size is None or (axis is not None and parameter.layer.shape[axis] % size == 0)


def _constants(layer: LayerInfo) -> list[str]:
    """Return the names that coremltools gives the weight of a PyTorch module: what is no letter or digit is ``_``."""
    names = (f"{module_name(layer)}.weight", layer.weight)
    return list(dict.fromkeys(re.sub(r"\W", "_", name) for name in names))


def _settings(spec: QuantizerSpec) -> tuple[str, dict[str, Any]] | None:
    size = group_size(spec.granularity)
    if size is None and not isinstance(spec.granularity, PerTensor | PerChannel):
        return None
    granularity = "per_block" if size else "per_channel" if isinstance(spec.granularity, PerChannel) else "per_tensor"
    blocks = {"block_size": size} if size else {}
    if isinstance(spec.format, IntFormat) and spec.format.bits in _WIDTHS and is_simple(spec):
        mode = "linear_symmetric" if spec.symmetric else "linear"
        # A symmetric quantizer of Core ML is signed.
        kind = f"{'' if spec.symmetric or spec.format.signed else 'u'}int{spec.format.bits}"
        settings = {"mode": mode, "dtype": kind, "granularity": granularity, **blocks, "weight_threshold": 0}
        return "linear", settings
    # Groups of Core ML's palettes are whole channels, here they are parts of one.
    if isinstance(spec.format, CodebookFormat) and spec.format.bits in _PALETTES and size is None:
        grouped = {"granularity": "per_grouped_channel", "group_size": 1} if granularity == "per_channel" else {}
        return "palette", {"mode": "kmeans", "nbits": spec.format.bits, **grouped, "weight_threshold": 0}
    return None


def recognises(text: str) -> bool:
    """Return whether `text` looks like such a program."""
    return "coremltools.optimize" in text and "LAYERS = " in text


def read(text: str, summary: NetworkSummary) -> Imported:
    """Return the configuration in the table of such a program, which is not run.

    Raises:
        ExportError: there is no such table.
    """
    layers = literal(text, "LAYERS")
    found: dict[str, ReadLayer] = {}
    unmatched = []
    for name, entry in layers.items():
        matched = matching(str(name), summary.layers)
        if not matched:
            unmatched.append(str(name))
        for layer in matched:
            found[layer.name] = ReadLayer(_spec(*entry))
    known = [layer.name for layer in summary.layers]
    return imported(found, unmatched, summary, known=known, name="coremltools")


def _spec(kind: str, settings: dict[str, Any]) -> QuantizerSpec:
    size = settings.get("block_size")
    granularity: Granularity = PerTensor()
    if size:
        granularity = PerGroup(int(size))
    elif settings.get("granularity") in ("per_channel", "per_grouped_channel"):
        granularity = PerChannel()
    if kind == "palette":
        return QuantizerSpec(parse_format(f"codebook{settings['nbits']}"), True, granularity)
    fmt = parse_format(str(settings["dtype"]))
    return QuantizerSpec(fmt, settings["mode"] == "linear_symmetric", granularity, MinMax())
