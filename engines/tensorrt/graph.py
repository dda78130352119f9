"""One graph on TensorRT: its engines with their execution contexts, sizes, addresses and working memory.

A graph is one engine, or several that run one after the other (`graph_cutting.cut_graph`). The whole graph does not
declare the tensors that one part passes to the next, so they are allocated here.
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
from jukebox_deploy.listing import shape_text, words_of

DTYPE_OF = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT64": "int64",
    "INT32": "int32",
    "BOOL": "bool",
}
"""The declared dtype that corresponds to each of TensorRT's."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Addresses:
    """Device addresses of a graph's tensors by declared name; a state may be read and written at separate addresses."""

    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


class EnginePart:
    """One engine with its declaration and its execution context."""

    def __init__(self, spec: GraphSpec, engine: Any, platform: Platform, kernels: KernelCache | None = None) -> None:
        """`kernels`: a cache for compiled kernels. Raises `EngineError` if the engine does not match `spec`."""
        self.spec = spec
        self.engine = engine
        self._platform = platform
        require_declared_tensors(spec, engine)
        self._kernels = kernels
        self._context = _create_context(engine, platform, spec.name, kernels)
        self._profile = 0
        self._shapes: dict[str, Shape] = {}

    @property
    def memory_bytes(self) -> int:
        """Bytes of working memory for the largest shapes of any profile."""
        engine = self.engine
        return int(engine.device_memory_size_v2)

    def set_memory(self, address: int, size: int) -> None:
        """Set the working memory, which other contexts may use in turn."""
        context = self._context
        context.set_device_memory(address, size)

    def set_sizes(self, sizes: Mapping[str, int]) -> None:
        """Choose the best profile for the sizes of the symbols, and set the shapes of all inputs."""
        shapes = {tensor.input_name: tensor.shape(sizes) for tensor in self.spec.inputs}
        if shapes == self._shapes:
            return
        self._shapes = {}
        context = self._context
        self._choose_profile(shapes)
        for name, shape in shapes.items():
            self._require(context.set_input_shape(name, shape), f"refuses the shape {shape} of {name}")
        with self._platform.explaining_errors(f"{self.spec.name}: {self._platform.target} cannot infer shapes"):
            missing = context.infer_shapes()
        if missing:
            raise self._platform.failure(f"{self.spec.name}: the shapes of {words_of(missing)} are not known")
        self._shapes = shapes

    def _choose_profile(self, shapes: Mapping[str, Shape]) -> None:
        context, device = self._context, self._platform.device
        index = best_profile(self.engine, shapes, self.spec.name)
        if index != self._profile:
            device.synchronize()  # the profile must not change during a run of this context
            with self._platform.explaining_errors(
                f"{self.spec.name}: {self._platform.target} cannot switch to profile {index}"
            ):
                context.set_optimization_profile_async(index, device.stream)
            self._profile = index

    def bind(self, addresses: Addresses) -> None:
        """Set the addresses of all tensors."""
        context = self._context
        named = {tensor.input_name: addresses.inputs[tensor.name] for tensor in self.spec.inputs}
        named |= {tensor.output_name: addresses.outputs[tensor.name] for tensor in self.spec.outputs}
        for name, address in named.items():
            self._require(context.set_tensor_address(name, address), f"refuses the address of {name}")

    def enqueue(self) -> None:
        """Enqueue one run on the stream."""
        context = self._context
        self._require(context.execute_async_v3(self._platform.device.stream), "cannot run")

    def capturable(self) -> bool:
        """Return whether a run can be captured as a CUDA graph; true for a flavour that cannot say."""
        context = self._context
        if hasattr(context, "is_stream_capturable"):
            return bool(context.is_stream_capturable(self._platform.device.stream))
        return True

    def release(self) -> None:
        """Save compiled kernels, then release the context and the engine. Calling this again has no effect."""
        kernels, self._kernels = self._kernels, None  # saved before the context is released, whose kernels they are
        try:
            if kernels is not None:
                kernels.save()
        finally:
            self._context = None
            self.engine = None

    def _require(self, done: Any, what: str) -> None:
        self._platform.require(done, f"{self.spec.name}: {self._platform.target} {what}")


def _create_context(engine: Any, platform: Platform, label: str, kernels: KernelCache | None) -> Any:
    """Create a context with working memory from the caller, and kernels that do not change after the first run."""
    trt = platform.trt
    runtime_config = engine.create_runtime_config()
    runtime_config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    if hasattr(runtime_config, "dynamic_shapes_kernel_specialization_strategy"):
        # With LAZY, kernels are compiled in the background, so kernels and their rounding would change during a song.
        eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        runtime_config.dynamic_shapes_kernel_specialization_strategy = eager
    if kernels is not None:
        kernels.attach(runtime_config, platform)
    context = engine.create_execution_context(runtime_config)
    platform.require(context is not None, f"{label}: {platform.target} cannot create an execution context")
    return context


