"""Sessions of whole networks that are only looked at: weights of large ones are fed, so that nothing copies them.

ONNX Runtime copies all initializers that it is handed while it loads a graph, and arranges many of them anew; what is
fed it reads in place. That costs some speed, which does not count where a network runs once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
import onnxruntime

from quantgui.errors import NetworkError
from quantgui.network.files import let_go
from quantgui.network.network import as_contiguous, injected_names
from quantgui.network.session import create_session, runtime_errors
from quantgui.results import Array

_COPIED_BYTES = 1 << 28
"""Weights of fewer bytes are handed over."""


@dataclass(frozen=True, eq=False)
class WholeSession:
    """A session of a whole network, and the weights that are fed to it."""

    session: onnxruntime.InferenceSession
    weights: Mapping[str, Array] = field(default_factory=dict)

    def run(
        self, outputs: Sequence[str] | None, feeds: Mapping[str, Array], options: onnxruntime.RunOptions | None = None
    ) -> list[Array]:
        """Return `outputs` (None for all) of the network on `feeds`.

        Raises:
            NetworkError: ONNX Runtime cannot run it on these inputs.
        """
        with runtime_errors("run"):
            results: list[Array] = self.session.run(outputs, {**feeds, **self.weights}, options)
        for values in self.weights.values():
            let_go(values)
        return results


def whole_session(model: onnx.ModelProto, constants: Mapping[str, Array], **options: Any) -> WholeSession:
    """Return a session of `model`, made with `options` of `create_session`.

    Raises:
        NetworkError: ONNX Runtime refuses the network.
    """
    names = injected_names(model)
    large = sum(constants[name].nbytes for name in names) > _COPIED_BYTES
    # Other types than numpy's own cannot be fed.
    fed = frozenset(name for name in names if large and constants[name].dtype.isbuiltin == 1)
    if not fed:
        return WholeSession(create_session(model, constants, **options))
    try:
        session = create_session(with_weights_as_inputs(model, fed), constants, **options)
    except NetworkError:
        return WholeSession(create_session(model, constants, **options))  # some operators need constants
    return WholeSession(session, {name: as_contiguous(constants[name]) for name in fed})


def with_weights_as_inputs(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """Return `model` with the initializers `names` as inputs."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.initializer[:]
    for tensor in model.graph.initializer:
        if tensor.name in names:
            changed.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            changed.graph.initializer.append(tensor)
    return changed
