"""`jukebox-deploy sample`: songs from an engine bundle."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from jukebox_deploy.cli.level_values import LevelValueType
from jukebox_deploy.cli.options import PATH, grouped
from jukebox_deploy.cli.progress import ProgressDisplay
from jukebox_deploy.cli.sampling_progress import SamplingProgress
from jukebox_deploy.cli.tensorrt_options import chosen_tensorrt, tensorrt_options
from jukebox_deploy.engines.onnxruntime.sessions import GPU_PROVIDERS
from jukebox_deploy.jobs.requests.songs import (
    build_jobs,
    level_settings,
    read_jobs,
    read_lyrics,
)
from jukebox_deploy.jobs.sample_job import Backend, EngineChoice, OpenedModel, SampleSummary, open_model
from jukebox_deploy.runtime.audio import SampleFormat
from jukebox_deploy.runtime.events import Event, SongWarning
from jukebox_deploy.runtime.sampler import SamplingOptions, SongJob
from jukebox_deploy.runtime.song import Mode, is_text


class OutFolder(click.ParamType[Path]):
    """A folder to write to; nothing at all, as an empty variable of a shell gives, is not the current one."""

    name = "folder"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path; a usage error for an empty one, and for bytes that song.json and messages cannot hold."""
        if not str(value):
            self.fail("an empty name; give the folder of the song.", param, ctx)
        if not is_text(str(value)):
            self.fail(f"{str(value)!r} is not text in UTF-8; give another name.", param, ctx)
        return Path(value)


