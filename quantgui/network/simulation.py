"""What the executor changes in the float network: weights replaced, activations quantized. Plain values."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from quantgui.results import Array
from quantgui.spec.formats import Format


@dataclass(frozen=True, eq=False)
class Override:
    """Other values for one initializer. Equal keys mean equal values; `load` is called only when they are needed.

    With `exchanged` the values are fed to the session instead of being built into it, so that other values of the same
    initializer need no other session. That is for weights of which many are tried: it saves building sessions, but
    ONNX Runtime cannot arrange the weight for the processor beforehand (see `segments.cheap_to_exchange`).
    """

    key: Hashable
    load: Callable[[], Array]
    exchanged: bool = False


@dataclass(frozen=True, slots=True)
class TensorQuantizer:
    """A per-tensor quantizer of an activation.

    `consumers` names the nodes that see the quantized tensor (nodes inside If and Loop bodies too). None means all
    that no other quantizer of the tensor names, and the network output of that name if it is one.
    `scale` and `zero_point` are not used by float formats. With `exchanged`, which only integer formats know, limits,
    scale and zero point are fed to the session: quantizers that differ in no more than those need no other session.
    """

    format: Format
    scale: float = 1.0
    zero_point: int = 0
    consumers: frozenset[str] | None = None
    exchanged: bool = False


@dataclass(frozen=True, eq=False)
class Simulation:
    """How the simulated network differs from the float one.

    Attributes:
        weights: overrides by name of the initializer (weights, and biases rounded as deployed).
        quantizers: quantizers by tensor name.
    """

    weights: Mapping[str, Override] = field(default_factory=lambda: MappingProxyType({}))
    quantizers: Mapping[str, tuple[TensorQuantizer, ...]] = field(default_factory=lambda: MappingProxyType({}))


FLOAT_SIMULATION = Simulation()
