"""Steps of PyTorch recorded as CUDA graphs, by PyTorch itself: its allocator keeps what they work in.

A step in PyTorch is a thousand small kernels and more, each launched by Python; a recording is one launch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jukebox_deploy.engines.eager.tensors import to_numpy, to_tensor
from jukebox_deploy.engines.replay import Work
from jukebox_deploy.errors import EngineError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


_OF_THIS_THREAD = "thread_local"  # others may go on using CUDA while something is recorded


class TorchRecording:
    """Work of PyTorch's current stream, recorded."""

    def __init__(self, work: Work) -> None:
        """Raises `EngineError` with CUDA's own words for what cannot be recorded, as a wait for the device."""
        import torch

        self._graph: torch.cuda.CUDAGraph | None = None
        try:
            graph = torch.cuda.CUDAGraph()
            with _current_stream_kept(), torch.cuda.graph(graph, capture_error_mode=_OF_THIS_THREAD):
                work()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise EngineError(f"{_cause(error)}.") from error
        self._graph = graph

    def replay(self) -> None:
        """See `Recording`."""
        assert self._graph is not None, "a recording that was let go of"
        self._graph.replay()

    def release(self) -> None:
        """See `Recording`."""
        if self._graph is not None:
            graph, self._graph = self._graph, None
            graph.reset()


@contextmanager
def _current_stream_kept() -> Iterator[None]:
    """PyTorch leaves the stream of a recording current where the recording fails."""
    import torch

    if not torch.cuda.is_available():
        yield
        return
    stream = torch.cuda.current_stream()
    try:
        yield
    finally:
        torch.cuda.set_stream(stream)


def _cause(error: BaseException) -> str:
    """The first line of what failed first: the end of a recording only says that something did."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


@dataclass(frozen=True)
class WatchedTensor:
    """Some slots of a tensor, for `ReplayedSteps`."""

    name: str
    is_read: bool
    tensor: Tensor

    def read(self) -> np.ndarray:
        """See `Watched`."""
        return to_numpy(self.tensor).copy()

    def write(self, values: np.ndarray) -> None:
        """See `Watched`."""
        self.tensor.copy_(to_tensor(values, str(self.tensor.device)))

    def wipe(self) -> None:
        """See `Watched`."""
        import torch

        self.tensor.view(torch.uint8).fill_(0xFF)
