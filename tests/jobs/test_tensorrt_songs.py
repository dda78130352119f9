"""Whole songs with engines of TensorRT, on a pretended GPU that computes with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import pytest

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.engines.bundle import EngineBundle, open_bundle
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.tensorrt.features import TensorRtOptions
from jukebox_deploy.engines.tensorrt.runtime import Platform
from jukebox_deploy.export.cutting import Cutting
from jukebox_deploy.jobs.export_job import ExportRequest, export_bundle
from jukebox_deploy.jobs.opening.bundle import tensorrt_engine
from jukebox_deploy.jobs.opening.onnx_graphs import onnx_engine
from jukebox_deploy.jobs.sample_job import EngineChoice, OpenedModel, open_model
from jukebox_deploy.jobs.tensorrt_check import TensorRtCheck
from jukebox_deploy.runtime.sampler import SamplingOptions, SongJob
from jukebox_deploy.runtime.song import LevelSettings, SongRequest
from tests.engines import fake_tensorrt
from tests.engines.host_device import HostDevice
from tests.gpu import suite
from tests.sampling_cases import all_codes, sample

REQUESTS = [
    SongRequest(seconds=0.76, seed=1, lyrics="Slow water, old stones"),
    SongRequest(seconds=0.76, seed=1, song=1, levels=(LevelSettings(0.8, top_k=20), LevelSettings(), LevelSettings())),
    SongRequest(seconds=0.8, seed=2),
]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> HostDevice:
    """The GPU that this machine pretends to have."""
    device = HostDevice()

    def open_platform(target: Target, options: TensorRtOptions) -> Platform:
        return fake_tensorrt.platform(target, device)

    monkeypatch.setattr("jukebox_deploy.engines.tensorrt.engine.open_platform", open_platform)
    return device


def codes_of(model: OpenedModel, out: Path, slots: int) -> list[list[list[int]]]:
    jobs = [SongJob(request, out / str(index)) for index, request in enumerate(REQUESTS)]
    sample(model, jobs, SamplingOptions(slots=slots))
    return [all_codes(job.folder) for job in jobs]


@pytest.mark.parametrize("target", [Target.TENSORRT, Target.TENSORRT_RTX])
def test_songs_are_those_of_onnx_runtime(
    tiny_engine_bundle: EngineBundle, tmp_path: Path, device: HostDevice, target: Target
) -> None:
    """Prefill of some slots, slots at different positions, windows one after the other: code for code."""
    bundle = fake_tensorrt.save_engines(tiny_engine_bundle, tmp_path / "engines", target, best_slots=(1, 2, 16))
    expected = codes_of(open_model(tiny_engine_bundle.folder), tmp_path / "onnx", slots=2)
    model = open_model(bundle.folder)
    with model.engine:
        assert codes_of(model, tmp_path / "replayed", slots=2) == expected
    assert device.used == 0
    assert device.launches > 1000
    assert model.fingerprint.engine.startswith(f"{target} {fake_tensorrt.VERSION} a pretended GPU fp32 ")


def test_engines_for_more_slots_than_the_export_was_tuned_for_are_opened(
    tiny_engine_bundle: EngineBundle, tmp_path: Path, device: HostDevice
) -> None:
    assert tiny_engine_bundle.graphs["step_0"].range("B").optimum < 8
    bundle = fake_tensorrt.save_engines(tiny_engine_bundle, tmp_path / "engines", best_slots=(8, 16))
    with open_model(bundle.folder).engine:
        pass
    assert device.used == 0


def test_songs_without_recorded_steps_are_the_same(
    tiny_engine_bundle: EngineBundle, tmp_path: Path, device: HostDevice
) -> None:
    bundle = fake_tensorrt.save_engines(tiny_engine_bundle, tmp_path / "engines")
    expected = codes_of(open_model(tiny_engine_bundle.folder), tmp_path / "onnx", slots=3)
    assert codes_of(open_model(bundle.folder, EngineChoice(cuda_graph=False)), tmp_path / "plain", slots=3) == expected
    assert device.launches == 0


def test_parts_run_back_to_back_as_one_step(
    tiny_checkpoint: CheckpointBundle, tiny_engine_bundle: EngineBundle, tmp_path: Path, device: HostDevice
) -> None:
    graphs = ("condition_0", "prefill_0", "step_0")
    request = ExportRequest(graphs=graphs, validate=False, tensorrt=TensorRtCheck.NEVER, cutting=Cutting(3))
    export_bundle(tiny_checkpoint, tmp_path / "onnx", request)
    bundle = fake_tensorrt.save_engines(open_bundle(tmp_path / "onnx"), tmp_path / "engines")
    assert [len(bundle.manifest.graphs[name].parts) for name in ("step_0", "prefill_0")] == [3, 3]
    suite.check_chosen_codes(onnx_engine(tiny_engine_bundle), tensorrt_engine(bundle), level=0)
    assert device.launches  # all parts of a step in one
