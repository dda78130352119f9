"""What a training run is told: frozen dataclasses, written into every training checkpoint.

The recipes are those of the paper where it gives them. Source: specification section 18.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum

from jukebox_deploy.errors import ConfigError
from jukebox_deploy.models.losses import LossSettings
from jukebox_deploy.training.precision import TrainingPrecision


class Part(StrEnum):
    """What is trained at a time."""

    VQVAE = "vqvae"
    PRIOR = "prior"  # the top prior
    UPSAMPLER = "upsampler"


class Sharding(StrEnum):
    """What the processes of one run share."""

    REPLICATED = "replicated"  # each has all weights (DDP)
    SHARDED = "sharded"  # each has a part of every weight (FSDP2)


@dataclass(frozen=True)
class OptimiserSettings:
    """Adam and the course of its learning rate."""

    learning_rate: float = 3e-4
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip: float = 1.0  # largest norm of the gradient; larger ones are scaled down to it
    ignore_norm: float = 0.0  # steps whose gradient has a larger norm are skipped; 0: none
    warm_up: int = 100  # steps
    anneal: int = 0  # the last so many steps go down to zero linearly

    def __post_init__(self) -> None:
        for name in ("learning_rate", "epsilon"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name.replace('_', ' ')}: expected a number above 0, found {getattr(self, name)}.")
        for name in ("weight_decay", "clip", "ignore_norm", "warm_up", "anneal"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name.replace('_', ' ')}: expected 0 or more, found {getattr(self, name)}.")


@dataclass(frozen=True)
class RunSettings:
    """What decides the numbers of a run: with the same settings and data they are the same, bit for bit."""

    part: Part
    steps: int
    batch: int  # examples per step, of all processes together
    level: int | None = None  # of a prior; `None` for the VQ-VAE
    accumulate: int = 1  # pieces in which a process works through its share of a batch
    seconds: float | None = None  # of an example, for the VQ-VAE; a prior's is its window
    levels: tuple[int, ...] = ()  # of the VQ-VAE that are trained, the others stay as they are; empty: all
    anew: bool = False  # whether these levels begin with fresh weights, and not with those of a bundle
    aligned: bool = False  # for the VQ-VAE: examples begin at whole top codes, as songs are encoded later
    seed: int = 0
    precision: TrainingPrecision = TrainingPrecision.FP32
    recompute: bool = False  # activations are computed again instead of kept: less memory, more time
    compiled: bool = False  # passes go through `torch.compile`; sums are rounded in another order
    sharding: Sharding = Sharding.REPLICATED
    average_decay: float | None = None  # of the averaged weights; `None`: by the size of a batch
    frozen: tuple[str, ...] = ()  # parameters that stay as they are, by parts of their names
    train_fraction: float = 0.9  # of the songs; the others are held out
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    loss: LossSettings = field(default_factory=LossSettings)  # of the VQ-VAE
    revival_threshold: float = 1.0  # codes of the VQ-VAE that fewer latents per batch choose start anew

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected 1 or more, found {getattr(self, name)}.")
        if self.optimiser.anneal > self.steps:
            raise ConfigError(f"anneal: the last {self.optimiser.anneal} of {self.steps} steps; give fewer.")
        if self.compiled and self.sharding is Sharding.SHARDED:
            raise ConfigError("compile: weights must not be sharded; give --sharding replicated, or do not compile.")
        if self.revival_threshold < 0:
            raise ConfigError(f"revival threshold: expected 0 or more, found {self.revival_threshold}.")
        if not 0 < self.train_fraction <= 1:
            raise ConfigError(f"train fraction: expected above 0 and at most 1, found {self.train_fraction}.")

    def examples(self, workers: int) -> int:
        """Examples that one process sees at a time; `ConfigError` if a batch cannot be divided like that."""
        pieces = workers * self.accumulate
        if self.batch % pieces:
            raise ConfigError(
                f"batch: {self.batch} examples cannot be divided among {workers} processes times {self.accumulate} "
                f"pieces; give a multiple of {pieces}."
            )
        return self.batch // pieces

    @property
    def steps_at_full_rate(self) -> float:
        """Steps before the rate begins to go down, those of the warm-up included; infinite if it never does."""
        return self.steps - self.optimiser.anneal if self.optimiser.anneal else math.inf

    def difference(self, before: RunSettings, done: int) -> str | None:
        """The first setting in which two runs differ, as a sentence's part; `None` if there is none that matters.

        As long as the rate has not begun to go down, neither the number of steps nor how many of them go down
        matters: the `done` steps of the run before were the same.
        """
        if done <= min(self.steps_at_full_rate, before.steps_at_full_rate):
            optimiser = replace(before.optimiser, anneal=self.optimiser.anneal)
            before = replace(before, steps=self.steps, optimiser=optimiser)
        for entry in fields(self):
            mine, theirs = getattr(self, entry.name), getattr(before, entry.name)
            if mine != theirs:
                return f"{entry.name.replace('_', ' ')} is {mine}, and was {theirs}"
        return None


@dataclass(frozen=True)
class Cadence:
    """How often a run is saved and shows itself; decides no numbers."""

    checkpoint_minutes: float = 10.0
    keep: int = 2  # checkpoints
    log_steps: int = 10
    report_steps: int = 0  # held-out metrics, reconstructions and samples; 0: at the end only
    tensorboard: bool = False  # log there too

    def __post_init__(self) -> None:
        if self.checkpoint_minutes <= 0 or self.keep < 1 or self.log_steps < 1 or self.report_steps < 0:
            raise ConfigError(
                "checkpoint minutes, checkpoints to keep and log steps must be positive, report steps 0 or more."
            )


RECIPES: dict[Part, OptimiserSettings] = {
    Part.VQVAE: OptimiserSettings(),
    Part.PRIOR: OptimiserSettings(learning_rate=1.5e-4, beta2=0.925, weight_decay=0.002),
    Part.UPSAMPLER: OptimiserSettings(beta2=0.95, weight_decay=0.01),
}
"""The paper's optimiser for each part (those of the priors for the models of 5 and 1 billion)."""
