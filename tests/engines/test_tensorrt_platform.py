"""A flavour on a GPU is opened as the user asked: host code stays forbidden, and what fails has the library's words."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jukebox_deploy.engines.device import NoDeviceError
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.tensorrt import flavour
from jukebox_deploy.engines.tensorrt import runtime as tensorrt_runtime
from jukebox_deploy.engines.tensorrt.features import TensorRtOptions
from jukebox_deploy.engines.tensorrt.runtime import open_platform
from jukebox_deploy.errors import EngineError
from tests.engines.host_device import HostDevice

MODULES = {Target.TENSORRT: "tensorrt", Target.TENSORRT_RTX: "tensorrt_rtx"}


class Logger:
    """What the flavours call `ILogger`."""


class Runtime:
    """As the flavours have it: host code in engines is forbidden until somebody allows it."""

    def __init__(self, logger: Any) -> None:
        self.logger = logger
        self.engine_host_code_allowed = False

    def load_runtime(self, path: str) -> Runtime | None:
        if not Path(path).exists():
            self.logger.log(SimpleNamespace(name="ERROR"), "no such library")
            return None
        return Runtime(self.logger)


class BrokenRuntime(Runtime):
    """What the bindings do with a null pointer."""

    def __init__(self, logger: Any) -> None:
        logger.log(SimpleNamespace(name="ERROR"), "CUDA initialization failure")
        raise TypeError("pybind11::init(): factory function returned nullptr")


Install = Callable[..., Any]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a flavour with this runtime on a machine with a GPU."""

    def installed(target: Target, runtime: type[Runtime] = Runtime) -> Any:
        module = SimpleNamespace(__version__="1.2.3", ILogger=Logger, Runtime=runtime)
        monkeypatch.setitem(sys.modules, MODULES[target], module)
        monkeypatch.setattr("jukebox_deploy.engines.cuda_device.CudaDevice", HostDevice)
        # The shared one would outlive the test.
        monkeypatch.setattr(tensorrt_runtime, "shared_logger", flavour.shared_logger.__wrapped__)
        return module

    return installed


@pytest.mark.parametrize("target", MODULES)
@pytest.mark.parametrize(
    ("options", "allowed"),
    [(None, False), (TensorRtOptions(), False), (TensorRtOptions(host_code=True), True)],
    ids=["no options", "default", "--host-code"],
)
def test_host_code_is_forbidden_unless_the_user_allows_it(
    install: Install, target: Target, options: TensorRtOptions | None, allowed: bool
) -> None:
    module = install(target)
    platform = open_platform(target, options)
    assert platform.runtime.engine_host_code_allowed is allowed
    assert (platform.target, platform.version, platform.trt, platform.parent) == (target, "1.2.3", module, None)
    assert isinstance(platform.device, HostDevice)
    assert platform.runtime.logger is platform.logger


@pytest.mark.parametrize("allowed", [False, True])
def test_a_lean_runtime_is_loaded_by_a_runtime_with_the_same_permission(
    install: Install, tmp_path: Path, allowed: bool
) -> None:
    install(Target.TENSORRT)
    library = tmp_path / "libnvinfer_lean.so"
    library.touch()
    platform = open_platform(Target.TENSORRT, TensorRtOptions(host_code=allowed, lean_runtime=library))
    assert platform.parent.engine_host_code_allowed is allowed
    assert platform.runtime is not platform.parent


def test_a_library_that_is_no_lean_runtime_is_named(install: Install, tmp_path: Path) -> None:
    install(Target.TENSORRT)
    options = TensorRtOptions(lean_runtime=tmp_path / "nothing.so")
    with pytest.raises(EngineError, match=r"cannot load the lean runtime .*nothing\.so: no such library"):
        open_platform(Target.TENSORRT, options)


@pytest.mark.parametrize("target", MODULES)
def test_a_runtime_that_does_not_start_says_why(install: Install, target: Target) -> None:
    install(target, BrokenRuntime)
    with pytest.raises(EngineError, match=f"{target} does not start on a pretended GPU: CUDA initialization failure"):
        open_platform(target)


def test_a_flavour_that_is_not_installed_is_like_a_missing_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(NoDeviceError, match=r"tensorrt is not installed .* pip install"):
        open_platform(Target.TENSORRT)
