"""Build: make an engine bundle from a checkpoint bundle, which is exported first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.engines.bundle import EngineBundle, is_engine_bundle, open_bundle
from jukebox_deploy.engines.tensorrt.build import BuildOptions, BuildSummary
from jukebox_deploy.engines.tensorrt.bundle import (
    BuildProgress,
    build_bundle,
    divide_capabilities,
    processes_to_build,
)
from jukebox_deploy.engines.tensorrt.capabilities import Arithmetic
from jukebox_deploy.engines.tensorrt.flavour import load_flavour
from jukebox_deploy.engines.tensorrt.trial import try_build
from jukebox_deploy.errors import EngineError
from jukebox_deploy.files import require_free, scratch_folder
from jukebox_deploy.jobs.export_job import ExportRequest, export_bundle, select_graphs
from jukebox_deploy.jobs.export_progress import ExportProgress


@dataclass(frozen=True)
class BuildListener:
    """Callbacks for progress."""

    exporting: Callable[[ExportProgress], None] = lambda progress: None
    building: Callable[[BuildProgress], None] = lambda progress: None


@dataclass(frozen=True)
class CheckpointBuild:
    """What to export from a checkpoint, what to build from that, and where to keep the graphs."""

    export: ExportRequest
    options: BuildOptions
    onnx: Path | None = None  # folder that keeps the graphs; `None`: they are deleted

    def require_possible(self, checkpoint: CheckpointBundle, out: Path) -> None:
        """Check before the export that the build into `out` can succeed after it.

        Raises `JukeboxError` for folders that cannot be written, `EngineError` for a flavour of TensorRT that is not
        installed, for GPUs that cannot run the graphs and for options that the builder rejects, `ExportError` for
        unknown graphs.
        """
        self._require_folders(out)
        load_flavour(self.options.target)
        arithmetic = Arithmetic(self.export.options.precision, self.export.quantisation.weights)
        specs = list(select_graphs(checkpoint.config, self.export).values())
        gpus = [gpu for spec in specs for gpu in divide_capabilities(spec, arithmetic, self.options)[0]]
        if specs:
            try_build(replace(self.options, compute_capabilities=tuple(gpus)), specs[0])

    def require_apart(self, out: Path) -> None:
        """Raise `EngineError` if the kept graphs would lie in the folder of the engines, or the other way round."""
        if self.onnx is not None and _one_in_the_other(self.onnx.resolve(), out.resolve()):
            raise EngineError(
                f"the graphs cannot be kept in {self.onnx}: {out} is to be the folder of the engines, and neither may "
                "be inside the other. Choose another folder for --keep-onnx."
            )

    def _require_folders(self, out: Path) -> None:
        self.require_apart(out)
        if self.onnx is not None and is_engine_bundle(self.onnx):
            raise EngineError(
                f"{self.onnx} already holds exported graphs: build from them instead of the checkpoint, remove the "
                "folder, or choose another one for --keep-onnx."
            )
        for folder in (out, self.onnx):
            if folder is not None:
                require_free(folder)  # `atomic_directory` would check it only hours later


def _one_in_the_other(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


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
    build.require_possible(checkpoint, out)
    with _folder_for_graphs(build.onnx, out) as folder:
        export_bundle(checkpoint, folder, build.export, progress=listener.exporting)
        source = open_bundle(folder, verify_hashes=False)
        at_once = processes or processes_to_build(source)
        return build_bundle(source, out, build.options, (), listener.building, at_once, tried=True)


@contextmanager
def _folder_for_graphs(wanted: Path | None, out: Path) -> Iterator[Path]:
    """Yield `wanted`, or else a path for a new temporary folder next to `out`, which is deleted after the build.

    The temporary folder is made in either case: if nothing can be written there, the export would be in vain.
    """
    with scratch_folder(out) as scratch:
        yield wanted or scratch / "graphs"