def best_profile(engine: Any, shapes: Mapping[str, Shape], label: str) -> int:
    """Return the index of the profile that accepts these shapes and is tuned for the nearest ones.

    Of two equally near profiles, this is the one tuned for larger shapes. Raises `EngineError` if none accepts them.
    """
    distances = {}
    for index in range(engine.num_optimization_profiles):
        ranges = {name: [tuple(dims) for dims in engine.get_tensor_profile_shape(name, index)] for name in shapes}
        if all(_within(shapes[name], *ranges[name]) for name in shapes):
            distances[index] = sum(_distance(shapes[name], ranges[name][1]) for name in shapes)
    if not distances:
        asked = words_of(f"{name} of shape {shape_text(shape)}" for name, shape in shapes.items())
        raise EngineError(f"{label}: no profile of the engine takes {asked}. Build it for these sizes.")
    return min(distances, key=lambda index: (round(distances[index], 6), -index))


def _within(shape: Shape, minimum: Shape, _: Shape, maximum: Shape) -> bool:
    return all(low <= size <= high for low, size, high in zip(minimum, shape, maximum, strict=True))


def _distance(shape: Shape, optimum: Shape) -> float:
    return abs(math.log(math.prod(shape) / math.prod(optimum)))


class TensorRtGraph:
    """The parts of a graph, which are used like a single engine."""

    def __init__(
        self, spec: GraphSpec, parts: Sequence[EnginePart], device: Device, largest: Mapping[str, int]
    ) -> None:
        """`largest`: the largest sizes of the symbols in any run. Raises `OutOfDeviceMemoryError`."""
        self.spec = spec
        self.parts = parts
        between = tensors_between(spec, (part.spec for part in parts))
        self._between = DeviceArena(device, {tensor.name: tensor.bytes(largest) for tensor in between})
        self._addresses = {tensor.name: self._between[tensor.name] for tensor in between}

    @property
    def memory_bytes(self) -> int:
        """Bytes of working memory, which the parts use in turn."""
        return max(part.memory_bytes for part in self.parts)

    def set_memory(self, address: int, size: int) -> None:
        """Set the working memory of all parts."""
        for part in self.parts:
            part.set_memory(address, size)

    def set_sizes(self, sizes: Mapping[str, int]) -> None:
        """Set the shapes of all inputs, for the given sizes of the symbols."""
        for part in self.parts:
            part.set_sizes(sizes)

    def bind(self, addresses: Addresses) -> None:
        """Set the addresses of the tensors that the whole graph declares."""
        inputs, outputs = {**self._addresses, **addresses.inputs}, {**self._addresses, **addresses.outputs}
        for part in self.parts:
            part.bind(Addresses(inputs, outputs))

    def enqueue(self) -> None:
        """Enqueue one run of all parts on the stream."""
        for part in self.parts:
            part.enqueue()

    def capturable(self) -> bool:
        """Return whether a run of all parts can be captured as a CUDA graph."""
        return all(part.capturable() for part in self.parts)

    def release(self) -> None:
        """Release contexts, engines, and the tensors between parts. No run may be in progress."""
        for part in self.parts:
            part.release()
        self._between.release()


def require_declared_tensors(spec: GraphSpec, engine: Any) -> None:
    """Raise `EngineError` unless the tensors of an engine, and their aliases, are as declared."""
    expected = {**{t.input_name: t for t in spec.inputs}, **{t.output_name: t for t in spec.outputs}}
    found = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    if odd := sorted(set(found) ^ set(expected)):
        raise EngineError(f"{spec.name}: the engine and the table disagree on {words_of(odd)}. Build it again.")
    inputs = {tensor.input_name for tensor in spec.inputs}
    for name in found:
        tensor = expected[name]
        dtype = engine.get_tensor_dtype(name).name
        if DTYPE_OF.get(dtype) != tensor.dtype:
            raise EngineError(f"{spec.name}: {name} is {dtype} in the engine, {tensor.dtype} in the table.")
        mode, is_input = engine.get_tensor_mode(name).name, name in inputs
        if (mode == "INPUT") is not is_input:
            wanted = "INPUT" if is_input else "OUTPUT"
            raise EngineError(f"{spec.name}: {name} is an {mode} of the engine, expected an {wanted}. Build it again.")
        if engine.get_tensor_location(name).name != "DEVICE":
            raise EngineError(f"{spec.name}: the engine wants {name} in host memory, expected device memory.")
    for tensor in spec.outputs:
        _require_alias(spec, tensor, engine.get_aliased_input_tensor(tensor.output_name) or None)


def _require_alias(spec: GraphSpec, tensor: TensorSpec, found: str | None) -> None:
    """Raise `EngineError` unless an output shares memory with its input if it is a cache, and with none otherwise."""
    expected = tensor.input_name if tensor.in_place else None
    if found != expected:
        raise EngineError(
            f"{spec.name}: in the engine {tensor.output_name} shares the memory of {found or 'no input'}, expected "
            f"{expected or 'no input'}. Build it again."
        )
