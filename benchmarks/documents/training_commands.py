"""The commands that trained a model, derived from the training runs that its checkpoint bundle records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Run = Mapping[str, Any]
"""The record of a training run in a checkpoint bundle (`record_numbers` writes it)."""

FIRST_VQVAE = "runs/vqvae_first/bundle"
"""Folder of the VQ-VAE that a run began with, if it trained only some of the levels."""

CORPUS, EARLIER_CORPUS = "corpus", "earlier_corpus"
EARLIER_MODEL = "earlier_model"
"""Folder of the model that was fine-tuned."""

_OPTIONS = {
    "steps": "steps",
    "batch": "batch",
    "accumulate": "accumulate",
    "seconds": "seconds",
    "revival_threshold": "revival-threshold",
    "learning_rate": "learning-rate",
    "weight_decay": "weight-decay",
    "beta2": "beta2",
    "clip": "clip",
    "warm_up": "warm-up",
    "anneal": "anneal",
    "average_decay": "average",
    "precision": "precision",
    "train_fraction": "train-fraction",
    "seed": "seed",
}
"""Names of settings in the record, and the options of `train` that set them."""


def runs_of(last: Run) -> list[Run]:
    """Return all runs of a part in order: the first one, then those that fine-tuned its result."""
    before = last.get("began_with")
    return [*([] if before is None else runs_of(before)), last]


def commands_of(parts: Mapping[str, Run], out: str) -> list[str]:
    """Return the commands for the first and the last run of every part, and for joining them into the model `out`.

    A corpus is identified by the digest of its songs: that of the last runs is called `CORPUS`, any other one
    `EARLIER_CORPUS`.
    """
    first = {name: runs_of(run)[0] for name, run in parts.items()}
    tuned = {name: run for name, run in parts.items() if run is not first[name]}
    last_songs = next(iter(tuned.values()), first["vqvae"]).get("data")
    begun = {name: _train_command(run, last_songs, _start(run), f"runs/{name}") for name, run in first.items()}
    lines = [*begun.values(), _import_command([f"runs/{name}" for name in begun], EARLIER_MODEL if tuned else out)]
    if tuned:
        further = [f"runs/{name}_further" for name in tuned]
        lines += [
            _train_command(run, last_songs, f"--bundle {EARLIER_MODEL} --fine-tune", folder)
            for run, folder in zip(tuned.values(), further, strict=True)
        ]
        lines.append(_import_command([EARLIER_MODEL, *further, "--later-wins"], out))
    return lines


def _start(run: Run) -> str:
    """Return the options that name what a first run begins with.

    That is a preset, or an existing VQ-VAE if only some of its levels are trained; for a prior also the new VQ-VAE.
    """
    start = f"--bundle {FIRST_VQVAE}" if run.get("levels") else "--preset small_demo"
    return start if run["part"] == "vqvae" else f"{start} --bundle runs/vqvae/bundle"


def _import_command(arguments: list[str], out: str) -> str:
    return f"jukebox-deploy import trained {' '.join(arguments)} --dtype fp16 --out {out}"


def _train_command(run: Run, last_songs: str | None, start: str, out: str) -> str:
    corpus = CORPUS if run.get("data") == last_songs else EARLIER_CORPUS
    return " ".join(["jukebox-deploy train", run["part"], f"--data {corpus}", start, *_settings(run), f"--out {out}"])


def _settings(run: Run) -> Iterator[str]:
    """Yield the options of `train` for the settings of a run."""
    if run["part"] == "upsampler":
        yield f"--level {run['level']}"
    if run.get("levels"):
        yield f"--levels {','.join(map(str, run['levels']))}" + (" --anew" if run["anew"] else "")
    if run.get("aligned"):
        yield "--aligned"
    weights = run.get("loss", {}).get("waveform", ())
    yield from (f"--waveform-weight {level}={weight:g}" for level, weight in enumerate(weights) if weight != 1)
    if run.get("compiled"):
        yield "--compile"
    settings = {**run, **run["optimiser"]}
    for setting, option in _OPTIONS.items():
        value = settings.get(setting)
        if value is not None and (run["part"] == "vqvae" or setting not in ("seconds", "revival_threshold")):
            yield f"--{option} {value:g}" if isinstance(value, float) else f"--{option} {value}"
