"""The bandwidth of a GPU, and benchmarks on one."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from click.testing import CliRunner

from jukebox_deploy.benchmarks.gpu import copy_bandwidth
from jukebox_deploy.benchmarks.measurement import Instruments, measure
from jukebox_deploy.benchmarks.plan import BenchmarkPlan
from jukebox_deploy.benchmarks.results import Backend, WorkloadKind
from jukebox_deploy.benchmarks.variants import open_subjects
from jukebox_deploy.cli.main import cli
from jukebox_deploy.engines.device import Provider
from jukebox_deploy.engines.tensorrt.features import TensorRtOptions
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
    with pytest.raises(ConfigError, match=f"--{next(iter(odd))}: works only with --device cpu"):
        BenchmarkPlan(device=Provider.CUDA, **odd)


def test_engines_are_not_measured_against_a_cpu(tiny_engine_bundle, tmp_path):
    bundle = fake_tensorrt.save_engines(tiny_engine_bundle, tmp_path / "engines")
    with pytest.raises(ConfigError, match="holds tensorrt-rtx engines, which run on a GPU; add --device cuda"):
        open_subjects([bundle.folder], None)


@pytest.fixture
def device(monkeypatch):
    """Pretended, for all engines of TensorRT."""
    device = HostDevice()
    monkeypatch.setattr(
        "jukebox_deploy.engines.tensorrt.engine.open_platform",
        lambda target, options: fake_tensorrt.platform(target, device),
    )
    return device


def test_options_of_tensorrt_need_its_engines(tiny_engine_bundle, tiny_checkpoint):
    words = ("bench", "run", tiny_engine_bundle.folder, "--against", tiny_checkpoint.folder, "--host-code")
    result = CliRunner().invoke(cli, list(map(str, words)))
    assert result.exit_code != 0
    assert "options for TensorRT are given, but no bundle holds engines for it; drop the options" in result.output


def test_options_of_tensorrt_are_refused_before_a_preset_is_exported(tmp_path):
    words = ("bench", "run", "--preset", "tiny", "--workdir", tmp_path / "work", "--host-code")
    result = CliRunner().invoke(cli, list(map(str, words)))
    assert result.exit_code == 2
    assert "--preset makes ONNX graphs" in result.output
    assert not (tmp_path / "work").exists()


def test_engines_run_with_the_options_that_are_given(tiny_engine_bundle, tmp_path, device):
    """Kernels that were compiled while measuring are kept."""
    bundle = fake_tensorrt.save_engines(tiny_engine_bundle, tmp_path / "engines")
    options = TensorRtOptions(kernel_caches=tmp_path / "kernels")
    subjects = open_subjects([bundle.folder], None, Provider.CUDA, options)
    sizes: dict[str, Any] = {"level": 0, "slots": (2,), "steps": 4}
    plan = BenchmarkPlan((WorkloadKind.STEP,), **sizes, baselines=(), device=Provider.CUDA)
    list(measure(subjects, plan, instruments=Instruments(probe=lambda size: 1e9)))
    assert list((tmp_path / "kernels").iterdir())


def test_engines_are_measured_on_a_gpu(tiny_engine_bundle, tmp_path, device):
    bundle = fake_tensorrt.save_engines(tiny_engine_bundle, tmp_path / "engines")
    plan = BenchmarkPlan(level=0, slots=(2,), steps=4, baselines=(), device=Provider.CUDA)
    subjects = open_subjects([bundle.folder], None, Provider.CUDA)
    results = list(measure(subjects, plan, instruments=Instruments(probe=lambda size: 1e9)))
    for result in results:
        (variant,) = result.variants
        assert (variant.backend, variant.threads) == (Backend.TENSORRT_RTX, None)
    assert device.launches > 4 * plan.rounds
    assert device.used == 0  # nothing stays open
