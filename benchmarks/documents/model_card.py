"""The generated blocks of the shipped model's card: how it was trained, and how good it is.

The model's checkpoint bundle records how it was trained. Everything else comes from the result files in `RESULTS`,
which hold the output of the commands given there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jukebox_deploy.benchmarks.documents.filled_blocks import Block, escaped
from jukebox_deploy.benchmarks.documents.training_commands import commands_of, runs_of
from jukebox_deploy.benchmarks.drawing.markup import printable
from jukebox_deploy.errors import JukeboxError
from jukebox_deploy.listing import words_of
from jukebox_deploy.markdown import table
from jukebox_deploy.quantities import percent

MODEL = "models/small_demo"
CARD = f"{MODEL}/README.md"

TRAINING, EVALUATION, SONGS, ONE_SONG = (
    f"small-demo-{name}.json" for name in ("training", "evaluation", "songs", "one-song")
)
_EXPORTED = "onnx_fp32 onnx_fp16 onnx_bf16 onnx_int8 onnx_int4 onnx_fp8"
RESULTS: dict[str, str] = {
    TRAINING: 'by hand, from what `train` prints: {"machine": NAME, "seconds": {"vqvae": [60], "prior_0": [60, 60]}}, '
    "with the seconds of each run of each part",
    EVALUATION: f"jukebox-deploy evaluate {MODEL} {_EXPORTED} --data CORPUS --windows 24 --songs 24 --threads 1 --json",
    SONGS: "jukebox-deploy data synthesize --songs 108 --seed 2 --rate 8000 --grid 0.032 --arrangement answered "
    "--out judged && jukebox-deploy data requests judged --seconds 6.144 --out REQUESTS && "
    "jukebox-deploy sample onnx_fp32 --every-level --requests REQUESTS --slots 54 --temperature 0=0.85 "
    "--temperature 1=0.85 --temperature 2=0.9 --out SONGS && "
    "jukebox-deploy evaluate-songs SONGS --data CORPUS --codec onnx_fp32 --clips 300 --json",
    ONE_SONG: "jukebox-deploy data synthesize --songs 1 --seed 52 --rate 8000 --grid 0.032 --arrangement answered "
    "--out one-song && "
    f"jukebox-deploy evaluate {MODEL} --data one-song --all --songs 1 --windows 4 --seconds 5 --json",
}
"""Files in `benchmarks/results/`, and how each was made; newer files of evaluations also record their command."""

NOT_TRAINED = "No trained model is here yet."
NOT_MEASURED = "Not measured yet."

Data = Mapping[str, Any]


def _read(path: Path) -> Data | None:
    """Read a JSON object; return `None` if there is no such file. Raises `JukeboxError` for anything else."""
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise JukeboxError(f"{path} is not a readable JSON document: {error}") from error
    if not isinstance(data, dict):
        raise JukeboxError(f"{path}: expected a JSON object, found {type(data).__name__}.")
    return data


def _from_results(name: str, write: Callable[[Data], str]) -> Callable[[Path], str]:
    """Return the function of a block that is written from one result file."""

    def text(repository: Path) -> str:
        path = repository / "benchmarks" / "results" / name
        data = _read(path)
        if data is None:
            return NOT_MEASURED
        try:
            return write(data)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise JukeboxError(
                f"{path} is damaged or of another version ({error!r}); make it again: {RESULTS[name]}"
            ) from error

    return text


def _parts(repository: Path) -> dict[str, Data] | None:
    """Return the record of the last training run of each part; `None` if there is no model.

    Raises `JukeboxError` if the model does not record a run for each part.
    """
    path = repository / MODEL / "config.json"
    description = _read(path)
    if description is None:
        return None
    parts: dict[str, Data] = description.get("source", {}).get("parts", {})
    expected = {"vqvae": "vqvae", "prior_2": "prior", "prior_1": "upsampler", "prior_0": "upsampler"}
    found = {name: parts.get(name, {}).get("part") for name in expected}
    if found != expected:
        odd = words_of(
            f"{name} as {found[name] or 'nothing'} instead of {part}"
            for name, part in expected.items()
            if found[name] != part
        )
        raise JukeboxError(
            f"{path} does not record how each part was trained: it has {odd}. Join the runs again with "
            "`jukebox-deploy import trained`, the VQ-VAE's run first."
        )
    return {name: parts[name] for name in expected}


def training_table(repository: Path) -> str:
    """Return the table of training runs: settings and duration of each run of each part."""
    parts = _parts(repository)
    if parts is None:
        return NOT_TRAINED
    times = _read(repository / "benchmarks" / "results" / TRAINING) or {}
    headings = ("part", ">steps", ">batch", ">learning rate", "precision", ">seed", ">songs", ">minutes")
    seconds = times.get("seconds", {})
    rows = [row for name, last in parts.items() for row in _training_rows(name, runs_of(last), seconds.get(name, ()))]
    machine = f"\n\nThe times were measured on {escaped(times['machine'])}." if "machine" in times else ""
    return table(headings, rows) + machine


def _training_rows(name: str, runs: Sequence[Data], seconds: Sequence[float]) -> Iterator[tuple[str, ...]]:
    """Yield a row per run of a part; a run after the first one is a fine-tuning."""
    for place, run in enumerate(runs):
        title = _title(name) + (", fine-tuned" if place else "")
        rate, minutes = run["optimiser"]["learning_rate"], f"{seconds[place] / 60:.0f}" if place < len(seconds) else ""
        numbers = (f"{run['steps']:,}", str(run["batch"]), f"{rate:g}", run["precision"], str(run["seed"]))
        yield (title, *numbers, str(run["songs"]), minutes)


def _title(component: str) -> str:
    names = {
        "vqvae": "VQ-VAE",
        "prior_2": "top prior",
        "prior_1": "upsampler, level 1",
        "prior_0": "upsampler, level 0",
    }
    return names[component]


def training_commands(repository: Path) -> str:
    """Return the commands that trained the model, derived from the bundle's record, as a Markdown code block."""
    parts = _parts(repository)
    if parts is None:
        return NOT_TRAINED
    return "\n".join(["```sh", *commands_of(parts, MODEL), "```"])


