"""The bench on which engineers decide how a neural network is quantized.

``quantgui.explore(module, example_inputs)`` opens the window on a live PyTorch module and returns the configuration
that was chosen (`quantgui.notebook`). It is looked up by name when it is asked for: everything asks this package for
its version, the window and the engine too, and none of them may depend on what `explore` imports.
"""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "explore":
        import importlib

        return importlib.import_module("quantgui.notebook").explore
    raise AttributeError(f"module 'quantgui' has no attribute '{name}'")
