"""The number of parts that keeps each below a size."""

from __future__ import annotations

import pytest

from jukebox_deploy.contract import LinearWeights, Precision
from jukebox_deploy.errors import ExportError
from jukebox_deploy.export.cutting import Cutting
from jukebox_deploy.presets import preset

PRIOR = preset("5b_lyrics").prior(2)


def parts(gigabytes: float, weights: LinearWeights = LinearWeights.AS_PRECISION) -> int:
    return Cutting(largest_bytes=round(gigabytes * 1e9)).parts_of(PRIOR, Precision.FP16, weights)


def test_smaller_parts_are_more() -> None:
    assert parts(20) == 1
    assert [parts(gigabytes) for gigabytes in (6, 3, 1.5)] == sorted(parts(gigabytes) for gigabytes in (6, 3, 1.5))
    assert parts(3) >= 10e9 / 3e9
    assert parts(3, LinearWeights.INT8) < parts(3)


def test_a_number_is_for_every_prior() -> None:
    assert Cutting(3).parts_of(PRIOR, Precision.FP32, LinearWeights.AS_PRECISION) == 3


def test_a_layer_is_not_cut() -> None:
    with pytest.raises(ExportError, match=r"prior 2: a layer .* at most 0\.1 GB\. Give --parts a larger size"):
        parts(0.1)
