"""What a sensitivity sweep costs, in float forwards F of the same samples (`child_sensitivity`)."""

from __future__ import annotations

from collections.abc import Iterator

from tests.benchmarks.measuring import Row, answer, megabytes, ratio_row, start_child

NETWORKS = ("efficientnet-lite0", "demosaicnet")
SAMPLES = 32
MOST_SECONDS = 900.0
MOST_MEMORY = 10**9


def rows() -> Iterator[Row]:
    """Yield the rows of both networks."""
    for name in NETWORKS:
        yield from network_rows(name, SAMPLES)


def network_rows(name: str, samples: int) -> Iterator[Row]:
    """Yield the rows of one network."""
    told = answer(start_child("child_sensitivity", name, samples), MOST_SECONDS)
    forward, count, limit = told["forward"], told["candidates"], told["limit"]
    full, few = told["full"], told["few"]
    cost = full["seconds"] / count / forward
    processor = full["processor"] / count / told["forward_processor"]
    what = f"{name}, weights, 7 bit-widths, {samples} samples"
    reference = f"share behind a layer {limit:.2f}, in {told['cut_segments']} segments"
    yield ratio_row(f"{what}: one candidate, elapsed", f"{cost:.2f} F", reference, cost / limit, 1.15)
    yield ratio_row(f"{what}: one candidate, processor time", f"{processor:.2f} F", reference, processor / limit, 1.15)
    adaptive = few["seconds"] / count / forward
    yield Row(
        f"{name}: one candidate, as many samples as the order needs",
        f"{adaptive:.2f} F, {few['samples']:.0f} samples, Spearman {told['spearman']:.3f}",
        f"processor time {few['processor'] / count / told['forward_processor']:.2f} F",
        adaptive,
        "<= 0.2 F at 0.98",
        adaptive <= 0.2 and told["spearman"] >= 0.98,
    )
    guess, table = few["first_guess"] / forward, few["first_table"] / forward
    yield Row(
        f"{name}: first ranking, by the weights",
        f"{few['first_guess']:.2f} s",
        f"first measured table after {table:.0f} F",
        guess,
        "<= 8 F",
        guess <= 8,
    )
    yield Row(
        f"{name}: peak memory of the process",
        megabytes(told["peak_memory"]),
        f"activations kept {megabytes(told['peak_cache'])}",
        budget="<= 1 GB",
        held=told["peak_memory"] <= MOST_MEMORY,
    )
