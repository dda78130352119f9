"""Compiled passes: the same steps, names and resumption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from jukebox_deploy.errors import ConfigError, TrainingError
from jukebox_deploy.training import trainer as trainer_module
from jukebox_deploy.training.checkpoint import read_snapshot, write_snapshot
from jukebox_deploy.training.compilation import compile_objective, compiled_passes
from jukebox_deploy.training.settings import Part, Sharding
from jukebox_deploy.training.trainer import Trainer
from tests.training.small_runs import prior_trainer, settings, vqvae_trainer


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules are traced and divided into passes, but kernels are not compiled: that takes a minute."""
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(trainer_module, "compile_objective", lambda part: compile_objective(part, "aot_eager"))


@pytest.mark.parametrize("make", [vqvae_trainer, prior_trainer])
def test_compiled_steps_are_the_plain_ones_and_are_traced_once(traced: None, make: Callable[..., Trainer]) -> None:
    plain = [float(report.total) for report in make(steps=4).steps()]
    compiled = make(steps=4, compiled=True)
    graphs, totals = [], []
    for report in compiled.steps():
        totals.append(float(report.total))
        graphs.append(counters["stats"]["unique_graphs"])
    assert totals == pytest.approx(plain, rel=1e-4)
    assert graphs[0] > 0
    assert graphs[1:] == [graphs[0]] * 3
    assert not counters["graph_break"]
    for group, tensors in make().snapshot().tensors.items():
        if group != "state":  # a VQ-VAE's begins with its first batch
            assert compiled.snapshot().tensors[group].keys() == tensors.keys()


def test_frozen_parts_of_a_compiled_model_stay(traced: None) -> None:
    compiled = prior_trainer(steps=2, compiled=True, frozen=("transformer",), recompute=True)
    before = compiled.snapshot().tensors["weights"]
    list(compiled.steps())
    after = compiled.snapshot().tensors["weights"]
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert not any("transformer" in name for name in moved)


def test_what_cannot_be_compiled_says_how_to_train() -> None:
    def broken(graph: object, inputs: object) -> None:
        raise RuntimeError("No working C++ compiler found")

    doubling = torch.compile(lambda x: x * 2, backend=broken)
    reason = r"No working C\+\+ compiler found.*train without --compile"
    with pytest.raises(TrainingError, match=reason), compiled_passes(torch.device("cpu")):
        doubling(torch.zeros(1, 2))


@pytest.mark.parametrize(("device", "ordered"), [("cpu", True), ("cuda", False)])
def test_sums_have_one_order_within_passes_on_a_cpu_and_nowhere_else(device: str, ordered: bool) -> None:
    with pytest.raises(ZeroDivisionError), compiled_passes(torch.device(device)):
        assert torch.are_deterministic_algorithms_enabled() == ordered
        raise ZeroDivisionError
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()


def test_sharded_weights_are_not_compiled() -> None:
    with pytest.raises(ConfigError, match="weights must not be sharded"):
        settings(Part.PRIOR, compiled=True, sharding=Sharding.SHARDED)


@pytest.mark.slow
@pytest.mark.parametrize("make", [vqvae_trainer, prior_trainer])
def test_a_compiled_run_goes_on_from_a_checkpoint_bit_for_bit(make: Callable[..., Trainer], tmp_path: Path) -> None:
    whole = [float(report.total) for report in make(compiled=True).steps()]
    begun = make(compiled=True)
    for report in begun.steps():
        if report.step == 3:
            break
    write_snapshot(tmp_path, begun.snapshot(), keep=1)
    torch._dynamo.reset()
    resumed = make(compiled=True)
    resumed.restore(read_snapshot(tmp_path, 3))
    assert [float(report.total) for report in resumed.steps()] == whole[3:]
