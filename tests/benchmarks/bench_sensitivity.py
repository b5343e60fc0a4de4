"""What a sensitivity sweep costs, in float forwards F of the same samples (`child_sensitivity`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.benchmarks.measuring import Row, answer, megabytes, ratio_row, start_child

NETWORKS = ("efficientnet-lite0", "demosaicnet", "ppocr-rec", "minilm")
SAMPLES = 64
MOST_SECONDS = 1800.0
MOST_MEMORY = 10**9


def rows() -> Iterator[Row]:
    """Yield the rows of all networks."""
    for name in NETWORKS:
        yield from network_rows(name, SAMPLES)


def network_rows(name: str, samples: int) -> Iterator[Row]:
    """Yield the rows of one network."""
    told = answer(start_child("child_sensitivity", name, samples), MOST_SECONDS)
    memory = answer(start_child("child_sensitivity", name, samples, "memory"), MOST_SECONDS)
    few = told["few"]
    yield from cost_rows(f"{name}, weights, 7 bit-widths, {samples} samples", told)
    mean, least = sum(told["spearman"]) / len(told["spearman"]), min(told["spearman"])
    yield Row(
        f"{name}: one candidate, as many samples as the order needs",
        f"{few['elapsed']:.2f} F, {few['samples']:.0f} samples, Spearman {mean:.3f} (worst bit-width {least:.3f})",
        f"processor time {few['processor']:.2f} F",
        few["elapsed"],
        "<= 0.2 F at 0.98",
        few["elapsed"] <= 0.2 and mean >= 0.98,
    )
    yield Row(
        f"{name}: first ranking, by the weights",
        f"{few['first_guess']:.2f} F",
        f"first measured ranking after {few['first_table']:.1f} F",
        few["first_guess"],
        "<= 8 F",
        few["first_guess"] <= 8,
    )
    yield Row(f"{name}: all cheap guesses, which the costs of a candidate leave out", f"{few['guesses']:.1f} F")
    yield Row(
        f"{name}: peak memory of the process",
        megabytes(memory["peak_memory"]),
        f"activations kept {megabytes(memory['peak_cache'])}",
        budget="<= 1 GB",
        held=memory["peak_memory"] <= MOST_MEMORY,
    )
    for what in ("activations", "both"):
        told = answer(start_child("child_sensitivity", name, samples // 2, what), MOST_SECONDS)
        yield from cost_rows(f"{name}, {what}, 7 bit-widths, {samples // 2} samples", told)


def cost_rows(what: str, told: Mapping[str, Any]) -> Iterator[Row]:
    """Yield what one candidate costs, beside the share of the network behind its layer."""
    reference = f"share behind a layer {told['limit']:.2f}, in {told['cut_segments']} segments"
    for key, words in (("elapsed", "elapsed"), ("processor", "processor time")):
        cost = told["full"][key]
        yield ratio_row(f"{what}: one candidate, {words}", f"{cost:.2f} F", reference, cost / told["limit"], 1.15)
