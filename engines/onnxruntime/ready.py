"""Graphs that ONNX Runtime has made ready ahead of time: who did it, and what that means for opening them.

What a graph is made ready for stands in its own file, which the manifest's hash covers.
"""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from jukebox_deploy.errors import EngineError

if TYPE_CHECKING:
    from onnx import ModelProto

_PREFIX = "jukebox_deploy.ready."

ACCURACY_OF_INTEGERS, ACCURACY_OF_FLOATS = 4, 1
"""What ONNX Runtime calls products of integer weights with activations rounded to 8 bits, and with float32."""


@dataclass(frozen=True)
class Maker:
    """Whose operators and layouts a graph has. Weights are packed for the processor when they are opened, not here."""

    version: str  # of ONNX Runtime
    machine: str  # the architecture, as "x86_64"

    def __str__(self) -> str:
        return f"ONNX Runtime {self.version} on {self.machine}"

    def to_json(self) -> dict[str, str]:
        """Plain data."""
        return asdict(self)


def this_maker(runtime: Any) -> Maker:
    """`runtime`: the `onnxruntime` module."""
    return Maker(runtime.__version__, platform.machine())


def mark_ready(model: ModelProto, maker: Maker) -> None:
    """Write into a graph who made it ready."""
    for name, value in maker.to_json().items():
        model.metadata_props.add(key=_PREFIX + name, value=value)


def maker_of(model: ModelProto) -> Maker | None:
    """Who made a graph ready; `None` for a graph as it was exported."""
    found = {prop.key.removeprefix(_PREFIX): prop.value for prop in model.metadata_props if _PREFIX in prop.key}
    return Maker(found.get("version", "?"), found.get("machine", "?")) if found else None


def require_maker(name: str, made: Maker, runtime: Any, provider: str) -> None:
    """Raise `EngineError` for a graph that another ONNX Runtime made ready, or for a provider that is no CPU."""
    remedy = "Build it again from the exported graphs, or run those: they run anywhere."
    if provider != "cpu":
        raise EngineError(f"{name} was made ready for a CPU, and the provider is {provider}. {remedy}")
    if (found := this_maker(runtime)) != made:
        raise EngineError(f"{name} was made ready by {made}, and this is {found}. {remedy}")


def set_accuracy(model: ModelProto, level: int) -> None:
    """Say how the fused products with integer weights round what they multiply with (`ACCURACY_OF_...`)."""
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "MatMulNBits" and attribute.name == "accuracy_level":
                attribute.i = level
