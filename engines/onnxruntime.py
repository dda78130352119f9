"""The ONNX Runtime backend, on CPU or (by option) on CUDA.

All tensors of a prior are bound once, states and outputs to the same memory in every run: the
caches are updated in place, and a step allocates and copies nothing of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
)
from jukebox_deploy.engines.slots import SlotSession, buffer_count
from jukebox_deploy.errors import EngineError


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
class _Graph:
    spec: GraphSpec
    session: Any


class OnnxRuntimeSession(SlotSession):
    """The slots of a prior, bound once to step and prefill."""

    def __init__(self, step: _Graph, prefill: _Graph, slots: int, memory: Memory) -> None:
        super().__init__(step.spec, prefill.spec, slots)
        self._memory = memory
        self._prefill = prefill
        self._step = step
        self._buffers = {t.name: [memory.allocate(t, slots) for _ in range(buffer_count(t))] for t in step.spec.tensors}
        # A prefill of some slots must not touch the other slots' states: it writes these beside them.
        self._scratch = {
            t.name: memory.allocate(t, slots) for t in prefill.spec.tensors if t.role is Role.STATE and not t.in_place
        }
        self._step_bindings = [self._bind_step(current) for current in (0, 1)]
        self._prefill_bindings: dict[tuple[range, int], Any] = {}

    def _current(self, name: str, current: int) -> BoundBuffer:
        buffers = self._buffers[name]
        return buffers[current % len(buffers)]

    def _buffer(self, spec: TensorSpec) -> BoundBuffer:
        return self._current(spec.name, self.current)

    def _bind_step(self, current: int) -> Any:
        binding = self._step.session.io_binding()
        for spec in self.spec.inputs:
            address = self._current(spec.name, current).address
            self._bind(binding.bind_input, spec.input_name, spec, self.slots, address)
        for spec in self.spec.outputs:
            address = self._current(spec.name, 1 - current).address
            self._bind(binding.bind_output, spec.output_name, spec, self.slots, address)
        return binding

    def _bind_prefill(self, slots: range, current: int) -> Any:
        binding = self._prefill.session.io_binding()
        for spec in self._prefill.spec.inputs:
            address = self._slot_address(spec, slots.start, current)
            self._bind(binding.bind_input, spec.input_name, spec, len(slots), address)
        for spec in self._prefill.spec.outputs:
            in_place = self._slot_address(spec, slots.start, current)
            address = in_place if spec.in_place else self._scratch[spec.name].address
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
            self._prefill_bindings[key] = self._bind_prefill(slots, self.current)
        self._memory.synchronize()
        self._prefill.session.run_with_iobinding(self._prefill_bindings[key])
        for name, scratch in self._scratch.items():
            for row, slot in enumerate(slots):
                self._current(name, self.current).write(slot, scratch.read(row))

    def _run_step(self) -> None:
        self._memory.synchronize()
        self._step.session.run_with_iobinding(self._step_bindings[self.current])


class OnnxRuntimeEngine:
    """An `Engine` over ONNX files. Only opened graphs take memory."""

    def __init__(
        self,
        config: JukeboxConfig,
        graphs: Mapping[str, GraphSpec],
        files: Mapping[str, Path],
        options: OnnxRuntimeOptions | None = None,
    ) -> None:
        """`files`: the ONNX file of each graph, its hash already checked by whoever read the manifest.

        Raises `EngineError` if ONNX Runtime or the provider is missing.
        """
        self.config = config
        self.graphs = graphs
        self._files = files
        self._options = options or OnnxRuntimeOptions()
        providers(import_onnxruntime(), self._options)  # now, before anybody begins to write what comes of it

    def _read(self, kind: GraphKind, level: int) -> GraphFile:
        name = f"{kind}_{level}"
        if name not in self.graphs:
            raise EngineError(f"the bundle has no graph {name!r}; it has {sorted(self.graphs)}. Export it.")
        return GraphFile.read(self.graphs[name], self._files[name])

    def runner(self, kind: GraphKind, level: int) -> OnnxRuntimeRunner:
        """Open a stateless graph."""
        graph = self._read(kind, level)
        if graph.spec.states:
            raise EngineError(f"{graph.spec.name} has states; open it as a prior session.")
        _, calls = graph.threads(self._options)
        return OnnxRuntimeRunner(graph.spec, open_session(graph, self._options), calls)

    def prior_session(self, level: int, slots: int) -> OnnxRuntimeSession:
        """Open step and prefill of a prior."""
        step, prefill = (
            _Graph(graph.spec, open_session(graph, self._options, slots))
            for graph in (self._read(kind, level) for kind in (GraphKind.STEP, GraphKind.PREFILL))
        )
        return OnnxRuntimeSession(step, prefill, slots, self._memory())

    def _memory(self) -> Memory:
        """The memory that the provider works in."""
        if self._options.provider == "cpu":
            return HostMemory()
        return DeviceMemory(import_onnxruntime(), (self._options.provider, self._options.device))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Sessions are released with the runners and sessions that own them."""
