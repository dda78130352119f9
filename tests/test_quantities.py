"""How quantities are written."""

from __future__ import annotations

import pytest

from jukebox_deploy import quantities


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, "0"), (0.4, "0.400"), (1, "1.00"), (9.996, "10.0"), (12.34, "12.3"), (999.6, "1,000"), (12345.6, "12,346")],
)
def test_three_significant_digits(value, written):
    assert quantities.number(value) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [(None, "–"), (0.0, "0"), (2.5e-7, "0.250 µs"), (0.0025, "2.50 ms"), (90.0, "90.0 s")],  # noqa: RUF001
)
def test_seconds(value, written):
    assert quantities.seconds(value) == written


def test_bytes_and_shares():
    assert quantities.byte_size(3_080_000_000) == "3.08 GB"
    assert quantities.byte_size(512) == "0.512 kB"
    assert [quantities.percent(share) for share in (0.876, 0.0123, 1.2)] == ["88 %", "1.2 %", "120 %"]
