"""Memory of a training step, computed from the configuration alone.

Weights, gradients, the two moments and the average take 20 bytes per parameter. The memory of the passes is counted,
not estimated: they run once on fake tensors without data, and every storage is counted from its first use to its last.
The scratch space of libraries and the fragmentation of the allocator are not included.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, UntypedStorage, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from jukebox_deploy.config import PriorConfig, VQVAEConfig
from jukebox_deploy.models.builders import build_prior, build_vqvae
from jukebox_deploy.models.losses import Bandwidths, LossSettings, vqvae_loss
from jukebox_deploy.models.vqvae import VQVAE
from jukebox_deploy.training.objective import Batch, PriorObjective
from jukebox_deploy.training.precision import TrainingPrecision, autocast
from jukebox_deploy.training.recomputation import recompute_activations


@dataclass(frozen=True)
class StepOptions:
    """Settings, besides the model, on which the memory of a step depends."""

    batch: int = 1  # number of examples that are processed together
    precision: TrainingPrecision = TrainingPrecision.FP32
    recompute: bool = False
    samples: int = 393_216  # per example of a VQ-VAE


@dataclass(frozen=True)
class StepMemory:
    """Peak memory of a step in bytes."""

    weights: int
    activations: int  # everything that the passes hold at the peak, except gradients of the weights

    @property
    def gradients(self) -> int:
        """Bytes of the gradients; as many as of the weights."""
        return self.weights

    @property
    def moments(self) -> int:
        """Bytes of Adam's two moments of each weight."""
        return 2 * self.weights

    @property
    def average(self) -> int:
        """Bytes of the averaged weights."""
        return self.weights

    @property
    def total(self) -> int:
        """Bytes in total."""
        return self.weights + self.gradients + self.moments + self.average + self.activations


def prior_step_memory(config: PriorConfig, options: StepOptions) -> StepMemory:
    """Compute the memory of a step of a top prior or an upsampler."""
    with FakeTensorMode():
        objective = PriorObjective(build_prior(config), config)
        batch = prior_batch(config, options.batch)
        return _step_memory(objective, lambda: objective(batch, {}).total, options)


def vqvae_step_memory(config: VQVAEConfig, options: StepOptions) -> StepMemory:
    """Compute the memory of a step of a VQ-VAE, without the codebook update, which does not add to the peak."""
    with FakeTensorMode():
        model = build_vqvae(config)
        audio = torch.zeros(options.batch, 1, options.samples)
        return _step_memory(model, lambda: _vqvae_total(model, audio), options)


def prior_batch(config: PriorConfig, size: int) -> Batch:
    """Return a batch of whole windows that are all zeros."""
    window, labels, lyrics = config.window, config.labels, config.lyrics
    shapes: dict[str, tuple[int, ...]] = {"codes": (size, window)}
    if config.conditioner is not None:
        shapes["upper_codes"] = (size, window // config.conditioner.upsampling)
    if labels is not None:
        shapes |= {"artist": (size,), "genres": (size, labels.genre_slots)}
    if config.timing is not None:
        shapes |= {"total_bin": (size,), "absolute_bins": (size, window), "relative_bins": (size, window)}
    if lyrics is not None:
        shapes["lyric_tokens"] = (size, lyrics.tokens)
    return {name: torch.zeros(shape, dtype=torch.int64) for name, shape in shapes.items()}


def _vqvae_total(model: VQVAE, audio: Tensor) -> Tensor:
    return vqvae_loss(audio, model(audio), LossSettings(), Bandwidths(1.0, 1.0, 1.0)).total


def _step_memory(module: nn.Module, loss: Callable[[], Tensor], options: StepOptions) -> StepMemory:
    if options.recompute:
        recompute_activations(module)
    weights = sum(parameter.nbytes for parameter in module.parameters())
    with _LiveBytes() as live:
        with autocast(options.precision, torch.device("cpu")):
            total = loss()
        total.backward()
    return StepMemory(weights, max(0, live.peak - weights))


class _LiveBytes(TorchDispatchMode):
    """Counter of the bytes of all live storages that operators have created, and of their peak."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # PyTorch has no annotation for it
        self.live = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and id(tensor.untyped_storage()) not in given | self._seen:
                self._hold(tensor.untyped_storage())
        return result

    def _hold(self, storage: UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        self._seen.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size
