from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch

from jukebox_deploy.errors import CheckpointError, ConfigError, TrainingError
from jukebox_deploy.models.builders import build_prior, build_vqvae
from jukebox_deploy.models.losses import Bandwidths, LossSettings
from jukebox_deploy.training import trainer as trainer_module
from jukebox_deploy.training.checkpoint import read_snapshot, write_snapshot
from jukebox_deploy.training.loss_scale import LossScale
from jukebox_deploy.training.objective import PriorObjective, VQVAEObjective
from jukebox_deploy.training.precision import TrainingPrecision
from jukebox_deploy.training.settings import OptimiserSettings, Part
from jukebox_deploy.training.trainer import StepReport, Trainer
from jukebox_deploy.training.workers import Workers
from tests.training.small_runs import (
    PRIOR,
    VQVAE,
    Batches,
    audio_batch,
    code_batch,
    prior_trainer,
    settings,
    vqvae_trainer,
)

MAKERS = [vqvae_trainer, prior_trainer]


def losses(trainer: Trainer, count: int | None = None) -> list[float]:
    """The losses of so many steps, or of all."""
    steps = trainer.steps()
    reports: list[StepReport] = list(steps) if count is None else [next(steps) for _ in range(count)]
    steps.close()
    return [float(report.total) for report in reports]


def nan_in(spoilt: int) -> Batches:
    """Batches of audio, of which one is NaN."""
    return lambda number, size: {"audio": audio_batch(number, size)["audio"] * (np.nan if number == spoilt else 1)}


@pytest.mark.parametrize("make", MAKERS)
def test_a_run_that_goes_on_from_a_checkpoint_is_the_uninterrupted_one_bit_for_bit(
    make: Callable[..., Trainer], tmp_path: Path
) -> None:
    whole = make()
    expected = losses(whole)
    begun = make()
    before = losses(begun, 3)
    write_snapshot(tmp_path, begun.snapshot(), keep=1)
    resumed = make()
    resumed.restore(read_snapshot(tmp_path, 3))
    assert before + losses(resumed) == expected
    for group, tensors in whole.snapshot().tensors.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, resumed.snapshot().tensors[group][name]), (group, name)


