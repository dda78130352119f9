"""The page of samples in `docs/samples`: `python -m jukebox_deploy.cli.samples_page`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jukebox_deploy.cli.folders import replacing
from jukebox_deploy.cli.main import failure_of
from jukebox_deploy.data.synthesis.score import Arrangement
from jukebox_deploy.errors import CheckpointError
from jukebox_deploy.jobs.shipped_model import SHIPPED, shipped_model

if TYPE_CHECKING:
    from jukebox_deploy.checkpoints.bundle import CheckpointBundle
    from jukebox_deploy.jobs.sample_job import OpenedModel

_PATH = click.Path(path_type=Path)


@click.command()
@click.option("--bundle", type=_PATH, help="A checkpoint bundle. [default: the model that comes with a clone]")
@click.option("--engines", type=_PATH, help="Its graphs, if they were exported already.")
@click.option("--out", type=_PATH, default="docs/samples", show_default=True, help="Folder of the page.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the samples.")
@click.option("--corpus-seed", type=int, default=52, show_default=True, help="Of the songs that lend their labels.")
@click.option(
    "--corpus-grid",
    type=float,
    default=0.032,
    show_default=True,
    help="Seconds between two places where sounds of those songs may begin, as for `data synthesize`.",
)
@click.option(
    "--corpus-arrangement",
    type=click.Choice([str(arrangement) for arrangement in Arrangement]),
    default="answered",
    show_default=True,
    help="Who plays in those songs, as for `data synthesize`.",
)
@click.option("--seconds", type=click.FloatRange(1, 30), default=6.0, show_default=True, help="Of each sound.")
@click.option("--force", is_flag=True, help="Replace the page that is there.")
def samples_page(bundle: Path | None, engines: Path | None, out: Path, force: bool, **corpus: Any) -> None:
    """Sample songs of all artists and genres of a synthesized corpus, and write a page with them."""
    try:
        _write(bundle or shipped_model(), engines, out, force, corpus)
    except (Exception, KeyboardInterrupt) as error:
        failure = failure_of(error)
        if failure is None:
            raise
        raise failure from error


def _write(folder: Path | None, engines: Path | None, out: Path, force: bool, corpus: dict[str, Any]) -> None:
    from rich.console import Console

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
        replacing(out, force=force, is_ours=is_samples_page, inputs=[folder]),
        ProgressDisplay(Console(stderr=True)) as display,
    ):
        progress = SamplingProgress(checkpoint.config.vqvae, display)
        page = write_samples_page(request, model, progress.show)
    size = sum(path.stat().st_size for path in out.iterdir())
    click.echo(f"{out}: {len(page.samples)} samples, {size / 1e6:.2f} MB in all.")


@contextmanager
def _model(checkpoint: CheckpointBundle, engines: Path | None) -> Iterator[OpenedModel]:
    """The checkpoint's graphs on ONNX Runtime; exported for this once unless they are named."""
    from jukebox_deploy.engines.bundle import open_bundle
    from jukebox_deploy.jobs.export_job import ExportRequest, export_bundle
    from jukebox_deploy.jobs.opening.eager import require_same_model
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
