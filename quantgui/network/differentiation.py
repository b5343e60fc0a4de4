"""The door to torch: it is an optional dependency and takes seconds to import, so nothing else imports it by itself."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING

from quantgui.errors import NetworkError
from quantgui.network.network import Network

if TYPE_CHECKING:
    from quantgui.network.differentiable import DifferentiableNetwork


def torch_is_loaded() -> bool:
    """Return whether torch has been imported, so that it costs no more time."""
    return "torch" in sys.modules


def require_torch() -> None:
    """Make torch ready to be imported.

    Raises:
        NetworkError: PyTorch is not installed.
    """
    if importlib.util.find_spec("torch") is None:
        raise NetworkError("PyTorch is not installed; install the package torch to compute gradients.")
    # Threads of torch must not spin while they wait, as those of ONNX Runtime must not: on cores that do something
    # else too, a network takes 4 to 8 times as long if they do. It counts when torch is imported for the first time.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def differentiable(network: Network) -> DifferentiableNetwork:
    """Return the network in torch.

    Raises:
        NetworkError: PyTorch is not installed, or the network has an operator that is not covered.
    """
    require_torch()
    from quantgui.network.differentiable import DifferentiableNetwork

    return DifferentiableNetwork(network)
