"""The stages of the demo, from a checkpoint to sound and measurements.

Each stage calls the same functions as a command, and prints that command.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jukebox_deploy.cli.demo_material import (
    UNTRAINED,
    UNTRAINED_ARTISTS,
    UNTRAINED_GENRES,
    DemoSong,
    Material,
    trained_material,
    write_id_lists,
)
from jukebox_deploy.errors import LabelError
from jukebox_deploy.quantities import byte_size

if TYPE_CHECKING:
    from jukebox_deploy.checkpoints.bundle import CheckpointBundle
    from jukebox_deploy.cli.demo_telling import Teller
    from jukebox_deploy.engines.bundle import EngineBundle
    from jukebox_deploy.jobs.sample_job import SampleSummary

_WEIGHTS_SEED = 1


class Demo:
    """The stages of a demo, which run one after the other in one folder."""

    def __init__(self, out: Path, teller: Teller, bundle: CheckpointBundle | None = None) -> None:
        """`bundle`: a trained checkpoint bundle; `None`: `tiny` with random weights."""
        self._out = out
        self._bundle = bundle
        self._teller = teller
        self._say = teller.say
        self._material: Material = (
            UNTRAINED if bundle is None else trained_material(bundle.folder, bundle.config.vqvae.levels)
        )

    def all_stages(self) -> None:
        """Run all stages."""
        files = self._make_checkpoint()
        checkpoint = self._import(files)
        bundle = self._export(checkpoint)
        self._build(bundle)
        self._verify(bundle, checkpoint)
        self._sample(bundle)
        self._measure(bundle, checkpoint)

    def show_next_steps(self) -> None:
        """Print what to listen to and what to try next."""
        material, say_command = self._material, self._teller.say_command
        self._say("Listen to:")
        for song in material.songs:
            self._say(f"  {self._out / song.name / 'level_0.wav'}: {song.artist}, {song.genre}, {_kind(song)}")
        self._say(f"Look at:\n  {self._picture}: their spectrograms")
        if self._bundle is None:
            self._say("Random weights: expect noise until a trained checkpoint is imported.")
        self._say("Try next:")
        song, sample = material.songs[0], ("sample", self._out / "onnx", "--out")
        options = (*material.labels(song), *material.settings())
        say_command(*sample, self._out / "four", "--songs", 4, "--seconds", material.seconds, *options, "--seed", 7)
        continued = ("--continue", self._out / song.name, "--seconds", 2 * material.seconds)
        say_command(*sample, self._out / "longer", *continued, *options)
        say_command("inspect", self._out / "onnx")
        self._say("With OpenAI's files, and the folder of id lists from their source:")
        files = ("vqvae.pth.tar", *(f"prior_level_{level}.pth.tar" for level in range(3)))
        say_command("import", "openai", *files, "--preset", "1b_lyrics", "--vocabulary", "ids", "--out", "bundle")

    @property
    def _picture(self) -> Path:
        return self._out / "spectrogram.png"

    def _make_checkpoint(self) -> list[Path]:
        from jukebox_deploy.checkpoints.exporting import export_openai
        from jukebox_deploy.checkpoints.random_bundle import write_random_openai_checkpoint
        from jukebox_deploy.config import LabelRules

        out, ids, bundle = self._out / "openai", self._out / "ids", self._bundle
        source = "the preset `tiny`, random weights" if bundle is None else f"{bundle.config.name}, {bundle.folder}"
        with self._teller.stage(f"A checkpoint in OpenAI's layout: {source}"):
            if bundle is None:
                files = write_random_openai_checkpoint("tiny", out, _WEIGHTS_SEED)
                write_id_lists(ids, UNTRAINED_ARTISTS, UNTRAINED_GENRES)
            else:
                files = export_openai(bundle, out)
                names = bundle.vocabulary.lists.get(LabelRules.NAMES)
                if names is None:
                    raise LabelError(
                        f"{bundle.folder}: no names of artists and genres ({LabelRules.NAMES}), and the songs of the "
                        "demonstration have some; take a model that was trained on a corpus of `data synthesize`."
                    )
                write_id_lists(ids, names.artists, names.genres)
            size = sum(path.stat().st_size for path in files)
            self._say(f"{', '.join(path.name for path in files)}: {byte_size(size)}")
        return files

    def _import(self, files: Sequence[Path]) -> CheckpointBundle:
        from jukebox_deploy.checkpoints.openai import import_openai
        from jukebox_deploy.labels.vocabulary_files import read_vocabulary
        from jukebox_deploy.parameter_counts import system_parameters

        out, ids = self._out / "bundle", self._out / "ids"
        with self._teller.stage("Import it", "import", "openai", *files, "--vocabulary", ids, "--out", out):
            bundle = import_openai(files, None, out, read_vocabulary(ids))
            self._say(f"It is {bundle.config.name}: {system_parameters(bundle.config):,} parameters.")
        return bundle

    def _export(self, checkpoint: CheckpointBundle) -> EngineBundle:
        from jukebox_deploy.engines.bundle import open_bundle
        from jukebox_deploy.jobs.export_job import ExportRequest, export_bundle
        from jukebox_deploy.jobs.tensorrt_check import TensorRtCheck

        out = self._out / "onnx"
        with self._teller.stage("Export it to ONNX graphs", "export", checkpoint.folder, "--out", out):
            with self._teller.console.status("exporting") as status:
                # The next stage builds the graphs with TensorRT-RTX.
                request = ExportRequest(tensorrt=TensorRtCheck.NEVER)
                export_bundle(checkpoint, out, request, lambda e: status.update(f"{e.action} {e.graph} {e.detail}"))
            bundle = open_bundle(out)
            size = bundle.manifest.bytes_of(bundle.manifest.files)
            self._say(f"{len(bundle.graphs)} graphs, {byte_size(size)}, each compared with PyTorch.")
        return bundle

    def _build(self, bundle: EngineBundle) -> None:
        from jukebox_deploy.cli.building_progress import building_progress
        from jukebox_deploy.cli.progress import ProgressDisplay
        from jukebox_deploy.engines.manifest import Target
        from jukebox_deploy.engines.tensorrt.build import BuildOptions
        from jukebox_deploy.engines.tensorrt.bundle import build_bundle, processes_to_build

        out = self._out / "engines"
        with self._teller.stage("Build TensorRT-RTX engines, no GPU needed", "build", bundle.folder, "--out", out):
            if importlib.util.find_spec("tensorrt_rtx") is None:
                self._say("Skipped: TensorRT-RTX is not installed. In a clone: pip install '.[tensorrt-rtx]'.")
                return
            with ProgressDisplay(self._teller.console) as display, building_progress(display) as shown:
                options = BuildOptions(Target.TENSORRT_RTX)
                _, summaries = build_bundle(bundle, out, options, (), shown.build, processes_to_build(bundle))
            size = sum(summary.engine_bytes for summary in summaries)
            caches = sum(summary.caches_in_place for summary in summaries)
            self._say(f"{len(summaries)} engines, {byte_size(size)}; {caches} caches are updated in place.")

    def _verify(self, bundle: EngineBundle, checkpoint: CheckpointBundle) -> None:
        from jukebox_deploy.jobs.verify_job import verify_bundle

        command = ("verify", bundle.folder, "--against", checkpoint.folder)
        with self._teller.stage("Verify it against PyTorch", *command):
            with self._teller.console.status("comparing") as status:
                report = verify_bundle(bundle, checkpoint, None, lambda c: status.update(f"{c.graph}: {c.kind}"))
            report.require()
            counts = ", ".join(f"{count} {outcome}" for outcome, count in report.outcomes.items())
            self._say(f"{len(report.checks)} checks of graphs, windows, codes and sound: {counts}.")

    def _sample(self, bundle: EngineBundle) -> None:
        from jukebox_deploy.cli.progress import ProgressDisplay
        from jukebox_deploy.cli.sampling_progress import SamplingProgress
        from jukebox_deploy.jobs.sample_job import SampleSummary, open_model
        from jukebox_deploy.runtime.sampler import SamplingOptions

        material = self._material
        material.write(self._out)
        with self._teller.stage("Generate songs with ONNX Runtime, without PyTorch"):
            for song in material.songs:
                options = material.options(song, self._out)
                self._teller.say_command("sample", bundle.folder, "--out", self._out / song.name, *options)
            self._say("All songs are sampled at once, each in its own slot; the codes are the same as one at a time.")
            model, summary = open_model(bundle.folder), SampleSummary(material.jobs(self._out))
            with ProgressDisplay(self._teller.console) as display:
                progress = SamplingProgress(bundle.manifest.config.vqvae, display)
                for event in model.sampler(SamplingOptions()).sample(summary.jobs):
                    summary.note(event)
                    progress.show(event)
            self._describe_sound(summary)

    def _describe_sound(self, summary: SampleSummary) -> None:
        """Draw spectrograms of the songs and print how loud they are."""
        import numpy as np
        import soundfile

        from jukebox_deploy.jobs.spectrogram import write_spectrogram

        sounds = {wav.path.parent.name: soundfile.read(wav.path)[0] for wav in summary.sounds.values()}
        for name, audio in sounds.items():
            decibel = 20 * np.log10(max(np.sqrt(np.mean(audio**2)), 1e-9))
            self._say(f"{name}: peak {np.abs(audio).max():.2f}, {decibel:.0f} dB against full scale")
        write_spectrogram(self._picture, sounds, summary.sounds[0].sample_rate)

    def _measure(self, bundle: EngineBundle, checkpoint: CheckpointBundle) -> None:
        from jukebox_deploy.benchmarks.measurement import measure
        from jukebox_deploy.benchmarks.plan import BenchmarkPlan
        from jukebox_deploy.benchmarks.results import Backend, WorkloadKind
        from jukebox_deploy.benchmarks.variants import Subjects

        plan = BenchmarkPlan((WorkloadKind.STEP,), slots=(1,), baselines=(Backend.EAGER,))
        command = ("bench", "run", bundle.folder, "--against", checkpoint.folder, "--workloads", "step")
        with self._teller.stage("Measure it against PyTorch", *command, "--slots", 1, "--baselines", "eager"):
            with self._teller.console.status("measuring") as status:
                results = list(measure(Subjects([bundle], checkpoint), plan, status.update))
            for result in results:
                engine, eager = result.variants
                self._say(
                    f"level {result.workload.level}: {engine.speed.median:.0f} tokens/s with ONNX Runtime, "
                    f"{eager.speed.median:.0f} with PyTorch, {engine.ratio_over(eager).median:.1f} times as many"
                )


def _kind(song: DemoSong) -> str:
    """Return how a song was sampled, in words."""
    if song.primed:
        return "going on from a prompt"
    return "sung" if song.lyrics else "from nothing"
