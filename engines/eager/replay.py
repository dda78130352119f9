"""Recording of PyTorch's steps as CUDA graphs, by PyTorch itself, whose allocator reserves the memory of a graph.

A step in PyTorch is more than a thousand small kernels, each launched from Python; a replay is one launch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jukebox_deploy.engines.eager.tensors import to_numpy, to_tensor
from jukebox_deploy.engines.replay import Work, no_collection
from jukebox_deploy.errors import EngineError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


_OF_THIS_THREAD = "thread_local"  # capture mode in which other threads may use CUDA during a capture


class TorchRecording:
    """A CUDA graph of work on PyTorch's current stream."""

    def __init__(self, work: Work) -> None:
        """Capture `work`.

        Raises `EngineError` with CUDA's message for work that cannot be captured, such as waiting for the device.
        """
        import torch

        self._graph: torch.cuda.CUDAGraph | None = None
        try:
            graph = torch.cuda.CUDAGraph()
            with _current_stream_kept(), torch.cuda.graph(graph, capture_error_mode=_OF_THIS_THREAD), no_collection():
                work()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise EngineError(f"{_cause(error)}.") from error
        self._graph = graph

    def replay(self) -> None:
        """See `Recording`."""
        assert self._graph is not None, "the recording has been released"
        self._graph.replay()

    def release(self) -> None:
        """See `Recording`."""
        if self._graph is not None:
            graph, self._graph = self._graph, None
            graph.reset()


@contextmanager
def _current_stream_kept() -> Iterator[None]:
    """Restore the current stream, because PyTorch leaves the capture's stream current if the capture fails."""
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
    """Return the first line of the original error; the error at the end of a capture only says that it failed."""
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
