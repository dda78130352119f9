"""Metadata of graphs that were prepared ahead of time for one version of ONNX Runtime ("ready" graphs).

The metadata is in the graph's own file, so the hash in the manifest covers it.
"""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from jukebox_deploy.engines.device import Provider
from jukebox_deploy.errors import EngineError

if TYPE_CHECKING:
    from onnx import ModelProto

_PREFIX = "jukebox_deploy.ready."

ACCURACY_OF_INTEGERS, ACCURACY_OF_FLOATS = 4, 1
"""ONNX Runtime's accuracy levels for integer weights: activations rounded to 8 bits, and activations in float32."""


@dataclass(frozen=True)
class Maker:
    """The ONNX Runtime whose operators and weight layouts a graph has.

    The exact type of CPU does not matter: weights are packed for it when the graph is opened.
    """

    version: str  # version of ONNX Runtime
    machine: str  # CPU architecture, such as "x86_64"

    def __str__(self) -> str:
        return f"ONNX Runtime {self.version} on {self.machine}"

    def to_json(self) -> dict[str, str]:
        """Return plain JSON data."""
        return asdict(self)


def this_maker(runtime: Any) -> Maker:
    """Return the maker that corresponds to this machine and `runtime`, the `onnxruntime` module."""
    return Maker(runtime.__version__, platform.machine())


def mark_ready(model: ModelProto, maker: Maker) -> None:
    """Write the maker to a graph's metadata."""
    for name, value in maker.to_json().items():
        model.metadata_props.add(key=_PREFIX + name, value=value)


def maker_of(model: ModelProto) -> Maker | None:
    """Return the maker of a prepared graph; `None` for a graph as it was exported."""
    found = {prop.key.removeprefix(_PREFIX): prop.value for prop in model.metadata_props if _PREFIX in prop.key}
    return Maker(found.get("version", "?"), found.get("machine", "?")) if found else None


def require_maker(name: str, made: Maker, runtime: Any, provider: str) -> None:
    """Raise `EngineError` if a graph was prepared by another ONNX Runtime, or if the provider is not the CPU."""
    remedy = "Build it again from the exported graphs, or run those: they run anywhere."
    if provider != Provider.CPU:
        raise EngineError(f"{name} was made ready for a CPU, and the provider is {provider}. {remedy}")
    if (found := this_maker(runtime)) != made:
        raise EngineError(f"{name} was made ready by {made}, and this is {found}. {remedy}")


def set_accuracy(model: ModelProto, level: int) -> None:
    """Set the accuracy level (`ACCURACY_OF_...`) of the fused products with integer weights."""
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "MatMulNBits" and attribute.name == "accuracy_level":
                attribute.i = level
