"""All dialects, by the name that ``--as`` takes."""

from __future__ import annotations

from quantgui.errors import ExportError
from quantgui.export.dialects import (
    aimet,
    compressed_tensors,
    coreml,
    litert,
    llama_cpp,
    model_explorer,
    modelopt,
    nncf,
    onnxruntime,
    quark,
    torchao,
)
from quantgui.export.dialects.material import Dialect, Imported
from quantgui.results import NetworkSummary

DIALECTS = (
    Dialect(
        "aimet-0.6.1", "AIMET encodings 0.6.1", ".encodings", aimet.write_0_6_1, aimet.read, aimet.recognises, True
    ),
    Dialect("aimet-1.0", "AIMET encodings 1.0.0", ".encodings", aimet.write_1_0_0, aimet.read, aimet.recognises, True),
    Dialect("aimet-2.0", "AIMET encodings 2.0.0", ".encodings", aimet.write_2_0_0, aimet.read, aimet.recognises, True),
    Dialect("qnn", "QNN quantization overrides", ".json", aimet.write_0_6_1, aimet.read, aimet.recognises, True),
    Dialect(
        "ort", "Program for ONNX Runtime's quantizer", ".py", onnxruntime.write, onnxruntime.read,
        onnxruntime.recognises, True,
    ),
    Dialect("nncf", "Program for NNCF", ".py", nncf.write, nncf.read, nncf.recognises),
    Dialect("quark", "AMD Quark settings for ONNX", ".json", quark.write, quark.read, quark.recognises),
    Dialect("torchao", "torchao FqnToConfig", ".json", torchao.write, torchao.read, torchao.recognises),
    Dialect(
        "modelopt", "NVIDIA Model-Optimizer quant_cfg", ".json", modelopt.write, modelopt.read, modelopt.recognises
    ),
    Dialect(
        "compressed-tensors", "compressed-tensors config_groups", ".json", compressed_tensors.write,
        compressed_tensors.read, compressed_tensors.recognises,
    ),
    Dialect("llama.cpp", "llama.cpp tensor types", ".txt", llama_cpp.write, llama_cpp.read, llama_cpp.recognises),
    Dialect("litert", "LiteRT (ai-edge-quantizer) recipe", ".json", litert.write, litert.read, litert.recognises),
    Dialect("coreml", "Program for coremltools", ".py", coreml.write, coreml.read, coreml.recognises),
    Dialect("model-explorer", "Model Explorer node data", ".json", model_explorer.write),
    Dialect("aimet-sensitivity", "AIMET ranking of layers", ".json", aimet.write_sensitivity, needs_sensitivity=True),
)  # fmt: skip


def find_dialect(name: str) -> Dialect:
    """Return the dialect called `name`.

    Raises:
        ExportError: there is none.
    """
    for dialect in DIALECTS:
        if dialect.name == name:
            return dialect
    raise ExportError(f"There is no dialect '{name}'; choose one of {', '.join(each.name for each in DIALECTS)}.")


def read_dialect(text: str, summary: NetworkSummary, name: str = "") -> tuple[Dialect, Imported]:
    """Return the configuration that another tool's file describes, and whose file it is: recognised unless named.

    Raises:
        ExportError: no tool's file is recognised, or it cannot be read.
    """
    readers = [find_dialect(name)] if name else [each for each in DIALECTS if each.recognises(text)]
    if not readers:
        raise ExportError("The file is of no tool known here; name the dialect with --from if it is.")
    dialect = readers[0]
    if dialect.read is None:
        raise ExportError(f"A file for {dialect.title} does not hold enough to make a configuration of it.")
    return dialect, dialect.read(text, summary)
