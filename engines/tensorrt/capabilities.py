"""GPUs that engines can be built for. The limits of each compute capability were found by trying the builder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jukebox_deploy.contract import GraphKind, LinearWeights, Precision
from jukebox_deploy.engines.device import NoDeviceError
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.tensorrt.flavour import load_flavour
from jukebox_deploy.errors import EngineError
from jukebox_deploy.listing import words_of

_CAPABILITY = re.compile(r"([1-9]\d?)\.(\d)", re.ASCII)
_WITHOUT_FP32_PRODUCTS = (7, 5)  # up to this capability, the builder cannot multiply fp32 matrices
_STACKS = (GraphKind.LYRICS, GraphKind.PREFILL, GraphKind.STEP)  # the graphs that have the precision of their bundle
# These multiply fp32 matrices in every precision: for logits, in the lyric encoder, and for distances to codes.
_FP32_PRODUCTS = (GraphKind.STEP, GraphKind.LYRICS, GraphKind.VQVAE_ENCODE)


@dataclass(frozen=True)
class _Need:
    """The compute capability that a data type needs."""

    capability: tuple[int, int]
    advice: str  # for a GPU with a lower one


_PRECISIONS = {
    Precision.FP32: _Need((8, 0), "export with `--precision fp16`"),
    Precision.BF16: _Need((8, 0), "export with `--precision fp16`"),
    Precision.FP16: _Need((7, 5), "use ONNX Runtime there"),
}
_WEIGHTS = {
    LinearWeights.AS_PRECISION: _Need((0, 0), ""),
    LinearWeights.INT8: _Need((0, 0), ""),
    LinearWeights.INT4: _Need((8, 0), "store them as int8"),
    LinearWeights.FP8: _Need((8, 9), "store them as int8 or int4"),
}
_FOR_NAMELESS = "leave it out; TensorRT (--target tensorrt) builds on such a GPU itself."


@dataclass(frozen=True)
class Refusal:
    """A GPU that a graph cannot be built for."""

    capability: str
    reason: str  # a sentence

    def __str__(self) -> str:
        return f"compute capability {self.capability} {self.reason}"


@dataclass(frozen=True)
class Arithmetic:
    """The data types of a bundle's graphs."""

    precision: Precision
    weights: LinearWeights = LinearWeights.AS_PRECISION


def find_refusals(kind: GraphKind, arithmetic: Arithmetic, capabilities: Sequence[str]) -> tuple[Refusal, ...]:
    """Return those of the GPUs that a graph of a kind cannot be built for, each with one reason.

    Raises `EngineError` for text that is not a compute capability.
    """
    found = ((capability, _reason(kind, arithmetic, parse_capability(capability))) for capability in capabilities)
    return tuple(Refusal(capability, reason) for capability, reason in found if reason)


def find_nameless(target: Target, capabilities: Sequence[str]) -> tuple[Refusal, ...]:
    """Return those of the GPUs that TensorRT-RTX has no name for. The other flavour takes no names of GPUs at all."""
    known = known_capabilities(load_flavour(target)) if target is Target.TENSORRT_RTX else {}
    reason = f"has no name in {target}, which knows {words_of(known)}: {_FOR_NAMELESS}"
    return tuple(Refusal(capability, reason) for capability in capabilities if known and capability not in known)


def parse_capability(capability: str) -> tuple[int, int]:
    """Return major and minor number of a compute capability such as `8.6`. Raises `EngineError` for anything else."""
    match = _CAPABILITY.fullmatch(capability)
    if match is None:
        raise EngineError(f"{capability!r} is no compute capability; write them like 8.6.")
    return int(match[1]), int(match[2])


def _reason(kind: GraphKind, arithmetic: Arithmetic, capability: tuple[int, int]) -> str:
    precision, weights = arithmetic.precision, arithmetic.weights
    if kind in _STACKS and capability < _PRECISIONS[precision].capability:
        return f"cannot run {precision} engines: {_PRECISIONS[precision].advice}, or leave it out."
    if kind in _STACKS and capability < _WEIGHTS[weights].capability:
        return f"cannot run {weights} weights: {_WEIGHTS[weights].advice}, or leave it out."
    if kind in _FP32_PRODUCTS and capability <= _WITHOUT_FP32_PRODUCTS:
        return "cannot multiply fp32 matrices, as this graph does in every precision: leave it out."
    return ""


def set_compute_capabilities(trt: Any, builder_config: Any, capabilities: Sequence[str], target: Target) -> None:
    """Set the GPUs that an engine is for; if there are none, the flavour's default applies."""
    if not capabilities:
        return
    if not hasattr(builder_config, "num_compute_capabilities"):
        raise EngineError(f"{target} builds for the GPU of this machine only: leave out the compute capabilities.")
    known = known_capabilities(trt)
    if unknown := [c for c in capabilities if c not in known]:
        raise EngineError(
            f"{target} cannot build for compute capability {words_of(unknown)}; it knows {words_of(known)}. Leave "
            "out the others (--skip-refused does); TensorRT (--target tensorrt) builds on such a GPU itself."
        )
    builder_config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        builder_config.set_compute_capability(getattr(trt.ComputeCapability, known[capability]), index)


def known_capabilities(trt: Any) -> dict[str, str]:
    """Return the GPUs that a flavour has names for, in order: `12.0` -> `SM120`.

    Empty for a flavour that builds for the GPU of the machine.
    """
    members = dir(getattr(trt, "ComputeCapability", None))
    names = sorted((name for name in members if re.fullmatch(r"SM\d+", name)), key=_number_of)
    return {_capability_of(name): name for name in names}


_OLDEST_BY_DEFAULT = (8, 0)


def default_capabilities(target: Target) -> tuple[str, ...]:
    """Return the GPUs that a flavour chooses by default; empty for one that builds for the GPU of the machine."""
    known = known_capabilities(load_flavour(target)) if target is Target.TENSORRT_RTX else {}
    return tuple(capability for capability in known if parse_capability(capability) >= _OLDEST_BY_DEFAULT)


def capabilities_of_engine(builder_config: Any, asked: Sequence[str]) -> tuple[str, ...]:
    """Return the GPUs that an engine runs on: those asked for, or that of this machine if the flavour builds for it.

    Empty if that is unknown, or the default of TensorRT-RTX, which is all GPUs from 8.0 on.
    """
    if asked or hasattr(builder_config, "num_compute_capabilities"):
        return tuple(asked)
    from jukebox_deploy.engines.cuda_device import CudaDevice

    try:
        device = CudaDevice()
    except NoDeviceError:
        return ()
    try:
        return (device.properties.compute_capability,)
    finally:
        device.close()


def _number_of(name: str) -> int:
    """Convert `SM120` to 120."""
    return int(name[2:])


def _capability_of(name: str) -> str:
    """Convert `SM120` to `12.0`."""
    return f"{name[2:-1]}.{name[-1]}"
