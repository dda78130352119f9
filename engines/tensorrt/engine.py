"""The TensorRT backend, for both flavours: runs the engines of a bundle on an NVIDIA GPU.

It uses the first visible GPU; the environment variable CUDA_VISIBLE_DEVICES selects another one.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

import numpy as np

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import GraphKind, GraphSpec, TensorSpec, check_feeds, numpy_dtype
from jukebox_deploy.engines.bundle import EngineBundle
from jukebox_deploy.engines.device import Device, DeviceArena, OutOfDeviceMemoryError
from jukebox_deploy.engines.manifest import GraphPart
from jukebox_deploy.engines.memory_plan import plan_bundle, what_fits
from jukebox_deploy.engines.slots import require_slots
from jukebox_deploy.engines.tensorrt.features import TensorRtOptions, prepare_engine
from jukebox_deploy.engines.tensorrt.graph import Addresses, EnginePart, TensorRtGraph
from jukebox_deploy.engines.tensorrt.kernels import KernelCache, no_kernels_to_keep
from jukebox_deploy.engines.tensorrt.runtime import Platform, load_engine, open_platform, require_suitable
from jukebox_deploy.engines.tensorrt.session import TensorRtSession
from jukebox_deploy.errors import EngineError

_WORK = "working memory"


class TensorRtRunner:
    """An open stateless graph. Its buffers grow with its inputs."""

    concurrent_calls = 1

    def __init__(self, graph: TensorRtGraph, device: Device) -> None:
        """Takes ownership of the graph."""
        self.spec = graph.spec
        self._graph = graph
        self._device = device
        self._sizes: dict[str, int] = {}
        self._memory = ExitStack()
        self._release = weakref.finalize(self, _release_runner, device, self._memory, graph)
        self._arena = self._allocate({_WORK: graph.memory_bytes})
        graph.set_memory(self._arena[_WORK], graph.memory_bytes)

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the graph: arrays by input name -> arrays by output name."""
        sizes = check_feeds(self.spec, feeds)
        self._make_room({t.name: t.bytes(sizes) for t in self.spec.tensors})
        self._graph.set_sizes(sizes)
        addresses = {t.name: self._arena[t.name] for t in self.spec.tensors}
        self._graph.bind(Addresses(addresses, addresses))
        for spec in self.spec.inputs:
            self._device.upload(self._arena[spec.name], feeds[spec.name])
        self._graph.enqueue()
        return {spec.name: self._download(spec, sizes) for spec in self.spec.outputs}

    def _download(self, spec: TensorSpec, sizes: Mapping[str, int]) -> np.ndarray:
        array = np.empty(spec.shape(sizes), numpy_dtype(spec.dtype))
        self._device.download(self._arena[spec.name], array)
        return array

    def _make_room(self, needed: Mapping[str, int]) -> None:
        """Allocate new memory for all tensors if any of them needs more than before."""
        if any(size > self._sizes.get(name, 0) for name, size in needed.items()):
            sizes = {name: max(size, self._sizes.get(name, 0)) for name, size in needed.items()}
            self._sizes = {}  # there is no memory if the allocation below fails
            self._memory.close()
            self._arena = self._allocate({_WORK: self._graph.memory_bytes, **sizes})
            self._graph.set_memory(self._arena[_WORK], self._graph.memory_bytes)
            self._sizes = sizes

    def _allocate(self, sizes: Mapping[str, int]) -> DeviceArena:
        arena = DeviceArena(self._device, sizes)
        self._memory.callback(arena.release)
        return arena

    def close(self) -> None:
        """Release everything on the device. Calling this again has no effect."""
        self._release()


def _release_runner(device: Device, memory: ExitStack, graph: TensorRtGraph) -> None:
    with ExitStack() as stack:
        stack.callback(memory.close)
        stack.callback(graph.release)
        device.synchronize()


