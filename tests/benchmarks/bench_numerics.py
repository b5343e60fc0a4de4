"""Speed and memory of the quantization arithmetic, against torch and numpy."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from quantgui.engine.bench import Bench
from quantgui.engine.requests import OpenNetwork, ViewWeight
from quantgui.numerics.affine import fake_quantize, fake_quantize_with, weight_qparams
from quantgui.numerics.ranges import weight_ranges
from quantgui.numerics.statistics import collect
from quantgui.spec.formats import CodebookFormat, IntFormat, MinifloatFormat, TableFormat
from quantgui.spec.granularity import PerBlock, PerChannel, PerGroup, PerTensor
from quantgui.spec.quantizer import BLOCK_FORMATS, LeastSquaredError, QuantizerSpec
from tests.benchmarks.measuring import Row, milliseconds, ratio_row, run_child, seconds

COLUMNS = 10_000
ROWS = 10_000
LAYER = (2_500, 4_000)
LOOK = 0.1
SEARCH = 3.0


def rows() -> Iterator[Row]:
    """Yield the rows of the arithmetic."""
    x = np.random.default_rng(0).standard_normal(LAYER, dtype=np.float32) * np.float32(0.05)
    yield from _look(x)
    yield from _searches(x)
    yield from _fake_quantization()
    yield from _formats(x)


def _look(x: np.ndarray) -> Iterator[Row]:
    """Yield what it takes to show a layer of 10 M weights after a change, by the engine."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench()
        for _ in bench.handle(OpenNetwork(str(_write_layer(x, Path(folder))))):
            pass
    (layer,) = bench.network.summary.layers
    specs = iter([QuantizerSpec(IntFormat(bits)) for bits in (8, 7, 6, 5, 4, 3)])

    def look() -> None:
        for _ in bench.handle(ViewWeight(layer.name, next(specs))):
            pass

    histogram, changed = seconds(lambda: np.histogram(x, 512), look, rounds=5)
    yield Row(
        "histogram and error of 10 M weights after a change",
        milliseconds(changed),
        f"one np.histogram {milliseconds(histogram)}",
        changed / histogram,
        f"<= {milliseconds(LOOK)}",
        changed <= LOOK,
    )
    histogram, fine = seconds(lambda: np.histogram(x, 512), lambda: collect(x), rounds=5)
    yield Row(
        "fine histogram of 10 M weights, once for each layer",
        milliseconds(fine),
        f"one np.histogram {milliseconds(histogram)}",
        fine / histogram,
    )


def _write_layer(x: np.ndarray, folder: Path) -> Path:
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", size])
        for name, size in (("x", LAYER[1]), ("y", LAYER[0]))
    ]
    node = helper.make_node("Gemm", ["x", "w"], ["y"], name="layer", transB=1)
    graph = helper.make_graph([node], "layer", ends[:1], ends[1:], [numpy_helper.from_array(x, "w")])
    path = folder / "layer.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def _searches(x: np.ndarray) -> Iterator[Row]:
    """Yield what true searches of ranges take, and symmetric ones against torch's rounding to the grids found."""
    import torch

    for granularity in (PerChannel(), PerGroup(32)):
        for symmetric in (True, False):
            spec = QuantizerSpec(IntFormat(4), symmetric, granularity, LeastSquaredError())
            (search,) = seconds(lambda spec=spec: weight_ranges(x, spec, 0), rounds=1, warm_up=False)
            yield Row(
                f"search for the least squared error, 10 M weights, {granularity}, "
                f"{'symmetric' if symmetric else 'asymmetric'}",
                milliseconds(search),
                budget=f"<= {milliseconds(SEARCH)}",
                held=search <= SEARCH,
            )
    tensor, qparams = torch.from_numpy(x), weight_qparams(x, QuantizerSpec(), 0)
    scale, zero_point = torch.from_numpy(qparams.scale), torch.from_numpy(qparams.zero_point)

    def reference() -> object:
        return torch.fake_quantize_per_channel_affine(tensor, scale, zero_point, 0, -128, 127)

    for bits in (2, 3, 4, 5, 6):
        spec = QuantizerSpec(IntFormat(bits), range_estimator=LeastSquaredError())
        search, theirs = seconds(lambda spec=spec: weight_ranges(x, spec, 0), reference, rounds=3)
        yield Row(
            f"the same, int{bits} per channel",
            milliseconds(search),
            f"torch, fake quantization {milliseconds(theirs)}",
            search / theirs,
        )


