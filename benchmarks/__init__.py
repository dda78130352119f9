"""Measurements of speed and memory; each result records the machine, the software and the command that made it."""
