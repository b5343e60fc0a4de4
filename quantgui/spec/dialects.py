"""The files of other tools that can be written, by the name that ``--as`` takes; `export.dialects` writes them.

This is what the window and the command line must know of them without loading what writes them.
"""

from __future__ import annotations

from dataclasses import dataclass

from quantgui.errors import SpecError


@dataclass(frozen=True, slots=True)
class DialectInfo:
    """The file of another tool.

    Attributes:
        name: as on the command line.
        title: for people.
        suffix: usual ending of the file's name.
        readable: whether it holds enough to make a configuration of it.
        needs_ranges: whether it holds grids of activations, so that calibration data is needed.
        needs_sensitivity: whether it is made of a sensitivity table.
    """

    name: str
    title: str
    suffix: str
    readable: bool = True
    needs_ranges: bool = False
    needs_sensitivity: bool = False


DIALECTS = (
    DialectInfo("aimet-0.6.1", "AIMET encodings 0.6.1", ".encodings", needs_ranges=True),
    DialectInfo("aimet-1.0", "AIMET encodings 1.0.0", ".encodings", needs_ranges=True),
    DialectInfo("aimet-2.0", "AIMET encodings 2.0.0", ".encodings", needs_ranges=True),
    DialectInfo("qnn", "QNN quantization overrides", ".json", needs_ranges=True),
    DialectInfo("ort", "Program for ONNX Runtime's quantizer", ".py", needs_ranges=True),
    DialectInfo("nncf", "Program for NNCF", ".py"),
    DialectInfo("quark", "AMD Quark settings for ONNX", ".json"),
    DialectInfo("torchao", "torchao FqnToConfig", ".json"),
    DialectInfo("modelopt", "NVIDIA Model-Optimizer recipe", ".yaml"),
    DialectInfo("compressed-tensors", "compressed-tensors config_groups", ".json"),
    DialectInfo("llama.cpp", "llama.cpp tensor types", ".txt"),
    DialectInfo("litert", "LiteRT (ai-edge-quantizer) recipe", ".json"),
    DialectInfo("coreml", "Program for coremltools", ".py"),
    DialectInfo("model-explorer", "Model Explorer node data", ".json", readable=False),
    DialectInfo("aimet-sensitivity", "AIMET ranking of layers", ".json", readable=False, needs_sensitivity=True),
)


def find_dialect_info(name: str) -> DialectInfo:
    """Return the dialect called `name`.

    Raises:
        SpecError: there is none.
    """
    for dialect in DIALECTS:
        if dialect.name == name:
            return dialect
    raise SpecError(f"There is no dialect '{name}'; choose one of {', '.join(each.name for each in DIALECTS)}.")