def _fake_quantization() -> Iterator[Row]:
    """Yield what fake quantization with its error costs against torch's, which computes no error."""
    import torch

    x = np.random.default_rng(0).standard_normal((ROWS, COLUMNS), dtype=np.float32)
    tensor, spec = torch.from_numpy(x), QuantizerSpec()
    qparams = weight_qparams(x, spec, 0)
    scale, zero_point = torch.from_numpy(qparams.scale), torch.from_numpy(qparams.zero_point)

    def reference() -> object:
        return torch.fake_quantize_per_channel_affine(tensor, scale, zero_point, 0, -128, 127)

    given, whole, theirs = seconds(
        lambda: fake_quantize_with(x, spec, qparams), lambda: fake_quantize(x, spec, 0), reference, rounds=3
    )
    size = f"{ROWS * COLUMNS / 1e6:g} M elements"
    torchs = f"torch, no error {milliseconds(theirs)}"
    yield ratio_row(
        f"fake quantization per channel with its error, {size}", milliseconds(given), torchs, given / theirs, 0.5
    )
    yield ratio_row(f"the same, its range estimated too, {size}", milliseconds(whole), torchs, whole / theirs, 0.5)
    memory = run_child("child_quantize", ROWS, COLUMNS)
    yield ratio_row(
        "peak memory of it beyond the tensor itself",
        f"{memory['more'] / 2**20:.0f} MiB",
        f"tensor {memory['tensor'] / 2**20:.0f} MiB",
        memory["more"] / memory["tensor"],
        1.3,
    )


FORMATS = {
    "float8_e4m3fn per channel": QuantizerSpec(MinifloatFormat(4, 3)),
    "float4_e2m1 in blocks of 128 x 128": QuantizerSpec(MinifloatFormat(2, 1), granularity=PerBlock(128, 128)),
    **BLOCK_FORMATS,
    "nf4 in groups of 64": QuantizerSpec(TableFormat("nf4"), granularity=PerGroup(64)),
    "binary per channel": QuantizerSpec(TableFormat("binary")),
    "codebook4 per tensor": QuantizerSpec(CodebookFormat(4), granularity=PerTensor()),
    "codebook8 per tensor": QuantizerSpec(CodebookFormat(8), granularity=PerTensor()),
    "codebook4 per channel": QuantizerSpec(CodebookFormat(4)),
}


def _formats(x: np.ndarray) -> Iterator[Row]:
    """Yield what each format costs against torch's fake quantization to integers, with its error."""
    import torch

    tensor, qparams = torch.from_numpy(x), weight_qparams(x, QuantizerSpec(), 0)
    scale, zero_point = torch.from_numpy(qparams.scale), torch.from_numpy(qparams.zero_point)

    def reference() -> object:
        return torch.fake_quantize_per_channel_affine(tensor, scale, zero_point, 0, -128, 127)

    for name, spec in FORMATS.items():
        qparams = weight_qparams(x, spec, 0)
        ours, theirs = seconds(
            lambda spec=spec, qparams=qparams: fake_quantize_with(x, spec, qparams), reference, rounds=3
        )
        torchs = f"torch, int8, no error {milliseconds(theirs)}"
        yield ratio_row(f"fake quantization, {name}, 10 M", milliseconds(ours), torchs, ours / theirs, 4.0)
    (fit,) = seconds(lambda: weight_qparams(x, FORMATS["codebook4 per channel"], 0), rounds=1, warm_up=False)
    yield Row("fit of a codebook of 16 levels to each of 2500 channels, 10 M", milliseconds(fit))
    for name in ("mxfp4", "codebook4 per tensor"):
        memory = run_child("child_quantize", ROWS, COLUMNS, name)
        yield ratio_row(
            f"peak memory beyond the tensor itself, {name}",
            f"{memory['more'] / 2**20:.0f} MiB",
            f"tensor {memory['tensor'] / 2**20:.0f} MiB",
            memory["more"] / memory["tensor"],
            2.0,
        )
