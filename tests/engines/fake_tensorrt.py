"""A TensorRT without a GPU: ONNX Runtime computes on the very addresses that a context was given.

It has the names and arguments of the real one, as far as the backend uses them, and its rules: aligned
addresses, shapes within a profile, caches that share their memory and nothing else that does, memory to work
in, a run before a recording. What breaks a rule fails as there, with a message in the log.
"""

from __future__ import annotations

import ctypes
import enum
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx

from jukebox_deploy.config_json import config_from_dict
from jukebox_deploy.contract import ITEM_BYTES, GraphRecord, GraphSpec, dimension_symbol
from jukebox_deploy.engines.bundle import EngineBundle, open_bundle, write_manifest
from jukebox_deploy.engines.device import ALIGNMENT
from jukebox_deploy.engines.manifest import GraphEntry, GraphPart, Target
from jukebox_deploy.engines.onnxruntime.memory import bound_dtype
from jukebox_deploy.engines.onnxruntime.sessions import GraphFile, OnnxRuntimeOptions, open_session
from jukebox_deploy.engines.tensorrt.bundle import with_slots
from jukebox_deploy.engines.tensorrt.flavour import BuildEvents
from jukebox_deploy.engines.tensorrt.graph import DTYPE_OF
from jukebox_deploy.engines.tensorrt.runtime import Platform
from tests.engines.host_device import HostDevice

VERSION = "1.7.1.116"
MEMORY_BYTES = 1 << 12  # that every context works in

TensorIOMode = enum.Enum("TensorIOMode", "INPUT OUTPUT NONE")
TensorLocation = enum.Enum("TensorLocation", "DEVICE HOST")
DataType = enum.Enum("DataType", "FLOAT HALF BF16 INT64 INT32 BOOL FP8")
ExecutionContextAllocationStrategy = enum.Enum(
    "ExecutionContextAllocationStrategy", "STATIC ON_PROFILE_CHANGE USER_MANAGED"
)
DynamicShapesKernelSpecializationStrategy = enum.Enum("DynamicShapesKernelSpecializationStrategy", "LAZY EAGER NONE")
EngineValidity = enum.Enum("EngineValidity", "VALID SUBOPTIMAL INVALID")


class EngineInvalidityDiagnostics(enum.IntFlag):
    VERSION_MISMATCH = 1
    UNSUPPORTED_CC = 2
    OLD_CUDA_DRIVER = 4
    OLD_CUDA_RUNTIME = 8
    INSUFFICIENT_GPU_MEMORY = 16
    MALFORMED_ENGINE = 32
    CUDA_ERROR = 64


Shape = tuple[int, ...]
Profile = dict[str, tuple[Shape, ...]]


@dataclass
class FakeLogger:
    events: BuildEvents = field(default_factory=BuildEvents)

    def error(self, text: str) -> bool:
        """What a failing call returns."""
        self.events.messages.append(("ERROR", text))
        return False


@dataclass
class FakeSettings:
    """What a test bends."""

    capturable: bool = True
    wrong_replay: bool = False  # a recorded run writes other numbers than a plain one
    wrong_alias: dict[str, str | None] = field(default_factory=dict)
    location: dict[str, str] = field(default_factory=dict)
    validity: str = "VALID"
    diagnostics: int = 0
    refuse: str = ""  # what deserialisation logs before it gives nothing
    stripped: bool = False  # engines have no weights of their own
    contexts: int = 0  # alive
    environment: str = "driver 580"  # what kernels are compiled for
    compiled: list[str] = field(default_factory=list)  # engines whose kernels had to be compiled


class IRuntimeConfig:
    """TensorRT's has the strategy only; see `RtxRuntimeConfig`."""

    def __init__(self) -> None:
        self.strategy = ExecutionContextAllocationStrategy.STATIC

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy


class IRuntimeCache:
    """Compiled kernels, of one environment only."""

    def __init__(self, settings: FakeSettings) -> None:
        self.environment = settings.environment
        self.kernels: list[str] = []

    def deserialize(self, blob: bytes) -> bool:
        content = json.loads(blob)
        if content["environment"] == self.environment:
            self.kernels = content["kernels"]
        return bool(content["environment"] == self.environment)

    def serialize(self) -> memoryview:
        content = {"environment": self.environment, "kernels": self.kernels}
        return memoryview(json.dumps(content).encode())


class RtxRuntimeConfig(IRuntimeConfig):
    def __init__(self, settings: FakeSettings) -> None:
        super().__init__()
        self.settings = settings
        self.runtime_cache: IRuntimeCache | None = None
        self.own_kernels: list[str] = []
        self.dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy.LAZY

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache(self.settings)

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self.runtime_cache = cache
        return True

    def compile(self, kernel: str) -> None:
        """What the first run with a shape does."""
        known = self.own_kernels if self.runtime_cache is None else self.runtime_cache.kernels
        if kernel not in known:
            self.settings.compiled.append(kernel)
            known.append(kernel)


