"""`jukebox-deploy bench run`: measure engines and baselines in turn, with the same weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jukebox_deploy.cli.options import (
    PATH,
    OutFile,
    UsualFloat,
    comma_separated,
    grouped,
    numbers_from,
    settings_from_options,
)
from jukebox_deploy.cli.progress import progress_line
from jukebox_deploy.cli.recorded_command import RecordedCommand, words_of_command
from jukebox_deploy.cli.tensorrt_options import TENSORRT_CHOICES, chosen_tensorrt, tensorrt_options
from jukebox_deploy.engines.device import PYTORCH_PROVIDERS, Provider

if TYPE_CHECKING:
    from jukebox_deploy.benchmarks.plan import BenchmarkPlan
    from jukebox_deploy.benchmarks.results import BenchmarkRun, WorkloadResult
    from jukebox_deploy.contract import LinearWeights

_WORKLOADS = ("step", "prefill", "condition", "encode", "decode", "song")
_BASELINES = ("eager", "eager-static", "eager-recorded", "torch-compile", "hugging-face")
_WEIGHTS = ("fp32", "int8", "int4")


def names_of(
    known: tuple[str, ...], *, or_none: bool = False
) -> Callable[[click.Context, click.Parameter, str | None], tuple[str, ...] | None]:
    """Return a click callback that parses a list of known names; `None` if the option is not given.

    `or_none`: whether the list may be empty.
    """

    def parse(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
        if value is None:
            return None
        if or_none and not value:
            return ()
        names = tuple(dict.fromkeys(comma_separated(context, parameter, value)))
        if unknown := [name for name in names if name not in known]:
            raise click.BadParameter(f"{', '.join(unknown)}: unknown; choose from {', '.join(known)}.")
        return names

    return parse


weights_option = click.option(
    "--weights",
    callback=names_of(_WEIGHTS),
    default="fp32",
    show_default=True,
    metavar="NAME,NAME",
    help=f"How models of --preset store weights: {', '.join(_WEIGHTS)}.",
)
"""How models with random weights are exported, for `bench run --preset` and `bench growth`."""


plan_options = grouped(
    click.option(
        "--level",
        type=click.IntRange(min=0),
        help="Measure only this level; not for songs, which take every level. [default: all priors]",
    ),
    click.option(
        "--steps",
        type=click.IntRange(min=1),
        default=64,
        show_default=True,
        help="Steps that are timed together; a round repeats them until it is long enough.",
    ),
    click.option("--rounds", type=click.IntRange(min=5), default=7, show_default=True, help="Rounds per variant."),
    click.option("--threads", type=click.IntRange(min=1), help="CPU threads. [default: as many as speed it up]"),
    click.option(
        "--baselines",
        callback=names_of(_BASELINES, or_none=True),
        metavar="NAME,NAME",
        help="Baselines to measure: eager (caches that grow, as in the original), eager-static (caches updated in "
        "place), eager-recorded (the same with CUDA graphs), torch-compile (the same compiled, which takes a "
        "minute or two), hugging-face (transformers). [default: all that run on the device]",
    ),
    click.option("--only-baselines", is_flag=True, help="Measure only the PyTorch baselines, no engines."),
    click.option(
        "--device",
        type=click.Choice([str(p) for p in PYTORCH_PROVIDERS]),
        default=str(Provider.CPU),
        show_default=True,
        help="Device for engines and baselines; TensorRT engines need cuda.",
    ),
    click.option(
        "--mapped",
        is_flag=True,
        help="Also measure engines that use large weights memory-mapped (--map-weights of `sample`).",
    ),
    click.option(
        "--memory", is_flag=True, help="Also measure the peak memory of each variant, in a process of its own."
    ),
    click.option("--out", type=OutFile(), help="Result file; rewritten after each workload."),
    click.option("--json", "as_json", is_flag=True, help="Print the results as one line of JSON."),
)
"""The options that all measuring commands share."""


@click.command(cls=RecordedCommand)
@click.argument("bundles", metavar="[ENGINE_BUNDLE]...", nargs=-1, type=PATH)
@click.option(
    "--against", metavar="CHECKPOINT", type=PATH, help="Checkpoint bundle that the engines were exported from."
)
@click.option(
    "--preset", metavar="NAME", help="Measure a preset (or `upsampler`) with random weights, instead of bundles."
)
@click.option(
    "--workdir", metavar="DIR", type=PATH, help="Folder that keeps the models and graphs of --preset for later runs."
)
@weights_option
@click.option(
    "--quality/--no-quality",
    default=False,
    show_default=True,
    help="Also measure the quality of the integer weights of --preset; `inspect` then shows it for their bundle. Takes "
    "minutes for a large model.",
)
@click.option(
    "--workloads",
    callback=names_of(_WORKLOADS),
    default="step,prefill",
    show_default=True,
    metavar="NAME,NAME",
    help=f"Workloads to measure: {', '.join(_WORKLOADS)}.",
)
@click.option(
    "--slots",
    callback=numbers_from(1),
    default="1,4",
    show_default=True,
    metavar="N,N",
    help="Numbers of slots (songs sampled at once).",
)
@click.option(
    "--position", type=click.IntRange(min=0), help="Position of the first step in the window. [default: the middle]"
)
@click.option(
    "--seconds",
    type=UsualFloat(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Length of sound to encode, decode or sample, in seconds.",
)
@plan_options
@tensorrt_options
def run(
    bundles: tuple[Path, ...],
    against: Path | None,
    preset: str | None,
    workdir: Path | None,
    weights: tuple[str, ...],
    quality: bool,
    as_json: bool,
    out: Path | None,
    **choices: Any,
) -> None:
    """Measure ENGINE_BUNDLEs of one checkpoint against PyTorch with the same weights.

    All variants take turns in one process. Everything printed was measured in this run.
    """
    from jukebox_deploy.benchmarks.measurement import measure
    from jukebox_deploy.benchmarks.variants import open_subjects

    tensorrt = chosen_tensorrt(choices)
    if preset is not None and tensorrt is not None:
        raise click.UsageError("--preset makes ONNX graphs; the options of engines for TensorRT need ENGINE_BUNDLEs.")
    with settings_from_options():
        plan = plan_of({name: choice for name, choice in choices.items() if name not in TENSORRT_CHOICES})
    _check_sources(bundles, against, preset, workdir)
    if preset is None and weights != ("fp32",):
        raise click.UsageError("--weights belongs to --preset; ENGINE_BUNDLEs have their own.")
    if quality and (preset is None or weights == ("fp32",)):
        raise click.UsageError("--quality is for the integer weights of a --preset: add --weights int8 or int4.")
    with progress_line("opening") as say:
        folders = list(bundles)
        if preset is not None and workdir is not None:
            against, folders = prepare(preset, plan, weights, workdir, say, quality)
        results = measure(open_subjects(folders, against, plan.device, tensorrt), plan, say)
        result = record(results, say, plan.device, out)
    publish(result, out, as_json)


def _check_sources(bundles: tuple[Path, ...], against: Path | None, preset: str | None, workdir: Path | None) -> None:
    """Raise `UsageError` unless either bundles and their checkpoint or a preset and a work folder are given."""
    if preset is None:
        if not bundles or against is None:
            raise click.UsageError("give ENGINE_BUNDLEs and --against CHECKPOINT, or --preset NAME and --workdir DIR.")
        if workdir is not None:
            raise click.UsageError("--workdir belongs to --preset.")
    elif bundles or against is not None:
        raise click.UsageError("--preset makes its own bundles; give either it or ENGINE_BUNDLEs with --against.")
    elif workdir is None:
        raise click.UsageError("--preset needs --workdir DIR, a folder for its weights and graphs.")


def plan_of(choices: dict[str, Any]) -> BenchmarkPlan:
    """Return the benchmark plan that the options describe."""
    from jukebox_deploy.benchmarks.plan import BenchmarkPlan
    from jukebox_deploy.benchmarks.results import Backend, WorkloadKind

    named: dict[str, type[StrEnum]] = {"workloads": WorkloadKind, "baselines": Backend}
    given = {name: kind for name, kind in named.items() if choices.get(name) is not None}
    members = {name: tuple(map(kind, choices[name])) for name, kind in given.items()}
    return BenchmarkPlan(**{**choices, **members, "device": Provider(choices["device"])})


def stored_as(names: Iterable[str]) -> list[LinearWeights]:
    """Return the weight formats that the names of an option stand for."""
    from jukebox_deploy.contract import LinearWeights

    return [LinearWeights.AS_PRECISION if name == "fp32" else LinearWeights(name) for name in names]


def prepare(
    preset: str, plan: BenchmarkPlan, weights: Iterable[str], workdir: Path, say: Callable[[str], None], quality: bool
) -> tuple[Path, list[Path]]:
    """Make, or find, the checkpoint and the engine bundles of a preset."""
    from jukebox_deploy.benchmarks.preset_bundles import prepare_bundles, system_to_measure

    return prepare_bundles(system_to_measure(preset, plan), plan, stored_as(weights), workdir, say, quality)


def record(
    results: Iterable[WorkloadResult], say: Callable[[str], None], device: Provider, out: Path | None
) -> BenchmarkRun:
    """Describe the machine, then measure; `out` is rewritten as soon as a workload is finished."""
    from jukebox_deploy.benchmarks.machine import describe_this_machine
    from jukebox_deploy.benchmarks.results import BenchmarkRun
    from jukebox_deploy.provenance import time_now

    say("reading memory")
    machine = describe_this_machine(device)
    run = BenchmarkRun(words_of_command(), time_now(), machine, complete=False)
    for result in results:
        run = replace(run, results=(*run.results, result))
        if out is not None:
            run.save(out)
    return replace(run, complete=True)


def publish(result: BenchmarkRun, out: Path | None, as_json: bool) -> None:
    """Print the result as a table, or as one line of JSON, and write it to `out`."""
    if out is not None:
        result.save(out)
    if as_json:
        click.echo(json.dumps(result.to_json()))
        return
    from jukebox_deploy.cli.bench_table import print_run

    print_run(result)
