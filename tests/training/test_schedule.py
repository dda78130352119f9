import pytest

from jukebox_deploy.errors import ConfigError
from jukebox_deploy.training.schedule import LearningRate


def test_the_rate_warms_up_to_its_peak_and_stays():
    rate = LearningRate(2.0, warm_up=4)
    assert [rate.at(step) for step in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    assert LearningRate(2.0, warm_up=0).at(0) == 2.0


def test_the_rate_goes_down_to_zero():
    rate = LearningRate(4.0, warm_up=0, linear_decay_start=2, linear_decay_length=4)
    assert [rate.at(step) for step in range(8)] == [4.0, 4.0, 4.0, 3.0, 2.0, 1.0, 0.0, 0.0]


def test_a_decay_without_a_length_is_refused():
    with pytest.raises(ConfigError, match="linear decay length: expected 1 or more, found 0"):
        LearningRate(1.0, linear_decay_start=5)
