"""The ONNX Runtime backend, on a CPU or a GPU: making graphs ready, sessions, and running them."""
