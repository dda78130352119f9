"""Loading of a bundle's engines onto a GPU: checks beforehand, and errors with TensorRT's own messages.

Everything here applies to both flavours. Where they differ, the code looks for the attribute.
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
from jukebox_deploy.listing import words_of

_ERRORS = ("INTERNAL_ERROR", "ERROR")
_MEMORY_WORDS = ("OutOfMemory", "out of memory", "cudaErrorMemoryAllocation", "INSUFFICIENT_GPU_MEMORY")
_AGAIN = "Build it again from the ONNX bundle: jukebox-deploy build ONNX_FOLDER --target {target} --out FOLDER"
_HINTS = {
    "VERSION_MISMATCH": "The engine is of another version. " + _AGAIN,
    "UNSUPPORTED_CC": "The engine was not built for the compute capability of this GPU. " + _AGAIN,
    "OLD_CUDA_DRIVER": "Update the NVIDIA driver.",
    "OLD_CUDA_RUNTIME": "Install a newer CUDA runtime.",
    "MALFORMED_ENGINE": "The file is not an engine of this flavour. " + _AGAIN,
    "CUDA_ERROR": "CUDA does not work on this machine; look at `nvidia-smi`.",
}


@dataclass(frozen=True)
class Platform:
    """A flavour of TensorRT on a GPU, into which engines can be loaded."""

    target: Target
    version: str  # version of the flavour
    trt: Any  # its Python module
    logger: Any  # a `flavour.shared_logger`
    runtime: Any  # its `Runtime`, which must outlive the engines, as must `parent`
    device: Device
    parent: Any = None  # the runtime that loaded a lean `runtime`, which it must outlive

    def failure(self, what: str, *severities: str) -> EngineError:
        """Make an error with the library's messages since the last call; by default those that are errors."""
        events, self.logger.events = self.logger.events, BuildEvents()
        said = "; ".join(events.texts(*(severities or _ERRORS))) or "it gave no reason"
        kind = OutOfDeviceMemoryError if any(word in said for word in _MEMORY_WORDS) else EngineError
        return kind(f"{what}: {said.rstrip('.')}.")

    def require(self, done: Any, what: str) -> None:
        """Raise `failure(what)` if `done`, the result of a call of the library, is `None` or false."""
        if not done:
            raise self.failure(what)

    @contextmanager
    def explaining_errors(self, what: str) -> Iterator[None]:
        """Turn exceptions of the Python bindings (for a null pointer, or a failed call) into `failure(what)`."""
        try:
            yield
        except (RuntimeError, TypeError) as error:
            raise self.failure(what) from error


def open_platform(target: Target, options: TensorRtOptions | None = None) -> Platform:
    """Open the installed flavour on the first visible GPU.

    Raises `NoDeviceError`, which says what is missing and what to do.
    """
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
    with platform.explaining_errors(f"{target} does not start on {device.properties.name}"):
        runtime = trt.Runtime(logger)
    if options.host_code:
        runtime.engine_host_code_allowed = True
    platform = replace(platform, runtime=runtime)
    return platform if options.lean_runtime is None else _with_lean_runtime(platform, options.lean_runtime)


def _with_lean_runtime(platform: Platform, library: Path) -> Platform:
    """Return the platform with a lean runtime of another version, loaded from a library that the user named."""
    runtime = platform.runtime
    lean = runtime.load_runtime(str(library))
    platform.require(lean is not None, f"{platform.target} cannot load the lean runtime {library}")
    return replace(platform, runtime=lean, parent=runtime)


def require_suitable(bundle: EngineBundle, platform: Platform, options: TensorRtOptions) -> None:
    """Raise `EngineError`, with the command to run, unless a bundle was built for this flavour, version and GPU."""
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


# Only TensorRT comes with lean runtimes.
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
            f"{bundle.folder}: {name} was built for compute capability {words_of(entry.compute_capabilities)}, and "
            f"{gpu.name} has {gpu.compute_capability}. {_again(platform.target)}{compute}"
        )


def load_engine(bundle: EngineBundle, file: str, platform: Platform) -> Any:
    """Load an engine of a bundle, with its weights, onto the device, and return the `ICudaEngine`.

    Raises `EngineError` for a file that has changed, or that the library rejects; `NoDeviceError` if this flavour does
    not support the GPU at all.
    """
    content = bundle.read_file(file)
    runtime = platform.runtime
    what = f"{bundle.folder}: {platform.target} does not accept {file}"
    if hasattr(runtime, "get_engine_validity"):
        platform.logger.events = BuildEvents()
        _require_validity(platform, *runtime.get_engine_validity(content), what=what)
    engine = runtime.deserialize_cuda_engine(content)
    platform.require(engine is not None, what)
    return engine


def _require_validity(platform: Platform, validity: Any, diagnostics: int, *, what: str) -> None:
    """Raise an error with the reasons if an engine is invalid on this platform."""
    if validity.name != "INVALID":
        return
    reasons = _reasons(platform.trt.EngineInvalidityDiagnostics.__members__, diagnostics)
    # The library logs its reasons with the severity INFO.
    said = str(platform.failure(f"{what} ({words_of(reasons) or 'no diagnosis'})", *_ERRORS, "WARNING", "INFO"))
    known, gpu = known_capabilities(platform.trt), platform.device.properties
    if "UNSUPPORTED_CC" in reasons and known and gpu.compute_capability not in known:
        raise NoDeviceError(
            f"{said} {platform.target} {platform.version} does not support compute capability "
            f"{gpu.compute_capability} of {gpu.name}, only {words_of(known)}: use another flavour, or ONNX Runtime."
        )
    hints = [_HINTS[reason].format(target=platform.target) for reason in reasons if reason in _HINTS]
    kind = OutOfDeviceMemoryError if "INSUFFICIENT_GPU_MEMORY" in reasons else EngineError
    raise kind(" ".join([said, *hints]))


def _reasons(members: Mapping[str, Any], diagnostics: int) -> list[str]:
    """Return the names of the bits that are set."""
    return [name for name, member in members.items() if diagnostics & int(member)]
