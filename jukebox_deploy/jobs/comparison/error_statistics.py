"""How the errors of a tensor are spread: Polygraphy's statistics, for the report of a verification."""

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
"""Not the largest and the mean of the relative errors: values that are all but zero make them meaningless."""


def error_statistics(expected: np.ndarray, found: np.ndarray) -> Statistics:
    """Absolute errors, and those relative to each expected value: the median, and what 99 of 100 do not exceed.

    Of integers and flags the share that is equal.
    """
    if expected.dtype == bool or np.issubdtype(expected.dtype, np.integer):
        return {"share of equal": float(np.mean(expected == found))}

    from polygraphy.comparator import IterationResult, SimpleCompareFunc
    from polygraphy.logger import G_LOGGER

    comparator = SimpleCompareFunc(check_error_stat="quantile", error_quantile=QUANTILE)
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL), np.errstate(all="ignore"):  # its verdict is not asked for
        (result,) = comparator(*(IterationResult({"": _wide(array)}) for array in (found, expected))).values()
    return {name: float(getattr(result, field)) for field, name in _NAMES.items()}


def _wide(array: np.ndarray) -> np.ndarray:
    """Half precision as float32: Polygraphy knows no bfloat16."""
    return array.astype(np.float32) if array.dtype.itemsize < 4 else array
