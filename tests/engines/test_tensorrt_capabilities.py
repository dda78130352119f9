"""Which GPUs a graph can be built for, and the sentence for the others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from jukebox_deploy.contract import GraphKind, LinearWeights, Precision
from jukebox_deploy.engines.device import NoDeviceError
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.tensorrt.capabilities import (
    Arithmetic,
    capabilities_of_engine,
    find_refusals,
    set_compute_capabilities,
)
from jukebox_deploy.errors import EngineError
from tests.engines.host_device import HostDevice

ALL = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")


@pytest.mark.parametrize(
    ("kind", "precision", "weights", "refused"),
    [
        (GraphKind.STEP, Precision.FP16, LinearWeights.AS_PRECISION, ["7.5"]),
        (GraphKind.STEP, Precision.FP32, LinearWeights.INT8, ["7.5"]),
        (GraphKind.STEP, Precision.BF16, LinearWeights.INT4, ["7.5"]),
        (GraphKind.STEP, Precision.FP16, LinearWeights.FP8, ["7.5", "8.0", "8.6"]),
        (GraphKind.PREFILL, Precision.FP16, LinearWeights.INT8, []),
        (GraphKind.PREFILL, Precision.FP16, LinearWeights.INT4, ["7.5"]),
        (GraphKind.PREFILL, Precision.BF16, LinearWeights.AS_PRECISION, ["7.5"]),
        (GraphKind.LYRICS, Precision.FP16, LinearWeights.AS_PRECISION, ["7.5"]),
        (GraphKind.CONDITION, Precision.BF16, LinearWeights.FP8, []),
        (GraphKind.VQVAE_DECODE, Precision.BF16, LinearWeights.FP8, []),
        (GraphKind.VQVAE_ENCODE, Precision.FP16, LinearWeights.AS_PRECISION, ["7.5"]),
    ],
)
def test_what_is_refused(kind: GraphKind, precision: Precision, weights: LinearWeights, refused: list[str]) -> None:
    found = find_refusals(kind, Arithmetic(precision, weights), ALL)
    assert [refusal.capability for refusal in found] == refused
    assert all(str(refusal).endswith("leave it out.") for refusal in found)


@pytest.mark.parametrize("capability", ["", "8", "sm86", "8.6 ", "8.6.1", "08.6", "\u0668.6"])
def test_odd_compute_capabilities(capability: str) -> None:
    with pytest.raises(EngineError, match=r"is no compute capability; write them like 8\.6"):
        find_refusals(GraphKind.STEP, Arithmetic(Precision.FP16), [capability])


def test_unknown_gpus_are_refused_with_the_known_ones() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    builder_config: Any = trt.Builder(trt.Logger(trt.Logger.ERROR)).create_builder_config()
    with pytest.raises(
        EngineError, match=r"cannot build for compute capability 9\.9; it knows 7\.5, 8\.0, .*Leave out the others"
    ):
        set_compute_capabilities(trt, builder_config, ["8.6", "9.9"], Target.TENSORRT_RTX)


def test_a_flavour_that_cannot_build_for_other_gpus() -> None:
    with pytest.raises(EngineError, match="tensorrt builds for the GPU of this machine only"):
        set_compute_capabilities(None, object(), ["8.6"], Target.TENSORRT)


class TestWhatAnEngineRunsOn:
    """A flavour that builds for the GPU of this machine says nothing of it; the others are asked by flag."""

    of_this_machine = SimpleNamespace()
    by_flag = SimpleNamespace(num_compute_capabilities=1)

    @pytest.fixture
    def device(self, monkeypatch: pytest.MonkeyPatch) -> HostDevice:
        device = HostDevice(compute_capability="9.0")
        monkeypatch.setattr("jukebox_deploy.engines.cuda_device.CudaDevice", lambda: device)
        return device

    def test_the_building_gpu_is_recorded(self, device: HostDevice) -> None:
        assert capabilities_of_engine(self.of_this_machine, ()) == ("9.0",)
        assert device.closed

    def test_what_was_asked_for_is_recorded(self, device: HostDevice) -> None:
        assert capabilities_of_engine(self.by_flag, ("8.6", "8.9")) == ("8.6", "8.9")
        assert capabilities_of_engine(self.by_flag, ()) == ()  # all newer ones

    def test_without_a_gpu_nothing_is_known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def absent() -> None:
            raise NoDeviceError("there is no NVIDIA driver on this machine")

        monkeypatch.setattr("jukebox_deploy.engines.cuda_device.CudaDevice", absent)
        assert capabilities_of_engine(self.of_this_machine, ()) == ()
