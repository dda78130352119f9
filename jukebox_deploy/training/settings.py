"""Settings of a training run, which are recorded in the run's folder.

The recipes are from the paper where it gives them. Source: specification section 18.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import StrEnum
from typing import Any

from jukebox_deploy.errors import ConfigError
from jukebox_deploy.listing import words_of
from jukebox_deploy.models.losses import LossSettings
from jukebox_deploy.training.precision import TrainingPrecision


class Part(StrEnum):
    """Part of a model that one run trains."""

    VQVAE = "vqvae"
    PRIOR = "prior"  # the top prior
    UPSAMPLER = "upsampler"


class Sharding(StrEnum):
    """Distribution of the weights over the processes of one run."""

    REPLICATED = "replicated"  # every process has all weights (DDP)
    SHARDED = "sharded"  # every process has a part of each weight (FSDP2)


@dataclass(frozen=True)
class OptimiserSettings:
    """Settings of Adam and of its learning-rate schedule."""

    learning_rate: float = 3e-4
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip: float = 1.0  # gradients with a larger norm are scaled down to it; 0: no limit
    ignore_norm: float = 0.0  # steps with a larger gradient norm are skipped; 0: none are
    warm_up: int = 100  # steps
    anneal: int = 0  # number of last steps in which the learning rate decays linearly to zero

    def __post_init__(self) -> None:
        for name in ("learning_rate", "epsilon"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(
                    f"{name.replace('_', ' ')}: expected a finite number above 0, found {getattr(self, name)}."
                )
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected 0 or more and below 1, found {getattr(self, name)}.")
        for name in ("weight_decay", "clip", "ignore_norm", "warm_up", "anneal"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(
                    f"{name.replace('_', ' ')}: expected a finite number, 0 or more, found {getattr(self, name)}."
                )


@dataclass(frozen=True)
class RunSettings:
    """Settings that determine the results of a run: the same settings and data give bit-identical weights."""

    part: Part
    steps: int
    batch: int  # examples per step in all processes together
    level: int | None = None  # of a prior; `None` for the VQ-VAE
    accumulate: int = 1  # number of pieces in which a process computes its share of a batch (gradient accumulation)
    seconds: float | None = None  # length of an example of the VQ-VAE; that of a prior is its window
    levels: tuple[int, ...] = ()  # levels of the VQ-VAE to train, while the others stay unchanged; empty: all
    anew: bool = False  # whether these levels begin with fresh weights instead of those of a bundle
    aligned: bool = False  # whether examples of the VQ-VAE begin at top-level codes, as when whole songs are encoded
    seed: int = 0
    precision: TrainingPrecision = TrainingPrecision.FP32
    recompute: bool = False  # recompute activations in the backward pass: less memory, more time
    compiled: bool = False  # compile the passes with `torch.compile`, which rounds sums in another order
    sharding: Sharding = Sharding.REPLICATED
    average_decay: float | None = None  # of the averaged weights; `None`: depends on the batch size
    frozen: tuple[str, ...] = ()  # parts of the names of parameters that are not trained
    train_fraction: float = 0.9  # share of the songs to train on; the others are held out
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    loss: LossSettings = field(default_factory=LossSettings)  # of the VQ-VAE
    revival_threshold: float = 1.0  # codes of the VQ-VAE with a smaller moving count of latents per batch restart

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected 1 or more, found {getattr(self, name)}.")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise ConfigError(f"seconds: expected a finite number above 0, found {self.seconds}.")
        if self.optimiser.anneal > self.steps:
            raise ConfigError(
                f"anneal: expected at most the {self.steps} steps of the run, found {self.optimiser.anneal}."
            )
        if self.compiled and self.sharding is Sharding.SHARDED:
            raise ConfigError("compile: weights must not be sharded; give --sharding replicated, or do not compile.")
        if not 0 <= self.seed < 2**64:
            raise ConfigError(f"seed: expected an integer from 0 to 2^64 - 1, found {self.seed}.")
        if self.average_decay is not None and not 0 <= self.average_decay < 1:
            raise ConfigError(f"average decay: expected 0 or more and below 1, found {self.average_decay}.")
        if not 0 <= self.revival_threshold < math.inf:
            raise ConfigError(
                f"revival threshold: expected a finite number, 0 or more, found {self.revival_threshold}."
            )
        if not 0 < self.train_fraction <= 1:
            raise ConfigError(f"train fraction: expected above 0 and at most 1, found {self.train_fraction}.")

    def examples(self, workers: int) -> int:
        """Return the number of examples per process and piece; raise `ConfigError` if the batch is not divisible."""
        pieces = workers * self.accumulate
        if self.batch % pieces:
            raise ConfigError(
                f"batch: {self.batch} examples cannot be divided among {workers} processes times {self.accumulate} "
                f"pieces; give a multiple of {pieces}."
            )
        return self.batch // pieces

    @property
    def steps_at_full_rate(self) -> float:
        """Number of steps before the learning rate decays, warm-up included; infinite if it never does."""
        return self.steps - self.optimiser.anneal if self.optimiser.anneal else math.inf

    def difference(self, before: RunSettings, done: int) -> str | None:
        """Describe the first setting that differs from those of a run to resume; `None` if no difference matters.

        While the learning rate of both has not begun to decay, the numbers of steps and of decay steps do not matter:
        the first `done` steps are the same.
        """
        if done <= min(self.steps_at_full_rate, before.steps_at_full_rate):
            optimiser = replace(before.optimiser, anneal=self.optimiser.anneal)
            before = replace(before, steps=self.steps, optimiser=optimiser)
        return _first_difference(self, before)


def _first_difference(settings: Any, before: Any) -> str | None:
    """Describe the first field that differs in two instances of one dataclass, or in the dataclasses in these."""
    for entry in fields(settings):
        mine, theirs = getattr(settings, entry.name), getattr(before, entry.name)
        if mine != theirs:
            if is_dataclass(mine):
                return _first_difference(mine, theirs)
            return f"{entry.name.replace('_', ' ')} is {_shown(mine)}, and was {_shown(theirs)}"
    return None


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return words_of(map(str, value)) or "not given"
    return "not given" if value is None else str(value)


@dataclass(frozen=True)
class Cadence:
    """How often a run is saved and reported; it does not affect the results."""

    checkpoint_minutes: float = 10.0
    keep: int = 2  # number of checkpoints to keep
    log_steps: int = 10
    report_steps: int = 0  # between held-out metrics, reconstructions and samples; 0: only at the end
    tensorboard: bool = False  # whether to log to TensorBoard as well

    def __post_init__(self) -> None:
        if not self.checkpoint_minutes > 0 or self.keep < 1 or self.log_steps < 1 or self.report_steps < 0:
            raise ConfigError(
                "checkpoint minutes, checkpoints to keep and log steps must be positive, report steps 0 or more."
            )


RECIPES: dict[Part, OptimiserSettings] = {
    Part.VQVAE: OptimiserSettings(),
    Part.PRIOR: OptimiserSettings(learning_rate=1.5e-4, beta2=0.925, weight_decay=0.002),
    Part.UPSAMPLER: OptimiserSettings(beta2=0.95, weight_decay=0.01),
}
"""Optimiser settings of the paper for each part; for the priors, those of the models with 5 and 1 billion weights."""
