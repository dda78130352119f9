"""The training loop.

Everything random is a function of the seed and the step, so a run that resumes from a checkpoint gives the same weights
as an uninterrupted one. Source: specification section 18.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jukebox_deploy.errors import TrainingError
from jukebox_deploy.threads import map_in_threads
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
"""Makes the arrays of the batch with a given number; a pure function that is called from several threads."""

_BATCH_THREADS, _BATCHES_AHEAD = 2, 4
_SEED_STRIDE = 1_000_003  # between the seeds of runs, so that runs with consecutive seeds do not share any


@dataclass(frozen=True)
class StepReport:
    """Report of one step. Metrics are tensors, so that a GPU is only waited for if they are read."""

    step: int  # number of steps done, including this one
    metrics: Mapping[str, Tensor]  # of this process's part of the batch
    total: Tensor  # loss of this process's part of the batch
    learning_rate: float
    gradient_norm: float
    skipped: bool  # because of an overflow, or a gradient larger than `ignore_norm`
    waited: float  # seconds spent waiting for examples


@dataclass(frozen=True)
class TrainedWeights:
    """Resulting weights and state of a run, gathered on the CPU."""

    weights: Mapping[str, Tensor]  # by their names in the model
    state: State


class Trainer:
    """Trainer of one run: its weights, moments and averages, and the step that updates them."""

    def __init__(
        self,
        objective: Objective,
        settings: RunSettings,
        make_batch: BatchMaker,
        workers: Workers,
        idle: Sequence[str] = (),
    ) -> None:
        """Prepare a run; `idle` names parts of the objective that the run does not use, which are frozen.

        Raises `ConfigError` if a batch cannot be divided among the processes, `TrainingError` if nothing is left to
        train.
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
        self._wrapped = workers.wrap(objective, settings.sharding)
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

    def steps(self) -> Generator[StepReport]:
        """Train until all steps are done; close it to stop early.

        Raises `TrainingError` if the loss or its gradient is NaN or infinite.
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
        """Yield the pieces of the remaining steps' batches, made ahead by threads; close it to end the threads."""
        pieces = self.settings.accumulate
        numbers = range(self.step * pieces, self.settings.steps * pieces)
        return map_in_threads(self._make_batch, numbers, threads=_BATCH_THREADS, ahead=_BATCHES_AHEAD)

    def snapshot(self) -> Snapshot:
        """Return the current state of the run; all processes must call it, but only the first one gets the tensors."""
        groups = {**self._tensors(), "state": self.state}
        tensors = {group: gather(named, keep=self._workers.first) for group, named in groups.items()}
        return Snapshot(self.step, {"loss_scale": asdict(self._scale)}, tensors)

    def restore(self, snapshot: Snapshot) -> None:
        """Resume from a snapshot of a run with the same settings; all processes must call it.

        Raises `CheckpointError` for a snapshot of another model.
        """
        for group, tensors in self._tensors().items():
            scatter(tensors, snapshot.tensors[group])
        self.state = {name: tensor.to(self._workers.device) for name, tensor in snapshot.tensors["state"].items()}
        self._scale = LossScale(**snapshot.numbers["loss_scale"])
        self.step = snapshot.step

    def averaged(self) -> TrainedWeights:
        """Return the result of the training: the averaged weights and the state; all processes must call it."""
        weights = gather({**self._objective.state_dict(), **self._average.tensors()})
        return TrainedWeights(
            {name.removeprefix("model."): tensor for name, tensor in weights.items()}, gather(self.state)
        )

    def _tensors(self) -> dict[str, Mapping[str, Tensor]]:
        """Return all tensors that steps change, except the state, by group."""
        return {
            "weights": self._objective.state_dict(),
            "average": self._average.tensors(),
            "moments": self._optimiser.moments(dict(self._objective.named_parameters())),
        }

    def _step(self, batches: list[Batch], waited: float) -> StepReport:
        before = self.state or self._first_state(batches)
        self._optimiser.zero_grad(set_to_none=True)
        pieces = [self._learn(batch, before, last=piece + 1 == len(batches)) for piece, batch in enumerate(batches)]
        norm = gradient_norm(self._parameters, self._scale.value, self.settings.optimiser.clip)
        total = _mean([piece.total for piece in pieces])
        self._require_numbers(total, norm)
        state, metrics = self._objective.next_state(before, pieces, self._seed(self.step))
        rate = self._rate.at(self.step)
        skipped = not norm.finite or 0 < self.settings.optimiser.ignore_norm < norm.norm
        if not skipped:
            self._update(rate, norm)
        self.state, self._scale, self.step = state, self._scale.after(norm.finite), self.step + 1
        means = {name: _mean([piece.metrics[name] for piece in pieces]) for name in pieces[0].metrics}
        return StepReport(self.step, {**means, **metrics}, total, rate, norm.norm, skipped, waited)

    def _first_state(self, batches: Sequence[Batch]) -> State:
        with torch.no_grad(), self._passes():
            return self._objective.first_state((self._forward(batch, {}) for batch in batches), self._seed(-1))

    def _learn(self, batch: Batch, state: State, *, last: bool) -> Outcome:
        """Accumulate the gradients of one piece of a batch."""
        with self._workers.reducing(self._wrapped, last=last), self._passes():
            outcome = self._forward(batch, state)
            (outcome.total * (self._scale.value / self.settings.accumulate)).backward()
        return outcome._replace(total=outcome.total.detach())

    def _forward(self, batch: Batch, state: State) -> Outcome:
        with autocast(self.settings.precision, self._workers.device):
            outcome: Outcome = self._wrapped(batch, state)
        return outcome

    def _seed(self, step: int) -> int:
        return (self.settings.seed * _SEED_STRIDE + step) % 2**64  # as large as PyTorch's generators take

    def _update(self, rate: float, norm: GradientNorm) -> None:
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.step(divisor=norm.divisor)
        self._average.update(self.step)

    def _require_numbers(self, total: Tensor, norm: GradientNorm) -> None:
        """Raise `TrainingError` for a gradient that is not finite, unless it is an fp16 overflow, which is skipped."""
        if norm.finite:
            return
        loss = self._workers.mean(total).item()  # so that all processes decide alike
        recoverable = self.settings.precision is TrainingPrecision.FP16 and self._scale.value > 2.0**-10
        if recoverable and math.isfinite(loss):
            return
        raise TrainingError(
            f"step {self.step + 1}: the loss is {loss:.4g} and the norm of its gradient {norm.norm:.4g}, so training "
            "cannot continue. The last checkpoint is unchanged: resume from it with a lower learning rate or a longer "
            "warm-up, or in fp32."
        )

    def _to_device(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        return {name: torch.from_numpy(array).to(self._workers.device) for name, array in arrays.items()}


def _mean(scalars: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(scalars)).mean()


def learning_rate(options: OptimiserSettings, steps: int) -> LearningRate:
    """Return the learning-rate schedule of a run of `steps` steps."""
    if not options.anneal:
        return LearningRate(options.learning_rate, warm_up=options.warm_up)
    return LearningRate(
        options.learning_rate,
        warm_up=options.warm_up,
        linear_decay_start=steps - options.anneal,
        linear_decay_length=options.anneal,
    )


def freeze(module: nn.Module, parts: tuple[str, ...]) -> None:
    """Freeze the parameters whose names contain one of `parts`.

    Raises `TrainingError` for a part that occurs in no name, and if nothing is left to train.
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
