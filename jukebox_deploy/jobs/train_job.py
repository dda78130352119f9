"""Training of one part of a model, from the songs to a checkpoint bundle, with checkpoints, logs and reports."""

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
    """Result of a completed run."""

    folder: Path
    bundle: CheckpointBundle | None  # `None` in all processes but the first
    steps: int  # in all, including those of earlier calls
    seconds: float  # of this call
    waited: float  # seconds of these in which steps waited for examples
    held_out: Mapping[str, float]  # final metrics of held-out songs by name; empty without such songs


def train(request: TrainRequest, listen: TrainingListener = lambda event: None) -> TrainingSummary:
    """Train a part of a model, or continue a run with `request.resume`, and write the checkpoint bundle.

    The run is saved every few minutes, before each assessment of held-out songs, after the last step, and after the
    step in which Ctrl-C or SIGTERM arrives. A resumed run gives the same numbers as one that was never interrupted.
    `listen` is called with events of the first process only, warnings first.

    Raises:
        KeyboardInterrupt: after Ctrl-C, once the run is saved; at once after a second Ctrl-C.
        ModuleNotFoundError: if a TensorBoard log is requested, but TensorBoard is not installed.
        TrainingError: if the folder cannot be used for this run, or the loss is NaN or infinite.
        DataError, LabelError, CheckpointError, ConfigError, SamplingError: for songs, labels, bundles and settings
            that do not fit.
    """
    if request.cadence.tensorboard:
        require_board()
    with Workers.current() as workers:
        if workers.first:
            RunFolder(request.out).existing_run(resume=request.resume)  # raises before songs are encoded for hours
        listen = listen if workers.first else _ignore
        part = training_part(request, workers, listen)
        for warning in part.warnings:
            listen(TrainingEvent("warning", 0, request.settings.steps, warning=warning))
        return _TrainingRun(request, workers, part, listen).run()


def training_part(request: TrainRequest, workers: Workers, listen: TrainingListener) -> TrainingPart:
    """Prepare the part of the model that a request names, and its songs; raise the same errors as `train`."""
    return _PARTS[request.settings.part](request, workers, listen)


def _ignore(event: TrainingEvent) -> None:
    """Ignore an event: only the first process reports."""


class _Pace:
    """Speed since the last row of the log, without the time that assessments take."""

    def __init__(self, step: int) -> None:
        self.waited = 0.0  # total seconds in which steps waited for examples
        self.restart(step)

    def restart(self, step: int) -> None:
        """Measure from now on, with `step` steps done."""
        self._begun, self._step, self._waited_before = time.monotonic(), step, self.waited

    def measure(self, step: int) -> tuple[float, float]:
        """Return the steps per second and the share of time in which they waited; measure from now on."""
        seconds = max(time.monotonic() - self._begun, 1e-9)
        speed = (step - self._step) / seconds
        waiting = (self.waited - self._waited_before) / seconds
        self.restart(step)
        return speed, waiting


