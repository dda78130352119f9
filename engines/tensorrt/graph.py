"""One graph on TensorRT: its engines with their execution contexts, sizes, addresses and working memory.

A graph is one engine, or several of whole layers that run back to back (`graphs.cut_graph`). What one
part gives to the next has no place in the whole graph's table, so it is allocated here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jukebox_deploy.contract import GraphSpec, TensorSpec
from jukebox_deploy.engines.device import Device, DeviceArena
from jukebox_deploy.engines.manifest import tensors_between
from jukebox_deploy.engines.tensorrt.kernels import KernelCache
from jukebox_deploy.engines.tensorrt.runtime import Platform
from jukebox_deploy.errors import EngineError

DTYPE_OF = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT64": "int64",
    "INT32": "int32",
    "BOOL": "bool",
}
"""The dtype of a table by the name of TensorRT's."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Addresses:
    """Where the tensors of a graph lie, by their names in its table; a state is read in one place, written in one."""

    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


class EnginePart:
    """One engine, the table that it fits, and the context that runs it."""

    def __init__(self, spec: GraphSpec, engine: Any, platform: Platform, kernels: KernelCache | None = None) -> None:
        """`kernels`: where to keep what is compiled. Raises `EngineError` for an engine that does not fit the table."""
        self.spec = spec
        self.engine = engine
        self._platform = platform
        require_table(spec, engine)
        self._kernels = kernels
        self._context = _create_context(engine, platform, spec.name, kernels)
        self._profile = 0
        self._shapes: dict[str, Shape] = {}

    @property
    def memory_bytes(self) -> int:
        """Working memory at the largest shapes of any profile."""
        engine = self.engine
        return int(engine.device_memory_size_v2)

    def set_memory(self, address: int, size: int) -> None:
        """Where to work; other contexts may work there in turn."""
        context = self._context
        context.set_device_memory(address, size)

    def set_sizes(self, sizes: Mapping[str, int]) -> None:
        """Choose the profile that suits the sizes of the symbols, and set the shapes of all inputs."""
        shapes = {tensor.input_name: tensor.shape(sizes) for tensor in self.spec.inputs}
        if shapes == self._shapes:
            return
        self._shapes = {}
        context = self._context
        self._choose_profile(shapes)
        for name, shape in shapes.items():
            self._require(context.set_input_shape(name, shape), f"refuses the shape {shape} of {name}")
        with self._platform.in_words(f"{self.spec.name}: {self._platform.target} cannot work out shapes"):
            missing = context.infer_shapes()
        if missing:
            raise self._platform.failure(f"{self.spec.name}: the shapes of {missing} are not known")
        self._shapes = shapes

    def _choose_profile(self, shapes: Mapping[str, Shape]) -> None:
        context, device = self._context, self._platform.device
        index = best_profile(self.engine, shapes, self.spec.name)
        if index != self._profile:
            device.synchronize()  # no run of this context may be under way
            with self._platform.in_words(f"{self.spec.name}: {self._platform.target} cannot switch to profile {index}"):
                context.set_optimization_profile_async(index, device.stream)
            self._profile = index

    def bind(self, addresses: Addresses) -> None:
        """Tell where all tensors lie."""
        context = self._context
        named = {tensor.input_name: addresses.inputs[tensor.name] for tensor in self.spec.inputs}
        named |= {tensor.output_name: addresses.outputs[tensor.name] for tensor in self.spec.outputs}
        for name, address in named.items():
            self._require(context.set_tensor_address(name, address), f"refuses the address of {name}")

    def enqueue(self) -> None:
        """Put one run into the stream."""
        context = self._context
        self._require(context.execute_async_v3(self._platform.device.stream), "cannot run")

    def capturable(self) -> bool:
        """Whether a run can be recorded as a CUDA graph, as far as the flavour says it."""
        context = self._context
        if hasattr(context, "is_stream_capturable"):
            return bool(context.is_stream_capturable(self._platform.device.stream))
        return True

    def release(self) -> None:
        """Keep compiled kernels; let go of the context, then of what it used. A second time does nothing."""
        kernels, self._kernels = self._kernels, None  # whose cache lives as long as the context
        try:
            if kernels is not None:
                kernels.save()
        finally:
            self._context = None
            self.engine = None

    def _require(self, done: Any, what: str) -> None:
        self._platform.require(done, f"{self.spec.name}: {self._platform.target} {what}")


def _create_context(engine: Any, platform: Platform, label: str, kernels: KernelCache | None) -> Any:
    """A context that works in memory given to it, with kernels that are settled before the first run."""
    trt = platform.trt
    runtime_config = engine.create_runtime_config()
    runtime_config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    if hasattr(runtime_config, "dynamic_shapes_kernel_specialization_strategy"):
        # Compiled in the background (LAZY), kernels would change while a song is made, and its roundings with them.
        eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        runtime_config.dynamic_shapes_kernel_specialization_strategy = eager
    if kernels is not None:
        kernels.attach(runtime_config, platform)
    context = engine.create_execution_context(runtime_config)
    platform.require(context is not None, f"{label}: {platform.target} makes no execution context")
    return context


