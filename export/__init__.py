"""From models to ONNX graphs: the functions that become graphs, tracing, weights, validation."""
