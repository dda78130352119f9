"""Sampling of songs with an open engine. Nothing here imports torch or a backend."""
