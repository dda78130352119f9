"""`jukebox-deploy sample`: generate songs with an engine bundle."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from jukebox_deploy.cli.level_values import LevelValueType, settings_options
from jukebox_deploy.cli.options import PATH, SECONDS, SEED, OutFolder, UsualFloat, grouped
from jukebox_deploy.cli.progress import ProgressDisplay
from jukebox_deploy.cli.sampling_progress import SamplingProgress
from jukebox_deploy.cli.tensorrt_options import chosen_tensorrt, tensorrt_options
from jukebox_deploy.engines.device import Provider
from jukebox_deploy.jobs.requests.songs import (
    advice_left,
    build_jobs,
    level_settings,
    read_jobs,
    read_lyrics,
)
from jukebox_deploy.jobs.sample_job import Backend, EngineChoice, OpenedModel, SampleSummary, open_model
from jukebox_deploy.runtime.audio import SampleFormat
from jukebox_deploy.runtime.events import Event, SongWarning
from jukebox_deploy.runtime.sampler import SamplingOptions, SongJob
from jukebox_deploy.runtime.song import Mode

_song_options = grouped(
    click.option(
        "--seconds", type=SECONDS, help="Length of the result in seconds, including a prompt or continued song."
    ),
    click.option("--artist", help="Artist, by name or by number, such as #12."),
    click.option("--genre", help="Genre, by name or by number, such as #12."),
    click.option("--lyrics", help="Lyrics of the whole song."),
    click.option("--lyrics-file", type=PATH, help="Text file (UTF-8) with the lyrics of the whole song."),
    click.option(
        "--total-seconds",
        type=SECONDS,
        help="Length of the whole song that the model is conditioned on. [default: the model's own default, else "
        "--offset plus --seconds]",
    ),
    click.option(
        "--offset",
        type=UsualFloat(min=0),
        help="Where in the whole song the result begins, in seconds. [default: 0]",
    ),
    click.option(
        "--seed", type=SEED, default=0, show_default=True, help="Random seed; the same seed gives the same songs."
    ),
)
_source_options = grouped(
    click.option("--prompt", type=PATH, help="Continue a sound file: WAV, FLAC, OGG or MP3."),
    click.option(
        "--continue",
        "continued",
        type=PATH,
        help="Continue the song in a song folder from its codes. Artist, genre, lyrics, --total-seconds and "
        "--offset default to those of that song.",
    ),
    click.option(
        "--upsample",
        type=PATH,
        help="Take the top-level codes of a song folder and sample the lower levels. Artist, genre and so on default "
        "as for --continue.",
    ),
    click.option(
        "--prompt-seconds", type=SECONDS, help="Use only the first seconds of --prompt, --continue or --upsample."
    ),
)
_sampling_options = grouped(
    click.option(
        "--temperature",
        type=LevelValueType(UsualFloat(min=0)),
        multiple=True,
        help="Sampling temperature for all levels, or LEVEL=VALUE once per level; 0 always takes the most likely "
        "code. [default: the model's own default, else 0.99]",
    ),
    click.option(
        "--top-k",
        type=LevelValueType(click.IntRange(min=1)),
        multiple=True,
        help="Sample from the K most likely codes. [default: the model's own default, else all codes]",
    ),
    click.option(
        "--top-p",
        type=LevelValueType(UsualFloat(0, 1, min_open=True)),
        multiple=True,
        help="Nucleus sampling: sample from the fewest codes whose probabilities add up to P. [default: the model's "
        "own default, else all codes]",
    ),
    click.option(
        "--lowest-level",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Stop at level N instead of 0; the sound is then level_N.wav.",
    ),
)
_several_options = grouped(
    click.option(
        "--songs", type=click.IntRange(min=1), help="Number of songs, which differ only in their random numbers."
    ),
    click.option(
        "--requests",
        type=PATH,
        help="File with one song per line, as a JSON object with artist, genre, lyrics, seconds, … Options apply to "
        "songs whose lines leave them out. docs/sampling.md lists all keys.",
    ),
    click.option(
        "--slots",
        type=click.IntRange(min=1),
        help="Largest number of songs sampled at once. [default: 16, or as many as ENGINE_BUNDLE takes]",
    ),
)
_engine_options = grouped(
    click.option(
        "--backend",
        type=click.Choice([str(b) for b in Backend]),
        help="What runs the graphs. [default: the target the bundle was made for]",
    ),
    click.option("--checkpoint", type=PATH, help="Checkpoint bundle with the weights for --backend eager."),
    click.option(
        "--provider",
        type=click.Choice([str(p) for p in Provider]),
        help="ONNX Runtime's execution provider, or the device of --backend eager (cpu or cuda). TensorRT engines "
        "always run on a GPU. [default: cpu]",
    ),
    click.option(
        "--cuda-graph/--no-cuda-graph",
        default=None,
        help="Record steps as CUDA graphs and replay them. [default: where possible]",
    ),
    click.option(
        "--compile",
        "compiled",
        is_flag=True,
        help="With --backend eager, compile the step with torch.compile: the first step takes a minute or two, later "
        "ones are faster. Needs a C++ compiler, or Triton on a GPU.",
    ),
    click.option("--threads", type=click.IntRange(1), help="CPU threads. [default: chosen for the model]"),
    click.option(
        "--map-weights",
        is_flag=True,
        help="On a CPU, use large floating-point weights directly from the memory-mapped file: sampling starts at "
        "once with half the memory, but several slots are slower, and sums are rounded in a different order.",
    ),
)
_CHOICES = ("provider", "threads", "checkpoint", "map_weights", "cuda_graph", "compiled")
_output_options = grouped(
    click.option(
        "--out",
        required=True,
        type=OutFolder(),
        metavar="DIR",
        help="Folder for the song, or for the folders of several songs.",
    ),
    click.option(
        "--format",
        "sample_format",
        type=click.Choice([str(f) for f in SampleFormat]),
        default="float",
        help="Sample format of the WAV file; pcm16 is scaled down where needed to avoid clipping.",
    ),
    click.option(
        "--every-level",
        is_flag=True,
        help="Write the sound of every level as soon as its codes are sampled, not only that of the lowest level.",
    ),
    click.option("--spectrogram", is_flag=True, help="Write a spectrogram of each song as a PNG next to its WAV file."),
    click.option("--resume", is_flag=True, help="Continue the songs of an interrupted run."),
    click.option("--json", "as_json", is_flag=True, help="Print a summary as JSON; progress goes to standard error."),
)


@click.command(context_settings={"show_default": True})
@click.argument("bundle", metavar="ENGINE_BUNDLE", type=PATH)
@_output_options
@_song_options
@_source_options
@_sampling_options
@_several_options
@_engine_options
@tensorrt_options
def command(bundle: Path, **options: Any) -> None:
    """Generate songs with ENGINE_BUNDLE, a folder made by `jukebox-deploy export` or `jukebox-deploy build`.

    DIR becomes the song folder; with --songs or --requests, songs go into DIR/song_0, DIR/song_1, and so on. A song
    folder holds song.json (all settings), codes_N.npy for each level N, and the sound: level_0.wav, or level_N.wav
    with --lowest-level N. With --every-level, a rough version (the top level) is available long before the final
    sound.

    To continue an interrupted run, repeat the command with --resume.
    """
    from rich.console import Console

    defaults = _song_fields(options)
    where = {name: options[name] for name in _CHOICES}
    backend = Backend(options["backend"]) if options["backend"] else None
    choice = EngineChoice(backend, **where, tensorrt=chosen_tensorrt(options))
    sample_format = SampleFormat(options["sample_format"])
    same = ("slots", "lowest_level", "every_level", "resume")
    given = {name: options[name] for name in same if options[name] is not None}
    sampling = SamplingOptions(**given, sample_format=sample_format)
    model = open_model(bundle, choice, options["slots"])
    summary = SampleSummary(_jobs(model, defaults, options))
    of_model = _options_of_model(model, summary.jobs, options)
    if of_model:
        click.echo(f"Defaults of the model: {shlex.join(of_model)}", err=options["as_json"])
    if choice.compiled:
        click.echo("PyTorch compiles each level's step before its first code; kernels are kept for later.", err=True)
    alone = options["songs"] is None and options["requests"] is None
    with ProgressDisplay(Console(stderr=options["as_json"])) as display:
        progress = SamplingProgress(model.engine.config.vqvae, display, alone=alone)
        _show(_events(model, sampling, summary.jobs, options), summary, progress)
    if options["spectrogram"]:
        summary.draw_spectrograms()
    if options["as_json"]:
        click.echo(json.dumps({**summary.to_json(), "options_of_model": of_model}, indent=2))


def _song_fields(options: dict[str, Any]) -> dict[str, Any]:
    """Return the `SongRequest` fields that the options set for every song, except the settings of levels."""
    if options["lyrics"] is not None and options["lyrics_file"] is not None:
        raise click.UsageError("--lyrics and --lyrics-file exclude each other.")
    lyrics = read_lyrics(options["lyrics_file"]) if options["lyrics_file"] else options["lyrics"]
    return {
        "seconds": options["seconds"],
        "artist": options["artist"],
        "genre": options["genre"],
        "lyrics": lyrics,
        "total_seconds": options["total_seconds"],
        "offset_seconds": options["offset"],
        "seed": options["seed"],
        "source_seconds": options["prompt_seconds"],
        **_source_fields(options),
    }


def _source_fields(options: dict[str, Any]) -> dict[str, Any]:
    modes = {"prompt": Mode.PRIMED, "continued": Mode.CONTINUE, "upsample": Mode.UPSAMPLE}
    given = [(mode, options[name]) for name, mode in modes.items() if options[name] is not None]
    if len(given) > 1:
        raise click.UsageError("--prompt, --continue and --upsample exclude each other.")
    if not given and options["prompt_seconds"] is not None:
        raise click.UsageError("--prompt-seconds needs --prompt, --continue or --upsample.")
    return {"mode": given[0][0], "source": str(given[0][1])} if given else {}


def _jobs(model: OpenedModel, defaults: dict[str, Any], options: dict[str, Any]) -> list[SongJob]:
    """Return the songs to sample, each with its folder."""
    levels, advice = model.engine.config.vqvae.levels, model.advice
    fields = {**defaults, "levels": level_settings(levels, _level_values(options), advice)}
    songs, path = options["songs"], options["requests"]
    if songs is not None and path is not None:
        raise click.UsageError("--songs and --requests exclude each other.")
    if path is None:
        return build_jobs(fields, songs, options["out"], advice)
    return read_jobs(path, fields, options["out"], advice)


def _level_values(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ("temperature", "top_k", "top_p")}


def _options_of_model(model: OpenedModel, jobs: Sequence[SongJob], options: dict[str, Any]) -> list[str]:
    """Return the options that come from the model's own defaults and apply to at least one song."""
    total = model.advice.total_seconds
    is_told = options["total_seconds"] is None and any(job.request.total_seconds == total for job in jobs)
    levels = advice_left(model.advice, model.engine.config.vqvae.levels, _level_values(options))
    return settings_options(levels, total if is_told else None)


def _lyrics_warnings(jobs: Sequence[SongJob], path: Path | None) -> Iterator[SongWarning]:
    """Warn about an empty lyrics file, which is probably a mistake; an empty --lyrics is deliberate."""
    for index, job in enumerate(jobs) if path is not None else ():
        if not job.request.lyrics.strip():
            yield SongWarning(index, f"There are no lyrics in {path}; the song is sampled without.")


def _events(
    model: OpenedModel, sampling: SamplingOptions, jobs: Sequence[SongJob], options: dict[str, Any]
) -> Iterator[Event]:
    """Yield all events of the run, warnings about lyrics first."""
    yield from _lyrics_warnings(jobs, options["lyrics_file"])
    yield from model.sampler(sampling).sample(jobs)


def _show(events: Iterable[Event], summary: SampleSummary, progress: SamplingProgress) -> None:
    """Sample the songs and show progress."""
    for event in events:
        summary.note(event)
        progress.show(event)
