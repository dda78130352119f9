"""The ONNX Runtime backend, on a CPU or (by option) on a GPU.

All tensors of a prior are bound once, states and outputs to the same memory in every run: the
caches are updated in place, and a step allocates and copies nothing of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import (
    GraphKind,
    GraphSpec,
    Role,
    TensorSpec,
    check_feeds,
    numpy_dtype,
)
from jukebox_deploy.engines.onnxruntime_memory import BoundBuffer, DeviceMemory, HostMemory, Memory
from jukebox_deploy.engines.onnxruntime_sessions import (
    GraphFile,
    OnnxRuntimeOptions,
    import_onnxruntime,
    open_session,
    providers,
    run_options_of_turn,
)
from jukebox_deploy.engines.slots import SlotSession, buffer_count
from jukebox_deploy.errors import EngineError
from jukebox_deploy.threads import map_in_threads, usable_cores


class OnnxRuntimeRunner:
    """A stateless graph."""

    def __init__(self, spec: GraphSpec, session: Any, concurrent_calls: int) -> None:
        self.spec = spec
        self.concurrent_calls = concurrent_calls
        self._session = session

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by input name -> arrays by output name."""
        check_feeds(self.spec, feeds)
        names = [t.output_name for t in self.spec.outputs]
        return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))


@dataclass(frozen=True)
class _Piece:
    """A graph, or one of the parts of a graph that was cut."""

    spec: GraphSpec
    session: Any


@dataclass(frozen=True)
class _Graph:
    """A graph whose files were read. Its sessions open when it first runs: a window from nothing needs no prefill."""

    spec: GraphSpec
    files: tuple[GraphFile, ...]
    options: OnnxRuntimeOptions
    slots: int

    @cached_property
    def pieces(self) -> tuple[_Piece, ...]:
        """What runs one after the other. Packing weights keeps a core busy, so parts are opened side by side."""
        at_once = min(len(self.files), self.options.threads or usable_cores())
        return tuple(map_in_threads(self._open, self.files, threads=at_once, ahead=len(self.files)))

    def _open(self, file: GraphFile) -> _Piece:
        return _Piece(file.spec, open_session(file, self.options, self.slots))

    @property
    def between(self) -> list[TensorSpec]:
        """What a part gives to a later one."""
        own = {tensor.name for tensor in self.spec.tensors}
        return [t for file in self.files for t in file.spec.outputs if t.name not in own]


class OnnxRuntimeSession(SlotSession):
    """The slots of a prior, bound once to step and prefill."""

    def __init__(
        self, step: _Graph, prefill: _Graph, slots: int, memory: Memory, run_options: Sequence[Any] = (None, None)
    ) -> None:
        """`run_options`: of a step in either turn of the buffers."""
        super().__init__(step.spec, prefill.spec, slots)
        self._memory = memory
        self._prefill = prefill
        self._step = step
        self._run_options = run_options
        self._buffers = {t.name: [memory.allocate(t, slots) for _ in range(buffer_count(t))] for t in step.spec.tensors}
        # A prefill of some slots must not touch the other slots' states: it writes these beside them.
        self._scratch = {
            t.name: memory.allocate(t, slots) for t in prefill.spec.tensors if t.role is Role.STATE and not t.in_place
        }
        self._step_between = {t.name: memory.allocate(t, slots) for t in step.between}
        self._prefill_between = {t.name: memory.allocate(t, slots) for t in prefill.between}
        self._step_bindings = [[self._bind_step(piece, current) for piece in step.pieces] for current in (0, 1)]
        self._prefill_bindings: dict[tuple[range, int], list[Any]] = {}

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
        """Where a slot begins in its current buffer; slots are the outermost axis."""
        return self._current(spec.name, current).address + slot * spec.bytes({"B": 1})

    def _bind(self, bind: Any, name: str, spec: TensorSpec, slots: int, address: int) -> None:
        bind(name, *self._memory.device, numpy_dtype(spec.dtype), spec.shape({"B": slots}), address)

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
        _run(self._step, self._step_bindings[self.current], self._run_options[self.current])


def _run(graph: _Graph, bindings: Sequence[Any], run_options: Any = None) -> None:
    for piece, binding in zip(graph.pieces, bindings, strict=True):
        piece.session.run_with_iobinding(binding, run_options)


class OnnxRuntimeEngine:
    """An `Engine` over ONNX files. Only opened graphs take memory."""

    def __init__(
        self,
        config: JukeboxConfig,
        graphs: Mapping[str, GraphSpec],
        files: Mapping[str, Path],
        options: OnnxRuntimeOptions | None = None,
        parts: Mapping[str, tuple[GraphSpec, ...]] | None = None,
    ) -> None:
        """`files`: the ONNX file of each graph, its hash already checked by whoever read the manifest.

        `parts`: by the name of a graph that was cut, the tables of its parts, which have the files. Raises
        `EngineError` if ONNX Runtime or the provider is missing.
        """
        self.config = config
        self.graphs = graphs
        self._files = files
        self._parts = parts or {}
        self._options = options or OnnxRuntimeOptions()
        providers(import_onnxruntime(), self._options)  # now, before anybody begins to write what comes of it

    def _read(self, kind: GraphKind, level: int) -> tuple[GraphSpec, list[GraphFile]]:
        """A graph's table, and its files: one, or one for each of its parts."""
        name = f"{kind}_{level}"
        if name not in self.graphs:
            raise EngineError(f"the bundle has no graph {name!r}; it has {sorted(self.graphs)}. Export it.")
        tables = self._parts.get(name) or (self.graphs[name],)
        return self.graphs[name], [GraphFile.read(table, self._files[table.name]) for table in tables]

    def _graph(self, kind: GraphKind, level: int, slots: int) -> _Graph:
        spec, files = self._read(kind, level)
        return _Graph(spec, tuple(files), self._options, slots)

    def runner(self, kind: GraphKind, level: int) -> OnnxRuntimeRunner:
        """Open a stateless graph."""
        spec, (graph, *_) = self._read(kind, level)
        if spec.states:
            raise EngineError(f"{spec.name} has states; open it as a prior session.")
        _, calls = graph.threads(self._options)
        return OnnxRuntimeRunner(spec, open_session(graph, self._options), calls)

    def prior_session(self, level: int, slots: int) -> OnnxRuntimeSession:
        """Open the step of a prior; its prefill, if that is ever asked for, when it is."""
        step, prefill = (self._graph(kind, level, slots) for kind in (GraphKind.STEP, GraphKind.PREFILL))
        run_options = [run_options_of_turn(turn, self._options) for turn in (0, 1)]
        return OnnxRuntimeSession(step, prefill, slots, self._memory(), run_options)

    def _memory(self) -> Memory:
        """The memory that the provider works in."""
        if self._options.provider == "cpu":
            return HostMemory()
        return DeviceMemory(import_onnxruntime(), ("cuda", self._options.device))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Sessions are released with the runners and sessions that own them."""
