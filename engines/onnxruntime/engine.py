"""The ONNX Runtime backend, on a CPU or (by option) on a GPU.

All tensors of a prior are bound once, so all runs use the same memory: caches are updated in place, and a step neither
allocates nor copies any of these tensors.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import GraphKind, GraphSpec, Role, TensorSpec, check_feeds, find_graph
from jukebox_deploy.engines.cuda_device import free_device_bytes
from jukebox_deploy.engines.device import OutOfDeviceMemoryError, Provider
from jukebox_deploy.engines.manifest import tensors_between
from jukebox_deploy.engines.memory_plan import PriorMemory, plan_prior, what_fits
from jukebox_deploy.engines.onnxruntime.library import import_onnxruntime
from jukebox_deploy.engines.onnxruntime.memory import (
    BoundBuffer,
    DeviceBuffer,
    DeviceMemory,
    HostMemory,
    Memory,
    bound_dtype,
    failure,
    run_on_arrays,
)
from jukebox_deploy.engines.onnxruntime.replay import Run, TurnedSteps, WatchedDeviceBuffer
from jukebox_deploy.engines.onnxruntime.sessions import (
    GraphFile,
    OnnxRuntimeOptions,
    open_session,
    options_of_recording,
    require_start,
)
from jukebox_deploy.engines.replay import Recorder, ReplayedSteps, Turn, Watched, tensors_to_watch
from jukebox_deploy.engines.slots import SlotSession, buffer_count
from jukebox_deploy.errors import EngineError
from jukebox_deploy.threads import map_in_threads, usable_cores


class OnnxRuntimeRunner:
    """An open stateless graph."""

    def __init__(self, spec: GraphSpec, session: Any, concurrent_calls: int) -> None:
        self.spec = spec
        self.concurrent_calls = concurrent_calls
        self._session = session

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the graph: arrays by input name -> arrays by output name."""
        check_feeds(self.spec, feeds)
        names = [tensor.output_name for tensor in self.spec.outputs]
        try:
            return dict(zip(names, run_on_arrays(self._session, names, feeds), strict=True))
        except Exception as error:  # ONNX Runtime has many exception types
            raise failure(f"{self.spec.name}: ONNX Runtime cannot run it", error) from error


@dataclass(frozen=True)
class _Piece:
    """An open graph, or an open part of a cut graph."""

    spec: GraphSpec
    session: Any


@dataclass(frozen=True)
class _Graph:
    """A graph whose files have been read. Sessions open on first use, because not every song needs the prefill."""

    spec: GraphSpec
    files: tuple[GraphFile, ...]
    options: OnnxRuntimeOptions
    slots: int

    @cached_property
    def pieces(self) -> tuple[_Piece, ...]:
        """The sessions that run one after the other. They open concurrently, because packing weights takes CPU time."""
        at_once = min(len(self.files), self.options.threads or usable_cores())
        return tuple(map_in_threads(self._open, self.files, threads=at_once, ahead=len(self.files)))

    def _open(self, file: GraphFile) -> _Piece:
        return _Piece(file.spec, open_session(file, self.options, self.slots))

    @property
    def between(self) -> tuple[TensorSpec, ...]:
        """The tensors that a part passes to a later one."""
        return tensors_between(self.spec, (file.spec for file in self.files))


