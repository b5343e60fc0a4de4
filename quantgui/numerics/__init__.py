"""Quantization arithmetic on numpy arrays: pure functions, no graph.

Shape letters used in docstrings: C channels, K elements per channel, G quantization groups, N elements per
group, B histogram bins, S samples.
"""
