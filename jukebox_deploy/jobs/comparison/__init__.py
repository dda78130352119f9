"""Comparison of two engines on the same inputs: graphs, windows, and the layer where a difference starts."""