class OnnxRuntimeSession(SlotSession):
    """The slots of a prior, bound to its step and prefill."""

    def __init__(self, step: _Graph, prefill: _Graph, slots: int, memory: Memory) -> None:
        super().__init__(step.spec, prefill.spec, slots)
        pieces = step.pieces  # before allocating: opening a session raises clear errors for a GPU that cannot be used
        self._memory = memory
        self._prefill = prefill
        self._buffers = {t.name: [memory.allocate(t, slots) for _ in range(buffer_count(t))] for t in step.spec.tensors}
        # The prefill's outputs for double-buffered states; they are copied to the prefilled slots afterwards.
        self._scratch = {
            t.name: memory.allocate(t, slots) for t in prefill.spec.tensors if t.role is Role.STATE and not t.in_place
        }
        self._step_between = {t.name: memory.allocate(t, slots) for t in step.between}
        self._prefill_between = {t.name: memory.allocate(t, slots) for t in prefill.between}
        self._step_bindings = [[self._bind_step(piece, current) for piece in pieces] for current in (0, 1)]
        # The callable holds no reference to the session: a cycle would delay the release of its memory.
        self._steps = self._make_steps(partial(_run_turn, step, self._step_bindings), step.options)
        self._prefill_bindings: dict[tuple[range, int], list[Any]] = {}

    def _make_steps(self, run: Run, options: OnnxRuntimeOptions) -> ReplayedSteps:
        steps = TurnedSteps(run, options_of_recording if options.records else _without_options)
        watched = [self._watched(current) if options.records else [] for current in (0, 1)]
        turns = [Turn(watched[current], partial(steps.bind, current)) for current in (0, 1)]
        recorder = Recorder(steps.record, required=options.cuda_graph is True) if options.records else None
        return ReplayedSteps(self.spec.name, recorder, steps.enqueue, turns)

    def _watched(self, current: int) -> list[Watched]:
        return [self._watch(spec, 1 - current) for spec in tensors_to_watch(self.spec)]

    def _watch(self, spec: TensorSpec, current: int) -> Watched:
        buffer = self._current(spec.name, current)
        assert isinstance(buffer, DeviceBuffer)  # steps are recorded on a GPU only
        return WatchedDeviceBuffer(spec.name, spec.in_place, buffer)

    def _current(self, name: str, current: int) -> BoundBuffer:
        buffers = self._buffers[name]
        return buffers[current % len(buffers)]

    def _buffer(self, spec: TensorSpec) -> BoundBuffer:
        return self._current(spec.name, self.current)

    def _bind_step(self, piece: _Piece, current: int) -> Any:
        binding = piece.session.io_binding()
        for spec in piece.spec.inputs:
            buffer = self._step_between.get(spec.name) or self._current(spec.name, current)
            self._bind(binding.bind_input, spec.input_name, spec, self.slots, buffer.address)
        for spec in piece.spec.outputs:
            buffer = self._step_between.get(spec.name) or self._current(spec.name, 1 - current)
            self._bind(binding.bind_output, spec.output_name, spec, self.slots, buffer.address)
        return binding

    def _bind_prefill(self, piece: _Piece, slots: range, current: int) -> Any:
        binding = piece.session.io_binding()
        for spec in piece.spec.inputs:
            between = self._prefill_between.get(spec.name)
            address = between.address if between else self._slot_address(spec, slots.start, current)
            self._bind(binding.bind_input, spec.input_name, spec, len(slots), address)
        for spec in piece.spec.outputs:
            beside = self._prefill_between.get(spec.name) or self._scratch.get(spec.name)
            address = beside.address if beside else self._slot_address(spec, slots.start, current)
            self._bind(binding.bind_output, spec.output_name, spec, len(slots), address)
        return binding

    def _slot_address(self, spec: TensorSpec, slot: int, current: int) -> int:
        """Return the address of a slot in the tensor's current buffer; slots are the outermost axis."""
        return self._current(spec.name, current).address + slot * spec.bytes({"B": 1})

    def _bind(self, bind: Any, name: str, spec: TensorSpec, slots: int, address: int) -> None:
        bind(name, *self._memory.device, bound_dtype(spec.dtype), spec.shape({"B": slots}), address)

    def _run_prefill(self, slots: range) -> None:
        key = (slots, self.current)
        if key not in self._prefill_bindings:
            self._prefill_bindings[key] = [self._bind_prefill(p, slots, self.current) for p in self._prefill.pieces]
        self._memory.synchronize()
        _run(self._prefill, self._prefill_bindings[key])
        for name, scratch in self._scratch.items():
            for row, slot in enumerate(slots):
                self._current(name, self.current).write(slot, scratch.read(row))

    def _run_step(self) -> None:
        self._memory.synchronize()
        self._steps.run(self.current)


def _without_options(recording: int) -> None:
    """Return the run options of a session that records nothing."""


def _run_turn(step: _Graph, bindings: Sequence[Sequence[Any]], turn: int, run_options: Any = None) -> None:
    _run(step, bindings[turn], run_options)


def _run(graph: _Graph, bindings: Sequence[Any], run_options: Any = None) -> None:
    for piece, binding in zip(graph.pieces, bindings, strict=True):
        try:
            piece.session.run_with_iobinding(binding, run_options)
        except Exception as error:  # ONNX Runtime has many exception types
            raise failure(f"{piece.spec.name}: ONNX Runtime cannot run it", error) from error


