"""Build: from a checkpoint bundle, by way of an export, or from exported graphs, to an engine bundle."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.engines.bundle import EngineBundle, open_bundle
from jukebox_deploy.engines.tensorrt_build import BuildOptions, BuildSummary
from jukebox_deploy.engines.tensorrt_bundle import (
    GraphProgress,
    build_bundle,
    divide_capabilities,
    processes_to_build,
)
from jukebox_deploy.engines.tensorrt_capabilities import Arithmetic
from jukebox_deploy.engines.tensorrt_flavour import load_flavour
from jukebox_deploy.jobs.export_job import ExportEvent, ExportRequest, export_bundle, select_graphs


@dataclass(frozen=True)
class BuildListener:
    """Whom to tell what was done."""

    exported: Callable[[ExportEvent], None] = lambda event: None
    building: GraphProgress | None = None


@dataclass(frozen=True)
class CheckpointBuild:
    """Engines of a checkpoint: what to export, what to build of it, and where the graphs go."""

    export: ExportRequest
    options: BuildOptions
    onnx: Path | None = None  # the folder that keeps the graphs; `None`: they are thrown away

    def require_possible(self, checkpoint: CheckpointBundle) -> None:
        """Find out before the export what the build would refuse after it.

        Raises `EngineError` for a missing flavour and for GPUs that cannot run the graphs, `ExportError` for
        unknown graphs.
        """
        load_flavour(self.options.target)
        arithmetic = Arithmetic(self.export.options.precision, self.export.quantisation.weights)
        for spec in select_graphs(checkpoint.config, self.export).values():
            divide_capabilities(spec, arithmetic, self.options)


def build_from_checkpoint(
    checkpoint: CheckpointBundle,
    out: Path,
    build: CheckpointBuild,
    processes: int | None = None,
    listener: BuildListener | None = None,
) -> tuple[EngineBundle, list[BuildSummary]]:
    """Export a checkpoint, then build engines into the new folder `out`.

    Raises as `CheckpointBuild.require_possible`, `export_bundle` and `build_bundle` do.
    """
    listener = listener or BuildListener()
    build.require_possible(checkpoint)
    with _folder_for_graphs(build.onnx, out) as folder:
        export_bundle(checkpoint, folder, build.export, listener.exported)
        source = open_bundle(folder, verify_hashes=False)
        at_once = processes or processes_to_build(source)
        return build_bundle(source, out, build.options, (), listener.building, at_once)


def _folder_for_graphs(wanted: Path | None, out: Path) -> AbstractContextManager[Path]:
    """The wanted folder, or one beside `out` that does not outlive the build."""
    if wanted is not None:
        return nullcontext(wanted)
    out.parent.mkdir(parents=True, exist_ok=True)
    return _Scratch(out.parent)


class _Scratch(AbstractContextManager[Path]):
    """A folder in a temporary folder, which does not exist yet."""

    def __init__(self, parent: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(dir=parent, prefix=".onnx-")

    def __enter__(self) -> Path:
        return Path(self._folder.name) / "graphs"

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()
