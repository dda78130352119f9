"""The ONNX Runtime backend, on CPU or (by option) on CUDA.

All tensors of a prior are bound once, states and outputs to the same memory in every run: the
caches are updated in place, and a step allocates and copies nothing of them.
"""

from __future__ import annotations

import importlib.metadata
import os
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
from jukebox_deploy.engines.slots import SlotSession, buffer_count
from jukebox_deploy.engines.threads import worthwhile_threads
from jukebox_deploy.errors import EngineError

LARGE_WEIGHTS = 512 << 20
"""Above this, graphs other than the step keep their weights memory-mapped instead of packing them."""


@dataclass(frozen=True)
class OnnxRuntimeOptions:
    """How sessions are made."""

    provider: str = "cpu"  # "cpu" or "cuda"
    threads: int | None = None  # None: as many as pay
    device: int = 0  # number of the GPU
    pack_weights: bool = True  # the step's; without it large weights stay memory-mapped, in half the memory
    round_activations: bool = True  # to 8 bits where they meet integer weights, on a CPU: many times as fast

    def __post_init__(self) -> None:
        if self.provider not in ("cpu", "cuda"):
            raise EngineError(f"ONNX Runtime: unknown provider {self.provider!r}; choose cpu or cuda.")


def import_onnxruntime() -> Any:
    """The `onnxruntime` module; `EngineError` says what to install, or what is installed twice."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise EngineError(
            "ONNX Runtime is not installed. Install it with: pip install 'jukebox-deploy[cpu]' "
            "(or jukebox-deploy[cuda] for NVIDIA GPUs)."
        ) from None
    except ImportError as error:
        raise EngineError(f"ONNX Runtime is installed, but cannot be loaded: {error}. Install it again.") from error
    wheels = [name for name in ("onnxruntime", "onnxruntime-gpu") if _installed(name)]
    if len(wheels) > 1:
        raise EngineError(
            "both onnxruntime and onnxruntime-gpu are installed, and they overwrite each other's files. "
            "Run: pip uninstall -y onnxruntime onnxruntime-gpu, then install one of them again."
        )
    return onnxruntime


def _installed(wheel: str) -> bool:
    try:
        importlib.metadata.version(wheel)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _weight_bytes(path: Path) -> int:
    """Bytes of the files that a graph's weights lie in."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    return sum(int(entry.value) for t in model.graph.initializer for entry in t.external_data if entry.key == "length")


def open_session(path: Path, options: OnnxRuntimeOptions, *, pack_weights: bool = True) -> Any:
    """An `InferenceSession` on a graph; `EngineError` with the runtime's own words if it refuses.

    Without `pack_weights` large weights stay memory-mapped: quick to open, and no copy of them.
    """
    runtime = import_onnxruntime()
    session_options = runtime.SessionOptions()
    session_options.log_severity_level = 3
    weights = _weight_bytes(path)
    session_options.intra_op_num_threads = options.threads or worthwhile_threads(weights)
    session_options.inter_op_num_threads = 1
    # Sessions take turns in one process: threads of an idle one must not spin against the other's.
    session_options.add_session_config_entry("session.force_spinning_stop", "1")
    if not pack_weights and weights > LARGE_WEIGHTS:
        session_options.add_session_config_entry("session.disable_prepacking", "1")
    # The kernels for integer weights: level 4 multiplies them with 8-bit integers, level 1 with float32.
    level = "4" if options.round_activations else "1"
    session_options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", level)
    try:
        return runtime.InferenceSession(str(path), session_options, providers=_providers(runtime, options))
    except Exception as error:  # the runtime raises many kinds, all with a readable text
        raise EngineError(f"ONNX Runtime cannot open {path.name}: {error}") from error


def _providers(runtime: Any, options: OnnxRuntimeOptions) -> list[Any]:
    if options.provider == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        raise EngineError(
            "this ONNX Runtime has no CUDA provider. Run: pip uninstall -y onnxruntime, "
            "then pip install 'jukebox-deploy[cuda]'."
        )
    return [("CUDAExecutionProvider", {"device_id": options.device})]


MOST_CONCURRENT_CALLS = 4
"""Each takes its own working memory: about half a gigabyte for ten seconds of a released VQ-VAE."""


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
        _providers(import_onnxruntime(), self._options)  # now, before anybody begins to write what comes of it

    def _open(self, kind: GraphKind, level: int) -> _Graph:
        name = f"{kind}_{level}"
        if name not in self.graphs:
            raise EngineError(f"the bundle has no graph {name!r}; it has {sorted(self.graphs)}. Export it.")
        session = open_session(
            self._files[name], self._options, pack_weights=self._options.pack_weights and kind is GraphKind.STEP
        )
        return _Graph(self.graphs[name], session)

    def runner(self, kind: GraphKind, level: int) -> OnnxRuntimeRunner:
        """Open a stateless graph."""
        graph = self._open(kind, level)
        if graph.spec.states:
            raise EngineError(f"{graph.spec.name} has states; open it as a prior session.")
        return OnnxRuntimeRunner(graph.spec, graph.session, self._concurrent_calls(graph.session))

    def _concurrent_calls(self, session: Any) -> int:
        """As many as there are cores for; a call divides its work badly where its weights are small."""
        if self._options.provider != "cpu":
            return 1
        threads = session.get_session_options().intra_op_num_threads
        return max(1, min(MOST_CONCURRENT_CALLS, (os.cpu_count() or 1) // threads))

    def prior_session(self, level: int, slots: int) -> OnnxRuntimeSession:
        """Open step and prefill of a prior."""
        step, prefill = self._open(GraphKind.STEP, level), self._open(GraphKind.PREFILL, level)
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
