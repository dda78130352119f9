"""Export of models as ONNX graphs: the functions that become graphs, tracing, weights, and validation."""