class _TrainingRun:
    """One call of `train`: all remaining steps, with checkpoints, logs and assessments."""

    def __init__(self, request: TrainRequest, workers: Workers, part: TrainingPart, listen: TrainingListener) -> None:
        """Prepare the folder, and restore the latest checkpoint if there is one."""
        self._request, self._workers, self._part, self._listen = request, workers, part, listen
        self._cadence = request.cadence
        self._folder = RunFolder(request.out)
        if workers.first:
            RunFolder.begin(request.out, part.record, resume=request.resume)
        workers.wait()
        self._trainer = part.trainer()
        if snapshot := self._folder.latest():
            self._trainer.restore(snapshot)
        self._log: RunLog | None = None  # only in the first process, which writes all files
        self._held_out_log: RunLog | None = None
        if workers.first:
            logs = self._folder.open_logs(self._trainer.step, tensorboard=self._cadence.tensorboard)
            self._log, self._held_out_log = logs
        self._begun = self._saved = time.monotonic()
        self._pace = _Pace(self._trainer.step)

    def run(self) -> TrainingSummary:
        """Train to the last step, assess the result and write the bundle."""
        try:
            return self._run()
        finally:
            for log in filter(None, (self._log, self._held_out_log)):
                log.close()

    def _run(self) -> TrainingSummary:
        self._complete_interrupted_assessment()
        with closing(self._trainer.steps()) as reports:
            while self._train_until_assessment(reports):
                self._assess(self._trainer.averaged())
        trained = self._trainer.averaged()
        held_out = self._assess(trained)
        bundle = self._write_bundle(trained) if self._workers.first else None
        seconds = time.monotonic() - self._begun
        return TrainingSummary(self._folder.path, bundle, self._trainer.step, seconds, self._pace.waited, held_out)

    def _train_until_assessment(self, reports: Iterator[StepReport]) -> bool:
        """Train up to the next assessment or the last step; return whether an assessment is due.

        Raises `KeyboardInterrupt` once the run is saved, if any process has received Ctrl-C or SIGTERM.
        """
        stop = False
        with held_signals() as signals:
            for report in reports:
                self._pace.waited += report.waited
                last = report.step == self._request.settings.steps
                if last or report.step % self._cadence.log_steps == 0:
                    self._log_step(report)
                save = last or self._assessment_due or self._checkpoint_overdue
                stop, save = self._workers.any(signals.received is not None, save)  # all after the same step
                if stop or save:
                    self._save()
                if stop or self._assessment_due:
                    break
        if stop:  # by a signal to another process; one to this process has been raised at the end of the block
            raise KeyboardInterrupt
        return self._assessment_due

    @property
    def _assessment_due(self) -> bool:
        """Whether held-out songs are assessed after the current step; the last step, always assessed, is excluded."""
        step, every = self._trainer.step, self._cadence.report_steps
        return bool(every) and step % every == 0 and 0 < step < self._request.settings.steps

    @property
    def _checkpoint_overdue(self) -> bool:
        """Whether it is time for another checkpoint, by the clock of the first process."""
        return self._workers.first and time.monotonic() - self._saved >= 60 * self._cadence.checkpoint_minutes

    def _complete_interrupted_assessment(self) -> None:
        """Assess held-out songs if the run was interrupted after the step was saved and before it was assessed."""
        missing = self._held_out_log is not None and not self._held_out_log.has(self._trainer.step)
        if self._assessment_due and any(self._workers.any(missing)):
            self._assess(self._trainer.averaged())

    def _log_step(self, report: StepReport) -> None:
        """Add a row to the log; all processes must call it, because the metrics are means over the processes."""
        speed, waiting = self._pace.measure(report.step)
        numbers = {
            "loss": float(self._workers.mean(report.total)),
            **{name: float(self._workers.mean(value)) for name, value in report.metrics.items()},
            "learning_rate": report.learning_rate,
            "gradient_norm": report.gradient_norm,
            f"{self._part.examples}_per_second": speed * self._request.settings.batch * self._part.example_length,
        }
        if self._log:
            self._log.append(report.step, {**numbers, "skipped": int(report.skipped), "waited_for_data": waiting})
        self._notify("training", numbers)

    def _save(self) -> None:
        """Write a checkpoint; all processes must call it."""
        snapshot = self._trainer.snapshot()
        if self._workers.first:
            self._notify("saving")
            self._folder.save(snapshot, self._cadence.keep)
        self._workers.wait()  # writing may take longer than the collectives of the next step would wait
        self._saved = time.monotonic()

    def _assess(self, trained: TrainedWeights) -> Mapping[str, float]:
        """Return metrics of held-out songs, and have the first process log them and write a report."""
        step = self._trainer.step
        self._notify("assessing")
        numbers = self._part.assess(trained)
        if self._held_out_log is not None:
            if numbers and not self._held_out_log.has(step):
                self._held_out_log.append(step, numbers)
            self._part.show(trained, self._folder.report(step))
        self._workers.wait()
        self._notify("assessed", numbers)
        self._pace.restart(step)
        return numbers

    def _write_bundle(self, trained: TrainedWeights) -> CheckpointBundle:
        self._notify("writing the bundle")
        return self._part.write_bundle(trained, self._folder.bundle)

    def _notify(self, action: str, numbers: Mapping[str, float] | None = None) -> None:
        self._listen(TrainingEvent(action, self._trainer.step, self._request.settings.steps, numbers or {}))
