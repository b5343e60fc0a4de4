"""Fake quantizes a large tensor and tells how much memory that took beyond the tensor."""

from __future__ import annotations

import sys

import numpy as np

from quantgui.numerics.affine import fake_quantize
from quantgui.spec.formats import CodebookFormat
from quantgui.spec.granularity import PerTensor
from quantgui.spec.quantizer import BLOCK_FORMATS, QuantizerSpec
from tests.benchmarks.measuring import peak_memory, tell


def main() -> None:
    """Quantize a tensor of as many rows and columns as the command line says, to int8 or the format it names."""
    rows, columns = int(sys.argv[1]), int(sys.argv[2])
    spec = QuantizerSpec()
    if len(sys.argv) > 3:
        spec = BLOCK_FORMATS.get(sys.argv[3], QuantizerSpec(CodebookFormat(4), granularity=PerTensor()))
    x = np.empty((rows, columns), np.float32)
    for row in x:
        row[:] = np.arange(columns)
    fake_quantize(x[:8].copy(), spec, 0)
    before = peak_memory()
    fake_quantize(x, spec, 0)
    tell({"more": peak_memory() - before, "tensor": x.nbytes})


if __name__ == "__main__":
    main()
