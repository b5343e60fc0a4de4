"""What counts as the same when a PyTorch network is held against its ONNX form."""

from __future__ import annotations

from typing import Final

TOLERANCE: Final = 1e-4
"""Largest difference between module and ONNX form, as a share of the largest output, that rounding explains."""
HALF_TOLERANCE: Final = 2e-2
"""The same where numbers of 16 bits are computed with: float16 has steps of 1e-3, in every operation."""
