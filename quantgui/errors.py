"""All errors a user can cause; anything else is a bug and must crash loudly.

QuantGuiError
├── SpecError            a format, quantizer or configuration is impossible or names something unknown
├── NetworkError         a network file cannot be read, or cannot be run
├── DataError            a data file does not fit the network
├── MetricError          the user's metric function cannot be loaded or misbehaves
├── ExportError          the quantized network cannot be written
└── EngineError          the engine process died, or refused a request

The message of each is one sentence that says what is wrong and, where possible, what to do.
"""

from __future__ import annotations


class QuantGuiError(Exception):
    """Base class: the message is a sentence that can be shown to the user.

    Args:
        sentence: the message.
        option: what does on the command line what the sentence advises; the window has no use for it.
    """

    def __init__(self, sentence: str = "", *, option: str = "") -> None:
        super().__init__(sentence)
        self.option = option


class SpecError(QuantGuiError, ValueError):
    """A format, quantizer or configuration is impossible."""


class NetworkError(QuantGuiError):
    """A network file cannot be read, or cannot be run."""


class DataError(QuantGuiError):
    """A data file does not fit the network."""


class MetricError(QuantGuiError):
    """The user's metric function cannot be loaded or misbehaves."""


class ExportError(QuantGuiError):
    """The quantized network cannot be written."""


class EngineError(QuantGuiError):
    """The engine process died, or refused a request."""


class OutOfMemoryError(NetworkError):
    """There is not enough memory to load or run the network."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation has failed, in Python or in a native library, which says so in a RuntimeError."""
    # The words of the C++ standard library, ONNX Runtime, torch and Python (whose threads need a stack).
    phrases = ("bad_alloc", "Failed to allocate memory", "can't allocate memory", "can't start new thread")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in phrases)
    )
