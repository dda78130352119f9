"""The main job in small: `python -m jukebox_deploy.cli.demo --out demo`, which `make demo` calls.

Every stage does what a command does, by the same functions, and shows that command.
"""

from __future__ import annotations

import importlib.util
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jukebox_deploy.cli.demo_material import (
    UNTRAINED,
    UNTRAINED_ARTISTS,
    UNTRAINED_GENRES,
    trained_material,
    write_id_lists,
)
from jukebox_deploy.cli.main import failure_of
from jukebox_deploy.errors import JukeboxError

if TYPE_CHECKING:
    from rich.console import Console

    from jukebox_deploy.checkpoints.bundle import CheckpointBundle
    from jukebox_deploy.engines.bundle import EngineBundle
    from jukebox_deploy.jobs.sample_job import SampleSummary
    from jukebox_deploy.runtime.sampler import SongJob

_MARK = ".jukebox-demo"
_SEED = 1


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default="demo", show_default=True, help="Folder of the demo.")
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    help="Trained on a corpus of `data synthesize`. [default: `tiny`, with random weights]",
)
def demo(out: Path, bundle: Path | None) -> None:
    """From a checkpoint in OpenAI's layout to engines, verified, and the music that they make."""
    from rich.console import Console

    begun = time.monotonic()
    # In a pipe there is no terminal whose width could be asked for.
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    try:
        _prepare(out)
        run = Demo(out, console, bundle)
        run.all_stages()
    except (Exception, KeyboardInterrupt) as error:
        failure = failure_of(error)
        if failure is None:
            raise
        raise failure from error
    console.rule(f"[bold]Done in {time.monotonic() - begun:.0f} s", align="left")
    run.show_next_steps()


def _prepare(out: Path) -> None:
    """An empty folder, marked as a demonstration's; only such a one is replaced."""
    if out.exists() and not (out / _MARK).exists() and (not out.is_dir() or any(out.iterdir())):
        raise JukeboxError(f"{out}: already there, and not from a demonstration; choose another folder with --out.")
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    (out / _MARK).touch()


