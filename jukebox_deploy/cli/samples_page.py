"""The page of samples in `docs/samples`: `python -m jukebox_deploy.cli.samples_page`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jukebox_deploy.cli.folders import replacing
from jukebox_deploy.cli.main import in_sentences
from jukebox_deploy.cli.options import PATH, SEED, UsualFloat
from jukebox_deploy.data.synthesis.score import Arrangement
from jukebox_deploy.errors import CheckpointError
from jukebox_deploy.jobs.shipped_model import SHIPPED, shipped_model
from jukebox_deploy.quantities import byte_size

if TYPE_CHECKING:
    from jukebox_deploy.checkpoints.bundle import CheckpointBundle
    from jukebox_deploy.jobs.sample_job import OpenedModel


@click.command()
@click.option("--bundle", type=PATH, help="Checkpoint bundle. [default: the model in a clone of the repository]")
@click.option("--engines", type=PATH, help="Engine bundle made from it. [default: export one]")
@click.option("--out", type=PATH, default="docs/samples", show_default=True, help="Folder for the page.")
@click.option("--seed", type=SEED, default=1, show_default=True, help="Random seed of the samples.")
@click.option(
    "--corpus-seed",
    type=SEED,
    default=52,
    show_default=True,
    help="Random seed of the corpus songs that labels are taken from.",
)
@click.option(
    "--corpus-grid",
    type=UsualFloat(min=0),
    default=0.032,
    show_default=True,
    help="Time grid of those songs in seconds, as --grid of `data synthesize`.",
)
@click.option(
    "--corpus-arrangement",
    type=click.Choice([str(arrangement) for arrangement in Arrangement]),
    default="answered",
    show_default=True,
    help="Arrangement of those songs, as for `data synthesize`.",
)
@click.option("--seconds", type=click.FloatRange(1, 30), default=6.0, show_default=True, help="Length of each sound.")
@click.option("--force", is_flag=True, help="Replace an existing page.")
def samples_page(bundle: Path | None, engines: Path | None, out: Path, force: bool, **corpus: Any) -> None:
    """Sample songs by all artists and in all genres of a synthesized corpus, and write a page with them."""
    with in_sentences():
        _write(bundle or shipped_model(), engines, out, force, corpus)


def _write(folder: Path | None, engines: Path | None, out: Path, force: bool, corpus: dict[str, Any]) -> None:
    from jukebox_deploy.checkpoints.bundle import CheckpointBundle
    from jukebox_deploy.cli.progress import ProgressDisplay
    from jukebox_deploy.cli.sampling_progress import SamplingProgress
    from jukebox_deploy.jobs.samples.page import PageRequest, write_samples_page
    from jukebox_deploy.jobs.samples.text import is_samples_page

    if folder is None:
        raise CheckpointError(f"{SHIPPED}: no trained model here; name a checkpoint bundle with --bundle.")
    checkpoint = CheckpointBundle.open(folder)
    corpus["corpus_arrangement"] = Arrangement(corpus["corpus_arrangement"])
    request = PageRequest(out, checkpoint, **corpus)
    with (
        _model(checkpoint, engines) as model,
        replacing(out, force=force, is_ours=is_samples_page, inputs=[folder]) as fresh,
        ProgressDisplay() as display,
    ):
        progress = SamplingProgress(checkpoint.config.vqvae, display)
        page = write_samples_page(request, fresh, model, progress.show)
    size = sum(path.stat().st_size for path in out.iterdir())
    click.echo(f"{out}: {len(page.samples)} samples, {byte_size(size)} in all.")


@contextmanager
def _model(checkpoint: CheckpointBundle, engines: Path | None) -> Iterator[OpenedModel]:
    """Open the checkpoint's graphs on ONNX Runtime; they are exported to a temporary folder unless given."""
    from jukebox_deploy.engines.bundle import open_bundle
    from jukebox_deploy.jobs.export_job import ExportRequest, export_bundle
    from jukebox_deploy.jobs.opening.same_model import require_same_model
    from jukebox_deploy.jobs.sample_job import open_model
    from jukebox_deploy.jobs.tensorrt_check import TensorRtCheck

    with tempfile.TemporaryDirectory() as work:
        if engines is None:
            click.echo("exporting", err=True)
            engines = Path(work) / "onnx"
            export_bundle(checkpoint, engines, ExportRequest(tensorrt=TensorRtCheck.NEVER))
        require_same_model(open_bundle(engines), checkpoint)
        yield open_model(engines)


if __name__ == "__main__":
    samples_page(prog_name="jukebox-deploy-samples-page")
