"""``quantgui noise``: where noise is made, and which samples pay for it."""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np

from quantgui.cli.arguments import add_config_arguments, add_data_arguments, add_network_argument
from quantgui.cli.command import Answer, Command
from quantgui.cli.work import Work
from quantgui.engine.requests import TraceNoise
from quantgui.results import LayerNoise, NetworkSummary, NoiseReady
from quantgui.terminal import table
from quantgui.wording import decibel

_WORST_SAMPLES = 5


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_network_argument(parser)
    add_data_arguments(parser, required=True)
    add_config_arguments(parser, required=True)


def _run(work: Work) -> Answer:
    summary = work.open_network()
    data = work.open_data()
    choice = work.choose_config(summary, data)
    answer = work.answer(TraceNoise(choice.config, work.arguments.samples), NoiseReady)
    json = _json(summary, work.arguments.data, answer) | choice.json(data) | {"seconds": work.seconds}
    return Answer(json, _text(summary, choice.config.name, work.arguments.data, answer))


def _json(summary: NetworkSummary, data: str, answer: NoiseReady) -> dict[str, Any]:
    """Return a trace as JSON values; what is infinite or unknown is null."""
    return {
        "network": summary.name,
        "data": data,
        "samples": answer.samples,
        "has_classes": answer.has_classes,
        "flipped": np.flatnonzero(answer.flipped).tolist(),
        "layers": [
            {
                "name": layer.layer,
                "tensor": layer.tensor,
                "own_sqnr_db": layer.own_sqnr_db,
                "inherited_sqnr_db": layer.inherited_sqnr_db,
                "total_sqnr_db": layer.total_sqnr_db,
                "input_sqnr_db": layer.input_sqnr_db,
                "damage": answer.damage[row].tolist(),
                "flips": np.flatnonzero(answer.flips[row]).tolist(),
            }
            for row, layer in enumerate(answer.layers)
        ],
    }


def _text(summary: NetworkSummary, config: str, data: str, answer: NoiseReady) -> str:
    """Return a trace as a table in the order of the network, and the samples that suffer most."""
    heads = ["layer", "own", "inherited", "both", "input", "", *(["flips"] if answer.has_classes else [])]
    rows = [heads]
    for row, layer in enumerate(answer.layers):
        flips = [f"{int(answer.flips[row].sum()):,}"] if answer.has_classes else []
        rows.append([layer.layer, *_numbers(layer), _change(layer), *flips])
    head = (
        f"{summary.name} with {config or 'the configuration'} on {answer.samples} samples of {data}: noise at each "
        "layer's output, SQNR in dB"
    )
    notes = ["own: this layer alone quantized; inherited: it float, fed by the quantized network; both: all quantized"]
    if answer.has_classes:
        notes.append(f"{int(answer.flipped.sum())} of {answer.samples} samples change their top class")
    notes += _worst_samples(answer)
    return "\n".join([head, table(rows), *(f"  {note}" for note in notes)])


def _numbers(layer: LayerNoise) -> list[str]:
    own = "float" if layer.own_sqnr_db == math.inf else _short(layer.own_sqnr_db)
    return [own, *(_short(x) for x in (layer.inherited_sqnr_db, layer.total_sqnr_db, layer.input_sqnr_db))]


def _short(value: float) -> str:
    return "-" if math.isnan(value) else decibel(value).removesuffix(" dB")


def _change(layer: LayerNoise) -> str:
    gain = layer.inherited_sqnr_db - layer.input_sqnr_db
    return (
        ""
        if not math.isfinite(gain) or abs(gain) < 0.5
        else f"amplifies {-gain:.1f}"
        if gain < 0
        else f"eases {gain:.1f}"
    )


def _worst_samples(answer: NoiseReady) -> list[str]:
    """Return which samples suffer most, each with the layer that hurts it most."""
    if not answer.damage.size or not (answer.damage > 0).any():
        return []
    order = np.argsort(-answer.damage.sum(0), kind="stable")[:_WORST_SAMPLES]
    culprits = answer.damage.argmax(0)
    named = [f"{sample} ({answer.layers[culprits[sample]].layer})" for sample in order.tolist()]
    return [f"samples hurt most, by which layer: {', '.join(named)}"]


COMMAND = Command("See where noise is made and which samples pay for it.", _add_arguments, _run)