class OnnxRuntimeEngine:
    """An `Engine` that runs ONNX files. Only open graphs take memory."""

    def __init__(
        self,
        config: JukeboxConfig,
        graphs: Mapping[str, GraphSpec],
        files: Mapping[str, Path],
        options: OnnxRuntimeOptions | None = None,
        parts: Mapping[str, tuple[GraphSpec, ...]] | None = None,
    ) -> None:
        """`files`: the ONNX file of each graph or part; their hashes were verified when the bundle was opened.

        `parts`: the declarations of the parts of each cut graph, by the graph's name. Raises `EngineError` if ONNX
        Runtime or the provider is missing, and `NoDeviceError` if the provider does not start on this machine.
        """
        self.config = config
        self.graphs = graphs
        self._files = files
        self._parts = parts or {}
        self._options = options or OnnxRuntimeOptions()
        require_start(self._options)  # fails here rather than after a caller has begun to write its results

    @property
    def batch_invariant(self) -> bool:
        """True for packed weights on a CPU, whose kernels sum a row in the same order for any number of rows."""
        return self._options.provider == Provider.CPU and not self._options.map_weights

    def _read(self, kind: GraphKind, level: int) -> tuple[GraphSpec, list[GraphFile]]:
        """Return the declaration of a graph, and its file or the files of its parts."""
        spec = find_graph(self.graphs, kind, level)
        pieces = self._parts.get(spec.name) or (spec,)
        return spec, [GraphFile.read(piece, self._files[piece.name]) for piece in pieces]

    def _graph(self, kind: GraphKind, level: int, slots: int, options: OnnxRuntimeOptions) -> _Graph:
        spec, files = self._read(kind, level)
        return _Graph(spec, tuple(files), options, slots)

    def runner(self, kind: GraphKind, level: int) -> OnnxRuntimeRunner:
        """Open a stateless graph."""
        spec, (graph, *_) = self._read(kind, level)
        if spec.states:
            raise EngineError(f"{spec.name} has states; open it as a prior session.")
        _, calls = graph.threads(self._options)
        return OnnxRuntimeRunner(spec, open_session(graph, self._options), calls)

    def prior_session(self, level: int, slots: int) -> OnnxRuntimeSession:
        """Open the step of a prior; its prefill opens on first use."""
        options = self._options
        with self._explained(level, slots):
            try:
                return self._session(level, slots, options)
            except EngineError as error:
                if not options.records or options.cuda_graph or isinstance(error, OutOfDeviceMemoryError):
                    raise
                session = self._session(level, slots, replace(options, cuda_graph=False))
                warnings.warn(f"{error} Steps run without CUDA graphs.", RuntimeWarning, stacklevel=2)
                return session

    @contextmanager
    def _explained(self, level: int, slots: int) -> Iterator[None]:
        """Say in an out-of-memory error of a GPU how many slots would have fitted, if its free memory is known."""
        free = None if self._options.provider == Provider.CPU else free_device_bytes()
        try:
            yield
        except OutOfDeviceMemoryError as error:
            if free is None:
                raise
            raise OutOfDeviceMemoryError(error.said, what_fits(self._plan(level), slots, free)) from error

    def _plan(self, level: int) -> PriorMemory:
        """Plan the memory of a prior; the working memory of ONNX Runtime's kernels is not known."""
        of_prior = [spec for spec in self.graphs.values() if spec.model_level == level]
        weights = sum(file.weight_bytes for spec in of_prior for file in self._read(spec.kind, level)[1])
        precision = find_graph(self.graphs, GraphKind.STEP, level).precision
        return plan_prior(self.graphs, level, precision, weights, parts=self._parts)

    def _session(self, level: int, slots: int, options: OnnxRuntimeOptions) -> OnnxRuntimeSession:
        step, prefill = (self._graph(kind, level, slots, options) for kind in (GraphKind.STEP, GraphKind.PREFILL))
        return OnnxRuntimeSession(step, prefill, slots, self._memory())

    def _memory(self) -> Memory:
        """Return the memory in which the provider works."""
        if self._options.provider == Provider.CPU:
            return HostMemory()
        return DeviceMemory(import_onnxruntime(), ("cuda", 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing: ONNX Runtime's sessions are released with the runners and prior sessions that own them."""
