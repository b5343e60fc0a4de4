"""Quantization-aware training: what is trained, by which loss, in which order, and what is kept of it."""
