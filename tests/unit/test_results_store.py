"""Results of a session are found under what a configuration means, however it is written, and at no cost twice."""

from __future__ import annotations

from quantgui.session.results_store import KEYS_KEPT, ResultStore
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import IntFormat
from quantgui.spec.quantizer import LayerSpec, QuantizerSpec

W4, W8 = (LayerSpec(QuantizerSpec(IntFormat(bits))) for bits in (4, 8))


def test_that_two_ways_of_writing_the_same_are_one() -> None:
    store = ResultStore(["a", "b"])
    spelled = QuantConfig().with_overrides({"a": W4, "b": W4})
    short = QuantConfig(W4, name="another name").with_overrides({"elsewhere": W8})
    assert store.key(spelled) == store.key(short)
    assert hash(store.key(spelled)) == hash(store.key(short))
    assert store.key(short) != store.key(QuantConfig(W4).with_overrides({"b": W8}))
    assert store.key(short) != store.key(QuantConfig(W8))


def test_that_old_keys_are_found_again_after_many_others() -> None:
    store = ResultStore(["a", "b"])
    first = QuantConfig(W4)
    store.put_advice(first, None)
    for number in range(2 * KEYS_KEPT):
        store.key(QuantConfig().with_overrides({"a": LayerSpec(QuantizerSpec(IntFormat(2 + number % 7)))}))
    assert store.has_advice(first)
    assert not store.has_advice(QuantConfig(W8))


def test_that_the_size_of_a_configuration_is_computed_once() -> None:
    store = ResultStore(["a", "b"])
    asked = []

    def size(config: QuantConfig) -> int:
        asked.append(config)
        return 10 if config.default == W4 else 20

    assert [store.size(config, size) for config in (QuantConfig(W4), QuantConfig(W8), QuantConfig(W4))] == [10, 20, 10]
    assert asked == [QuantConfig(W4), QuantConfig(W8)]
