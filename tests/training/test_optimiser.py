"""Adam against arrays of the original, and against its formula."""

from __future__ import annotations

import json
import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from jukebox_deploy.training.optimiser import JukeboxAdam, gradient_norm
from tests.models.oracle_names import GOLDENS


@pytest.mark.parametrize("name", ["optimiser_fp32", "optimiser_fp16"])
def test_four_steps_match_the_original(name):
    with np.load(GOLDENS / f"{name}.npz") as file:
        golden = {key: file[key] for key in file.files}
    given = json.loads(str(golden["cfg"]))
    parameters = [nn.Parameter(torch.from_numpy(golden[f"in/p{i}"])) for i in range(2)]
    adam = JukeboxAdam(parameters, given["lr"], tuple(given["betas"]), given["eps"], given["weight_decay"])
    for step in range(4):
        for i, parameter in enumerate(parameters):
            parameter.grad = torch.from_numpy(golden[f"in/step{step}_grad{i}"])
        norm = gradient_norm(parameters, given["loss_scale"], given["clip"])
        assert norm.norm == pytest.approx(float(golden[f"out/step{step}_grad_norm"]), rel=1e-6)
        assert norm.divisor == pytest.approx(float(golden[f"out/step{step}_scale"]), rel=1e-6)
        adam.step(divisor=norm.divisor)
        check_half_precision_moments(adam.state[parameters[0]], golden, f"out/step{step}_")
    for i, parameter in enumerate(parameters):
        check_like(parameter, golden[f"out/p{i}"])
        for moment in ("exp_avg", "exp_avg_sq"):
            check_like(adam.state[parameter][moment], golden[f"out/{moment}{i}"])


def check_half_precision_moments(state, golden, prefix):
    for moment in ("exp_avg", "exp_avg_sq"):
        if f"{prefix}{moment}0" in golden:
            check_like(state[moment], golden[f"{prefix}{moment}0"])
            assert float(state[f"{moment}_scale"]) == pytest.approx(float(golden[f"{prefix}{moment}0_scale"]), rel=1e-6)


def check_like(found, expected):
    assert found.detach().numpy().dtype == expected.dtype
    # In half precision another order of the float32 operations may round to the neighbouring number.
    relative, absolute = (1e-6, 1e-9) if expected.dtype == np.float32 else (2.0**-10, 0)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=relative, atol=absolute)


def test_epsilon_and_decay_are_where_the_formula_has_them():
    lr, beta1, beta2, eps, decay = 0.1, 0.8, 0.9, 0.5, 0.3
    parameter = nn.Parameter(torch.tensor([2.0, -1.0], dtype=torch.float64))
    adam = JukeboxAdam([parameter], lr, (beta1, beta2), eps, decay)
    p, m, v = parameter.detach().clone(), torch.zeros(2), torch.zeros(2)
    for t, gradient in enumerate((torch.tensor([0.3, -4.0]), torch.tensor([1.0, 0.5])), start=1):
        m, v = beta1 * m + (1 - beta1) * gradient, beta2 * v + (1 - beta2) * gradient.square()
        size = lr * math.sqrt(1 - beta2**t) / (1 - beta1**t)
        p = p - size * (m / (v.sqrt() + eps) + decay * p)
        parameter.grad = 4 * gradient.double()
        adam.step(divisor=4.0)
        torch.testing.assert_close(parameter.detach(), p, rtol=1e-6, atol=1e-7)


def small_model():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))


def train(model, adam, steps):
    for step in steps:
        adam.zero_grad()
        model(torch.randn(4, 5, generator=torch.Generator().manual_seed(step))).square().sum().backward()
        adam.step()


def test_written_moments_go_on_bit_for_bit():
    model, other = small_model(), small_model()
    whole = JukeboxAdam(model.parameters(), lr=1e-2)
    train(model, whole, range(3))
    resumed = JukeboxAdam(other.parameters(), lr=1e-2)
    other.load_state_dict(model.state_dict())
    saved = {name: tensor.clone() for name, tensor in whole.moments(dict(model.named_parameters())).items()}
    for name, tensor in resumed.moments(dict(other.named_parameters())).items():
        tensor.copy_(saved[name])
    train(model, whole, range(3, 6))
    train(other, resumed, range(3, 6))
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_pytorchs_own_state_dict_goes_on_too():
    model, other = small_model(), small_model()
    whole, resumed = (JukeboxAdam(m.parameters(), lr=1e-2) for m in (model, other))
    train(model, whole, range(2))
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(deepcopy(whole.state_dict()))
    assert all(isinstance(v, torch.Tensor) for state in whole.state_dict()["state"].values() for v in state.values())
    train(model, whole, range(2, 4))
    train(other, resumed, range(2, 4))
    assert torch.equal(model[0].weight, other[0].weight)


def test_scales_of_half_precision_moments_survive_a_state_dict():
    """PyTorch casts what it loads to the parameter's dtype, in which the scales are too small."""
    parameter, other = (nn.Parameter(torch.ones(3, dtype=torch.float16)) for _ in range(2))
    whole, resumed = JukeboxAdam([parameter]), JukeboxAdam([other])
    parameter.grad = torch.full_like(parameter, 1e-3)
    whole.step()
    resumed.load_state_dict(deepcopy(whole.state_dict()))
    for name, value in whole.state[parameter].items():
        assert torch.equal(value, resumed.state[other][name])
        assert value.dtype == resumed.state[other][name].dtype


def test_parameters_without_a_gradient_stay():
    model = small_model()
    before = model[0].weight.detach().clone()
    model[0].requires_grad_(False)
    adam = JukeboxAdam(model.parameters(), lr=1e-2)
    train(model, adam, range(2))
    assert torch.equal(model[0].weight, before)
    assert float(adam.state[model[0].weight]["step"]) == 0
    assert float(adam.state[model[1].weight]["step"]) == 2


def test_a_norm_below_the_clip_only_divides_by_the_loss_scale():
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, 4.0])
    assert gradient_norm([parameter], 10.0, 1.0).divisor == 10.0
    assert gradient_norm([parameter], 1.0, 2.0).divisor == 2.5
    assert gradient_norm([parameter], 1.0, 0.0).divisor == 1.0


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_gradient_that_overflowed_is_noticed(bad):
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    assert gradient_norm(parameters, 8.0, 1.0).finite
    parameters[1].grad = torch.tensor([1.0, 1.0, bad])
    norm = gradient_norm(parameters, 8.0, 1.0)
    assert not norm.finite
    assert norm.divisor == 8.0


def test_squares_of_half_precision_gradients_do_not_overflow():
    parameter = nn.Parameter(torch.zeros(2, dtype=torch.float16))
    parameter.grad = torch.tensor([6e4, 6e4], dtype=torch.float16)
    assert gradient_norm([parameter], 2.0**16, 1.0).norm == pytest.approx(6e4 * math.sqrt(2) / 2**16, rel=1e-3)
