"""The training loop: batches in, better weights out, one step at a time.

Everything random is a function of the seed and the step, so a run that goes on from a checkpoint
gives the numbers of one that was never interrupted. Source: specification section 18.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from jukebox_deploy.data.prefetch import prefetched
from jukebox_deploy.errors import TrainingError
from jukebox_deploy.training.checkpoint import Snapshot
from jukebox_deploy.training.compilation import compile_objective, compiled_passes
from jukebox_deploy.training.loss_scale import LossScale
from jukebox_deploy.training.objective import Batch, Objective, Outcome, State
from jukebox_deploy.training.optimiser import GradientNorm, JukeboxAdam, gradient_norm
from jukebox_deploy.training.precision import TrainingPrecision, autocast
from jukebox_deploy.training.recomputation import recompute_activations
from jukebox_deploy.training.schedule import LearningRate
from jukebox_deploy.training.settings import OptimiserSettings, RunSettings
from jukebox_deploy.training.weight_average import WeightAverage, default_decay
from jukebox_deploy.training.whole_tensors import gather, scatter
from jukebox_deploy.training.workers import Workers

BatchMaker = Callable[[int], Mapping[str, np.ndarray]]
"""The arrays of the batch of that number; a pure function, called from several threads."""

_SEED_STRIDE = 1_000_003  # a prime, so that the seeds of neighbouring runs do not meet


@dataclass(frozen=True)
class StepReport:
    """What one step did. Metrics are tensors, so that looking at them is the listener's choice."""

    step: int  # steps done, this one included
    metrics: Mapping[str, Tensor]  # of the last piece of the batch
    total: Tensor
    learning_rate: float
    gradient_norm: float
    skipped: bool  # because of an overflow, or a gradient larger than `ignore_norm`
    loss_scale: float
    waited: float  # seconds, for examples that were not made yet


@dataclass(frozen=True)
class TrainedWeights:
    """What a run has come to, whole and on the CPU."""

    weights: Mapping[str, Tensor]  # by the model's names
    state: State


