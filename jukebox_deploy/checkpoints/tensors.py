"""Named tensors whose values are loaded one at a time, so that large checkpoints can be streamed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from jukebox_deploy.errors import CheckpointError


@dataclass(frozen=True)
class TensorInfo:
    """Shape and dtype of a tensor, known before its values are read."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Size of the values in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


class TensorSource(Protocol):
    """Tensors in a file, in memory, or generated on demand."""

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        """Shape and dtype of every tensor, by name."""

    def load(self, name: str) -> Tensor:
        """Load the values of one tensor on the CPU. Keep no reference longer than needed, to save memory."""


@dataclass(frozen=True)
class TensorTable:
    """Tensors that are in memory or memory-mapped."""

    tensors: Mapping[str, Tensor]

    @cached_property
    def infos(self) -> Mapping[str, TensorInfo]:
        """Shape and dtype of every tensor, by name."""
        return {name: TensorInfo(tuple(t.shape), t.dtype) for name, t in self.tensors.items()}

    def load(self, name: str) -> Tensor:
        """Return one of the tensors."""
        return self.tensors[name]


@dataclass(frozen=True)
class RenamedTensors:
    """A publisher's tensors under our names.

    `names` maps each of our names to the publisher's names. The first of these that exists is read, and the others that
    exist must be equal to it. All values must be finite.
    """

    source: TensorSource
    names: Mapping[str, tuple[str, ...]]

    @cached_property
    def infos(self) -> Mapping[str, TensorInfo]:
        """Shape and dtype of every tensor, by our name."""
        return {name: self.source.infos[self._present(name)[0]] for name in self.names}

    def load(self, name: str) -> Tensor:
        """Load one tensor by our name; raise `CheckpointError` for NaN, infinity, and tied tensors that differ."""
        first, *others = self._present(name)
        tensor = self.source.load(first)
        _require_finite(first, tensor)
        for other in others:
            if not torch.equal(tensor, self.source.load(other)):
                raise CheckpointError(
                    f"{first} and {other} differ, but this model has one matrix for both "
                    "(tied output). The file belongs to another model, or is damaged."
                )
        return tensor

    def _present(self, name: str) -> list[str]:
        return [theirs for theirs in self.names[name] if theirs in self.source.infos]


def _require_finite(name: str, tensor: Tensor) -> None:
    if not tensor.numel() or all(math.isfinite(end) for end in torch.aminmax(tensor)):  # with NaN, both ends are NaN
        return
    count = int((~torch.isfinite(tensor)).sum())
    raise CheckpointError(
        f"{name}: {count:,} of its {tensor.numel():,} values are NaN or infinite; expected finite weights. The file is "
        "damaged, or its training went wrong: get it again, or take an earlier checkpoint."
    )
