"""The commands that made a trained model, from what its checkpoint bundle says of the runs of each part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Run = Mapping[str, Any]
"""What a bundle says of a training run, see `record_numbers`."""

FIRST_VQVAE = "runs/vqvae_first/bundle"
"""Where a VQ-VAE lies of which only some levels were trained again."""

CORPUS, EARLIER_CORPUS = "corpus", "earlier_corpus"
EARLIER_MODEL = "earlier_model"
"""What priors were fine-tuned from."""

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
"""Settings of a run, and the options of `train` that set them."""


def runs_of(last: Run) -> list[Run]:
    """The runs that a part went through, in order: the one it began with, and those that fine-tuned it."""
    before = last.get("began_with")
    return [*([] if before is None else runs_of(before)), last]


def commands_of(parts: Mapping[str, Run], out: str) -> list[str]:
    """A command for every part's first and last run, and for putting them together; `out` is the model.

    Songs are known by their digest: those of the last runs are one corpus, any others an earlier one.
    """
    first = {name: runs_of(run)[0] for name, run in parts.items()}
    tuned = {name: run for name, run in parts.items() if run is not first[name]}
    last_songs = next(iter(tuned.values()), first["vqvae"]).get("data")
    begun = {name: _command(run, last_songs, _beginning(run), f"runs/{name}") for name, run in first.items()}
    lines = [*begun.values(), _joined([f"runs/{name}" for name in begun], EARLIER_MODEL if tuned else out)]
    if tuned:
        further = [f"runs/{name}_further" for name in tuned]
        lines += [
            _command(run, last_songs, f"--bundle {EARLIER_MODEL} --fine-tune", folder)
            for run, folder in zip(tuned.values(), further, strict=True)
        ]
        lines.append(_joined([EARLIER_MODEL, *further, "--later-wins"], out))
    return lines


def _beginning(run: Run) -> str:
    """What a run that is no fine-tuning of a prior begins with."""
    start = f"--bundle {FIRST_VQVAE}" if run.get("levels") else "--preset small_demo"
    return start if run["part"] == "vqvae" else f"{start} --bundle runs/vqvae/bundle"


def _joined(what: list[str], out: str) -> str:
    return f"jukebox-deploy import trained {' '.join(what)} --dtype fp16 --out {out}"


def _command(run: Run, last_songs: str | None, beginning: str, out: str) -> str:
    corpus = CORPUS if run.get("data") == last_songs else EARLIER_CORPUS
    return " ".join(
        ["jukebox-deploy train", run["part"], f"--data {corpus}", beginning, *_settings(run), f"--out {out}"]
    )


def _settings(run: Run) -> Iterator[str]:
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
