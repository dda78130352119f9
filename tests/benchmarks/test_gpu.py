"""The bandwidth of a GPU, and benchmarks on one."""

from __future__ import annotations

from itertools import count

import pytest

from jukebox_deploy.benchmarks.gpu import copy_bandwidth
from jukebox_deploy.benchmarks.measurement import Instruments, measure
from jukebox_deploy.benchmarks.plan import BenchmarkPlan
from jukebox_deploy.benchmarks.results import Backend
from jukebox_deploy.benchmarks.variants import open_subjects
from jukebox_deploy.errors import ConfigError
from tests.engines import fake_tensorrt
from tests.engines.host_device import HostDevice


def test_a_copy_reads_and_writes(monkeypatch):
    monkeypatch.setattr("jukebox_deploy.benchmarks.gpu._COPIED_AT_LEAST", 4000)
    device, ticks = HostDevice(), count()
    assert copy_bandwidth(device, 1000, rounds=3, clock=lambda: float(next(ticks))) == 4000
    assert device.used == 0


@pytest.mark.parametrize("odd", [{"threads": 2}, {"mapped": True}, {"memory": True}])
def test_what_is_about_a_cpu_is_refused_on_a_gpu(odd):
    with pytest.raises(ConfigError, match=f"--{next(iter(odd))}: about a CPU"):
        BenchmarkPlan(device="cuda", **odd)


def test_engines_are_not_measured_against_a_cpu(tiny_engine_bundle, tmp_path):
    bundle = fake_tensorrt.save_engines(tiny_engine_bundle, tmp_path / "engines")
    with pytest.raises(ConfigError, match="holds tensorrt-rtx engines, which run on a GPU; add --device cuda"):
        open_subjects([bundle.folder], None)


def test_engines_are_measured_on_a_gpu(tiny_engine_bundle, tmp_path, monkeypatch):
    device = HostDevice()
    monkeypatch.setattr(
        "jukebox_deploy.engines.tensorrt.open_platform",
        lambda target, options: fake_tensorrt.platform(target, device),
    )
    bundle = fake_tensorrt.save_engines(tiny_engine_bundle, tmp_path / "engines")
    plan = BenchmarkPlan(level=0, slots=(2,), steps=4, baselines=(), device="cuda")
    subjects = open_subjects([bundle.folder], None, "cuda")
    results = list(measure(subjects, plan, instruments=Instruments(probe=lambda size: 1e9)))
    for result in results:
        (variant,) = result.variants
        assert (variant.backend, variant.threads) == (Backend.TENSORRT_RTX, None)
    assert device.launches > 4 * plan.rounds
    assert device.used == 0  # nothing stays open
