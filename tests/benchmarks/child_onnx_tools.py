"""Runs other tools for ONNX networks on what we write for them: ``child_onnx_tools [TOOL ...]``.

The tools (aimet-onnx, nncf, openvino, amd-quark) are no dependencies of the project: run it in an environment that has
them. Each prints what the tool made of our file beside what our simulation says; SQNR in dB.
"""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from tests.benchmarks.taken_away import Array, Taken, decibels, taken

Told = dict[str, Any]
NETWORKS = ("ccexam-mnist", "efficientnet-lite0")


def run_onnx(model: onnx.ModelProto | str, inputs: Array, **entries: str) -> Array:
    """Return the first output of an ONNX network in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    for key, value in entries.items():
        options.add_session_config_entry(key.replace("__", "."), value)
    told = model if isinstance(model, str) else model.SerializeToString()
    session = onnxruntime.InferenceSession(
        told, options, providers=["CPUExecutionProvider"], disabled_optimizers=["WeightBiasQuantization"]
    )
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]


def run_openvino(opened: Taken) -> Told:
    """OpenVINO runs our exported networks."""
    import openvino  # type: ignore[import-not-found]

    core = openvino.Core()
    reference = opened.ours()
    told: Told = {}
    for preset in ("W8A8", "W4A8", "W8", "W4", "W4A16-g32"):
        config = opened.config(preset)
        path = opened.export(config)
        try:
            # By default OpenVINO computes in bfloat16 where the processor can, and rounds activations of linear layers
            # beside integer weights to 8 bits; neither is in our file.
            plain = core.compile_model(core.read_model(path), "CPU")
            compiled = core.compile_model(
                core.read_model(path),
                "CPU",
                {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"},
            )
            answer, rough = (next(iter(each({"input": opened.inputs}).values())) for each in (compiled, plain))
        except RuntimeError as error:
            told[preset] = f"refused: {str(error)[:700]}"
            continue
        ours = opened.ours(config)
        kinds = Counter(
            str(op.get_rt_info()["runtimePrecision"].value) if "runtimePrecision" in op.get_rt_info() else "?"
            for op in compiled.get_runtime_model().get_ops()
        )
        told[preset] = {
            "openvino to ours": decibels(ours, answer),
            "openvino as it is by default to ours": decibels(ours, rough),
            "onnxruntime to ours": decibels(ours, run_onnx(str(path), opened.inputs)),
            "ours to float": decibels(reference, ours),
            "openvino to float": decibels(reference, answer),
            "precisions": dict(kinds),
        }
    return told


def run_nncf(opened: Taken) -> Told:
    """NNCF quantizes with our snippet; layers we leave float must stay so."""
    layers = [layer for layer in opened.bench.network.summary.layers if not layer.keeps_float]
    left = [layer.name for layer in layers[1::3]]
    config = opened.config("W8A8", *left)
    text, notes = opened.settings(config, "nncf")
    program: Told = {}
    exec(text, program)  # our own file
    quantized = program["quantize"](onnx.load(opened.path), [{"input": row[np.newaxis]} for row in opened.inputs])
    makers = {output: node for node in quantized.graph.node for output in node.output}
    constants = {tensor.name for tensor in quantized.graph.initializer}
    state = {}
    for node in quantized.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul") and len(node.input) > 1:
            made = makers.get(node.input[1])
            is_weight = node.input[1] in constants or made is not None
            if is_weight:
                state[node.name] = made is not None and made.op_type == "DequantizeLinear"
    wanted = {user: layer.name not in left for layer in layers for user in layer.users}
    wrong = [name for name, quantizes in wanted.items() if state.get(name, not quantizes) != quantizes]
    answer = run_onnx(quantized, opened.inputs, session__disable_quant_qdq="1")
    return {
        "left float": left, "as wanted": len(wanted) - len(wrong), "not as wanted": wrong, "notes": list(notes),
        "nncf to float": decibels(opened.ours(), answer), "ours to float": decibels(opened.ours(), opened.ours(config)),
    }  # fmt: skip


def run_aimet(opened: Taken) -> Told:
    """AIMET loads our encodings into its simulation, which must compute what ours does."""
    from aimet_onnx.batch_norm_fold import fold_all_batch_norms_to_weight  # type: ignore[import-not-found]
    from aimet_onnx.quantsim import QuantizationSimModel, load_encodings_to_sim  # type: ignore[import-not-found]

    told: Told = {}
    reference = opened.ours()
    for preset in ("W8A8", "W4A8", "W4"):
        config = opened.config(preset)
        ours = opened.ours(config)
        told[preset] = {"ours to float": decibels(reference, ours)}
        for dialect in ("aimet-0.6.1", "aimet-1.0", "aimet-2.0"):
            text, _ = opened.settings(config, dialect)
            try:
                model = onnx.load(opened.path)
                fold_all_batch_norms_to_weight(model)
                sim = QuantizationSimModel(model, providers=["CPUExecutionProvider"])
                missed = load_encodings_to_sim(sim, json.loads(text), strict=False)
                answer = sim.session.run(None, {"input": opened.inputs})[0]
            except Exception as error:  # noqa: BLE001 -- what the tool says is the result
                told[preset][dialect] = f"refused: {type(error).__name__}: {str(error)[:200]}"
                continue
            on = Counter(f"{quantizer.bitwidth}" for quantizer in sim.qc_quantize_op_dict.values() if quantizer.enabled)
            told[preset][dialect] = {
                "aimet to ours": decibels(ours, answer), "aimet to float": decibels(reference, answer),
                "mismatches": len(missed), "quantizers by bits": dict(on),
            }  # fmt: skip
    return told


def run_quark(opened: Taken) -> Told:
    """AMD Quark quantizes with our settings."""
    from onnxruntime.quantization import CalibrationDataReader
    from quark.onnx import ModelQuantizer, QConfig  # type: ignore[import-not-found]

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = iter([{"input": row[np.newaxis]} for row in opened.inputs])

        def get_next(self) -> dict[str, Array] | None:
            return next(self.rows, None)

    layers = [layer for layer in opened.bench.network.summary.layers if not layer.keeps_float]
    told: Told = {}
    for preset, left in (("W8A8", [layers[0].name]), ("W16A16", [])):
        config = opened.config(preset, *left)
        text, notes = opened.settings(config, "quark")
        path = opened.folder / "quark.onnx"
        try:
            quantizer = ModelQuantizer(QConfig.from_dict(json.loads(text)))
            # Quark leaves a table in the current directory.
            with contextlib.chdir(opened.folder):
                quantizer.quantize_model(str(opened.path.resolve()), str(path), Reader())
        except Exception as error:  # noqa: BLE001 -- what the tool says is the result
            told[preset] = f"refused: {type(error).__name__}: {str(error)[:300]}"
            continue
        model = onnx.load(path)
        held = {tensor.name: tensor for tensor in model.graph.initializer}
        makers = {output: node for node in model.graph.node for output in node.output}
        kinds = {}
        for node in model.graph.node:
            if node.op_type in ("Conv", "Gemm", "MatMul") and (made := makers.get(node.input[1])) is not None:
                source = held.get(made.input[0])
                kinds[node.name] = made.op_type if source is None else str(numpy_helper.to_array(source).dtype)
        told[preset] = {
            "left float": left, "notes": list(notes), "weights": kinds,
            "operators": dict(Counter(node.op_type for node in model.graph.node)),
        }  # fmt: skip
        try:
            answer = run_onnx(model, opened.inputs, session__disable_quant_qdq="1")
            told[preset] |= {
                "quark to float": decibels(opened.ours(), answer),
                "ours to float": decibels(opened.ours(), opened.ours(config)),
            }
        except Exception as error:  # noqa: BLE001 -- what the runtime says is the result
            told[preset]["run"] = str(error)[:200]
    return told


def run_quantizer(opened: Taken) -> Told:
    """ONNX Runtime's own quantizer runs by our program."""
    told: Told = {}
    reference = opened.ours()
    for preset in ("W8A8", "W4A8"):
        config = opened.config(preset)
        text, notes = opened.settings(config, "ort")
        program, path = opened.folder / "quantize.py", opened.folder / "theirs.onnx"
        program.write_text(text, encoding="utf-8")
        command = [sys.executable, str(program), str(opened.path.resolve()), str(path), "--data", str(opened.data)]
        subprocess.run(command, check=True, capture_output=True)
        answer, ours = run_onnx(str(path), opened.inputs, session__disable_quant_qdq="1"), opened.ours(config)
        told[preset] = {
            "theirs to ours": decibels(ours, answer), "ours to float": decibels(reference, ours),
            "theirs to float": decibels(reference, answer), "notes": list(notes),
        }  # fmt: skip
    return told


TOOLS: dict[str, Callable[[Taken], Told]] = {
    "openvino": run_openvino, "nncf": run_nncf, "aimet": run_aimet, "quark": run_quark,
    "ort": run_quantizer,
}  # fmt: skip


def main() -> None:
    """Print what each tool made of our files."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    names = [name for name in sys.argv[1:] if name in TOOLS] or list(TOOLS)
    for name in [name for name in sys.argv[1:] if name in NETWORKS] or NETWORKS:
        with taken(name) as opened:
            for tool in names:
                print(json.dumps({"network": name, "tool": tool, "found": TOOLS[tool](opened)}, indent=1), flush=True)


if __name__ == "__main__":
    main()
