"""The ONNX Runtime backend, on a CPU or a GPU: preparing graphs ahead of time, opening sessions, and running them."""