class TensorRtEngine:
    """An `Engine` that runs a bundle of TensorRT engines. Only open graphs take memory."""

    batch_invariant = False  # other shapes use other kernels

    def __init__(self, bundle: EngineBundle, platform: Platform, options: TensorRtOptions | None = None) -> None:
        """Raises `EngineError`, with the command to run, for a bundle of another flavour, version or GPU."""
        self._options = options or TensorRtOptions()
        require_suitable(bundle, platform, self._options)
        if self._options.kernel_caches is not None and not hasattr(platform.trt, "IRuntimeCache"):
            raise EngineError(no_kernels_to_keep(platform.target))
        self._bundle = bundle
        self._platform = platform
        self._opened: weakref.WeakSet[TensorRtRunner | TensorRtSession] = weakref.WeakSet()

    @property
    def config(self) -> JukeboxConfig:
        """The configuration of the model."""
        return self._bundle.manifest.config

    @property
    def graphs(self) -> Mapping[str, GraphSpec]:
        """The declarations of the bundle's graphs, by name."""
        return self._bundle.graphs

    @property
    def platform(self) -> Platform:
        """The flavour and the GPU."""
        return self._platform

    def runner(self, kind: GraphKind, level: int) -> TensorRtRunner:
        """Open a stateless graph."""
        spec = self._bundle.manifest.graph(kind, level).spec
        if spec.states:
            raise EngineError(f"{spec.name} has states; open it as a prior session.")
        try:
            graph = self._graph(spec, {r.symbol: r.maximum for r in spec.ranges})
            runner = TensorRtRunner(graph, self._platform.device)
        except OutOfDeviceMemoryError as error:
            raise OutOfDeviceMemoryError(f"{error} {spec.name} needs it beside the slots: ask for fewer.") from error
        self._opened.add(runner)
        return runner

    def prior_session(self, level: int, slots: int) -> TensorRtSession:
        """Open the step and the prefill of a prior."""
        step, prefill = (self._bundle.manifest.graph(kind, level).spec for kind in (GraphKind.STEP, GraphKind.PREFILL))
        require_slots(step, slots)
        with self._explained(level, slots), ExitStack() as stack:
            opened = self._graph(step, {"B": slots})
            stack.callback(opened.release)
            both = opened, self._graph(prefill, {"B": slots})
            stack.pop_all()  # the session takes ownership of both graphs, even if its constructor fails
            records = self._options.records(self._bundle.manifest.graphs[step.name])
            session = TensorRtSession(*both, slots, self._platform.device, records)
        self._opened.add(session)
        return session

    def _graph(self, spec: GraphSpec, largest: Mapping[str, int]) -> TensorRtGraph:
        pieces = self._bundle.manifest.graphs[spec.name].pieces
        parts = [
            EnginePart(piece.spec, self._load(spec.name, piece), self._platform, self._kernels(piece))
            for piece in pieces
        ]
        return TensorRtGraph(spec, parts, self._platform.device, largest)

    def _kernels(self, piece: GraphPart) -> KernelCache | None:
        folder, record = self._options.kernel_caches, self._bundle.manifest.files[piece.file]
        return None if folder is None else KernelCache.of(folder, record.sha256, self._platform)

    def _load(self, graph: str, piece: GraphPart) -> Any:
        engine = load_engine(self._bundle, piece.file, self._platform)
        prepare_engine(engine, self._platform, self._options, graph, piece)
        return engine

    @contextmanager
    def _explained(self, level: int, slots: int) -> Iterator[None]:
        """Add to an out-of-memory error how many slots would have fitted."""
        free = self._platform.device.free_bytes()
        try:
            yield
        except OutOfDeviceMemoryError as error:
            (plan,) = (plan for plan in plan_bundle(self._bundle) if plan.level == level)
            raise OutOfDeviceMemoryError(f"{error} {what_fits(plan, slots, free)}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release everything that was opened. Another session can be opened afterwards."""
        try:
            with ExitStack() as stack:
                for opened in list(self._opened):
                    stack.callback(opened.close)
        except EngineError:
            if error is None:  # otherwise this is a consequence of `error`, and would hide it
                raise


def open_tensorrt(bundle: EngineBundle, options: TensorRtOptions | None = None) -> TensorRtEngine:
    """Open a bundle on the first visible GPU.

    Raises `NoDeviceError` if there is no GPU or no package for it; `EngineError` for a bundle of another flavour,
    version or GPU.
    """
    options = options or TensorRtOptions()
    return TensorRtEngine(bundle, open_platform(bundle.manifest.target, options), options)
