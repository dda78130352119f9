from dataclasses import asdict

import pytest

from jukebox_deploy.training.loss_scale import LossScale


def test_good_steps_double_the_scale_once_per_window():
    scale = LossScale(8.0, window=10)
    for _ in range(10):
        scale = scale.after(good=True)
    assert scale.value == pytest.approx(16.0)


def test_an_overflow_halves_the_scale_and_the_maximum_holds():
    assert LossScale().value == 2.0**16
    assert LossScale().after(good=False).value == 2.0**15
    assert LossScale(2.0**24).after(good=True).value == 2.0**24


def test_a_constant_scale_stays():
    scale = LossScale.constant(1.0)
    assert scale.after(good=True) == scale.after(good=False) == scale


def test_a_scale_can_be_written_down_and_read_again():
    scale = LossScale(3.0, window=7).after(good=True)
    assert LossScale(**asdict(scale)) == scale
