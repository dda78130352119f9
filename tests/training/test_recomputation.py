"""Recomputed activations: the same gradients out of less memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from jukebox_deploy.config import ConditionerConfig, PriorConfig, TransformerConfig
from jukebox_deploy.models.builders import build_prior
from jukebox_deploy.training.objective import PriorObjective
from jukebox_deploy.training.precision import TrainingPrecision
from jukebox_deploy.training.settings import Part
from jukebox_deploy.training.trainer import Trainer
from jukebox_deploy.training.workers import Workers
from tests.training.small_runs import code_batch, prior_trainer, settings, vqvae_trainer

UPSAMPLER = PriorConfig(
    level=0,
    window=24,
    codebook_size=8,
    transformer=TransformerConfig(24, width=16, depth=3, heads=2, blocks=4),
    conditioner=ConditionerConfig(width=8, depth=4, stages=1, stride=2),
)


def upsampler_trainer(**changes: object) -> Trainer:
    def batch(number: int) -> dict:
        codes = code_batch(number, 4)["codes"]
        return {"codes": codes, "upper_codes": codes[:, ::2].copy()}

    torch.manual_seed(0)
    objective = PriorObjective(build_prior(UPSAMPLER), UPSAMPLER)
    return Trainer(objective, settings(Part.UPSAMPLER, **changes), batch, Workers())


def trained(make: Callable[..., Trainer], **changes: object) -> tuple[dict[str, Tensor], int]:
    """All tensors after two steps, and the bytes that the graphs of both kept."""
    kept = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    trainer = make(steps=2, **changes)
    with saved_tensors_hooks(count, lambda tensor: tensor):
        list(trainer.steps())
    return {n: t for tensors in trainer.snapshot().tensors.values() for n, t in tensors.items()}, kept


@pytest.mark.parametrize("precision", [TrainingPrecision.FP32, TrainingPrecision.BF16])
@pytest.mark.parametrize("make", [vqvae_trainer, prior_trainer, upsampler_trainer])
def test_recomputed_activations_give_the_same_steps_bit_for_bit_out_of_less_memory(make, precision):
    kept_all, much = trained(make, precision=precision)
    kept_few, little = trained(make, precision=precision, recompute=True)
    assert kept_all.keys() == kept_few.keys()
    assert [name for name, tensor in kept_all.items() if not torch.equal(tensor, kept_few[name])] == []
    assert little < 0.95 * much  # the losses of a VQ-VAE keep most, and are not recomputed
