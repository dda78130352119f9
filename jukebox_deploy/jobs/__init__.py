"""Whole jobs made of the parts: export, open, verify. The command line only words them.

Together with the command line and the benchmarks, the only code that sees every layer.
"""
