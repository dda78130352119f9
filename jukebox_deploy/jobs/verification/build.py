"""A check for engines that cannot run here: can TensorRT parse and build their graphs for their GPUs?"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from jukebox_deploy.engines.bundle import EngineBundle
from jukebox_deploy.engines.tensorrt.build import BuildOptions, BuildSummary, Feature, build_engine
from jukebox_deploy.engines.tensorrt.flavour import flavour_version
from jukebox_deploy.errors import EngineError
from jukebox_deploy.jobs.verification.report import Check, CheckKind, Outcome, not_run

_ON_A_GPU = (Feature.REFIT, Feature.STRIPPED)
"""Features that some flavours can build only on a GPU; they do not affect the arithmetic."""


def build_checks(engines: EngineBundle, exported: EngineBundle, names: Iterable[str]) -> Iterator[Check]:
    """Parse and build the graphs of engines once more, for the same GPUs and slots; the results are discarded."""
    target = engines.manifest.target
    try:
        builder = f"{target} {flavour_version(target)}"
    except EngineError as error:
        yield from (not_run(name, CheckKind.BUILD, str(error)) for name in names)
        return
    for name in names:
        gpus = engines.manifest.graphs[name].compute_capabilities
        where = builder + (f" for {', '.join(gpus)}" if gpus else "")
        try:
            layers = sum(summary.layers for summary in _build(engines, exported, name))
            yield Check(name, CheckKind.BUILD, where, Outcome.PASSED, "layers", layers)
        except EngineError as error:
            yield Check(name, CheckKind.BUILD, where, Outcome.FAILED, reason=str(error))


def _build(engines: EngineBundle, exported: EngineBundle, name: str) -> Iterator[BuildSummary]:
    entry, source = engines.manifest.graphs[name], exported.manifest.graphs[name]
    features = tuple(f for f in map(Feature, entry.options.get("features", ())) if f not in _ON_A_GPU)
    slots = tuple(entry.options.get("slots", ()))
    options = BuildOptions(engines.manifest.target, entry.compute_capabilities, slots=slots, features=features)
    with tempfile.TemporaryDirectory(prefix="jukebox-verify-") as scratch:
        for table, piece in zip((part.spec for part in entry.pieces), source.pieces, strict=True):
            engine = Path(scratch) / f"{table.name}.engine"
            yield build_engine(exported.folder / piece.file, table, engine, options, source.weights)
            engine.unlink()