@functools.cache
def onnx_session(spec: GraphSpec, path: Path) -> Any:
    """The same session for all engines of a file: it has no state."""
    return open_session(GraphFile.read(spec, path), OnnxRuntimeOptions(round_activations=False))


class ICudaEngine:
    """An ONNX graph; `engine_content` makes the file."""

    def __init__(self, content: dict[str, Any], runtime: Runtime) -> None:
        self.runtime = runtime
        self.path = Path(content["onnx"])
        self.spec = config_from_dict(GraphRecord, content["table"]).spec
        self.profiles: list[Profile] = [
            {name: tuple(tuple(shape) for shape in shapes) for name, shapes in profile.items()}
            for profile in content["profiles"]
        ]
        self.device_memory_size_v2 = MEMORY_BYTES
        self.streamable_weights_size = 1000
        self.weight_streaming_budget_v2 = 1000
        self.weights_are_in = not runtime.settings.stripped
        graph = onnx.load(self.path, load_external_data=False).graph
        self._inputs = {value.name: value for value in graph.input}
        self._outputs = {value.name: value for value in graph.output}
        self._aliases = {
            node.output[0]: node.input[0]
            for node in graph.node
            if node.op_type == "TensorScatter" and node.input[0] in self._inputs and node.output[0] in self._outputs
        }

    @property
    def num_io_tensors(self) -> int:
        return len(self._inputs) + len(self._outputs)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.profiles)

    def get_tensor_name(self, index: int) -> str:
        return [*self._inputs, *self._outputs][index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        value = (self._inputs | self._outputs)[name]
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        return DataType[{spelled: name for name, spelled in DTYPE_OF.items()}[dtype]]

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation[self.runtime.settings.location.get(name, "DEVICE")]

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Shape]:
        return list(self.profiles[profile_index][name])

    def get_aliased_input_tensor(self, name: str) -> str | None:
        return self.runtime.settings.wrong_alias.get(name, self._aliases.get(name))

    def create_runtime_config(self) -> IRuntimeConfig:
        return RtxRuntimeConfig(self.runtime.settings) if self.runtime.is_rtx else IRuntimeConfig()

    def create_execution_context(self, runtime_config: IRuntimeConfig) -> IExecutionContext | None:
        assert runtime_config.strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        if not self.weights_are_in:
            self.runtime.logger.error("the engine has no weights")
            return None
        if isinstance(runtime_config, RtxRuntimeConfig):
            strategy = runtime_config.dynamic_shapes_kernel_specialization_strategy
            assert strategy is not DynamicShapesKernelSpecializationStrategy.LAZY
            return RtxExecutionContext(self, runtime_config)
        return IExecutionContext(self)

    @property
    def session(self) -> Any:
        return onnx_session(self.spec, self.path)

    def names(self) -> tuple[list[str], list[str]]:
        return list(self._inputs), list(self._outputs)

    def output_dims(self, name: str) -> list[int | str]:
        dims = self._outputs[name].type.tensor_type.shape.dim
        return [dim.dim_param or dim.dim_value for dim in dims]

    def input_dims(self, name: str) -> list[int | str]:
        dims = self._inputs[name].type.tensor_type.shape.dim
        return [dim.dim_param or dim.dim_value for dim in dims]


