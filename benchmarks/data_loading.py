"""Measure whether training examples are prepared as fast as training consumes them.

    python -m jukebox_deploy.benchmarks.data_loading --data SONGS --bundle BUNDLE --codes CODES --out FILE

For the VQ-VAE and each prior of a checkpoint bundle, two rates are measured: preparing batches alone, with the threads
of a training run, and training steps. Songs without codes in CODES are encoded first, which is not timed. The rates are
those of this machine: a GPU consumes examples faster, and its host may prepare them faster.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jukebox_deploy.benchmarks.scripts import in_sentences, new_record, number_from, script_parser, seconds_of
from jukebox_deploy.files import write_json_atomic

if TYPE_CHECKING:  # this module imports PyTorch
    from jukebox_deploy.jobs.training.request import TrainRequest

_MODULE = "jukebox_deploy.benchmarks.data_loading"
_BATCHES = 400  # prepared without training
_FIRST = 8  # batches that are not timed, because the threads begin with several at once


def requests_of(options: argparse.Namespace, out: Path) -> Iterator[tuple[str, TrainRequest]]:
    """Yield the name of each part of the bundle and a training run that fine-tunes it."""
    from jukebox_deploy.checkpoints.bundle import CheckpointBundle
    from jukebox_deploy.jobs.training.request import TrainRequest
    from jukebox_deploy.training.precision import TrainingPrecision
    from jukebox_deploy.training.settings import Part, RunSettings

    priors = CheckpointBundle.open(options.bundle).config.priors
    steps = _FIRST + max(options.steps, _BATCHES)
    common = {"steps": steps, "batch": options.batch, "precision": TrainingPrecision(options.precision)}
    settings = {"vqvae": RunSettings(Part.VQVAE, seconds=options.seconds, **common)}
    for prior in priors:
        part = Part.PRIOR if prior.conditioner is None else Part.UPSAMPLER
        level = None if part is Part.PRIOR else prior.level
        settings[f"prior_{prior.level}"] = RunSettings(part, level=level, **common)
    for name, run in settings.items():
        request = TrainRequest(
            run, options.data, out / name, bundle=options.bundle, fine_tune=True, codes=options.codes
        )
        yield name, request


def measure(request: TrainRequest, steps: int) -> dict[str, Any]:
    """Return the rates of one part: examples per second prepared alone and consumed by training, and their ratio.

    Also returns the share of its time that training waited for examples, over `steps` steps after the first one.
    """
    from jukebox_deploy.jobs.train_job import training_part
    from jukebox_deploy.training.workers import Workers

    with Workers.current() as workers:
        part = training_part(request, workers, lambda event: None)
        trainer = part.trainer()
        batches = trainer.batches()
        made = _seconds(batches, _BATCHES)
        batches.close()
        waited = 0.0
        reports = trainer.steps()
        next(reports)
        begun = time.monotonic()
        for report in islice(reports, steps):
            waited += report.waited
        trained = time.monotonic() - begun
        reports.close()
    batch = request.settings.batch
    alone, taken = _BATCHES * batch / made, steps * batch / trained
    return {
        "example_length": part.example_length,
        "unit": part.examples,
        "batch": batch,
        "made_per_second": alone,
        "taken_per_second": taken,
        "made_over_taken": alone / taken,
        "waited_share": waited / trained,
    }


def _seconds(batches: Iterator[object], count: int) -> float:
    """Return the seconds that `count` batches take, after the first `_FIRST`."""
    for _ in islice(batches, _FIRST):
        pass
    begun = time.monotonic()
    for _ in islice(batches, count):
        pass
    return time.monotonic() - begun


@in_sentences
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script; the docstring of the module describes it."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = script_parser(_MODULE, __doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of songs")
    parser.add_argument("--bundle", type=Path, required=True, help="checkpoint bundle whose parts are trained")
    parser.add_argument("--codes", type=Path, required=True, help="folder of the songs' codes")
    parser.add_argument("--batch", type=number_from(1), default=4, help="examples per batch (default: %(default)s)")
    parser.add_argument("--seconds", type=seconds_of, default=1.024, help="length of an example of the VQ-VAE")
    parser.add_argument(
        "--steps", type=number_from(1), default=20, help="training steps per part (default: %(default)s)"
    )
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32", help="of training")
    parser.add_argument("--out", type=Path, required=True, help="result file")
    options = parser.parse_args(words)
    record = new_record(_MODULE, words, {})
    with tempfile.TemporaryDirectory() as folder:
        for name, request in requests_of(options, Path(folder)):
            record["results"][name] = measure(request, options.steps)
            write_json_atomic(options.out, record)
            print(name, record["results"][name], file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