class Trainer:
    """Weights, moments and averages of one run, and the step that moves them."""

    def __init__(
        self,
        objective: nn.Module,
        settings: RunSettings,
        make_batch: BatchMaker,
        workers: Workers,
        idle: Sequence[str] = (),
    ) -> None:
        """`objective` is an `Objective` whose part `model` is trained; `idle`: parts of it that have no work to do.

        Raises `ConfigError` if a batch cannot be divided among the processes, `TrainingError` if all is frozen.
        """
        settings.examples(workers.count)
        self.settings = settings
        self.step = 0
        self.state: State = {}
        self._workers = workers
        self._make_batch = make_batch
        freeze(objective, (*settings.frozen, *idle))
        objective.to(workers.device)
        if settings.recompute:
            recompute_activations(objective)
        self._passes = partial(compiled_passes, workers.device) if settings.compiled else nullcontext
        if settings.compiled:
            compile_objective(objective)
        self._wrapped = cast(Objective, workers.wrap(objective, settings.sharding))
        self._objective = objective
        self._parameters = [p for p in objective.parameters() if p.requires_grad]
        options = settings.optimiser
        self._optimiser = JukeboxAdam(
            self._parameters,
            lr=options.learning_rate,
            betas=(options.beta1, options.beta2),
            eps=options.epsilon,
            weight_decay=options.weight_decay,
        )
        decay = settings.average_decay
        self._average = WeightAverage(objective, default_decay(settings.batch) if decay is None else decay)
        self._rate = learning_rate(options, settings.steps)
        self._scale = LossScale() if settings.precision is TrainingPrecision.FP16 else LossScale.constant(1.0)

    def steps(self) -> Iterator[StepReport]:
        """Train until all steps are done; stop asking to stop early.

        Raises `TrainingError` where the loss is not a number.
        """
        pieces = self.settings.accumulate
        batches = self.batches()
        try:
            while self.step < self.settings.steps:
                asked = time.monotonic()
                arrays = [next(batches) for _ in range(pieces)]
                waited = time.monotonic() - asked
                yield self._step([self._to_device(piece) for piece in arrays], waited)
        finally:
            batches.close()

    def batches(self) -> Generator[Mapping[str, np.ndarray]]:
        """What the steps that are left learn from, piece by piece, made ahead by threads; close it to end them."""
        pieces = self.settings.accumulate
        return prefetched(self._make_batch, self.step * pieces, self.settings.steps * pieces)

    def snapshot(self) -> Snapshot:
        """The run as it stands; all processes must call it."""
        groups = {group: gather(tensors) for group, tensors in self._tensors().items()}
        return Snapshot(self.step, {"loss_scale": asdict(self._scale)}, {**groups, "state": gather(self.state)})

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a snapshot of a run with the same settings; all processes must call it.

        Raises `CheckpointError` for one of another model.
        """
        for group, tensors in self._tensors().items():
            scatter(tensors, snapshot.tensors[group])
        self.state = {name: tensor.to(self._workers.device) for name, tensor in snapshot.tensors["state"].items()}
        self._scale = LossScale(**snapshot.numbers["loss_scale"])
        self.step = snapshot.step

    def averaged(self) -> TrainedWeights:
        """What training has come to: averaged weights, and the state; all processes must call it."""
        weights = gather({**self._objective.state_dict(), **self._average.tensors()})
        return TrainedWeights(
            {name.removeprefix("model."): tensor for name, tensor in weights.items()}, gather(self.state)
        )

    def _tensors(self) -> dict[str, Mapping[str, Tensor]]:
        """All tensors that steps change, by group, but for the state."""
        return {
            "weights": self._objective.state_dict(),
            "average": self._average.tensors(),
            "moments": self._optimiser.moments(dict(self._objective.named_parameters())),
        }

    def _step(self, batches: list[Batch], waited: float) -> StepReport:
        self._optimiser.zero_grad(set_to_none=True)
        for piece, batch in enumerate(batches):
            with self._workers.reducing(self._wrapped, last=piece + 1 == len(batches)), self._passes():
                outcome = self._forward(batch, piece)
                (outcome.total * (self._scale.value / len(batches))).backward()
            self.state = outcome.state
        norm = gradient_norm(self._parameters, self._scale.value, self.settings.optimiser.clip)
        self._require_numbers(outcome, norm)
        rate = self._rate.at(self.step)
        skipped = not norm.finite or 0 < self.settings.optimiser.ignore_norm < norm.norm
        if not skipped:
            self._update(rate, norm)
        scale, self._scale = self._scale.value, self._scale.after(norm.finite)
        self.step += 1
        return StepReport(self.step, outcome.metrics, outcome.total.detach(), rate, norm.norm, skipped, scale, waited)

    def _forward(self, batch: Batch, piece: int) -> Outcome:
        seed = (self.settings.seed * _SEED_STRIDE + self.step) * self.settings.accumulate + piece
        with autocast(self.settings.precision, self._workers.device):
            return self._wrapped(batch, self.state, seed)

    def _update(self, rate: float, norm: GradientNorm) -> None:
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.step(divisor=norm.divisor)
        self._average.update(self.step)

    def _require_numbers(self, outcome: Outcome, norm: GradientNorm) -> None:
        """A step that overflowed in half precision is only skipped; anything else cannot go on."""
        if norm.finite:
            return
        recoverable = self.settings.precision is TrainingPrecision.FP16 and self._scale.value > 2.0**-10
        if recoverable and math.isfinite(outcome.total.item()):
            return
        raise TrainingError(
            f"step {self.step + 1}: the loss is {outcome.total.item():.4g}, the norm of its gradient {norm.norm:.4g}: "
            "nothing to learn from. The last checkpoint is as it was: go on from it with a lower learning "
            "rate or a longer warm-up, or in fp32."
        )

    def _to_device(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        return {name: torch.from_numpy(array).to(self._workers.device) for name, array in arrays.items()}


def learning_rate(options: OptimiserSettings, steps: int) -> LearningRate:
    """The course of the learning rate over a run of so many steps."""
    if not options.anneal:
        return LearningRate(options.learning_rate, warm_up=options.warm_up)
    return LearningRate(
        options.learning_rate,
        warm_up=options.warm_up,
        linear_decay_start=steps - options.anneal,
        linear_decay_length=options.anneal,
    )


def freeze(module: nn.Module, parts: tuple[str, ...]) -> None:
    """Stop the training of parameters whose names contain one of `parts`.

    Raises `TrainingError` for a part that is in no name, and if nothing is left to train.
    """
    names = [name for name, _ in module.named_parameters()]
    for part in parts:
        if not any(part in name for name in names):
            known: dict[str, Any] = dict.fromkeys(name.removeprefix("model.").split(".")[0] for name in names)
            raise TrainingError(f"frozen: no parameter has {part!r} in its name; parts are {', '.join(known)}.")
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(not any(part in name for part in parts))
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise TrainingError(f"frozen: {', '.join(parts)} leave nothing to train; freeze less.")