def size_of(dim: int | str, sizes: Mapping[str, int]) -> int:
    """A dimension of an ONNX graph where the symbols have these sizes."""
    symbol, factor = dimension_symbol(dim.replace(" ", "") if isinstance(dim, str) else dim)
    return factor * (1 if symbol is None else sizes[symbol])


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._device = engine.runtime.device
        self._log = engine.runtime.logger
        self._profile = 0
        self._shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}
        self._memory = (0, 0)
        self._has_run = False  # since a shape or a profile changed
        self._settings = engine.runtime.settings
        self._settings.contexts += 1

    def __del__(self) -> None:
        self._settings.contexts -= 1

    def set_device_memory(self, memory: int, size: int) -> None:
        self._memory = (memory, size)

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        if not 0 <= profile_index < self._engine.num_optimization_profiles or stream_handle != self._device.stream:
            self._log.error(f"no profile {profile_index}")
            raise RuntimeError("Error in set optimization profile.")  # as the bindings do
        assert not self._device.is_busy, "a run of this context may be under way"
        self._profile, self._shapes, self._has_run = profile_index, {}, False
        return True

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        minimum, _, maximum = self._engine.profiles[self._profile][name]
        if not all(low <= size <= high for low, size, high in zip(minimum, shape, maximum, strict=True)):
            return self._log.error(f"{name} {shape} is outside the profile {self._profile}")
        self._has_run &= self._shapes.get(name) == tuple(shape)
        self._shapes[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in self._engine.names()[0] if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> Shape:
        if name in self._shapes:
            return self._shapes[name]
        sizes: dict[str, int] = {}
        for given, shape in self._shapes.items():
            for dim, size in zip(self._engine.input_dims(given), shape, strict=True):
                if isinstance(dim, str):
                    symbol, factor = dimension_symbol(dim.replace(" ", ""))
                    sizes[symbol or ""] = size // factor
        return tuple(size_of(dim, sizes) for dim in self._engine.output_dims(name))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if memory == 0 or memory % ALIGNMENT:
            return self._log.error(f"{name}: {memory:#x} is not aligned")
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        if problem := self._problem(stream_handle):
            return self._log.error(problem)
        self._has_run = True
        spoil = self._addresses[self._engine.names()[1][-1]] if self._spoils() else 0
        # As in a CUDA graph, addresses and shapes are those of now.
        binding, places = self._bind(), [*self._places().values(), self._memory]
        self._device.enqueue(lambda: self._run(binding, places, spoil))
        return True

    def _spoils(self) -> bool:
        return self._device.recording and self._settings.wrong_replay

    def _problem(self, stream_handle: int) -> str:
        inputs, outputs = self._engine.names()
        if stream_handle != self._device.stream:
            return f"{stream_handle} is no stream"
        if missing := self.infer_shapes():
            return f"shapes of {missing} are not set"
        if missing := [name for name in (*inputs, *outputs) if name not in self._addresses]:
            return f"addresses of {missing} are not set"
        if self._memory[1] < self._engine.device_memory_size_v2 or self._memory[0] % ALIGNMENT:
            return f"{self._memory} is no memory to work in"
        self._device.require_inside(*self._memory)
        if self._device.recording and not self._has_run:
            return "a recording before the first run"
        return self._shared_memory()

    def _shared_memory(self) -> str:
        """Tensors that lie in each other; only a cache and its update may, and must."""
        aliases = {self._engine.get_aliased_input_tensor(name): name for name in self._engine.names()[1]}
        last, end = "", 0
        for name, (start, size) in sorted(self._places().items(), key=lambda item: item[1]):
            self._device.require_inside(start, size)
            allowed = aliases.get(name) == last or aliases.get(last) == name
            if start < end and not allowed:
                return f"{last} and {name} share memory"
            last, end = name, max(end, start + size)
        apart = [(i, o) for i, o in aliases.items() if i and self._addresses[i] != self._addresses[o]]
        return f"{apart[0][0]} and {apart[0][1]} must share memory" if apart else ""

    def _places(self) -> dict[str, tuple[int, int]]:
        """Address and bytes of every tensor."""
        return {
            name: (at, int(np.prod(self.get_tensor_shape(name), dtype=np.int64)) * ITEM_BYTES[self._dtype(name)])
            for name, at in self._addresses.items()
        }

    def _dtype(self, name: str) -> str:
        return DTYPE_OF[self._engine.get_tensor_dtype(name).name]

    def _bind(self) -> Any:
        inputs, outputs = self._engine.names()
        binding = self._engine.session.io_binding()
        for names, bind in ((inputs, binding.bind_input), (outputs, binding.bind_output)):
            for name in names:
                bind(name, "cpu", 0, bound_dtype(self._dtype(name)), self.get_tensor_shape(name), self._addresses[name])
        return binding

    def _run(self, binding: Any, places: list[tuple[int, int]], spoil: int) -> None:
        for address, size in places:
            self._device.require_inside(address, size)
        self._engine.session.run_with_iobinding(binding)
        if spoil:
            ctypes.memset(spoil, 0x7F, 4)


class RtxExecutionContext(IExecutionContext):
    """Compiles when it first runs with a shape."""

    def __init__(self, engine: ICudaEngine, runtime_config: RtxRuntimeConfig) -> None:
        super().__init__(engine)
        self._kernels = runtime_config

    def execute_async_v3(self, stream_handle: int) -> bool:
        done = super().execute_async_v3(stream_handle)
        if done:
            assert not self._device.recording or self._shapes == self._compiled, "compiled while it is recorded"
            self._kernels.compile(f"{self._engine.spec.name} {sorted(self._shapes.items())}")
            self._compiled = dict(self._shapes)
        return done

    _compiled: dict[str, Shape] | None = None

    def is_stream_capturable(self, stream: int) -> bool:
        return self._settings.capturable and stream == self._device.stream


class Runtime:
    """TensorRT's; `RtxRuntime` has more."""

    is_rtx = False

    def __init__(self, logger: FakeLogger, device: HostDevice, settings: FakeSettings) -> None:
        self.logger = logger
        self.device = device
        self.settings = settings
        self.engine_host_code_allowed = False
        self.seen = 0  # bytes that came to be deserialised

    def load_runtime(self, path: str) -> Runtime | None:
        if not Path(path).exists():
            self.logger.error(f"{path} is no library")
            return None
        return type(self)(self.logger, self.device, self.settings)

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        self.seen += len(serialized_engine)
        if self.settings.refuse:
            self.logger.error(self.settings.refuse)
            return None
        return ICudaEngine(json.loads(serialized_engine), self)


class Refitter:
    def __init__(self, engine: ICudaEngine, logger: FakeLogger) -> None:
        self.engine = engine
        self.given = False

    def refit_cuda_engine(self) -> bool:
        self.engine.weights_are_in = self.given
        return self.given


class OnnxParserRefitter:
    def __init__(self, refitter: Refitter, logger: FakeLogger) -> None:
        self.refitter = refitter

    def refit_from_file(self, model: str) -> bool:
        self.refitter.given = Path(model) == self.refitter.engine.path
        return self.refitter.given


class RtxRuntime(Runtime):
    is_rtx = True

    def get_engine_validity(self, buffer: bytes) -> tuple[EngineValidity, int]:
        self.seen += len(buffer)
        if self.settings.validity == "INVALID":
            self.logger.events.messages.append(("INFO", "The engine was created for another place"))
        return EngineValidity[self.settings.validity], self.settings.diagnostics


def platform(target: Target, device: HostDevice | None = None, settings: FakeSettings | None = None) -> Platform:
    """A flavour on a pretended GPU; this module stands for that of the flavour, without what only the other has."""
    device, logger = device or HostDevice(), FakeLogger()
    kind = RtxRuntime if target is Target.TENSORRT_RTX else Runtime
    runtime = kind(logger, device, settings or FakeSettings())
    lacking = () if target is Target.TENSORRT_RTX else ("IRuntimeCache", "DynamicShapesKernelSpecializationStrategy")
    module = SimpleNamespace(**{name: value for name, value in globals().items() if name not in lacking})
    return Platform(target, VERSION, module, logger, runtime, device)


def engine_content(spec: GraphSpec, onnx_path: Path, best_slots: tuple[int, ...] = ()) -> bytes:
    """The file of an engine over an ONNX graph, with a profile for each number of slots."""
    profiles = [_profile(spec, onnx_path, best) for best in best_slots or (None,)]
    return json.dumps({"onnx": str(onnx_path), "table": spec.to_json(), "profiles": profiles}).encode()


def _profile(spec: GraphSpec, onnx_path: Path, best: int | None) -> dict[str, list[Shape]]:
    graph = onnx.load(onnx_path, load_external_data=False).graph
    dims = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.input}
    ranges = dict(spec.record.ranges)
    if best is not None:
        ranges["B"] = (1, best, best)
    sizes = [{symbol: limits[index] for symbol, limits in ranges.items()} for index in range(3)]
    return {name: [tuple(size_of(dim, at) for dim in shape) for at in sizes] for name, shape in dims.items()}


