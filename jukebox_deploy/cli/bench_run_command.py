"""`jukebox-deploy bench run`: engines and baselines on the same weights, in turn."""

from __future__ import annotations

import datetime
import json
import shlex
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jukebox_deploy.cli.progress import progress_line
from jukebox_deploy.cli.tensorrt_options import TENSORRT_CHOICES, chosen_tensorrt, tensorrt_options

if TYPE_CHECKING:
    from jukebox_deploy.benchmarks.plan import BenchmarkPlan
    from jukebox_deploy.benchmarks.results import BenchmarkRun, WorkloadResult
    from jukebox_deploy.contract import LinearWeights

_PATH = click.Path(path_type=Path)
_Name = TypeVar("_Name", bound=StrEnum)
_WORKLOADS = ("step", "prefill", "condition", "encode", "decode", "song")
_BASELINES = ("eager", "eager-static", "eager-recorded", "torch-compile", "hugging-face")
_WEIGHTS = ("fp32", "int8", "int4")


class RecordedCommand(click.Command):
    """A command that keeps the words it was called with, for the result file."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, after a note of the words."""
        ctx.meta["words"] = [*ctx.command_path.split(), *args]
        return super().parse_args(ctx, args)


def words_of_command() -> str:
    """How the running command was called."""
    return shlex.join(click.get_current_context().meta["words"])


