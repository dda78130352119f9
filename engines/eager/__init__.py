"""The reference backend: the models' own modules, run by PyTorch, which is imported on first use."""
