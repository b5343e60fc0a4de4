"""Several pieces of work at once: order, errors, breaking off, and the same results as one after the other."""

from __future__ import annotations

import threading
from contextlib import closing

import builders
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from quantgui.errors import NetworkError
from quantgui.network import segments
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.lanes import Lanes
from quantgui.network.session import create_session
from quantgui.network.simulation import FLOAT_SIMULATION, Override, Simulation


def results(lanes: Lanes, count: int, work: object, **how: bool) -> list[object]:
    return [result for _, result in filter(None, lanes.each(range(count), work, **how))]


def test_that_results_come_in_order_whichever_is_ready_first() -> None:
    second_is_done = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert second_is_done.wait(30)
        if item == 1:
            second_is_done.set()
        return item * item

    assert results(Lanes(2), 5, work) == [0, 1, 4, 9, 16]


def test_that_the_caller_hears_something_while_it_waits() -> None:
    heard = threading.Event()
    answers = Lanes(2).each(range(2), lambda item: heard.wait(30) and item)
    assert next(answers) is None
    heard.set()
    assert list(filter(None, answers)) == [(0, 0), (1, 1)]


def test_that_dependent_work_is_done_one_by_one() -> None:
    seen: list[int] = []
    assert results(Lanes(4), 6, lambda item: seen.append(item) or list(seen), together=False)[-1] == list(range(6))


@pytest.mark.parametrize(("threads", "lanes", "each"), [(1, 1, 1), (2, 2, 1), (4, 4, 1), (16, 4, 4)])
def test_that_all_lanes_share_the_threads(threads: int, lanes: int, each: int) -> None:
    shared = Lanes(threads)
    assert shared.count == lanes
    assert set(results(shared, 3, lambda _: shared.threads)) == {each}
    assert shared.threads == threads
    assert set(results(shared, 1, lambda _: shared.threads)) == {threads}
    assert set(results(shared, 1, lambda _: shared.threads, shared=True)) == {each}
    assert set(results(shared, 3, lambda _: shared.threads, together=False)) == {threads}
    assert shared.thread_counts == {threads, each}


def test_that_an_error_comes_when_its_turn_has_come() -> None:
    def work(item: int) -> float:
        return 1 / (item - 1)

    answers = filter(None, Lanes(2).each(range(3), work))
    assert next(answers) == (0, -1)
    with pytest.raises(ZeroDivisionError):
        next(answers)


def test_that_no_more_is_taken_than_the_lanes_need() -> None:
    taken: list[int] = []
    items = (taken.append(item) or item for item in range(100))
    with closing(Lanes(2).each(items, lambda item: item)) as answers:
        next(filter(None, answers))
    assert len(taken) < 10


def endless_model(times: int = 10**9) -> onnx.ModelProto:
    """Return a network whose Loop would take hours, unless it has less to do."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["still"]), helper.make_node("MatMul", ["a", "a"], ["b"])],
        "body",
        [value("i", TensorProto.INT64, []), value("on", TensorProto.BOOL, []), value("a", TensorProto.FLOAT, [64, 64])],
        [value("still", TensorProto.BOOL, []), value("b", TensorProto.FLOAT, [64, 64])],
    )
    many = helper.make_tensor("many", TensorProto.INT64, [], [times])
    graph = helper.make_graph(
        [helper.make_node("Loop", ["many", "", "x"], ["y"], body=body)],
        "endless",
        [value("x", TensorProto.FLOAT, [64, 64])],
        [value("y", TensorProto.FLOAT, [64, 64])],
        [many],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_that_a_run_under_way_is_broken_off_when_the_caller_stops() -> None:
    session = create_session(endless_model(), {}, threads=1)
    lanes = Lanes(2)
    errors: list[str] = []

    def work(item: int) -> None:
        try:
            lanes.run(session, ["y"], {"x": np.full((64, 64), item, np.float32)})
        except NetworkError as error:
            errors.append(str(error))
            raise

    with closing(lanes.each(range(4), work)) as answers:
        assert next(answers) is None
    assert len(errors) == 2


def test_that_stopping_one_caller_leaves_the_work_of_another_alone() -> None:
    endless, quick = (
        create_session(endless_model(), {}, threads=1),
        create_session(endless_model(30_000), {}, threads=1),
    )
    lanes = Lanes(2)
    feeds = {"x": np.zeros((64, 64), np.float32)}
    going_on = lanes.each(range(3), lambda item: (item, lanes.run(quick, ["y"], feeds)[0].shape))
    assert next(filter(None, going_on))[0] == 0
    with closing(lanes.each(range(2), lambda _: lanes.run(endless, ["y"], feeds))) as stopped:
        assert next(stopped) is None
    assert [result for _, result in filter(None, going_on)] == [(1, (64, 64)), (2, (64, 64))]


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_that_candidates_run_at_once_give_what_they_give_alone(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SECONDS_PER_SEGMENT", 1e-9)
    monkeypatch.setattr(segments, "WEIGHTED_NODES_PER_SEGMENT", 1)
    network = builders.network_of(builders.residual_model(6))
    dataset = open_dataset("random:12", network.summary.inputs, network.summary, network=network)
    batches = list(dataset.batches(2))
    weights = [name for name, array in network.constants.items() if array.ndim == 4]
    executor, one_by_one = Executor(network, threads=threads), Executor(network, threads=1)
    for position, name in enumerate(weights):
        trials = [
            (
                Simulation({name: Override((name, f), lambda n=name, f=f: network.constants[n] * f, exchanged=True)}),
                batch,
            )
            for f in (0.5, 2.0, 3.0)
            for batch in batches
        ]
        cut = frozenset({name}) if position % 2 else frozenset()
        together = executor.each(trials, lambda t, cut=cut: executor.run(t[1], t[0], keep=FLOAT_SIMULATION, cut=cut))
        for (simulation, batch), outputs in filter(None, together):
            alone = one_by_one.run(batch, simulation, keep=FLOAT_SIMULATION, cut=cut)
            for output, values in alone.items():
                np.testing.assert_array_equal(outputs[output], values)
        executor.close_cuts()
        one_by_one.close_cuts()
