"""The reference backend, which runs the models' own modules with PyTorch.

The caller provides the graph modules (functions that map tensors to tensors, in the order of the declarations), so the
backend does not depend on models or exporters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import GraphKind, GraphSpec, Role, TensorSpec, check_feeds, find_graph
from jukebox_deploy.engines.eager.replay import WatchedTensor
from jukebox_deploy.engines.eager.tensors import explaining_memory_errors, to_numpy, to_tensor
from jukebox_deploy.engines.replay import Recorder, ReplayedSteps, Turn, Work, tensors_to_watch
from jukebox_deploy.engines.slots import SlotBuffer, SlotSession
from jukebox_deploy.errors import EngineError

if TYPE_CHECKING:
    from torch import Tensor

GraphFunction = Callable[..., "tuple[Tensor, ...]"]
"""Maps tensors in the order of `spec.inputs` to tensors in the order of `spec.outputs`."""

GraphOpener = Callable[[GraphSpec], GraphFunction]
"""Makes the function of a graph; called when the graph is opened."""


class EagerRunner:
    """An open stateless graph. Calls are not concurrent, because PyTorch runs each call on several threads itself."""

    concurrent_calls = 1

    def __init__(self, spec: GraphSpec, function: GraphFunction, device: str) -> None:
        self.spec = spec
        self._function = function
        self._device = device

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the graph: arrays by input name -> arrays by output name."""
        import torch

        check_feeds(self.spec, feeds)
        tensors = [to_tensor(feeds[t.input_name], self._device) for t in self.spec.inputs]
        with torch.inference_mode(), explaining_memory_errors(self.spec.name):
            results = self._function(*tensors)
        return {t.output_name: to_numpy(r) for t, r in zip(self.spec.outputs, results, strict=True)}


class _TensorBuffer:
    """A `SlotBuffer` that is a tensor."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def write(self, slot: int, value: np.ndarray) -> None:
        self._tensor[slot] = to_tensor(value, str(self._tensor.device))

    def read(self, slot: int) -> np.ndarray:
        return to_numpy(self._tensor[slot]).copy()


class EagerSession(SlotSession):
    """The slots of a prior as tensors at fixed addresses, whose caches the modules update in place."""

    def __init__(
        self,
        step: tuple[GraphSpec, GraphFunction],
        prefill: tuple[GraphSpec, GraphFunction],
        slots: int,
        device: str,
        recorder: Recorder | None = None,
    ) -> None:
        """`recorder`: record the step as a CUDA graph at its first run, and replay it afterwards."""
        import torch

        super().__init__(step[0], prefill[0], slots)
        self._prefill = prefill[1]
        self._tensors = {
            t.name: torch.zeros(t.shape({"B": slots}), dtype=getattr(torch, t.dtype), device=device)
            for t in self.spec.tensors
        }
        # The callable holds no reference to the session: a cycle would delay the release of its memory.
        self._steps = self._make_steps(partial(_run_in_place, *step, self._tensors), recorder)

    def _make_steps(self, step: Work, recorder: Recorder | None) -> ReplayedSteps:
        """Prepare the runs of steps. There is one turn, because no state is double-buffered."""
        watched = [
            WatchedTensor(t.name, t.role is Role.STATE, self._tensors[t.name][: 1 if t.in_place else self.slots])
            for t in tensors_to_watch(self.spec)
        ]
        return ReplayedSteps(self.spec.name, recorder, step, [Turn(watched)])

    def _buffer(self, spec: TensorSpec) -> SlotBuffer:
        return _TensorBuffer(self._tensors[spec.name])

    def _run_prefill(self, slots: range) -> None:
        import torch

        sizes = {"B": len(slots)}
        window = slice(slots.start, slots.stop)
        # Whole slots are contiguous, so this is a view, and the caches are still updated in place.
        tensors = [self._tensors[t.name][window].view(t.shape(sizes)) for t in self._prefill_spec.inputs]
        with torch.inference_mode(), explaining_memory_errors(self._prefill_spec.name):
            results = self._prefill(*tensors)
            for spec, result in zip(self._prefill_spec.outputs, results, strict=True):
                if not spec.in_place:
                    self._tensors[spec.name][window] = result

    def _run_step(self) -> None:
        with explaining_memory_errors(self.spec.name):
            self._steps.run(0)


def _run_in_place(spec: GraphSpec, function: GraphFunction, tensors: Mapping[str, Tensor]) -> None:
    """Run a step, and copy its results to the tensors that the next step reads.

    Raises `EngineError` for a cache that was not updated in place: a compiler may copy it, which would go unnoticed.
    """
    import torch

    with torch.inference_mode():
        results = function(*(tensors[t.name] for t in spec.inputs))
        for tensor, result in zip(spec.outputs, results, strict=True):
            own = tensors[tensor.name]
            if not tensor.in_place:
                own.copy_(result)
            elif result.data_ptr() != own.data_ptr():
                raise EngineError(
                    f"{spec.name}: PyTorch {torch.__version__} did not update {tensor.name} in place. "
                    "Use another version of PyTorch, or run without --compile."
                )


class EagerEngine:
    """An `Engine` that runs graph modules. `device` is a PyTorch device name."""

    batch_invariant = False  # PyTorch uses other kernels for one row than for several

    def __init__(
        self,
        config: JukeboxConfig,
        graphs: Mapping[str, GraphSpec],
        opener: GraphOpener,
        device: str = "cpu",
        recorder: Recorder | None = None,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        """`recorder`: how to record the steps of sessions as CUDA graphs; `None` to run them without recording.

        `release`: called on exit, to release what `opener` keeps beyond the life of the graphs.
        """
        self.config = config
        self.graphs = graphs
        self._opener = opener
        self._device = device
        self._recorder = recorder
        self._release = release

    def _open(self, kind: GraphKind, level: int) -> tuple[GraphSpec, GraphFunction]:
        spec = find_graph(self.graphs, kind, level, self.config.name)
        with explaining_memory_errors(spec.name):
            return spec, self._opener(spec)

    def runner(self, kind: GraphKind, level: int) -> EagerRunner:
        """Open a stateless graph."""
        spec, function = self._open(kind, level)
        if spec.states:
            raise EngineError(f"{spec.name} has states; open it as a prior session.")
        return EagerRunner(spec, function, self._device)

    def prior_session(self, level: int, slots: int) -> EagerSession:
        """Open the step and the prefill of a prior. Raises `OutOfDeviceMemoryError`."""
        step, prefill = self._open(GraphKind.STEP, level), self._open(GraphKind.PREFILL, level)
        with explaining_memory_errors(f"{step[0].name} with {slots} slots"):
            return EagerSession(step, prefill, slots, self._device, self._recorder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release what the opener keeps; a model lives until no runner and no session uses it any more."""
        self._release()