def save_engines(
    source: EngineBundle,
    folder: Path,
    target: Target = Target.TENSORRT_RTX,
    best_slots: tuple[int, ...] = (),
    features: tuple[str, ...] = (),
) -> EngineBundle:
    """The engine bundle that a builder would make of an ONNX bundle."""
    folder.mkdir(parents=True)
    graphs = {}
    for name, entry in source.manifest.graphs.items():
        slots = best_slots if entry.spec.states else ()
        specs = [with_slots(piece.spec, slots) for piece in entry.pieces]
        pieces = [GraphPart(spec, f"{spec.name}.engine") for spec in specs]
        for engine, piece in zip(pieces, entry.pieces, strict=True):
            (folder / engine.file).write_bytes(engine_content(engine.spec, source.folder / piece.file, slots))
        made = {"parts": tuple(pieces), "file": ""} if entry.parts else {"file": pieces[0].file}
        facts = {**entry.options, "features": list(features), **source.manifest.source_facts(name)}
        graphs[name] = GraphEntry(
            with_slots(entry.spec, slots), compute_capabilities=("8.6", "8.9"), options=facts, **made
        )
    tools = {**source.manifest.tools, str(target): VERSION}
    write_manifest(folder, replace(source.manifest, target=target, graphs=graphs, tools=tools))
    return open_bundle(folder)
