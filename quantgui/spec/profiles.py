"""For whom an ONNX file is written: which operators hold what is quantized."""

from __future__ import annotations

from typing import Literal, get_args

ExportProfile = Literal["qdq", "matmulnbits", "tensorrt"]
"""``qdq``: QuantizeLinear and DequantizeLinear, for every runtime. ``matmulnbits``: the same, but MatMulNBits for what
it takes, for ONNX Runtime. ``tensorrt``: Q/DQ as NVIDIA TensorRT wants them: zero points 0, in front of operators."""
EXPORT_PROFILES: tuple[ExportProfile, ...] = get_args(ExportProfile)
