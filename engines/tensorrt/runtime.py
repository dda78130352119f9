"""Engines of a bundle in the memory of a GPU: what is checked before, and what TensorRT says if it refuses.

Everything here goes for both flavours. Where one has more than the other, the attribute decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jukebox_deploy.engines.bundle import EngineBundle
from jukebox_deploy.engines.device import Device, NoDeviceError, OutOfDeviceMemoryError
from jukebox_deploy.engines.manifest import GraphEntry, Target
from jukebox_deploy.engines.tensorrt.build import Feature
from jukebox_deploy.engines.tensorrt.capabilities import known_capabilities
from jukebox_deploy.engines.tensorrt.features import TensorRtOptions, has_feature, require_features
from jukebox_deploy.engines.tensorrt.flavour import BuildEvents, flavour_version, load_flavour, shared_logger
from jukebox_deploy.errors import EngineError

_ERRORS = ("INTERNAL_ERROR", "ERROR")
_MEMORY_WORDS = ("OutOfMemory", "out of memory", "cudaErrorMemoryAllocation", "INSUFFICIENT_GPU_MEMORY")
_AGAIN = "Build it again from the ONNX bundle: jukebox-deploy build ONNX_FOLDER --target {target} --out FOLDER"
_HINTS = {
    "VERSION_MISMATCH": "The engine is of another version. " + _AGAIN,
    "UNSUPPORTED_CC": "The engine was not built for the compute capability of this GPU. " + _AGAIN,
    "OLD_CUDA_DRIVER": "Update the NVIDIA driver.",
    "OLD_CUDA_RUNTIME": "Install a newer CUDA runtime.",
    "MALFORMED_ENGINE": "The file is no engine of this flavour. " + _AGAIN,
    "CUDA_ERROR": "CUDA does not work on this machine; look at `nvidia-smi`.",
}


@dataclass(frozen=True)
class Platform:
    """A flavour of TensorRT on a GPU, ready to take engines."""

    target: Target
    version: str  # of the flavour
    trt: Any  # its module
    logger: Any  # a `tensorrt_flavour.shared_logger`
    runtime: Any  # its `Runtime`; engines live no longer than it, nor than `parent`
    device: Device
    parent: Any = None  # the runtime that loaded a lean one, which lives no longer

    def failure(self, what: str, *severities: str) -> EngineError:
        """An error with what the library said since the last one, errors unless severities are named."""
        events, self.logger.events = self.logger.events, BuildEvents()
        said = "; ".join(events.texts(*(severities or _ERRORS))) or "it gave no reason"
        kind = OutOfDeviceMemoryError if any(word in said for word in _MEMORY_WORDS) else EngineError
        return kind(f"{what}: {said.rstrip('.')}.")

    def require(self, done: Any, what: str) -> None:
        """Raise `failure(what)` if a call of the library gave nothing or `False`."""
        if not done:
            raise self.failure(what)

    @contextmanager
    def in_words(self, what: str) -> Iterator[None]:
        """Raise `failure(what)` where the bindings raise themselves: of a null pointer, or a call that failed."""
        try:
            yield
        except (RuntimeError, TypeError) as error:
            raise self.failure(what) from error


def open_platform(target: Target, options: TensorRtOptions | None = None) -> Platform:
    """The installed flavour on the first visible GPU. `NoDeviceError` says what is missing, and what to do."""
    from jukebox_deploy.engines.cuda_device import CudaDevice

    try:
        trt = load_flavour(target)
    except EngineError as error:
        raise NoDeviceError(str(error)) from error
    device = CudaDevice()
    logger = shared_logger(target)
    logger.events = BuildEvents()
    options = options or TensorRtOptions()
    platform = Platform(target, flavour_version(target), trt, logger, None, device)
    with platform.in_words(f"{target} does not start on {device.properties.name}"):
        runtime = trt.Runtime(logger)
    if options.host_code:
        runtime.engine_host_code_allowed = True
    platform = replace(platform, runtime=runtime)
    return platform if options.lean_runtime is None else _with_lean_runtime(platform, options.lean_runtime)


def _with_lean_runtime(platform: Platform, library: Path) -> Platform:
    """The platform with the runtime of another version, from a library that somebody named."""
    runtime = platform.runtime
    lean = runtime.load_runtime(str(library))
    platform.require(lean is not None, f"{platform.target} cannot load the lean runtime {library}")
    return replace(platform, runtime=lean, parent=runtime)


def require_suitable(bundle: EngineBundle, platform: Platform, options: TensorRtOptions) -> None:
    """Raise `EngineError` unless a bundle was built for this flavour, version and GPU; it says what to run."""
    manifest, target = bundle.manifest, platform.target
    if manifest.target is not target:
        raise EngineError(f"{bundle.folder} holds files for {manifest.target}, not for {target}. {_again(target)}")
    require_features(bundle, options)
    built = manifest.tools.get(str(target))
    if built != platform.version and options.lean_runtime is None:
        raise EngineError(
            f"{bundle.folder} was built with {target} {built or 'of an unknown version'}, and {platform.version} is "
            f"installed, which does not run it. {_again(target)}"
            + (f" Or install the version that built it: pip install {target}=={built}" if built else "")
            + (_LEAN if target is Target.TENSORRT and _is_version_compatible(bundle) else "")
        )
    for name, entry in manifest.graphs.items():
        _require_capability(bundle, name, entry, platform)


# NVIDIA delivers lean runtimes with TensorRT only.
_LEAN = " Or name the lean runtime of that version with --lean-runtime."


def _is_version_compatible(bundle: EngineBundle) -> bool:
    return all(has_feature(entry, Feature.VERSION_COMPATIBLE) for entry in bundle.manifest.graphs.values())


def _again(target: Target) -> str:
    return _AGAIN.format(target=target)


def _require_capability(bundle: EngineBundle, name: str, entry: GraphEntry, platform: Platform) -> None:
    gpu = platform.device.properties
    if entry.compute_capabilities and gpu.compute_capability not in entry.compute_capabilities:
        compute = f" --compute {gpu.compute_capability}" if platform.target is Target.TENSORRT_RTX else ""
        raise EngineError(
            f"{bundle.folder}: {name} was built for compute capability {', '.join(entry.compute_capabilities)}, and "
            f"{gpu.name} has {gpu.compute_capability}. {_again(platform.target)}{compute}"
        )


def load_engine(bundle: EngineBundle, file: str, platform: Platform) -> Any:
    """An engine of a bundle as `ICudaEngine`, its weights on the device.

    Raises `EngineError` for a file that changed, or that the library refuses; `NoDeviceError` if this flavour has no
    engines for the GPU at all.
    """
    content = bundle.read_file(file)
    runtime = platform.runtime
    what = f"{bundle.folder}: {platform.target} does not take {file}"
    if hasattr(runtime, "get_engine_validity"):
        platform.logger.events = BuildEvents()
        _require_validity(platform, *runtime.get_engine_validity(content), what=what)
    engine = runtime.deserialize_cuda_engine(content)
    platform.require(engine is not None, what)
    return engine


def _require_validity(platform: Platform, validity: Any, diagnostics: int, *, what: str) -> None:
    """Raise an error that names the reasons for which an engine is invalid here."""
    if validity.name != "INVALID":
        return
    reasons = _reasons(platform.trt.EngineInvalidityDiagnostics.__members__, diagnostics)
    # It gives its reasons as information.
    said = str(platform.failure(f"{what} ({', '.join(reasons) or 'no diagnosis'})", *_ERRORS, "WARNING", "INFO"))
    known, gpu = known_capabilities(platform.trt), platform.device.properties
    if "UNSUPPORTED_CC" in reasons and known and gpu.compute_capability not in known:
        raise NoDeviceError(
            f"{said} {platform.target} {platform.version} knows no compute capability {gpu.compute_capability}, which "
            f"{gpu.name} has, but {', '.join(known)}: use another flavour, or ONNX Runtime."
        )
    hints = [_HINTS[reason].format(target=platform.target) for reason in reasons if reason in _HINTS]
    kind = OutOfDeviceMemoryError if "INSUFFICIENT_GPU_MEMORY" in reasons else EngineError
    raise kind(" ".join([said, *hints]))


def _reasons(members: Mapping[str, Any], diagnostics: int) -> list[str]:
    """The names of the bits that are set."""
    return [name for name, member in members.items() if diagnostics & int(member)]
