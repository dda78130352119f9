"""The speed of the steps of a whole engine bundle, against the checkpoint that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jukebox_deploy.benchmarks.step_speed import StepSpeed, StepWorkload, measure_step
from jukebox_deploy.contract import GraphKind
from jukebox_deploy.engines.bundle import EngineBundle
from jukebox_deploy.engines.manifest import GraphEntry
from jukebox_deploy.engines.threads import worthwhile_threads
from jukebox_deploy.errors import EngineError

if TYPE_CHECKING:
    from jukebox_deploy.checkpoints.bundle import CheckpointBundle


@dataclass(frozen=True)
class BundleWorkload:
    """What is measured."""

    level: int | None = None  # `None`: every prior of the bundle
    slots: tuple[int, ...] = (1, 4)
    steps: int = 64  # per round
    rounds: int = 5
    threads: int | None = None  # of both sides; `None`: as many as pay


@dataclass(frozen=True)
class PriorSpeed:
    """One prior with one number of slots."""

    threads: int  # of both sides
    speed: StepSpeed

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"threads": self.threads, **self.speed.to_json()}


def measure_bundle(
    bundle: EngineBundle, checkpoint: CheckpointBundle, workload: BundleWorkload, listener: Callable[[str], None]
) -> Iterator[PriorSpeed]:
    """Measure prior by prior, the top one first; `listener` is told what comes next.

    Raises `EngineError` for another checkpoint, or if the bundle lacks the step or cannot run here.
    """
    from jukebox_deploy.engines.onnxruntime import OnnxRuntimeOptions
    from jukebox_deploy.jobs.onnx_opening import onnx_engine
    from jukebox_deploy.jobs.opening import eager_engine, require_same_model

    require_same_model(bundle, checkpoint)
    manifest = bundle.manifest
    for entry in _steps(bundle, workload.level):
        threads = workload.threads or worthwhile_threads(sum(manifest.files[name].bytes for name in entry.weights))
        engine = onnx_engine(bundle, OnnxRuntimeOptions(threads=threads))
        eager = eager_engine(checkpoint, bundle.graphs, manifest.precision, threads=threads)
        for slots in workload.slots:
            work = StepWorkload(entry.spec.level, slots, manifest.precision, workload.steps, workload.rounds)
            listener(f"{entry.spec.name}, {slots} slots")
            yield PriorSpeed(threads, measure_step(engine, eager, work))


def _steps(bundle: EngineBundle, level: int | None) -> list[GraphEntry]:
    """The steps to measure."""
    if level is not None:
        return [bundle.manifest.graph(GraphKind.STEP, level)]
    entries = [entry for entry in bundle.manifest.graphs.values() if entry.spec.kind is GraphKind.STEP]
    if not entries:
        raise EngineError(f"{bundle.folder} has no step to measure; it has {', '.join(bundle.graphs)}.")
    return sorted(entries, key=lambda entry: -entry.spec.level)
