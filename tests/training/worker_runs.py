"""Short runs of small models in this process or in several, to compare: `torchrun worker_runs.py FOLDER`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from safetensors.torch import save_file

from jukebox_deploy.models.builders import build_prior, build_vqvae
from jukebox_deploy.models.losses import Bandwidths, LossSettings
from jukebox_deploy.training import trainer as trainer_module
from jukebox_deploy.training.checkpoint import read_snapshot, write_snapshot
from jukebox_deploy.training.compilation import compile_objective
from jukebox_deploy.training.objective import PriorObjective, VQVAEObjective
from jukebox_deploy.training.settings import Part, Sharding
from jukebox_deploy.training.trainer import Trainer
from jukebox_deploy.training.workers import Workers
from tests.training.small_runs import PRIOR, VQVAE, audio_batch, code_batch, settings

BATCH = 4
STEPS = 6


def part_of(
    make: Callable[[int, int], Mapping[str, np.ndarray]], workers: Workers, pieces: int = 1
) -> Callable[[int], Mapping[str, np.ndarray]]:
    """The batches of a process: its share of those of all, piece by piece."""
    share = BATCH // (workers.count * pieces)

    def batch(number: int) -> Mapping[str, np.ndarray]:
        first = (workers.rank * pieces + number % pieces) * share
        return {name: array[first : first + share] for name, array in make(number // pieces, BATCH).items()}

    return batch


def vqvae_run(workers: Workers, *, pieces: int = 1, compiled: bool = False) -> Trainer:
    """A VQ-VAE with its codebooks.

    With the seed 0, a latent lies so close to the middle between two codes that rounding decides.
    """
    objective = VQVAEObjective(build_vqvae(VQVAE), LossSettings(), Bandwidths(0.3, 0.1, 10.0), peers=workers)
    run = settings(Part.VQVAE, steps=STEPS, seed=1, accumulate=pieces, compiled=compiled)
    return Trainer(objective, run, part_of(audio_batch, workers, pieces), workers)


def prior_run(workers: Workers, *, sharded: bool = False, pieces: int = 1, compiled: bool = False) -> Trainer:
    """A prior with labels and lyrics; a sharded one recomputes its activations, as large ones have to."""
    sharding = Sharding.SHARDED if sharded else Sharding.REPLICATED
    run = settings(Part.PRIOR, steps=STEPS, sharding=sharding, recompute=sharded, accumulate=pieces, compiled=compiled)
    return Trainer(PriorObjective(build_prior(PRIOR), PRIOR), run, part_of(code_batch, workers, pieces), workers)


def traced(run: Callable[..., Trainer]) -> Callable[[Workers], Trainer]:
    """A run whose passes are traced as for `--compile`; kernels are not compiled, which takes a minute."""

    def make(workers: Workers) -> Trainer:
        backend = partial(compile_objective, backend="aot_eager")
        with patch.object(trainer_module, "compile_objective", backend):
            return run(workers, compiled=True)

    return make


RUNS: Mapping[str, Callable[[Workers], Trainer]] = {
    "vqvae": vqvae_run,
    "vqvae_in_pieces": partial(vqvae_run, pieces=2),
    "prior": prior_run,
    "prior_in_pieces": lambda workers: prior_run(workers, pieces=2),
    "sharded_prior": lambda workers: prior_run(workers, sharded=True),
    "traced_vqvae": traced(vqvae_run),
    "traced_prior_in_pieces": traced(partial(prior_run, pieces=2)),
    "sharded_prior_in_pieces": lambda workers: prior_run(workers, sharded=True, pieces=2),
}


def results(run: Callable[[Workers], Trainer], workers: Workers, folder: Path) -> dict[str, torch.Tensor]:
    """Losses, gradient norms and all tensors of a run that is interrupted in the middle."""
    torch.manual_seed(workers.rank)  # the first process's weights count
    trainer = run(workers)
    reports = list(islice(trainer.steps(), STEPS // 2))
    snapshot = trainer.snapshot()
    if workers.first:
        write_snapshot(folder, snapshot, keep=1)
    workers.wait()
    resumed = run(workers)
    resumed.restore(read_snapshot(folder, STEPS // 2))
    reports += list(resumed.steps())
    return {
        "losses": torch.stack([workers.mean(report.total) for report in reports]),
        "norms": torch.tensor([report.gradient_norm for report in reports]),
        "entropies": torch.stack([report.metrics.get("entropy_0", torch.zeros(())) for report in reports]),
        **{name: tensor for tensors in resumed.snapshot().tensors.values() for name, tensor in tensors.items()},
    }


def main(folder: Path) -> None:
    """Write the results of all runs, from the first process."""
    torch.set_num_threads(1)
    with Workers.current() as workers:
        for name, run in RUNS.items():
            found = results(run, workers, folder / name)
            if workers.first:
                save_file(found, folder / f"{name}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