def levels_table(data: Data) -> str:
    """Return the table of how well each level of the VQ-VAE reconstructs audio."""
    headings = (">level", ">signal over error", ">spectral convergence", ">codes used", ">perplexity")
    rows = [
        (
            str(level["level"]),
            f"{level['snr_decibel']:.1f} dB",
            f"{level['spectral_convergence']:.3f}",
            f"{level['codes_used']} of {level['codebook_size']}",
            f"{level['perplexity']:.0f}",
        )
        for level in data["levels"]
    ]
    return table(headings, rows)


def priors_table(data: Data) -> str:
    """Return the table of bits per code of each prior, with the bits that the frequencies of codes alone would need."""
    frequencies = {known["level"]: known for known in data.get("by_frequency", ())}
    headings = (
        "prior",
        "backend",
        ">bits per code",
        ">increase",
        ">bits from frequencies alone",
        ">top-1 accuracy",
    )
    rows = [
        (
            f"level {prior['level']}",
            escaped(_backend(bundle)),
            f"{prior['bits_per_token']:.3f}",
            _cost(prior),
            f"{frequencies[prior['level']]['bits_per_token']:.3f}" if prior["level"] in frequencies else "",
            percent(prior["top1"]),
        )
        for bundle in data["bundles"]
        for prior in bundle["priors"]
        if prior.get("bits_per_token") is not None
    ]
    return "\n\n".join([table(headings, rows), *_counted(frequencies.values())])


def _counted(frequencies: Collection[Data]) -> Iterator[str]:
    """Yield a sentence that says which codes the frequencies were counted in, if they were counted."""
    if frequencies:
        songs = next(iter(frequencies))["counted_songs"]
        counts = ", ".join(f"{known['counted_codes']:,} codes at level {known['level']}" for known in frequencies)
        yield (
            "*Bits from frequencies alone* is what a prediction needs that knows only how often each code occurs in "
            f"the other {songs - 1} of the {songs} encoded songs. All {songs} together have {counts}."
        )


def _cost(prior: Data) -> str:
    """Format by how much the bits per code exceed those of the first bundle; bold if the evaluation marks it."""
    text = f"{prior.get('cost') or 0:.2%}".replace("%", " %").replace("-0.00", "0.00")
    return f"**{text}**" if prior.get("costly") else text


def _backend(bundle: Data) -> str:
    """Return backend, precision and weight format of a bundle."""
    weights = bundle.get("weights", bundle["precision"])
    return f"{bundle['backend']} {bundle['precision']}" + (
        "" if weights == bundle["precision"] else f", {weights} weights"
    )


def command_of(name: str) -> Callable[[Data], str]:
    """Return the function of a block with the command that made a result: as recorded in it, or from `RESULTS`."""

    def text(data: Data) -> str:
        if "command" in data:
            text, command = f"Measured on {escaped(data['date'][:10])} with:", printable(data["command"])
        else:
            text = "Measured with this command (the result file predates the recording of commands):"
            command = RESULTS[name]
        return f"{text}\n\n```sh\n{command}\n```"

    return text


def songs_table(data: Data) -> str:
    """Return the table of how well sampled songs match the requested artist, genre and scale."""
    headings = (">level", "measure", ">songs", ">result", ">95 % interval", ">chance", ">corpus")
    return table(headings, (row for level in data["levels"] for row in _match_rows(level)))


def _match_rows(level: Data) -> Iterator[tuple[str, ...]]:
    """Yield the rows of one level: what classifiers recognise, and the share of energy on the scale."""
    first = str(level["level"])
    for heard in level["recognitions"]:
        interval = f"{percent(heard['interval']['low'])} to {percent(heard['interval']['high'])}"
        shares = (percent(heard["accuracy"]), interval, percent(heard["chance"]), percent(heard["corpus_accuracy"]))
        yield (first, f"{heard['kind']} recognised", str(heard["samples"]), *shares)
    if (scale := level["scale"]) is not None:
        chance = f"{percent(scale['noise'])} to {percent(scale['random'])}"
        for what, key, by_chance, corpus in (
            ("energy on the genre's scale", "asked", chance, scale["corpus"]),
            ("energy on the scales of other genres", "others", "", scale["corpus_others"]),
        ):
            share = scale[key]
            mean, error = share["mean"], share["error"]
            around = "" if error is None else f"{percent(mean - error)} to {percent(mean + error)}"
            yield (first, what, str(scale["samples"]), percent(mean), around, by_chance, percent(corpus))


CARD_BLOCKS = (
    Block(CARD, "training", training_table),
    Block(CARD, "commands", training_commands),
    Block(CARD, "levels", _from_results(EVALUATION, levels_table)),
    Block(CARD, "priors", _from_results(EVALUATION, priors_table)),
    Block(CARD, "evaluation-command", _from_results(EVALUATION, command_of(EVALUATION))),
    Block(CARD, "songs", _from_results(SONGS, songs_table)),
    Block(CARD, "songs-command", _from_results(SONGS, command_of(SONGS))),
)
"""All generated blocks of the card."""
