import pytest

from jukebox_deploy.errors import ConfigError
from jukebox_deploy.training.schedule import LearningRate


def test_the_rate_warms_up_to_its_peak_and_stays():
    rate = LearningRate(2.0, warm_up=4)
    assert [rate.at(step) for step in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    assert not rate.finished(10**9)
    assert LearningRate(2.0, warm_up=0).at(0) == 2.0


def test_the_rate_is_multiplied_every_so_many_steps():
    rate = LearningRate(8.0, warm_up=0, gamma=0.5, decay_steps=3)
    assert [rate.at(step) for step in range(7)] == [8.0, 8.0, 8.0, 4.0, 4.0, 4.0, 2.0]


def test_the_rate_goes_down_to_zero_and_training_is_finished():
    rate = LearningRate(4.0, warm_up=0, linear_decay_start=2, linear_decay_length=4)
    assert [rate.at(step) for step in range(8)] == [4.0, 4.0, 4.0, 3.0, 2.0, 1.0, 0.0, 0.0]
    assert [rate.finished(step) for step in (2, 5, 6, 7)] == [False, False, True, True]


def test_decays_without_a_length_are_refused():
    with pytest.raises(ConfigError, match="linear decay length: expected 1 or more, found 0"):
        LearningRate(1.0, linear_decay_start=5)
    with pytest.raises(ConfigError, match="decay steps: expected 1 or more, found 0"):
        LearningRate(1.0, gamma=0.5, decay_steps=0)