def test_a_step_tells_how_long_it_waited_for_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that moves only while examples are made and copied, however busy the machine is."""
    seconds = 0.0
    trainer = prior_trainer(steps=3, accumulate=2)
    batches, to_device = trainer.batches(), trainer._to_device

    def late_batches() -> Generator[Mapping[str, np.ndarray]]:
        nonlocal seconds
        for batch in batches:
            seconds += 2.5
            yield batch

    def slow_copy(batch: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        nonlocal seconds
        seconds += 100
        return to_device(batch)

    monkeypatch.setattr(trainer_module, "time", SimpleNamespace(monotonic=lambda: seconds))
    monkeypatch.setattr(trainer, "batches", late_batches)
    monkeypatch.setattr(trainer, "_to_device", slow_copy)
    assert [report.waited for report in trainer.steps()] == [5.0] * 3


@pytest.mark.parametrize("make", MAKERS)
def test_it_learns(make: Callable[..., Trainer]) -> None:
    trainer = make(steps=60)
    found = losses(trainer)
    assert np.mean(found[-5:]) < 0.8 * np.mean(found[:5])


@pytest.mark.parametrize(("make", "batch"), [(vqvae_trainer, audio_batch), (prior_trainer, code_batch)])
def test_a_batch_in_pieces_is_the_whole_batch(make: Callable[..., Trainer], batch: Batches) -> None:
    def piece(number: int, size: int) -> Mapping[str, np.ndarray]:
        return {name: array[number % 4 : number % 4 + size] for name, array in batch(number // 4, 4).items()}

    # With seed 0, a latent lies midway between two codes: there rounding decides, and so does the number of threads.
    whole, pieces = make(steps=3, seed=1), make(piece, steps=3, seed=1, accumulate=4)
    for one, two in zip(whole.steps(), pieces.steps(), strict=True):
        assert two.gradient_norm == pytest.approx(one.gradient_norm, rel=1e-4)
        assert float(two.total) == pytest.approx(float(one.total), rel=1e-4)
        assert one.metrics.keys() == two.metrics.keys()
        for name, value in one.metrics.items():
            assert float(two.metrics[name]) == pytest.approx(float(value), rel=1e-3), name
    for group in ("weights", "state"):
        for name, tensor in whole.snapshot().tensors[group].items():
            torch.testing.assert_close(pieces.snapshot().tensors[group][name], tensor, rtol=1e-3, atol=1e-4)


def test_a_step_that_fails_half_way_changes_nothing() -> None:
    trainer = vqvae_trainer(accumulate=4)
    steps = trainer.steps()
    next(steps)
    before = trainer.snapshot().tensors
    with patch.object(trainer_module, "gradient_norm", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        next(steps)
    after = trainer.snapshot().tensors
    assert all(torch.equal(before[group][name], after[group][name]) for group in before for name in before[group])


@pytest.mark.parametrize("piece", range(4))
def test_no_piece_of_a_batch_may_be_nan(piece: int) -> None:
    trainer = vqvae_trainer(nan_in(4 + piece), accumulate=4)
    with pytest.raises(TrainingError, match=r"step 2: the loss is nan"):
        losses(trainer)
    assert trainer.step == 1


def test_a_loss_that_is_not_a_number_stops_the_run_and_names_the_step() -> None:
    trainer = vqvae_trainer(nan_in(2))
    with pytest.raises(TrainingError, match=r"step 3: the loss is nan"):
        losses(trainer)
    assert trainer.step == 2
    assert all(bool(torch.isfinite(t).all()) for t in trainer.snapshot().tensors["weights"].values())


@pytest.mark.parametrize("make", MAKERS)
def test_the_scale_of_half_precision_is_not_in_the_gradient(make: Callable[..., Trainer]) -> None:
    exact, scaled = (make(precision=p) for p in (TrainingPrecision.FP32, TrainingPrecision.FP16))
    scaled._scale = LossScale(2.0**4)  # with 2**16 the losses of a VQ-VAE overflow at first
    plain, report = next(exact.steps()), next(scaled.steps())
    assert not report.skipped
    assert float(report.total) == pytest.approx(float(plain.total), rel=1e-2)
    assert report.gradient_norm == pytest.approx(plain.gradient_norm, rel=2e-2)


def test_steps_that_overflow_are_skipped_and_halve_the_scale() -> None:
    trainer = prior_trainer(steps=30, precision=TrainingPrecision.FP16)
    trainer._scale = LossScale(2.0**24)
    losses: dict[bool, list[float]] = {True: [], False: []}
    scale, weights = 2.0**24, trainer.snapshot().tensors["weights"]
    for report in trainer.steps():
        after = trainer.snapshot().tensors["weights"]
        assert report.skipped == all(torch.equal(weights[name], after[name]) for name in weights)
        scale = scale / 2 if report.skipped else min(2.0**24, scale * 2 ** (1 / 1000))
        assert trainer.snapshot().numbers["loss_scale"]["value"] == scale
        weights = after
        losses[report.skipped].append(float(report.total))
    assert losses[True]
    assert losses[False][-1] < 0.8 * losses[False][0]


def test_a_gradient_larger_than_is_wanted_is_passed_over() -> None:
    trainer = prior_trainer(optimiser=OptimiserSettings(ignore_norm=1e-9))
    before = trainer.snapshot().tensors["weights"]
    (report, *_) = list(trainer.steps())
    assert report.skipped
    after = trainer.snapshot().tensors["weights"]
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_frozen_parts_stay_and_others_move() -> None:
    trainer = prior_trainer(frozen=("transformer",))
    before = trainer.snapshot().tensors["weights"]
    losses(trainer)
    after = trainer.snapshot().tensors["weights"]
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert not any("transformer" in name for name in moved)
    assert trainer.averaged().weights.keys() == {name.removeprefix("model.") for name in before}


@pytest.mark.parametrize("seed", [2**63, 2**64 - 1])
def test_seeds_may_be_as_large_as_settings_allow(seed: int) -> None:
    assert np.isfinite(losses(vqvae_trainer(seed=seed), 2)).all()


def test_freezing_what_is_not_there_or_everything_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"no parameter has 'encoder_of_nothing'.*parts are core"):
        prior_trainer(frozen=("encoder_of_nothing",))
    with pytest.raises(TrainingError, match="leave nothing to train"):
        prior_trainer(frozen=("core", "labels"))


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"4 examples cannot be divided among 1 processes times 3 pieces"):
        prior_trainer(accumulate=3)


def test_the_learning_rate_warms_up_and_ends_at_nothing() -> None:
    options = OptimiserSettings(learning_rate=1e-3, warm_up=2, anneal=3)
    rates = [report.learning_rate for report in prior_trainer(optimiser=options).steps()]
    assert rates == pytest.approx([5e-4, 1e-3, 1e-3, 1e-3, 1e-3 * 2 / 3, 1e-3 / 3])


def test_metrics_that_short_examples_do_not_have_are_left_out() -> None:
    vqvae, loss = build_vqvae(VQVAE), LossSettings(linf=0.0, multispectral=0.0)
    objective = VQVAEObjective(vqvae, loss, Bandwidths(0.3, 0.1, 10.0))
    metrics = objective({"audio": torch.randn(2, 1, 1000)}, {}).metrics
    assert {"reconstruction_1", "commit"} <= metrics.keys()
    assert not {"multispectral_0", "convergence"} & metrics.keys()


def test_the_averaged_weights_lag_behind() -> None:
    trainer = prior_trainer(average_decay=0.9)
    start = trainer.averaged().weights["core.token_embedding.weight"]
    losses(trainer)
    last = trainer.snapshot().tensors["weights"]["model.core.token_embedding.weight"]
    average = trainer.averaged().weights["core.token_embedding.weight"]
    assert torch.linalg.vector_norm(average - start) < torch.linalg.vector_norm(last - start)
    assert not torch.equal(average, start)


def test_only_the_first_process_gets_the_tensors_of_a_snapshot() -> None:
    make = partial(code_batch, size=4)
    objective = PriorObjective(build_prior(PRIOR), PRIOR)
    second = Trainer(objective, settings(Part.PRIOR), make, Workers(rank=1)).snapshot()
    first = prior_trainer().snapshot()
    assert second.tensors == {group: {} for group in first.tensors}
    assert second.numbers == first.numbers
    assert first.tensors["moments"]


def test_a_checkpoint_of_another_model_is_refused() -> None:
    with pytest.raises(CheckpointError, match="belongs to another model"):
        prior_trainer().restore(vqvae_trainer().snapshot())
