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
    """Base class: the message is a sentence that can be shown to the user."""


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
