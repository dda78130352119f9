"""Training from beginning to bundle: the course of a run, whatever is trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.jobs.training.prior import PriorTraining
from jukebox_deploy.jobs.training.request import TrainingEvent, TrainingListener, TrainingPart, TrainRequest
from jukebox_deploy.jobs.training.vqvae import VQVAETraining
from jukebox_deploy.training.interruption import held_signals
from jukebox_deploy.training.logs import RunLog, require_board
from jukebox_deploy.training.run_folder import RunFolder
from jukebox_deploy.training.settings import Part
from jukebox_deploy.training.trainer import StepReport, TrainedWeights
from jukebox_deploy.training.workers import Workers

_PARTS: Mapping[Part, Callable[[TrainRequest, Workers, TrainingListener], TrainingPart]] = {
    Part.VQVAE: VQVAETraining,
    Part.PRIOR: PriorTraining,
    Part.UPSAMPLER: PriorTraining,
}


@dataclass(frozen=True)
class TrainingSummary:
    """How a run ended."""

    folder: Path
    bundle: CheckpointBundle | None  # `None` on all processes but the first
    steps: int
    seconds: float  # of this call
    waited: float  # seconds of them in which steps waited for examples
    held_out: Mapping[str, float]


def train(request: TrainRequest, listen: TrainingListener = lambda event: None) -> TrainingSummary:
    """Train, or go on training, and write the bundle.

    Every so many minutes, before each look at held-out songs, and after the step in which Ctrl-C or SIGTERM arrives,
    the run is saved; `request.resume` goes on from there and gives the same numbers as a run that was never
    interrupted.

    Raises:
        KeyboardInterrupt: after Ctrl-C, once the run is saved; at once after a second Ctrl-C.
        ModuleNotFoundError: if it is to log for TensorBoard, which is not installed.
        TrainingError: for a run that cannot begin in this folder, or a loss that is not a number.
        DataError, LabelError, CheckpointError, ConfigError: for songs, labels, bundles and settings that do not fit.
    """
    if request.cadence.tensorboard:
        require_board()
    with Workers.current() as workers:
        listen = listen if workers.first else _silent
        part = training_part(request, workers, listen)
        for warning in part.warnings:
            listen(TrainingEvent("warning", 0, request.settings.steps, warning=warning))
        return _Course(request, workers, part, listen).run()


def training_part(request: TrainRequest, workers: Workers, listen: TrainingListener) -> TrainingPart:
    """What is trained, with its songs; raises as `train` does."""
    return _PARTS[request.settings.part](request, workers, listen)


def _silent(event: TrainingEvent) -> None:
    """The first process speaks for all."""


class _Course:
    """A run in work."""

    def __init__(self, request: TrainRequest, workers: Workers, part: TrainingPart, listen: TrainingListener) -> None:
        self._request, self._workers, self._part, self._listen = request, workers, part, listen
        self._cadence = request.cadence
        self._folder = RunFolder(request.out)
        if workers.first:
            RunFolder.begin(request.out, part.record, resume=request.resume)
        workers.wait()
        self._trainer = part.trainer()
        if snapshot := self._folder.latest():
            self._trainer.restore(snapshot)
        self._log: RunLog | None = None  # only the first process writes it
        self._held_out_log: RunLog | None = None
        if workers.first:
            logs = self._folder.open_logs(self._trainer.step, tensorboard=self._cadence.tensorboard)
            self._log, self._held_out_log = logs
        self._begun = self._saved = self._logged = time.monotonic()
        self._logged_step = self._trainer.step
        self._waited = self._waited_before = 0.0  # seconds, in all and until the last row of the log

    def run(self) -> TrainingSummary:
        """All steps that are left, the last look at it, and the bundle."""
        try:
            return self._run()
        finally:
            for log in filter(None, (self._log, self._held_out_log)):
                log.close()

    def _run(self) -> TrainingSummary:
        self._catch_up()
        with closing(self._trainer.steps()) as reports:
            while self._train(reports):
                self._assess(self._trainer.averaged())
        trained = self._trainer.averaged()
        held_out = self._assess(trained)
        bundle = self._write_bundle(trained) if self._workers.first else None
        seconds = time.monotonic() - self._begun
        return TrainingSummary(self._folder.path, bundle, self._trainer.step, seconds, self._waited, held_out)

    def _train(self, reports: Iterator[StepReport]) -> bool:
        """Train until held-out songs are to be looked at, or to the end; returns whether they are to be looked at.

        Raises `KeyboardInterrupt` once the run is saved, if any of the processes is told to stop.
        """
        stop = False
        with held_signals() as signals:
            for report in reports:
                self._waited += report.waited
                last = report.step == self._request.settings.steps
                if last or report.step % self._cadence.log_steps == 0:
                    self._note(report)
                # All processes must save and stop after the same step; the first one's clock counts.
                due = self._workers.first and time.monotonic() - self._saved >= 60 * self._cadence.checkpoint_minutes
                stop, save = self._workers.any(signals.received is not None, due or last or self._look_is_due)
                if stop or save:
                    self._save()
                if stop or self._look_is_due:
                    break
        if stop:  # because of another process's signal; an own one has taken effect
            raise KeyboardInterrupt
        return self._look_is_due

    @property
    def _look_is_due(self) -> bool:
        """Whether the run is at a step, other than the last, after which it looks at held-out songs."""
        step, every = self._trainer.step, self._cadence.report_steps
        return bool(every) and step % every == 0 and 0 < step < self._request.settings.steps

    def _catch_up(self) -> None:
        """Look at held-out songs if the run was interrupted before or while it did."""
        missing = self._held_out_log is not None and not self._held_out_log.has(self._trainer.step)
        if self._look_is_due and any(self._workers.any(missing)):
            self._assess(self._trainer.averaged())

    def _note(self, report: StepReport) -> None:
        now = time.monotonic()
        steps, seconds = report.step - self._logged_step, max(now - self._logged, 1e-9)
        rate = steps * self._request.settings.batch * self._part.example_length / seconds
        waited = (self._waited - self._waited_before) / seconds
        self._logged, self._logged_step, self._waited_before = now, report.step, self._waited
        numbers = {
            "loss": float(self._workers.mean(report.total)),
            **{name: float(self._workers.mean(value)) for name, value in report.metrics.items()},
            "learning_rate": report.learning_rate,
            "gradient_norm": report.gradient_norm,
            f"{self._part.examples}_per_second": rate,
        }
        if self._log:
            self._log.append(report.step, {**numbers, "skipped": int(report.skipped), "waited_for_data": waited})
        self._tell("training", numbers)

    def _save(self) -> None:
        snapshot = self._trainer.snapshot()
        if self._workers.first:
            self._tell("saving")
            self._folder.save(snapshot, self._cadence.keep)
        self._saved = time.monotonic()

    def _assess(self, trained: TrainedWeights) -> Mapping[str, float]:
        """Measure held-out songs, and have the first process write something to look at and to listen to."""
        step = self._trainer.step
        self._tell("assessing")
        numbers = self._part.assess(trained)
        if self._held_out_log is not None:
            if numbers and not self._held_out_log.has(step):
                self._held_out_log.append(step, numbers)
            self._part.show(trained, self._folder.report(step))
        self._workers.wait()
        self._tell("assessed", numbers)
        self._logged, self._logged_step = time.monotonic(), step
        return numbers

    def _write_bundle(self, trained: TrainedWeights) -> CheckpointBundle:
        self._tell("writing the bundle")
        return self._part.write_bundle(trained, self._folder.bundle)

    def _tell(self, action: str, numbers: Mapping[str, float] | None = None) -> None:
        self._listen(TrainingEvent(action, self._trainer.step, self._request.settings.steps, numbers or {}))
