"""The TensorRT backend, for both flavours: building engines for chosen GPUs, and running them."""
