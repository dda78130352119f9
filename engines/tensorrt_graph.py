"""One graph on TensorRT: its engines with their execution contexts, sizes, addresses and working memory.

A graph is one engine, or several of whole layers that run back to back (`build --parts`). What one
part hands to the next has no place in the graph's table, so it is allocated here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jukebox_deploy.contract import ITEM_BYTES, GraphSpec, TensorSpec
from jukebox_deploy.engines.device import DeviceArena
from jukebox_deploy.engines.tensorrt_runtime import Platform
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


class EnginePart:
    """One engine and the context that runs it."""

    def __init__(self, engine: Any, platform: Platform, label: str) -> None:
        """`label`: of messages. Raises `EngineError` where the library makes no context."""
        self.engine = engine
        self._label = label
        self._platform = platform
        self._context = _create_context(engine, platform, label)
        self._profile = 0
        self._shapes: dict[str, Shape] = {}
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self.inputs = [name for name in names if engine.get_tensor_mode(name).name == "INPUT"]
        self.outputs = [name for name in names if name not in self.inputs]

    @property
    def memory_bytes(self) -> int:
        """Working memory at the largest shapes of any profile."""
        engine = self.engine
        return int(engine.device_memory_size_v2)

    def dtype(self, name: str) -> str:
        """The dtype of a tensor as tables spell it."""
        engine = self.engine
        found = engine.get_tensor_dtype(name).name
        return DTYPE_OF.get(found, found)

    def set_memory(self, address: int, size: int) -> None:
        """Where to work; other contexts may work there in turn."""
        context = self._context
        context.set_device_memory(address, size)

    def set_shapes(self, shapes: Mapping[str, Shape]) -> None:
        """Choose the profile that suits the shapes of the inputs, and set them."""
        if shapes == self._shapes:
            return
        self._shapes = {}
        context = self._context
        self._choose_profile(shapes)
        for name, shape in shapes.items():
            self._require(context.set_input_shape(name, shape), f"refuses the shape {shape} of {name}")
        if missing := context.infer_shapes():
            raise self._platform.failure(f"{self._label}: the shapes of {missing} are not known")
        self._shapes = dict(shapes)

    def _choose_profile(self, shapes: Mapping[str, Shape]) -> None:
        context, device = self._context, self._platform.device
        index = best_profile(self.engine, shapes, self._label)
        if index != self._profile:
            done = context.set_optimization_profile_async(index, device.stream)
            self._require(done, f"cannot switch to profile {index}")
            device.synchronize()
            self._profile = index

    def output_shape(self, name: str) -> Shape:
        """The shape of an output for the shapes that were set."""
        context = self._context
        return tuple(context.get_tensor_shape(name))

    def bind(self, addresses: Mapping[str, int]) -> None:
        """Tell where all tensors lie."""
        context = self._context
        for name in (*self.inputs, *self.outputs):
            self._require(context.set_tensor_address(name, addresses[name]), f"refuses the address of {name}")

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
        """Let go of the context, then of the engine."""
        self._context = None
        self.engine = None

    def _require(self, done: Any, what: str) -> None:
        self._platform.require(done, f"{self._label}: {self._platform.target} {what}")


def _create_context(engine: Any, platform: Platform, label: str) -> Any:
    """A context that works in memory given to it, with kernels that are settled before the first run."""
    trt = platform.trt
    runtime_config = engine.create_runtime_config()
    runtime_config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    if hasattr(runtime_config, "dynamic_shapes_kernel_specialization_strategy"):
        # Compiled in the background (LAZY), kernels would change while a song is made, and its roundings with them.
        eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        runtime_config.dynamic_shapes_kernel_specialization_strategy = eager
    context = engine.create_execution_context(runtime_config)
    platform.require(context is not None, f"{label}: {platform.target} makes no execution context")
    return context


def best_profile(engine: Any, shapes: Mapping[str, Shape], label: str) -> int:
    """The profile that takes these shapes, tuned for those nearest to them. `EngineError` if none takes them."""
    distances = {}
    for index in range(engine.num_optimization_profiles):
        ranges = {name: [tuple(dims) for dims in engine.get_tensor_profile_shape(name, index)] for name in shapes}
        if all(_within(shapes[name], *ranges[name]) for name in shapes):
            distances[index] = sum(_distance(shapes[name], ranges[name][1]) for name in shapes)
    if not distances:
        raise EngineError(f"{label}: no profile of the engine takes {dict(shapes)}. Build it for these sizes.")
    return min(distances, key=lambda index: distances[index])


def _within(shape: Shape, minimum: Shape, _: Shape, maximum: Shape) -> bool:
    return all(low <= size <= high for low, size, high in zip(minimum, shape, maximum, strict=True))


def _distance(shape: Shape, optimum: Shape) -> float:
    return abs(math.log(math.prod(shape) / math.prod(optimum)))


class TensorRtGraph:
    """The parts of a graph, used as one."""

    def __init__(self, spec: GraphSpec, engines: Sequence[Any], platform: Platform, largest: Mapping[str, int]) -> None:
        """`largest`: sizes of the symbols that no run will exceed.

        Raises `EngineError` for engines that do not fit the table, `OutOfDeviceMemoryError`.
        """
        self.spec = spec
        self.parts = [EnginePart(engine, platform, spec.name) for engine in engines]
        self._table = {name: t for t in spec.tensors for name in (t.input_name, t.output_name)}
        require_table(spec, self.parts)
        between = self.set_sizes(largest) if len(self.parts) > 1 else {}
        self._between = DeviceArena(platform.device, between)
        self._addresses = {name: self._between[name] for name in between}

    @property
    def memory_bytes(self) -> int:
        """Working memory that the parts take in turn."""
        return max(part.memory_bytes for part in self.parts)

    def set_memory(self, address: int, size: int) -> None:
        """Where all parts work."""
        for part in self.parts:
            part.set_memory(address, size)

    def set_sizes(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Set the shapes of all inputs; returns the bytes of what parts hand on."""
        between: dict[str, int] = {}
        handed_on: dict[str, Shape] = {}
        for part in self.parts:
            part.set_shapes({name: self._shape(name, sizes, handed_on) for name in part.inputs})
            for name in (name for name in part.outputs if name not in self._table):
                handed_on[name] = part.output_shape(name)
                between[name] = math.prod(handed_on[name]) * ITEM_BYTES[part.dtype(name)]
        return between

    def _shape(self, name: str, sizes: Mapping[str, int], handed_on: Mapping[str, Shape]) -> Shape:
        return self._table[name].shape(sizes) if name in self._table else handed_on[name]

    def bind(self, addresses: Mapping[str, int]) -> None:
        """Tell where the tensors of the table lie, by their names in the graph."""
        for part in self.parts:
            part.bind({**self._addresses, **addresses})

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


