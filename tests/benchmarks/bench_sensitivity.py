"""What a sensitivity sweep costs, in float forwards F of the same samples (`child_sensitivity`)."""

from __future__ import annotations

from collections.abc import Iterator

from tests.benchmarks.measuring import Row, answer, megabytes, ratio_row, start_child

NETWORKS = ("efficientnet-lite0", "demosaicnet")
SAMPLES = 64
MOST_SECONDS = 900.0
MOST_MEMORY = 10**9


def rows() -> Iterator[Row]:
    """Yield the rows of both networks."""
    for name in NETWORKS:
        yield from network_rows(name, SAMPLES)


def network_rows(name: str, samples: int) -> Iterator[Row]:
    """Yield the rows of one network."""
    told = answer(start_child("child_sensitivity", name, samples), MOST_SECONDS)
    limit, full, few = told["limit"], told["full"], told["few"]
    what = f"{name}, weights, 7 bit-widths, {samples} samples"
    reference = f"share behind a layer {limit:.2f}, in {told['cut_segments']} segments"
    for key, words in (("elapsed", "elapsed"), ("processor", "processor time")):
        yield ratio_row(f"{what}: one candidate, {words}", f"{full[key]:.2f} F", reference, full[key] / limit, 1.15)
    yield Row(
        f"{name}: one candidate, as many samples as the order needs",
        f"{few['elapsed']:.2f} F, {few['samples']:.0f} samples, Spearman {told['spearman']:.3f}",
        f"processor time {few['processor']:.2f} F",
        few["elapsed"],
        "<= 0.2 F at 0.98",
        few["elapsed"] <= 0.2 and told["spearman"] >= 0.98,
    )
    yield Row(
        f"{name}: first ranking, by the weights",
        f"{few['first_guess']:.2f} F",
        f"first measured table after {few['first_table']:.0f} F",
        few["first_guess"],
        "<= 8 F",
        few["first_guess"] <= 8,
    )
    yield Row(
        f"{name}: peak memory of the process",
        megabytes(told["peak_memory"]),
        f"activations kept {megabytes(told['peak_cache'])}",
        budget="<= 1 GB",
        held=told["peak_memory"] <= MOST_MEMORY,
    )
