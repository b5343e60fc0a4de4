"""A sweep's candidate against what ONNX Runtime's own quantizer takes in a loop (`child_peers`)."""

from __future__ import annotations

from collections.abc import Iterator

from tests.benchmarks.measuring import Row, answer, start_child

NETWORKS = (("efficientnet-lite0", 32), ("demosaicnet", 16))
LEAST = 5.0
MOST_SECONDS = 600.0


def rows() -> Iterator[Row]:
    """Yield one row for each network."""
    for name, samples in NETWORKS:
        told = answer(start_child("child_peers", name, samples), MOST_SECONDS)
        ratio = told["theirs"] / told["ours"]
        yield Row(
            f"{name}, {samples} samples: one candidate of a sweep, all samples",
            f"{told['ours']:.2f} F",
            f"ONNX Runtime's quantizer in a loop {told['theirs']:.1f} F",
            ratio,
            f">= {LEAST:g}x faster",
            ratio >= LEAST,
        )
