"""Parts of answers that several commands give, as JSON values."""

from __future__ import annotations

from typing import Any

from quantgui.results import Advice, Evaluation, NetworkSummary
from quantgui.spec.config import QuantConfig
from quantgui.spec.size import network_bytes
from quantgui.terminal import score_json

Json = dict[str, Any]


def sizes(summary: NetworkSummary, config: QuantConfig) -> dict[str, int]:
    """Return the bytes of the network as counted, as stored in ONNX, and without quantization."""
    return {
        "bytes": network_bytes(summary.float_bytes, summary.layers, config),
        "stored_bytes": network_bytes(summary.float_bytes, summary.layers, config, stored=True),
        "float_bytes": summary.float_bytes,
    }


def advice_json(advice: Advice) -> Json:
    """Return what was found out about the wish, and what was done instead."""

    def quality(evaluation: Evaluation | None) -> Json | None:
        return None if evaluation is None else score_json(evaluation.quantized_score)

    return {
        "sentence": advice.sentence,
        "layers": advice.layers,
        "metric": advice.after.metric if advice.after else None,
        "before": quality(advice.before),
        "after": quality(advice.after),
        "asked": advice.config.name,
    }
