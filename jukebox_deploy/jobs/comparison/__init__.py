"""Two engines on the same inputs: single graphs, windows of codes, and the layer where a difference starts."""
