"""The neural network, read-only: reading, segments, execution, data, cost."""
