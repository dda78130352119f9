"""The TensorRT backend, for both flavours: building engines, what GPUs they are for, and running them."""
