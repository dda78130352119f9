"""How quantities are written."""

from __future__ import annotations

import pytest

from jukebox_deploy.benchmarks import words
from jukebox_deploy.benchmarks.results import Workload, WorkloadKind
from jukebox_deploy.benchmarks.workload_groups import Axis
from tests.benchmarks.benchmark_documents import DECODE, step

X = "\N{MULTIPLICATION SIGN}"


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, "0"), (0.4, "0.400"), (1, "1.00"), (9.996, "10.0"), (12.34, "12.3"), (999.6, "1,000"), (12345.6, "12,346")],
)
def test_three_significant_digits(value, written):
    assert words.number(value) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [(None, "–"), (0.0, "0"), (2.5e-7, "0.250 µs"), (0.0025, "2.50 ms"), (90.0, "90.0 s")],  # noqa: RUF001
)
def test_seconds(value, written):
    assert words.seconds(value) == written


def test_bytes_and_shares():
    assert words.byte_size(3_080_000_000) == "3.08 GB"
    assert words.byte_size(512) == "0.512 kB"
    assert [words.percent(share) for share in (0.876, 0.0123, 1.2)] == ["88 %", "1.2 %", "120 %"]


def test_factors():
    assert words.span([17.0, 2.0, 3.0]) == f"2.00{X} to 17.0{X}"
    assert words.span([2.001, 2.002]) == f"2.00{X}"


def test_titles_leave_out_what_a_sweep_varies():
    work = step(slots=4)
    assert words.title_of(work) == "Step of small, level 0, 4 slots, position 512 of 1,024"
    assert words.title_of(work, Axis.SLOTS) == "Step of small, level 0, position 512 of 1,024"
    assert words.title_of(work, Axis.POSITION) == "Step of small, level 0, 4 slots"
    assert words.title_of(work, Axis.WIDTH) == "Step, level 0, 4 slots, position 512 of 1,024"
    songs = Workload(WorkloadKind.SONG, "small", 0, 4, units_per_round=10.0, songs=5)
    assert words.title_of(songs) == "Song of small, level 0, 4 slots, 5 songs, 2 s of audio"
    assert words.title_of(songs, Axis.SONGS) == "Song of small, level 0, 4 slots, 2 s of audio"
    assert words.title_of(DECODE.workload) == "VQ-VAE decode of small, level 0, 1 slot, 10 s of audio"


@pytest.mark.parametrize("kind", WorkloadKind)
def test_every_kind_has_its_words(kind):
    assert words.unit_of(kind)
    assert words.work_of(kind)