class Demo:
    """The stages, one after the other, in one folder."""

    def __init__(self, out: Path, console: Console, bundle: Path | None = None) -> None:
        """`bundle`: a trained checkpoint bundle; default: `tiny`, with random weights."""
        self._out = out
        self._bundle = bundle
        self._material = UNTRAINED if bundle is None else trained_material(bundle)
        self._console = console
        self._stages = 0
        self._program = program()

    def all_stages(self) -> None:
        """From a checkpoint to sound and numbers."""
        files = self._make_checkpoint()
        checkpoint = self._import(files)
        bundle = self._export(checkpoint)
        self._build(bundle)
        self._verify(bundle, checkpoint)
        self._sample(bundle)
        self._measure(bundle, checkpoint)

    def show_next_steps(self) -> None:
        """What to listen to, and what to try."""
        sample = ("sample", self._out / "onnx", "--out")
        self._say(f"Listen to {self._out}/primed/level_0.wav and {self._out}/ancestral/level_0.wav.")
        if self._bundle is None:
            self._say("Random weights: expect noise until a trained checkpoint is imported.")
        self._say("Try next:")
        seconds, names = self._material.seconds, ("--artist", self._material.artist, "--genre", self._material.genre)
        self._say_command(*sample, self._out / "four", "--songs", 4, *names, "--seconds", seconds, "--seed", 7)
        continued = ("--continue", self._out / "primed", *names, "--seconds", 2 * seconds)
        self._say_command(*sample, self._out / "longer", *continued)
        self._say_command("inspect", self._out / "onnx")
        self._say("With OpenAI's files, and the folder of id lists from their source:")
        files = ("vqvae.pth.tar", *(f"prior_level_{level}.pth.tar" for level in range(3)))
        self._say_command("import", "openai", *files, "--preset", "1b_lyrics", "--vocabulary", "ids", "--out", "bundle")

    def song_options(self, song: str) -> tuple[object, ...]:
        """What the command line needs to make one of the songs."""
        options: dict[str, tuple[object, ...]] = {
            "primed": ("--prompt", self._out / "prompt.flac", "--prompt-seconds", self._material.prompt_seconds),
            "ancestral": ("--lyrics-file", self._out / "lyrics.txt"),
        }
        names = ("--artist", self._material.artist, "--genre", self._material.genre)
        total = ("--total-seconds", self._material.total_seconds) if self._material.total_seconds else ()
        return (*options[song], *names, "--seconds", self._material.seconds, *total, "--seed", _SEED)

    def songs(self) -> list[SongJob]:
        """The two songs, as those commands make them."""
        from jukebox_deploy.runtime.sampler import SongJob
        from jukebox_deploy.runtime.song import LevelSettings, Mode, SongRequest

        material, prompt = self._material, str(self._out / "prompt.flac")
        base = SongRequest(
            seconds=material.seconds,
            artist=material.artist,
            genre=material.genre,
            total_seconds=material.total_seconds,
            seed=_SEED,
            levels=(LevelSettings(),) * 3,
        )
        primed = replace(base, mode=Mode.PRIMED, source=prompt, source_seconds=material.prompt_seconds)
        ancestral = replace(base, lyrics=material.lyrics)
        return [SongJob(primed, self._out / "primed"), SongJob(ancestral, self._out / "ancestral")]

    def _make_checkpoint(self) -> list[Path]:
        from jukebox_deploy.checkpoints.bundle import CheckpointBundle
        from jukebox_deploy.checkpoints.exporting import export_openai
        from jukebox_deploy.checkpoints.random_bundle import write_random_openai_checkpoint
        from jukebox_deploy.config import LabelRules

        out, ids = self._out / "openai", self._out / "ids"
        with self._stage(f"A checkpoint in OpenAI's layout: {self._bundle or 'the preset `tiny`, random weights'}"):
            if self._bundle is None:
                files = write_random_openai_checkpoint("tiny", out, _SEED)
                write_id_lists(ids, UNTRAINED_ARTISTS, UNTRAINED_GENRES)
            else:
                bundle = CheckpointBundle.open(self._bundle)
                files = export_openai(bundle, out)
                names = bundle.vocabulary.lists[LabelRules.NAMES]
                write_id_lists(ids, names.artists, names.genres)
            size = sum(path.stat().st_size for path in files)
            self._say(f"{', '.join(path.name for path in files)}: {size / 1e6:.1f} MB")
        return files

    def _import(self, files: Sequence[Path]) -> CheckpointBundle:
        from jukebox_deploy.checkpoints.openai import import_openai
        from jukebox_deploy.labels.vocabulary_files import read_vocabulary
        from jukebox_deploy.parameter_counts import system_parameters

        out, ids = self._out / "bundle", self._out / "ids"
        with self._stage("Import it", "import", "openai", *files, "--vocabulary", ids, "--out", out):
            bundle = import_openai(files, None, out, read_vocabulary(ids))
            self._say(f"It is {bundle.config.name}: {system_parameters(bundle.config):,} parameters.")
        return bundle

    def _export(self, checkpoint: CheckpointBundle) -> EngineBundle:
        from jukebox_deploy.engines.bundle import open_bundle
        from jukebox_deploy.graphs import GraphOptions
        from jukebox_deploy.jobs.export_job import ExportRequest, export_bundle
        from jukebox_deploy.jobs.tensorrt_check import TensorRtCheck

        out = self._out / "onnx"
        with self._stage("Export it to ONNX graphs", "export", checkpoint.folder, "--logits", "--out", out):
            with self._console.status("exporting") as status:
                # TensorRT-RTX gets them in the next stage.
                request = ExportRequest(GraphOptions(logits=True), tensorrt=TensorRtCheck.NEVER)
                export_bundle(checkpoint, out, request, lambda e: status.update(f"{e.action} {e.graph} {e.detail}"))
            bundle = open_bundle(out)
            size = sum(record.bytes for record in bundle.manifest.files.values())
            self._say(f"{len(bundle.graphs)} graphs, {size / 1e6:.1f} MB, each compared with PyTorch.")
        return bundle

    def _build(self, bundle: EngineBundle) -> None:
        from jukebox_deploy.engines.manifest import Target
        from jukebox_deploy.engines.tensorrt_build import BuildOptions
        from jukebox_deploy.engines.tensorrt_bundle import build_bundle, processes_to_build

        out = self._out / "engines"
        with self._stage("Build TensorRT-RTX engines, no GPU needed", "build", bundle.folder, "--out", out):
            if importlib.util.find_spec("tensorrt_rtx") is None:
                self._say("Left out: TensorRT-RTX is not installed (pip install 'jukebox-deploy[tensorrt-rtx]').")
                return
            with self._console.status("building") as status:
                options = BuildOptions(Target.TENSORRT_RTX)

                def progress(graph: str, phase: str, done: int, of: int) -> None:
                    status.update(f"{graph}: {phase} {done}/{of}")

                _, summaries = build_bundle(bundle, out, options, (), progress, processes_to_build(bundle))
            size = sum(summary.engine_bytes for summary in summaries)
            caches = sum(summary.caches_in_place for summary in summaries)
            self._say(f"{len(summaries)} engines, {size / 1e6:.1f} MB; {caches} caches are updated in place.")

    def _verify(self, bundle: EngineBundle, checkpoint: CheckpointBundle) -> None:
        from jukebox_deploy.jobs.verify_job import verify_bundle

        with self._stage("Verify it against PyTorch", "verify", bundle.folder, "--against", checkpoint.folder):
            with self._console.status("comparing") as status:
                report = verify_bundle(bundle, checkpoint, None, lambda c: status.update(f"{c.graph}: {c.kind}"))
            report.require()
            counts = ", ".join(f"{count} {outcome}" for outcome, count in report.outcomes.items())
            self._say(f"{len(report.checks)} checks of graphs, windows, codes and sound: {counts}.")

    def _sample(self, bundle: EngineBundle) -> None:
        from jukebox_deploy.cli.progress import ProgressDisplay
        from jukebox_deploy.cli.sampling_progress import SamplingProgress
        from jukebox_deploy.jobs.sample_job import SampleSummary, open_model
        from jukebox_deploy.runtime.sampler import SamplingOptions

        self._material.write(self._out)
        with self._stage("Make music with ONNX Runtime: PyTorch has no part in it"):
            for song in ("primed", "ancestral"):
                self._say_command("sample", bundle.folder, "--out", self._out / song, *self.song_options(song))
            self._say("Both songs at once, in two slots: the codes are those of one at a time.")
            model, summary = open_model(bundle.folder), SampleSummary(self.songs())
            with ProgressDisplay(self._console) as display:
                progress = SamplingProgress(bundle.manifest.config.vqvae, display)
                for event in model.sampler(SamplingOptions()).sample(summary.jobs):
                    summary.note(event)
                    progress.show(event)
            self._describe_sound(summary)

    def _describe_sound(self, summary: SampleSummary) -> None:
        """Draw what came out and say how loud it is."""
        import numpy as np
        import soundfile

        from jukebox_deploy.runtime.spectrogram import write_spectrogram

        sounds = {wav.path.parent.name: soundfile.read(wav.path)[0] for wav in summary.sounds.values()}
        for name, audio in sounds.items():
            decibel = 20 * np.log10(max(np.sqrt(np.mean(audio**2)), 1e-9))
            self._say(f"{name}: peak {np.abs(audio).max():.2f}, {decibel:.0f} dB against full scale")
        picture = self._out / "spectrogram.png"
        write_spectrogram(picture, sounds, summary.sounds[0].sample_rate)
        self._say(f"{picture}: both as a spectrogram")

    def _measure(self, bundle: EngineBundle, checkpoint: CheckpointBundle) -> None:
        from jukebox_deploy.benchmarks.measurement import measure
        from jukebox_deploy.benchmarks.plan import BenchmarkPlan
        from jukebox_deploy.benchmarks.results import Backend, WorkloadKind
        from jukebox_deploy.benchmarks.variants import Subjects

        plan = BenchmarkPlan((WorkloadKind.STEP,), slots=(1,), baselines=(Backend.EAGER,))
        command = ("bench", "run", bundle.folder, "--against", checkpoint.folder, "--workloads", "step")
        with self._stage("Measure it against PyTorch", *command, "--slots", 1, "--baselines", "eager"):
            with self._console.status("measuring") as status:
                results = list(measure(Subjects([bundle], checkpoint), plan, status.update))
            for result in results:
                engine, eager = result.variants
                self._say(
                    f"level {result.workload.level}: {engine.speed.median:.0f} tokens/s with ONNX Runtime, "
                    f"{eager.speed.median:.0f} with PyTorch, {engine.ratio_over(eager).median:.1f} times as many"
                )

    @contextmanager
    def _stage(self, title: str, *command: object) -> Iterator[None]:
        """One stage, the command that does the same, and how long it took."""
        self._stages += 1
        self._console.rule(f"[bold]{self._stages}. {title}", align="left")
        if command:
            self._say_command(*command)
        begun = time.monotonic()
        yield
        self._console.print(f"[green]{time.monotonic() - begun:.1f} s")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def _say_command(self, *words: object) -> None:
        self._console.print(
            f"$ {self._program} {shlex.join(map(str, words))}", style="dim", markup=False, soft_wrap=True
        )


def program() -> str:
    """How this installation's command line is called from here."""
    if shutil.which("jukebox-deploy"):
        return "jukebox-deploy"
    beside = Path(sys.executable).with_name("jukebox-deploy")
    if not beside.exists():
        return f"{sys.executable} -m jukebox_deploy.cli.main"
    here = Path.cwd()
    return str(beside.relative_to(here) if beside.is_relative_to(here) else beside)


if __name__ == "__main__":
    demo(prog_name="jukebox-deploy-demo")
