"""Measure the peak memory of training steps, each in a separate process.

    python -m jukebox_deploy.benchmarks.training_memory --presets tiny small_demo

Each case is one step of a real trainer with one example per batch. Its process is forked before PyTorch has computed
anything. The memory of the step is what the process grows by from there to its peak (the kernel's `VmHWM`). Linux only.
With `--computed`, nothing is run: the memory is computed from the configuration, also for models that are too large for
this machine.

glibc keeps freed blocks of up to 32 MB and may be unable to use them again. With `MALLOC_MMAP_THRESHOLD_=1048576` in
the environment, it returns all blocks of more than 1 MB to the system.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from jukebox_deploy.benchmarks.process_memory import memory_field
from jukebox_deploy.benchmarks.scripts import in_sentences, new_record, number_from, result_file, script_parser
from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.errors import TrainingError
from jukebox_deploy.files import write_json_atomic
from jukebox_deploy.presets import preset
from jukebox_deploy.quantities import byte_size

_MODULE = "jukebox_deploy.benchmarks.training_memory"
_THRESHOLD = "MALLOC_MMAP_THRESHOLD_"
SAMPLES = 4096
"""Default samples per example of a VQ-VAE: a multiple of all hop lengths, and more than the 2048 of a spectral loss."""


@dataclass(frozen=True)
class Case:
    """A training step to measure."""

    preset: str
    level: int | None  # of the prior; `None`: the VQ-VAE
    precision: str  # "fp32" or "bf16"
    recompute: bool  # whether activations are recomputed in the backward pass
    samples: int = SAMPLES  # per example of the VQ-VAE

    @property
    def name(self) -> str:
        """The name for progress messages and `--only`, for instance `tiny prior 0 fp32 recomputed`."""
        part = "VQ-VAE" if self.level is None else f"prior {self.level}"
        return f"{self.preset} {part} {self.precision}{' recomputed' if self.recompute else ''}"


def cases_of(config: JukeboxConfig, samples: int = SAMPLES) -> Iterator[Case]:
    """Yield the cases of a model: each part in both precisions, with and without recomputed activations."""
    for level in (None, *(prior.level for prior in config.priors)):
        for precision in ("fp32", "bf16"):
            for recompute in (False, True):
                yield Case(config.name, level, precision, recompute, samples)


def take_a_step(case: Case) -> None:
    """Build a trainer as a training run does, and run one step."""
    from jukebox_deploy.models.builders import build_prior, build_vqvae
    from jukebox_deploy.models.losses import Bandwidths, LossSettings
    from jukebox_deploy.training.memory import prior_batch
    from jukebox_deploy.training.objective import PriorObjective, VQVAEObjective
    from jukebox_deploy.training.precision import TrainingPrecision
    from jukebox_deploy.training.settings import Part, RunSettings
    from jukebox_deploy.training.trainer import Trainer
    from jukebox_deploy.training.workers import Workers

    config, precision = preset(case.preset), TrainingPrecision(case.precision)
    settings = RunSettings(Part.VQVAE, steps=1, batch=1, precision=precision, recompute=case.recompute)
    batch: Mapping[str, np.ndarray]
    if case.level is None:
        objective: Any = VQVAEObjective(build_vqvae(config.vqvae), LossSettings(), Bandwidths(1.0, 1.0, 1.0))
        noise = np.random.default_rng(0).standard_normal((1, 1, case.samples))
        batch = {"audio": noise.astype(np.float32)}
    else:
        prior = config.prior(case.level)
        objective = PriorObjective(build_prior(prior), prior)
        batch = {name: tensor.numpy() for name, tensor in prior_batch(prior, 1).items()}
    for _ in Trainer(objective, settings, lambda number: batch, Workers()).steps():
        pass


def measure(case: Case) -> dict[str, Any]:
    """Run a step in a forked process; return the bytes before the step, at the peak, and their difference.

    Raises `TrainingError` if the process ends without a result.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure_in_this_process, args=(case, sender))
    process.start()
    sender.close()
    try:
        before, peak = receiver.recv()
    except EOFError:
        raise TrainingError(
            f"{case.name}: the process that measures it ended without a result; its error message, if any, is above."
        ) from None
    finally:
        process.join()
    return {**asdict(case), "baseline_bytes": before, "peak_bytes": peak, "step_bytes": peak - before}


def compute(case: Case) -> dict[str, Any]:
    """Compute the bytes of a step from the configuration, for models of any size.

    Unlike a measurement, they do not include the memory of libraries.
    """
    from jukebox_deploy.training.memory import StepOptions, prior_step_memory, vqvae_step_memory
    from jukebox_deploy.training.precision import TrainingPrecision

    config = preset(case.preset)
    options = StepOptions(1, TrainingPrecision(case.precision), case.recompute, case.samples)
    if case.level is None:
        memory = vqvae_step_memory(config.vqvae, options)
    else:
        memory = prior_step_memory(config.prior(case.level), options)
    return {**asdict(case), "computed": True, "step_bytes": memory.total}


def _measure_in_this_process(case: Case, sender: Connection) -> None:
    """Run a step, and send the bytes before it and at the peak."""
    import torch

    torch.set_num_threads(1)
    before = memory_field("VmRSS")
    take_a_step(case)
    sender.send((before, memory_field("VmHWM")))


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(_MODULE, __doc__)
    parser.add_argument("--presets", nargs="+", default=["tiny", "small_demo"], help="models to measure")
    parser.add_argument("--samples", type=number_from(1), default=SAMPLES, help="samples per example of a VQ-VAE")
    parser.add_argument("--only", nargs="*", default=[], help="measure only cases whose names have all these words")
    parser.add_argument("--computed", action="store_true", help="compute from the configuration instead of measuring")
    parser.add_argument("--out", type=Path, help="result file (default: in benchmarks/results)")
    return parser


@in_sentences
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script; the docstring of the module describes it."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    options = parser.parse_args(words)
    cases = [case for name in options.presets for case in cases_of(preset(name), options.samples)]
    chosen = [case for case in cases if all(word in case.name.split() for word in options.only)]
    if not chosen:
        parser.error(f"--only: no case has all of {' '.join(options.only)!r} in its name, such as {cases[0].name!r}")
    # Imported before the first fork, so that the memory of the libraries does not count as that of a step.
    import jukebox_deploy.training.memory
    import jukebox_deploy.training.trainer  # noqa: F401

    out, record = options.out or result_file("training-memory"), new_record(_MODULE, words, [])
    if threshold := os.environ.get(_THRESHOLD):
        record["command"] = f"{_THRESHOLD}={threshold} {record['command']}"
    get_result = compute if options.computed else measure
    for case in chosen:
        record["results"].append(get_result(case))
        print(f"{case.name}: {byte_size(record['results'][-1]['step_bytes'])}", file=sys.stderr, flush=True)
        write_json_atomic(out, record)


if __name__ == "__main__":
    main()
