"""The reference backend: the models' own modules, run by PyTorch as they are.

It is handed the graph modules (functions from tensors to tensors in the order of their tables), so
that it knows nothing of models or exporters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import GraphKind, GraphSpec, Role, TensorSpec, check_feeds
from jukebox_deploy.engines.slots import SlotBuffer, SlotSession
from jukebox_deploy.errors import EngineError

if TYPE_CHECKING:
    from torch import Tensor

GraphFunction = Callable[..., "tuple[Tensor, ...]"]
"""Tensors in the order of `spec.inputs` -> tensors in the order of `spec.outputs`."""

GraphOpener = Callable[[GraphSpec], GraphFunction]
"""Makes the function of a graph; called when the graph is opened."""


def _to_numpy(tensor: Tensor) -> np.ndarray:
    import torch

    tensor = tensor.detach().cpu()
    if tensor.dtype is torch.bfloat16:
        import ml_dtypes

        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    array: np.ndarray = tensor.numpy()
    return array


def _to_tensor(array: np.ndarray, device: str) -> Tensor:
    import torch

    contiguous = np.ascontiguousarray(array)
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(contiguous.view(np.uint16)).view(torch.bfloat16).to(device)
    return torch.from_numpy(contiguous).to(device)


class EagerRunner:
    """A stateless graph. PyTorch divides each call among its threads by itself."""

    concurrent_calls = 1

    def __init__(self, spec: GraphSpec, function: GraphFunction, device: str) -> None:
        self.spec = spec
        self._function = function
        self._device = device

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by input name -> arrays by output name."""
        import torch

        check_feeds(self.spec, feeds)
        tensors = [_to_tensor(feeds[t.input_name], self._device) for t in self.spec.inputs]
        with torch.inference_mode():
            results = self._function(*tensors)
        return {t.output_name: _to_numpy(r) for t, r in zip(self.spec.outputs, results, strict=True)}


class _TensorBuffer:
    """A slot buffer over a tensor."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def write(self, slot: int, value: np.ndarray) -> None:
        import torch

        with torch.inference_mode():  # what a step made may only be changed in this mode
            self._tensor[slot] = _to_tensor(value, str(self._tensor.device))

    def read(self, slot: int) -> np.ndarray:
        return _to_numpy(self._tensor[slot]).copy()


class EagerSession(SlotSession):
    """The slots of a prior as tensors; the modules write the caches in place."""

    def __init__(
        self,
        step: tuple[GraphSpec, GraphFunction],
        prefill: tuple[GraphSpec, GraphFunction],
        slots: int,
        device: str,
    ) -> None:
        import torch

        super().__init__(step[0], prefill[0], slots)
        self._step, self._prefill = step[1], prefill[1]
        self._tensors = {
            t.name: torch.zeros(t.shape({"B": slots}), dtype=getattr(torch, t.dtype), device=device)
            for t in self.spec.tensors
        }

    def _buffer(self, spec: TensorSpec) -> SlotBuffer:
        return _TensorBuffer(self._tensors[spec.name])

    def _run_prefill(self, slots: range) -> None:
        import torch

        sizes = {"B": len(slots)}
        window = slice(slots.start, slots.stop)
        # A reshape of whole slots is a view: the caches are still written in place.
        tensors = [self._tensors[t.name][window].view(t.shape(sizes)) for t in self._prefill_spec.inputs]
        with torch.inference_mode():
            results = self._prefill(*tensors)
            for spec, result in zip(self._prefill_spec.outputs, results, strict=True):
                if not spec.in_place:
                    self._tensors[spec.name][window] = result

    def _run_step(self) -> None:
        import torch

        with torch.inference_mode():
            results = self._step(*(self._tensors[t.name] for t in self.spec.inputs))
        for spec, result in zip(self.spec.outputs, results, strict=True):
            self._tensors[spec.name] = result


class EagerEngine:
    """An `Engine` over graph modules. `device` is a PyTorch device name."""

    def __init__(
        self, config: JukeboxConfig, graphs: Mapping[str, GraphSpec], opener: GraphOpener, device: str = "cpu"
    ) -> None:
        self.config = config
        self.graphs = graphs
        self._opener = opener
        self._device = device

    def _open(self, kind: GraphKind, level: int) -> tuple[GraphSpec, GraphFunction]:
        name = f"{kind}_{level}"
        if name not in self.graphs:
            raise EngineError(f"{self.config.name} has no graph {name!r}; it has {sorted(self.graphs)}.")
        return self.graphs[name], self._opener(self.graphs[name])

    def runner(self, kind: GraphKind, level: int) -> EagerRunner:
        """Open a stateless graph."""
        spec, function = self._open(kind, level)
        if any(t.role is Role.STATE for t in spec.tensors):
            raise EngineError(f"{spec.name} has states; open it as a prior session.")
        return EagerRunner(spec, function, self._device)

    def prior_session(self, level: int, slots: int) -> EagerSession:
        """Open step and prefill of a prior."""
        step, prefill = self._open(GraphKind.STEP, level), self._open(GraphKind.PREFILL, level)
        return EagerSession(step, prefill, slots, self._device)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held that needs releasing."""
