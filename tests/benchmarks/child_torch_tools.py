"""Runs other tools for PyTorch, LiteRT and Core ML on what we write for them: ``child_torch_tools [TOOL ...]``.

The tools (torchao, compressed-tensors, nvidia-modelopt, litert-torch with ai-edge-quantizer, coremltools) are no
dependencies of the project: run it in an environment that has them. The PyTorch module is the one the ONNX file was
exported from, so what a tool makes of our file can be held against our simulation; SQNR in dB.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.benchmarks.taken_away import Array, Taken, decibels, module, taken

Told = dict[str, Any]
NETWORK = "ccexam-mnist"


def answer(network: torch.nn.Module, inputs: Array) -> Array:
    """Return the output of a module."""
    with torch.no_grad():
        return network(torch.from_numpy(inputs)).numpy()


def linear_only(opened: Taken, preset: str) -> list[str]:
    """Return the layers that a tool for linear modules leaves float."""
    return [layer.name for layer in opened.bench.network.summary.layers if layer.op not in ("Gemm", "MatMul")]


def run_torchao(opened: Taken) -> Told:
    """Torchao quantizes the module with our FqnToConfig."""
    from torchao.core.config import config_from_dict  # type: ignore[import-not-found]
    from torchao.quantization import quantize_  # type: ignore[import-not-found]

    told: Told = {}
    reference = opened.ours()
    for preset in ("W8", "W4", "W4A16-g32", "W8A8", "W4A8", "W3-g32", "FP8"):
        config = opened.config(preset, *linear_only(opened, preset))
        text, notes = opened.settings(config, "torchao")
        try:
            network = module(opened.name)
            quantize_(network, config_from_dict(json.loads(text)), filter_fn=None)
            theirs = answer(network, opened.inputs)
        except Exception as error:  # noqa: BLE001 -- what the tool says is the result
            told[preset] = f"refused: {type(error).__name__}: {str(error)[:200]}"
            continue
        linear = [(name, each) for name, each in network.named_modules() if isinstance(each, torch.nn.Linear)]
        weights = {name: type(each.weight).__name__ for name, each in linear}
        ours = opened.ours(config)
        told[preset] = {
            "torchao to ours": decibels(ours, theirs), "ours to float": decibels(reference, ours),
            "torchao to float": decibels(reference, theirs), "weights": weights, "notes": list(notes),
        }  # fmt: skip
    return told


def run_compressed_tensors(opened: Taken) -> Told:
    """compressed-tensors attaches our groups to the modules, and rounds with its own grids."""
    from compressed_tensors.quantization import (  # type: ignore[import-not-found]
        QuantizationConfig,
        apply_quantization_config,
    )
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize  # type: ignore[import-not-found]
    from compressed_tensors.quantization.utils import calculate_qparams  # type: ignore[import-not-found]

    told: Told = {}
    reference = opened.ours()
    for preset in ("W8", "W4", "W4A16-g32", "W8A8", "W4A8", "FP8"):
        config = opened.config(preset, *linear_only(opened, preset))
        text, notes = opened.settings(config, "compressed-tensors")
        try:
            network = module(opened.name)
            apply_quantization_config(network, QuantizationConfig.model_validate(json.loads(text)))
            found = {}
            for name, each in network.named_modules():
                scheme = getattr(each, "quantization_scheme", None)
                if scheme is None or scheme.weights is None:
                    continue
                found[name] = f"{scheme.weights.type}{scheme.weights.num_bits} {scheme.weights.strategy}"
                weight, size = each.weight.data, scheme.weights.group_size
                if size:
                    rows = weight.reshape(len(weight), -1, size)
                    low, high = rows.amin(-1), rows.amax(-1)
                else:
                    low, high = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
                scale, zero = calculate_qparams(low, high, scheme.weights)
                each.weight.data = fake_quantize(weight, scale, zero, scheme.weights)
                each.quantization_enabled = False
            theirs = answer(network, opened.inputs)
        except Exception as error:  # noqa: BLE001 -- what the tool says is the result
            told[preset] = f"refused: {type(error).__name__}: {str(error)[:300]}"
            continue
        ours = opened.ours(config)
        told[preset] = {
            "compressed-tensors (weights only) to ours": decibels(ours, theirs),
            "ours to float": decibels(reference, ours), "theirs to float": decibels(reference, theirs),
            "groups": found, "notes": list(notes),
        }  # fmt: skip
    return told


def run_modelopt(opened: Taken) -> Told:
    """Model-Optimizer quantizes the module with our recipe."""
    import modelopt.torch.quantization as mtq  # type: ignore[import-not-found]
    from modelopt.recipe import load_recipe  # type: ignore[import-not-found]

    told: Told = {}
    reference = opened.ours()
    for preset in ("W8", "W4", "W8A8", "W4A8", "W4A16-g32", "FP8"):
        config = opened.config(preset)
        text, notes = opened.settings(config, "modelopt")
        path = opened.folder / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            recipe = load_recipe(path)
            network = mtq.quantize(
                module(opened.name), recipe.quantize.model_dump(), lambda each: answer(each, opened.inputs)
            )
            theirs = answer(network, opened.inputs)
        except Exception as error:  # noqa: BLE001 -- what the tool says is the result
            told[preset] = f"refused: {type(error).__name__}: {str(error)[:300]}"
            continue
        on = [name for name, each in network.named_modules() if getattr(each, "is_enabled", False)]
        ours = opened.ours(config)
        told[preset] = {
            "modelopt to ours": decibels(ours, theirs), "ours to float": decibels(reference, ours),
            "modelopt to float": decibels(reference, theirs), "quantizers": on, "notes": list(notes),
        }  # fmt: skip
    return told


def run_litert(opened: Taken) -> Told:
    """ai-edge-quantizer applies our recipe to the module as litert-torch converts it."""
    import litert_torch  # type: ignore[import-not-found]
    from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found]
    from ai_edge_quantizer import quantizer, recipe  # type: ignore[import-not-found]

    def run(path: Path) -> Array:
        interpreter = Interpreter(str(path))
        interpreter.allocate_tensors()
        (entry,), (exit_,) = interpreter.get_input_details(), interpreter.get_output_details()
        rows = []
        for row in opened.inputs:
            scale, zero = entry["quantization"]
            fed = np.clip(np.round(row / scale) + zero, -128, 127).astype(np.int8) if scale else row
            interpreter.set_tensor(entry["index"], fed[np.newaxis])
            interpreter.invoke()
            scale, zero = exit_["quantization"]
            value = interpreter.get_tensor(exit_["index"])
            rows.append((value.astype(np.float32) - zero) * scale if scale else value)
        return np.concatenate(rows)

    def tensors(path: Path) -> dict[str, str]:
        interpreter = Interpreter(str(path))
        return {each["name"]: str(np.dtype(each["dtype"])) for each in interpreter.get_tensor_details()}

    def run_recipe(rules: Any) -> tuple[Array, Path]:
        tool = quantizer.Quantizer(str(plain), rules)
        ranges = None
        if tool.need_calibration:
            ((signature, told),) = Interpreter(str(plain)).get_signature_list().items()
            rows = [{told["inputs"][0]: row[np.newaxis]} for row in opened.inputs]
            ranges = tool.calibrate({signature: rows})
        path = opened.folder / "quantized.tflite"
        path.write_bytes(bytes(tool.quantize(ranges).quantized_model))
        return run(path), path

    plain = opened.folder / "float.tflite"
    litert_torch.convert(module(opened.name), (torch.zeros(1, 1, 28, 28),)).export(str(plain))
    reference = opened.ours()
    told: Told = {"float to float": decibels(reference, run(plain)), "tensors": list(tensors(plain))}
    layers = [layer.name for layer in opened.bench.network.summary.layers]
    for preset, left in (("W8", []), ("W4", []), ("W8A8", []), ("W8A8", layers[:1]), ("W8", layers[2:3])):
        config = opened.config(preset, *left)
        text, notes = opened.settings(config, "litert")
        if preset == "W8A8" and not left:
            own, _ = run_recipe(recipe.static_wi8_ai8())
            told["the tool's own recipe"] = {"litert to float": decibels(reference, own)}
        name = f"{preset}{' but ' + left[0] if left else ''}"
        try:
            theirs, path = run_recipe(json.loads(text))
        except Exception as error:  # noqa: BLE001 -- what the tool says is the result
            told[name] = f"refused: {type(error).__name__}: {str(error)[:300]}"
            continue
        ours = opened.ours(config)
        told[name] = {
            "litert to ours": decibels(ours, theirs), "ours to float": decibels(reference, ours),
            "litert to float": decibels(reference, theirs),
            "integer tensors": sum(kind.startswith("int") for kind in tensors(path).values()), "notes": list(notes),
            "bytes": [plain.stat().st_size, path.stat().st_size],
        }  # fmt: skip
    return told


def run_coreml(opened: Taken) -> Told:
    """Coremltools compresses the converted module with our program; its weights are read back."""
    import coremltools  # type: ignore[import-not-found]
    from coremltools.optimize.coreml import decompress_weights, get_weights_metadata  # type: ignore[import-not-found]

    network = module(opened.name)
    traced = torch.jit.trace(network, torch.zeros(1, 1, 28, 28))
    plain = coremltools.convert(
        traced, inputs=[coremltools.TensorType(name="input", shape=(1, 1, 28, 28))],
        minimum_deployment_target=coremltools.target.iOS18, compute_precision=coremltools.precision.FLOAT32,
        skip_model_load=True,
    )  # fmt: skip
    told: Told = {"constants": {name: list(each.val.shape) for name, each in get_weights_metadata(plain, 0).items()}}
    reference = opened.ours()
    for preset in ("W8", "W4", "W4A16-g32", "W4-codebook"):
        try:
            config = opened.config(preset)
        except Exception as error:  # noqa: BLE001 -- told as found
            told[preset] = str(error)
            continue
        text, notes = opened.settings(config, "coreml")
        program: Told = {}
        exec(text, program)  # our own file
        try:
            made = program["apply"](deepcopy(plain))
        except Exception as error:  # noqa: BLE001 -- what the tool says is the result
            told[preset] = f"refused: {type(error).__name__}: {str(error)[:300]}"
            continue
        values = get_weights_metadata(decompress_weights(made), 0)
        rounded = module(opened.name)
        matched = {}
        for name, parameter in rounded.named_parameters():
            near = next((e for key, e in values.items() if key.startswith(name.replace(".", "_"))), None)
            if near is not None and near.val.shape == tuple(parameter.shape):
                matched[name] = decibels(parameter.detach().numpy(), near.val)
                parameter.data = torch.from_numpy(np.array(near.val, np.float32))
        ours = opened.ours(config)
        theirs = answer(rounded, opened.inputs)
        told[preset] = {
            "weights, SQNR to float": matched, "coreml to ours": decibels(ours, theirs),
            "ours to float": decibels(reference, ours), "coreml to float": decibels(reference, theirs),
            "notes": list(notes),
        }  # fmt: skip
    return told


TOOLS: dict[str, Callable[[Taken], Told]] = {
    "torchao": run_torchao, "compressed-tensors": run_compressed_tensors, "modelopt": run_modelopt,
    "litert": run_litert, "coreml": run_coreml,
}  # fmt: skip


def main() -> None:
    """Print what each tool made of our files."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    with taken(NETWORK) as opened:
        for tool in sys.argv[1:] or list(TOOLS):
            print(json.dumps({"network": NETWORK, "tool": tool, "found": TOOLS[tool](opened)}, indent=1), flush=True)


if __name__ == "__main__":
    main()