def numbers_from(least: int) -> Callable[[click.Context, click.Parameter, str | None], tuple[int, ...]]:
    """A click callback for a list of whole numbers: `1,4` -> `(1, 4)`."""

    def parse(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
        if value is None:
            return ()
        try:
            numbers = tuple(int(part) for part in value.split(","))
        except ValueError:
            raise click.BadParameter(f"{value!r} is no list of numbers; write them like 1,4.") from None
        if min(numbers) < least:
            raise click.BadParameter(f"{value!r} has a number below {least}.")
        return numbers

    return parse


def names_of(known: tuple[str, ...]) -> Callable[[click.Context, click.Parameter, str | None], tuple[str, ...] | None]:
    """A click callback for a list of known names; `None` if nothing was given."""

    def parse(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
        if value is None:
            return None
        names = tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
        if unknown := [name for name in names if name not in known]:
            raise click.BadParameter(f"{', '.join(unknown)}: unknown; choose from {', '.join(known)}.")
        return names

    return parse


def plan_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of everything that measures."""
    options = [
        click.option("--level", type=click.IntRange(min=0), help="Measure this level only. [default: all priors]"),
        click.option("--steps", type=click.IntRange(min=1), default=64, show_default=True, help="Steps of a round."),
        click.option("--rounds", type=click.IntRange(min=5), default=5, show_default=True, help="Rounds of each side."),
        click.option("--threads", type=click.IntRange(min=1), help="Threads of each side. [default: as many as pay]"),
        click.option(
            "--baselines",
            callback=names_of(_BASELINES),
            metavar="NAME,NAME",
            help="What to measure against: eager (caches that grow as in the original), eager-static (our own in "
            "place), eager-recorded (those as CUDA graphs), torch-compile (those compiled, which takes a "
            "minute or two), hugging-face (transformers). [default: all that run there]",
        ),
        click.option("--only-baselines", is_flag=True, help="Leave the engines out: PyTorch alone."),
        click.option(
            "--device",
            type=click.Choice(["cpu", "cuda"]),
            default="cpu",
            show_default=True,
            help="Where all sides run; engines for TensorRT need cuda.",
        ),
        click.option("--mapped", is_flag=True, help="Also engines that leave large weights mapped, not packed."),
        click.option("--memory", is_flag=True, help="Also the peak memory of each side, loaded again in a process."),
        click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the result file here."),
        click.option("--json", "as_json", is_flag=True, help="Print the result file as the last line."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command(cls=RecordedCommand)
@click.argument("bundles", metavar="[ENGINE_BUNDLE]...", nargs=-1, type=_PATH)
@click.option("--against", metavar="CHECKPOINT", type=_PATH, help="The checkpoint that the bundles were exported from.")
@click.option("--preset", metavar="NAME", help="Instead of bundles: random weights of a preset, or of `upsampler`.")
@click.option("--workdir", metavar="DIR", type=_PATH, help="Where --preset keeps what it made, to use it again.")
@click.option(
    "--weights",
    callback=names_of(_WEIGHTS),
    default="fp32",
    show_default=True,
    metavar="NAME,NAME",
    help=f"How --preset stores weights: {', '.join(_WEIGHTS)}.",
)
@click.option(
    "--quality/--no-quality",
    default=False,
    show_default=True,
    help="Also measure what the integer weights of --preset cost in quality; `inspect` of their bundle says it. "
    "Off by default: speed is what is measured here, and for a large model this takes minutes more.",
)
@click.option(
    "--workloads",
    callback=names_of(_WORKLOADS),
    default="step,prefill",
    show_default=True,
    metavar="NAME,NAME",
    help=f"What to do: {', '.join(_WORKLOADS)}.",
)
@click.option(
    "--slots", callback=numbers_from(1), default="1,4", show_default=True, metavar="N,N", help="Songs at a time."
)
@click.option("--position", type=click.IntRange(min=0), help="Of the first step. [default: the window's middle]")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Length of what is encoded, decoded, or made as a song.",
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
    """Measure ENGINE_BUNDLEs of one checkpoint, and PyTorch with the same weights.

    All sides take turns in one process. Everything that is printed was measured in this run.
    """
    from jukebox_deploy.benchmarks.measurement import measure
    from jukebox_deploy.benchmarks.variants import open_subjects

    tensorrt = chosen_tensorrt(choices)
    if preset is not None and tensorrt is not None:
        raise click.UsageError("--preset makes ONNX graphs; the options of engines for TensorRT need ENGINE_BUNDLEs.")
    plan = plan_of({name: choice for name, choice in choices.items() if name not in TENSORRT_CHOICES})
    _check_sources(bundles, against, preset, workdir)
    if quality and (preset is None or weights == ("fp32",)):
        raise click.UsageError("--quality is for the integer weights of a --preset: add --weights int8 or int4.")
    with progress_line("opening") as say:
        folders = list(bundles)
        if preset is not None and workdir is not None:
            against, folders = prepare(preset, plan, weights, workdir, say, quality)
        result = record(measure(open_subjects(folders, against, plan.device, tensorrt), plan, say), say, plan.device)
    publish(result, out, as_json)


def _check_sources(bundles: tuple[Path, ...], against: Path | None, preset: str | None, workdir: Path | None) -> None:
    """Either bundles and their checkpoint, or a preset and a folder to work in."""
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
    """The plan of the options."""
    from jukebox_deploy.benchmarks.plan import BenchmarkPlan
    from jukebox_deploy.benchmarks.results import Backend, WorkloadKind

    named = {"workloads": WorkloadKind, "baselines": Backend}
    members = {name: _members(kind, choices[name]) for name, kind in named.items() if choices.get(name) is not None}
    return BenchmarkPlan(**{**choices, **members})


def _members(kind: type[_Name], names: Iterable[str]) -> tuple[_Name, ...]:
    return tuple(kind(name) for name in names)


def stored_as(names: Iterable[str]) -> list[LinearWeights]:
    """Ways to store weights by the names of the option."""
    from jukebox_deploy.contract import LinearWeights

    return [LinearWeights.AS_PRECISION if name == "fp32" else LinearWeights(name) for name in names]


def prepare(
    preset: str, plan: BenchmarkPlan, weights: Iterable[str], workdir: Path, say: Callable[[str], None], quality: bool
) -> tuple[Path, list[Path]]:
    """The checkpoint and the engine bundles of a preset."""
    from jukebox_deploy.benchmarks.preset_bundles import prepare_bundles, system_to_measure

    return prepare_bundles(system_to_measure(preset, plan), plan, stored_as(weights), workdir, say, quality)


def record(results: Iterable[WorkloadResult], say: Callable[[str], None], device: str) -> BenchmarkRun:
    """Measure on a device, after a look at the machine."""
    from jukebox_deploy.benchmarks.machine import describe_this_machine
    from jukebox_deploy.benchmarks.results import BenchmarkRun

    say("reading memory")
    machine = describe_this_machine(device)
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return BenchmarkRun(words_of_command(), date, machine, tuple(results))


def publish(result: BenchmarkRun, out: Path | None, as_json: bool) -> None:
    """A table for people, or one line for programs; and the file."""
    if out is not None:
        result.save(out)
    if as_json:
        click.echo(json.dumps(result.to_json()))
        return
    from jukebox_deploy.cli.bench_table import print_run

    print_run(result)