def best_profile(engine: Any, shapes: Mapping[str, Shape], label: str) -> int:
    """The profile that takes these shapes, tuned for those nearest to them, of two as near for the larger ones.

    `EngineError` if none takes them.
    """
    distances = {}
    for index in range(engine.num_optimization_profiles):
        ranges = {name: [tuple(dims) for dims in engine.get_tensor_profile_shape(name, index)] for name in shapes}
        if all(_within(shapes[name], *ranges[name]) for name in shapes):
            distances[index] = sum(_distance(shapes[name], ranges[name][1]) for name in shapes)
    if not distances:
        raise EngineError(f"{label}: no profile of the engine takes {dict(shapes)}. Build it for these sizes.")
    return min(distances, key=lambda index: (round(distances[index], 6), -index))


def _within(shape: Shape, minimum: Shape, _: Shape, maximum: Shape) -> bool:
    return all(low <= size <= high for low, size, high in zip(minimum, shape, maximum, strict=True))


def _distance(shape: Shape, optimum: Shape) -> float:
    return abs(math.log(math.prod(shape) / math.prod(optimum)))


class TensorRtGraph:
    """The parts of a graph, used as one."""

    def __init__(
        self, spec: GraphSpec, parts: Sequence[EnginePart], device: Device, largest: Mapping[str, int]
    ) -> None:
        """`largest`: sizes of the symbols that no run will exceed. Raises `OutOfDeviceMemoryError`."""
        self.spec = spec
        self.parts = parts
        between = tensors_between(spec, (part.spec for part in parts))
        self._between = DeviceArena(device, {tensor.name: tensor.bytes(largest) for tensor in between})
        self._addresses = {tensor.name: self._between[tensor.name] for tensor in between}

    @property
    def memory_bytes(self) -> int:
        """Working memory that the parts take in turn."""
        return max(part.memory_bytes for part in self.parts)

    def set_memory(self, address: int, size: int) -> None:
        """Where all parts work."""
        for part in self.parts:
            part.set_memory(address, size)

    def set_sizes(self, sizes: Mapping[str, int]) -> None:
        """Set the shapes of all inputs."""
        for part in self.parts:
            part.set_sizes(sizes)

    def bind(self, addresses: Addresses) -> None:
        """Tell where the tensors of the table lie."""
        inputs, outputs = {**self._addresses, **addresses.inputs}, {**self._addresses, **addresses.outputs}
        for part in self.parts:
            part.bind(Addresses(inputs, outputs))

    def enqueue(self) -> None:
        """Put one run of all parts into the stream."""
        for part in self.parts:
            part.enqueue()

    def capturable(self) -> bool:
        """Whether a run can be recorded."""
        return all(part.capturable() for part in self.parts)

    def release(self) -> None:
        """Let go of contexts and engines, and of what lies between parts; no run is under way."""
        for part in self.parts:
            part.release()
        self._between.release()


def require_table(spec: GraphSpec, engine: Any) -> None:
    """Raise `EngineError` unless the tensors of an engine are those of the table, aliased as it says."""
    expected = {**{t.input_name: t for t in spec.inputs}, **{t.output_name: t for t in spec.outputs}}
    found = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    if odd := sorted(set(found) ^ set(expected)):
        raise EngineError(f"{spec.name}: the engine and the table disagree on {', '.join(odd)}. Build it again.")
    inputs = {tensor.input_name for tensor in spec.inputs}
    for name in found:
        tensor = expected[name]
        dtype = engine.get_tensor_dtype(name).name
        if DTYPE_OF.get(dtype) != tensor.dtype:
            raise EngineError(f"{spec.name}: {name} is {dtype} in the engine, {tensor.dtype} in the table.")
        if (engine.get_tensor_mode(name).name == "INPUT") is not (name in inputs):
            raise EngineError(f"{spec.name}: {name} goes the wrong way in the engine. Build it again.")
        if engine.get_tensor_location(name).name != "DEVICE":
            raise EngineError(f"{spec.name}: the engine wants {name} in host memory, which would stop every run.")
    for tensor in spec.outputs:
        _require_alias(spec, tensor, engine.get_aliased_input_tensor(tensor.output_name) or None)


def _require_alias(spec: GraphSpec, tensor: TensorSpec, found: str | None) -> None:
    """Caches share their memory with their inputs, and nothing else does."""
    expected = tensor.input_name if tensor.in_place else None
    if found != expected:
        raise EngineError(
            f"{spec.name}: in the engine {tensor.output_name} shares the memory of {found or 'no input'}, expected "
            f"{expected or 'no input'}. Build it again."
        )
