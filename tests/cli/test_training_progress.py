from __future__ import annotations

from jukebox_deploy.cli.progress import Pace
from jukebox_deploy.cli.training_progress import training_progress
from jukebox_deploy.jobs.training.request import TrainingEvent


def test_training_tells_its_own_rate_and_the_time_left() -> None:
    numbers = {"loss": 2.34567, "learning_rate": 3e-4, "codes_per_second": 1234.5}
    progress = training_progress(TrainingEvent("training", 30, 120, numbers))
    assert progress.counted == "30 of 120 steps"
    assert progress.note == "loss 2.346, codes per second 1234"
    assert [word for word in Pace(0.0, 20).describe(progress, 5.0) if word] == ["0:00:45 left"]


def test_saving_is_seen_on_the_bar_of_training_and_encoding_on_its_own() -> None:
    bars = [training_progress(TrainingEvent(action, 1, 9)) for action in ("training", "saving", "encoding songs")]
    assert [progress.bar or progress.what for progress in bars] == ["training", "training", "encoding songs"]
    assert [progress.unit for progress in bars] == ["steps", "steps", "songs"]
