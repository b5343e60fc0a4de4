"""The sessions of an executor: built when a variant of a segment first runs, kept within a byte budget."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass

import onnxruntime

from quantgui.network.built_segments import build_segment
from quantgui.network.cache import ByteCache
from quantgui.network.files import let_go
from quantgui.network.lanes import Lanes
from quantgui.network.network import Network, as_contiguous, injected_names
from quantgui.network.segments import TensorType
from quantgui.network.session import create_session
from quantgui.network.simulation import Override
from quantgui.network.surgery import fed_values
from quantgui.network.variants import Variant
from quantgui.results import Array

_SESSION_BYTES = 2**20
_LEAST_BUDGET, _MOST_BUDGET = 256 * 2**20, 2**30
_CHAINS_KEPT = 3
"""Chains of sessions kept: float, simulated, and the one simulated before it."""


@dataclass(frozen=True, eq=False)
class Ready:
    """A session of a variant that returns `outputs`, which are called `names` in it.

    `quantized` maps network outputs to their quantized form, `fed` is `BuiltSegment.fed`.
    """

    session: onnxruntime.InferenceSession
    outputs: tuple[str, ...]
    names: tuple[str, ...]
    quantized: Mapping[str, str]
    fed: Mapping[tuple[str, int], tuple[str, ...]]


class VariantSessions:
    """Sessions by variant, what they return besides, and the threads they have."""

    def __init__(self, network: Network, lanes: Lanes, least_bytes: int) -> None:
        """Start with none; at least `least_bytes` are kept, where there is use for as much."""
        weights = sum(values.nbytes for values in network.constants.values())
        # A chain that does not fit is built anew for every batch, so large networks get as much as activations get.
        most = max(_MOST_BUDGET, least_bytes)
        self._kept: ByteCache[Ready] = ByteCache(max(_LEAST_BUDGET, min(2 * _CHAINS_KEPT * weights, most)))
        self._fetching: set[tuple[int, tuple[str, ...], int]] = set()
        self._network = network
        self._lanes = lanes
        self._outputs = {value.name for value in network.skeleton.graph.output}
        self._injected = frozenset(injected_names(network.skeleton))
        self.built = 0

    @property
    def budget(self) -> int:
        """Bytes that sessions may take."""
        return self._kept.budget

    def ready(self, variant: Variant, fetch: tuple[str, ...], types: Mapping[str, TensorType]) -> Ready:
        """Return the session of a variant that also returns `fetch`; `types` are those of what it reads.

        Raises:
            NetworkError: ONNX Runtime refuses the segment.
        """
        key = (variant.form, fetch, self._lanes.threads)
        ready = self._kept.get(key)
        if ready is None:
            ready = self.build(variant, fetch, types)
            self._kept.put(key, ready, self._bytes(variant))
            if fetch:
                self._fetching.add(key)
        return ready

    def build(self, variant: Variant, fetch: tuple[str, ...], types: Mapping[str, TensorType]) -> Ready:
        """Return a session that is not kept; see `ready`."""
        segment = variant.segment
        built_in = {name: override for name, override in variant.overrides.items() if not override.exchanged}
        values = {name: self._loaded(name, override) for name, override in built_in.items()}
        outputs = (*segment.outputs, *fetch)
        built = build_segment(
            self._network,
            segment,
            types,
            outputs=outputs,
            quantized_outputs=[name for name in segment.outputs if name in self._outputs],
            quantizers=variant.quantizers,
            inline={name: value for name, value in values.items() if name not in self._injected},
            fed=variant.overrides.keys() - built_in.keys(),
        )
        constants = ChainMap(values, dict(self._network.constants))
        self.built += 1
        session = create_session(built.model, constants, threads=self._lanes.threads, passed=values.keys())
        for name in segment.initializers & self._injected:
            # What has been arranged for the processor is not read again; what is, comes back by itself.
            let_go(self._network.constants[name])
        names = tuple(built.handed_out.get(name, name) for name in outputs)
        return Ready(session, outputs, names, built.quantized, built.fed)

    def drop_fetching(self) -> int:
        """Forget the sessions that return more than what later segments need; return the bytes that they took."""
        before = self._kept.used
        for key in self._fetching:
            self._kept.drop(key)
        self._fetching.clear()
        return before - self._kept.used

    def drop(self, form: int, fetch: tuple[str, ...] = ()) -> None:
        """Forget the sessions of a form that return `fetch` besides."""
        for threads in self._lanes.thread_counts:
            self._kept.drop((form, fetch, threads))

    def fed(self, variant: Variant, ready: Ready) -> dict[str, Array]:
        """Return the values of what is exchanged; weights are loaded once for a variant."""
        for name, override in variant.overrides.items():
            if override.exchanged and name not in variant.fed:
                variant.fed[name] = as_contiguous(self._loaded(name, override))
        quantizers = {
            name: value
            for (tensor, position), names in ready.fed.items()
            for name, value in zip(names, fed_values(variant.quantizers[tensor][position]), strict=True)
        }
        return variant.fed | quantizers

    def _bytes(self, variant: Variant) -> int:
        """Return the memory of a session: weights packed for the processor, and values that replace the network's."""
        sizes = {name: self._network.constants[name].nbytes for name in variant.segment.initializers}
        return _SESSION_BYTES + sum(sizes.values()) + sum(sizes[name] for name in variant.overrides)

    def _loaded(self, name: str, override: Override) -> Array:
        """Return the override's values in the dtype of the initializer they replace."""
        original = self._network.constants[name]
        values = override.load()
        if values.shape != original.shape:
            raise ValueError(f"override of {name} has shape {values.shape}, not {original.shape}")
        return values.astype(original.dtype, copy=False)
