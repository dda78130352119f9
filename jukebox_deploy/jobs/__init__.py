"""Whole jobs made of the parts; the command line only words them. A module for each job, a folder for its parts.

Together with the command line and the benchmarks, the only code that sees every layer.
"""
