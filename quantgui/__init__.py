"""The bench on which engineers decide how a neural network is quantized."""

__version__ = "0.1.0"
