"""How reports call what was measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jukebox_deploy.benchmarks.drawing import words
from jukebox_deploy.benchmarks.results import Latency, Workload, WorkloadKind
from jukebox_deploy.benchmarks.workload_groups import Axis
from jukebox_deploy.quantities import NOT_MEASURED
from tests.benchmarks.benchmark_documents import BASE, DECODE, step

X = "\N{MULTIPLICATION SIGN}"


def test_factors():
    assert words.factor_range([17.0, 2.0, 3.0]) == f"2.00{X} to 17.0{X}"
    assert words.factor_range([2.001, 2.002]) == f"2.00{X}"


def test_titles_leave_out_what_a_sweep_varies():
    work = step(slots=4)
    assert words.title_of(work) == "Step of small, level 0, 4 slots, position 512 of 1,024"
    assert words.title_of(work, Axis.SLOTS) == "Step of small, level 0, position 512 of 1,024"
    assert words.title_of(work, Axis.POSITION) == "Step of small, level 0, 4 slots"
    assert words.title_of(work, Axis.WIDTH) == "Step of small, level 0, 4 slots, position 512 of 1,024"
    deep = step("small-depth-12", depth=12)
    assert words.title_of(deep, Axis.DEPTH) == "Step of small, level 0, 1 slot, position 512 of 1,024"
    songs = Workload(WorkloadKind.SONG, "small", 0, 4, units_per_pass=10.0, songs=5)
    assert words.title_of(songs) == "Song of small, level 0, 4 slots, 5 songs, 2 s of audio"
    assert words.title_of(songs, Axis.SONGS) == "Song of small, level 0, 4 slots, 2 s of audio"
    assert words.title_of(DECODE.workload) == "VQ-VAE decode of small, level 0, 1 slot, 10 s of audio"


def test_the_tail_is_what_so_many_calls_tell():
    assert words.tail_of(Latency(0.001, 0.002, 0.003, 0.004, 500)) == "p99 3.00 ms"
    assert words.tail_of(Latency(0.001, 0.002, 0.003, 0.004, 64)) == "max 4.00 ms of 64"
    assert words.tail_of(Latency(0.001, 0.002, 0.003)) == NOT_MEASURED


def test_rounds_that_differ_much_get_a_warning():
    assert words.unsteady(BASE) is None
    engine, other, *_ = BASE.variants
    disturbed = replace(engine, units_per_second=(9.0, 8.0, 10.0, 11.0, 12.0))
    warning = words.unsteady(replace(BASE, variants=(disturbed, other)))
    assert warning is not None
    assert warning.startswith("rounds differ by more than 20 % of their median: onnxruntime fp32 by 40 %. ")


@pytest.mark.parametrize("kind", WorkloadKind)
def test_every_kind_has_its_words(kind):
    assert words.unit_of(kind)
    assert words.work_of(kind)
