"""What counts as the same when a PyTorch network is held against its ONNX form."""

from __future__ import annotations

from typing import Final

TOLERANCE: Final = 1e-4
"""Largest difference between module and ONNX form, as a share of the largest output, that rounding explains."""
