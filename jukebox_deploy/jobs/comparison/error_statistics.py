"""Distribution of a tensor's errors, by Polygraphy's statistics, for the report of a verification."""

from __future__ import annotations

import numpy as np

from jukebox_deploy.export.validation import Statistics

QUANTILE = 0.99

_NAMES = {
    "max_absdiff": "largest absolute",
    "mean_absdiff": "mean absolute",
    "median_absdiff": "median absolute",
    "quantile_absdiff": f"{QUANTILE:.0%} absolute",
    "median_reldiff": "median relative",
    "quantile_reldiff": f"{QUANTILE:.0%} relative",
}
"""Without maximum and mean of relative errors, which values close to zero make meaningless."""


def error_statistics(expected: np.ndarray, found: np.ndarray) -> Statistics:
    """Return statistics of absolute and relative errors, among them the median and the 99th percentile.

    For integers and flags, return the share of equal elements.
    """
    if expected.dtype == bool or np.issubdtype(expected.dtype, np.integer):
        return {"share of equal": float(np.mean(expected == found))}

    from polygraphy.comparator import IterationResult, SimpleCompareFunc
    from polygraphy.logger import G_LOGGER

    comparator = SimpleCompareFunc(check_error_stat="quantile", error_quantile=QUANTILE)
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL), np.errstate(all="ignore"):  # its own verdict is not needed
        (result,) = comparator(*(IterationResult({"": _wide(array)}) for array in (found, expected))).values()
    return {name: float(getattr(result, field)) for field, name in _NAMES.items()}


def _wide(array: np.ndarray) -> np.ndarray:
    """Convert half precision to float32: Polygraphy does not support bfloat16."""
    return array.astype(np.float32) if array.dtype.itemsize < 4 else array
