import pytest
import torch
from torch import nn

from jukebox_deploy.training.weight_average import WeightAverage, default_decay

LATE = 1000
"""A step after which the decay no longer grows."""


def model_of(value):
    model = nn.Linear(2, 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


def move_to(model, value):
    model.load_state_dict(model_of(value).state_dict())


def test_the_average_follows_the_weights():
    model = model_of(1.0)
    average = WeightAverage(model, 0.75)
    move_to(model, 2.0)
    average.update(LATE)
    assert average.tensors()["bias"].item() == 1.25
    average.update(LATE)
    assert average.tensors()["weight"].tolist() == [[1.4375, 1.4375]]


def test_the_beginning_is_forgotten_faster():
    model = model_of(1.0)
    average = WeightAverage(model, 0.999)
    move_to(model, 2.0)
    average.update(0)
    assert average.tensors()["bias"].item() == pytest.approx(2.0 - 1 / 10)
    average.update(98)
    assert average.tensors()["bias"].item() == pytest.approx(2.0 - 1 / 10 * 99 / 108)


def test_written_averages_are_averaged_on():
    model = model_of(1.0)
    average = WeightAverage(model, 0.5)
    for tensor in average.tensors().values():
        tensor.fill_(9.0)
    average.update(LATE)
    assert average.tensors()["bias"].item() == 5.0


def test_frozen_parameters_have_no_average():
    model = model_of(1.0)
    model.weight.requires_grad_(False)
    assert list(WeightAverage(model, 0.5).tensors()) == ["bias"]


def test_the_default_decay_depends_on_the_batch():
    assert default_decay(8) == pytest.approx(0.999)
    assert default_decay(256) == pytest.approx(0.968)
    assert default_decay(100_000) == 0.0
