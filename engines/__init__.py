"""Backends behind one contract, the builders of their engines, and the engine bundle on disk.

Nothing here imports a backend, PyTorch, a model or an exporter before it is used.
"""