def require_table(spec: GraphSpec, parts: Sequence[EnginePart]) -> None:
    """Raise `EngineError` unless the tensors of the parts are those of the table, aliased as it says."""
    inputs = {t.input_name: t for t in spec.inputs}
    outputs = {t.output_name: t for t in spec.outputs}
    handed_on: dict[str, str] = {}
    found: set[str] = set()
    for part in parts:
        expected = {**handed_on, **{name: t.dtype for name, t in inputs.items()}}
        _require_tensors(spec, part, part.inputs, expected)
        _require_tensors(
            spec, part, [n for n in part.outputs if n in outputs], {n: t.dtype for n, t in outputs.items()}
        )
        _require_aliases(spec, part, outputs)
        handed_on |= {name: part.dtype(name) for name in part.outputs if name not in outputs}
        found |= {*part.inputs, *part.outputs}
    if missing := [name for name in (*inputs, *outputs) if name not in found]:
        raise EngineError(f"{spec.name}: the engine has no {', '.join(missing)}. Build it again.")
    if extra := sorted(set(parts[-1].outputs) - set(outputs)):
        raise EngineError(f"{spec.name}: the engine gives {', '.join(extra)}, which the table lacks. Build it again.")


def _require_tensors(spec: GraphSpec, part: EnginePart, names: Sequence[str], expected: Mapping[str, str]) -> None:
    engine = part.engine
    for name in names:
        if name not in expected:
            raise EngineError(f"{spec.name}: the engine wants {name}, which the table lacks. Build it again.")
        if part.dtype(name) != expected[name]:
            raise EngineError(
                f"{spec.name}: {name} is {part.dtype(name)} in the engine, {expected[name]} in the table."
            )
        if engine.get_tensor_location(name).name != "DEVICE":
            raise EngineError(f"{spec.name}: the engine wants {name} in host memory, which would stop every step.")


def _require_aliases(spec: GraphSpec, part: EnginePart, outputs: Mapping[str, TensorSpec]) -> None:
    """Caches share their memory with their inputs, and nothing else does."""
    for name, aliased in _aliases(part):
        tensor = outputs.get(name)
        expected = tensor.input_name if tensor is not None and tensor.in_place else None
        if aliased != expected:
            raise EngineError(
                f"{spec.name}: in the engine {name} shares the memory of {aliased or 'no input'}, expected "
                f"{expected or 'no input'}. Build it again."
            )


def _aliases(part: EnginePart) -> Iterator[tuple[str, str | None]]:
    engine = part.engine
    for name in part.outputs:
        yield name, engine.get_aliased_input_tensor(name) or None
