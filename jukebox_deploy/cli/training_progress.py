"""Events of a training run as progress."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jukebox_deploy.cli.progress import Progress

if TYPE_CHECKING:
    from jukebox_deploy.jobs.training.request import TrainingEvent

_ENCODING = "encoding songs"
_SHOWN = ("loss", "bits", "samples_per_second", "codes_per_second")


def training_progress(event: TrainingEvent) -> Progress:
    """Convert an event to progress: encoding songs has its own bar; saving and evaluation share that of training."""
    if event.action == _ENCODING:
        return Progress(_ENCODING, event.step, event.steps, "songs")
    numbers = [f"{name.replace('_', ' ')} {event.numbers[name]:.4g}" for name in _SHOWN if name in event.numbers]
    # Events report rates of samples or codes themselves.
    return Progress(
        event.action, event.step, event.steps, "steps", note=", ".join(numbers), speed=lambda rate: "", bar="training"
    )
