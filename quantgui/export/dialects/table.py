"""All dialects, by the name that ``--as`` takes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

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
from quantgui.export.dialects.material import Dialect, Imported, Material, Written
from quantgui.results import NetworkSummary
from quantgui.spec.dialects import DIALECTS as INFOS

_Write = Callable[[Material], Written]
_Read = Callable[[str, NetworkSummary], Imported]
_Recognise = Callable[[str], bool]

_READERS: dict[str, tuple[_Write, _Read, _Recognise]] = {
    "aimet-0.6.1": (aimet.write_0_6_1, aimet.read, partial(aimet.recognises, version="0.")),
    "aimet-1.0": (aimet.write_1_0_0, aimet.read, partial(aimet.recognises, version="1.")),
    "aimet-2.0": (aimet.write_2_0_0, aimet.read, partial(aimet.recognises, version="2.")),
    "qnn": (aimet.write_qnn, aimet.read, aimet.recognises),
    "ort": (onnxruntime.write, onnxruntime.read, onnxruntime.recognises),
    "nncf": (nncf.write, nncf.read, nncf.recognises),
    "quark": (quark.write, quark.read, quark.recognises),
    "torchao": (torchao.write, torchao.read, torchao.recognises),
    "modelopt": (modelopt.write, modelopt.read, modelopt.recognises),
    "compressed-tensors": (compressed_tensors.write, compressed_tensors.read, compressed_tensors.recognises),
    "llama.cpp": (llama_cpp.write, llama_cpp.read, llama_cpp.recognises),
    "litert": (litert.write, litert.read, litert.recognises),
    "coreml": (coreml.write, coreml.read, coreml.recognises),
}
_WRITERS = {"model-explorer": model_explorer.write, "aimet-sensitivity": aimet.write_sensitivity}

DIALECTS = tuple(
    Dialect(info, *_READERS[info.name]) if info.readable else Dialect(info, _WRITERS[info.name]) for info in INFOS
)


def find_dialect(name: str) -> Dialect:
    """Return the dialect called `name`.

    Raises:
        ExportError: there is none.
    """
    for dialect in DIALECTS:
        if dialect.info.name == name:
            return dialect
    raise ExportError(f"There is no dialect '{name}'; choose one of {', '.join(each.info.name for each in DIALECTS)}.")


def read_dialect(text: str, summary: NetworkSummary, name: str = "") -> tuple[Dialect, Imported]:
    """Return the configuration that another tool's file describes, and whose file it is: recognised unless named.

    Raises:
        ExportError: no tool's file is recognised, or it cannot be read.
    """
    readers = [find_dialect(name)] if name else [each for each in DIALECTS if each.recognises(text)]
    if not readers:
        raise ExportError("The file is of no tool known here; if it is, the command line reads it with --from DIALECT.")
    dialect = readers[0]
    if dialect.read is None:
        raise ExportError(f"A file for {dialect.info.title} does not hold enough to make a configuration of it.")
    return dialect, dialect.read(text, summary)
