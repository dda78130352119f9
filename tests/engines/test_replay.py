"""What runs the steps of all backends, on pretended steps and tensors."""

from __future__ import annotations

from functools import partial

import numpy as np

from jukebox_deploy.engines.replay import ReplayedSteps, Turn


class Unreadable:
    """A tensor that nobody may look at."""

    name = "codes"
    is_read = True

    def read(self) -> np.ndarray:
        raise AssertionError("copied from the device for nothing")

    def write(self, values: np.ndarray) -> None:
        raise AssertionError("written")

    def wipe(self) -> None:
        raise AssertionError("wiped")


def test_without_a_recorder_every_step_runs_directly() -> None:
    done: list[str] = []
    turns = [Turn([Unreadable()], partial(done.append, f"bind {turn}")) for turn in (0, 1)]
    steps = ReplayedSteps("step_0", None, partial(done.append, "run"), turns)
    assert not steps.records
    for turn in (0, 1, 0):
        steps.run(turn)
    assert done == ["bind 0", "run", "bind 1", "run", "bind 0", "run"]
    steps.release()