_song_options = grouped(
    click.option("--seconds", type=float, help="Length of the result, a prompt or continued song included."),
    click.option("--artist", help="Name of the artist, or its number as in #12."),
    click.option("--genre", help="Name of the genre, or its number as in #12."),
    click.option("--lyrics", help="Lyrics of the whole song."),
    click.option("--lyrics-file", type=PATH, help="The same from a text file (UTF-8)."),
    click.option("--total-seconds", type=float, help="How long the model is told the song is; default: the result."),
    click.option("--offset", type=float, help="Where in that song the result begins, in seconds. [default: 0]"),
    click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same songs."),
)
_source_options = grouped(
    click.option("--prompt", type=PATH, help="Begin with a sound file: WAV, FLAC, OGG or MP3."),
    click.option(
        "--continue",
        "continued",
        type=PATH,
        help="Begin with the codes of a song folder, go on from there. Artist, genre, lyrics, --total-seconds and "
        "--offset are that song's, where they are not given.",
    ),
    click.option(
        "--upsample",
        type=PATH,
        help="Take the top codes of a song folder, sample the levels below; artist, genre and so on as for --continue.",
    ),
    click.option("--prompt-seconds", type=float, help="Use only that much of the beginning of any of these."),
)
_sampling_options = grouped(
    click.option(
        "--temperature",
        type=LevelValueType(float),
        multiple=True,
        help="For all levels, or LEVEL=VALUE once per level; 0: always the most likely code. [default: 0.99]",
    ),
    click.option("--top-k", type=LevelValueType(int), multiple=True, help="Draw among the K most likely codes."),
    click.option("--top-p", type=LevelValueType(float), multiple=True, help="Draw among the likeliest that make up P."),
    click.option("--lowest-level", type=int, default=0, show_default=True, help="Sample down to this level only."),
)
_several_options = grouped(
    click.option("--songs", type=int, help="Make that many songs that differ in their random numbers."),
    click.option(
        "--requests",
        type=PATH,
        help="A song per line: JSON objects with artist, genre, lyrics, seconds, … Options are for the songs whose "
        "lines leave them out. docs/sampling.md has all keys.",
    ),
    click.option("--slots", type=int, default=16, show_default=True, help="Songs sampled at once, at most."),
)
_engine_options = grouped(
    click.option(
        "--backend",
        type=click.Choice([str(b) for b in Backend]),
        help="What runs the graphs. [default: what the bundle was made for]",
    ),
    click.option("--checkpoint", type=PATH, help="Checkpoint bundle with the weights for --backend eager."),
    click.option(
        "--provider",
        type=click.Choice(["cpu", *GPU_PROVIDERS]),
        help="Where ONNX graphs run, or (cpu, cuda) PyTorch; engines for TensorRT always run on a GPU. [default: cpu]",
    ),
    click.option(
        "--cuda-graph/--no-cuda-graph",
        default=None,
        help="Record steps on the GPU and replay them. [default: wherever that is possible]",
    ),
    click.option(
        "--compile",
        "compiled",
        is_flag=True,
        help="With --backend eager, have PyTorch compile the step: faster ones after a first that takes a minute or "
        "two; needs a C++ compiler, or Triton on a GPU.",
    ),
    click.option("--threads", type=click.IntRange(1), help="Threads of the CPU; default: as suits the model."),
    click.option(
        "--map-weights",
        is_flag=True,
        help="On a CPU, leave large float weights in their mapped file: sampling begins at once and takes half the "
        "memory, but several slots are slower, and sums are rounded in another order.",
    ),
)
_CHOICES = ("provider", "threads", "checkpoint", "map_weights", "cuda_graph", "compiled")
_output_options = grouped(
    click.option(
        "--out", required=True, type=OutFolder(), metavar="DIR", help="Folder of the song, or of several songs."
    ),
    click.option(
        "--format",
        "sample_format",
        type=click.Choice([str(f) for f in SampleFormat]),
        default="float",
        help="Samples of the WAV file; pcm16 is scaled down where needed.",
    ),
    click.option(
        "--every-level",
        is_flag=True,
        help="Write the sound of each level as soon as its codes are there, not of the lowest alone.",
    ),
    click.option("--spectrogram", is_flag=True, help="Draw each song into a PNG beside its WAV file."),
    click.option("--resume", is_flag=True, help="Go on with songs that an interrupted run began."),
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
    """Make music with ENGINE_BUNDLE, a folder that `jukebox-deploy export` or `jukebox-deploy build` made.

    A song folder holds song.json (all settings), codes_N.npy for each level N, and level_0.wav; with --every-level
    the rough sound of the top level is there long before. With --songs or
    --requests the songs go into DIR/song_0, DIR/song_1, and so on; without them DIR is the song's folder.

    A run that was interrupted goes on where it was with the same command and --resume.
    """
    from rich.console import Console

    defaults = _song_fields(options)
    where = {name: options[name] for name in _CHOICES}
    backend = Backend(options["backend"]) if options["backend"] else None
    choice = EngineChoice(backend, **where, tensorrt=chosen_tensorrt(options))
    sample_format = SampleFormat(options["sample_format"])
    same = ("slots", "lowest_level", "every_level", "resume")
    sampling = SamplingOptions(**{name: options[name] for name in same}, sample_format=sample_format)
    model = open_model(bundle, choice)
    summary = SampleSummary(_jobs(model, defaults, options))
    if choice.compiled:
        click.echo("PyTorch compiles each level's step before its first code; kernels are kept for later.", err=True)
    alone = options["songs"] is None and options["requests"] is None
    with ProgressDisplay(Console(stderr=options["as_json"])) as display:
        progress = SamplingProgress(model.engine.config.vqvae, display, alone=alone)
        _show(_events(model, sampling, summary.jobs, options), summary, progress)
    if options["spectrogram"]:
        summary.draw_spectrograms()
    if options["as_json"]:
        click.echo(json.dumps(summary.to_json(), indent=2))


def _song_fields(options: dict[str, Any]) -> dict[str, Any]:
    """The fields of a `SongRequest` that the options give for every song, but for the settings of levels."""
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
    """What to make, and where."""
    values = {name: options[name] for name in ("temperature", "top_k", "top_p")}
    fields = {**defaults, "levels": level_settings(model.engine.config.vqvae.levels, values)}
    songs, path = options["songs"], options["requests"]
    if songs is not None and path is not None:
        raise click.UsageError("--songs and --requests exclude each other.")
    return build_jobs(fields, songs, options["out"]) if path is None else read_jobs(path, fields, options["out"])


def _lyrics_warnings(jobs: Sequence[SongJob], path: Path | None) -> Iterator[SongWarning]:
    """A file of lyrics with nothing in it is a mistake, while empty lyrics are none."""
    for index, job in enumerate(jobs) if path is not None else ():
        if not job.request.lyrics.strip():
            yield SongWarning(index, f"There are no lyrics in {path}; the song is sampled without.")


def _events(
    model: OpenedModel, sampling: SamplingOptions, jobs: Sequence[SongJob], options: dict[str, Any]
) -> Iterator[Event]:
    """What happens, from the first warning on."""
    yield from _lyrics_warnings(jobs, options["lyrics_file"])
    yield from model.sampler(sampling).sample(jobs)


def _show(events: Iterable[Event], summary: SampleSummary, progress: SamplingProgress) -> None:
    """Make the songs and show how it goes."""
    for event in events:
        summary.note(event)
        progress.show(event)
