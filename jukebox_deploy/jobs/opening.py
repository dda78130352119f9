"""From a folder to an engine that runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.checkpoints.layout import VQVAE_COMPONENT, prior_component
from jukebox_deploy.contract import GraphSpec, Precision
from jukebox_deploy.engines.eager import EagerEngine
from jukebox_deploy.errors import EngineError
from jukebox_deploy.export.graph_modules import GraphModule, graph_module
from jukebox_deploy.jobs.onnx_opening import onnx_engine as onnx_engine
from jukebox_deploy.models.prior import Prior
from jukebox_deploy.models.vqvae import VQVAE


def component_name(level: int | None) -> str:
    """The component of a checkpoint that holds the prior of a level, or the VQ-VAE."""
    return VQVAE_COMPONENT if level is None else prior_component(level)


def load_model(checkpoint: CheckpointBundle, level: int | None, precision: Precision) -> VQVAE | Prior:
    """The VQ-VAE (`level` None) or the prior of a level, with its weights."""
    return checkpoint.load_vqvae() if level is None else checkpoint.load_prior(level, precision)


def eager_engine(
    checkpoint: CheckpointBundle,
    graphs: Mapping[str, GraphSpec],
    precision: Precision = Precision.FP32,
    device: str = "cpu",
) -> EagerEngine:
    """The models themselves behind the engine contract. A model's graphs share its weights."""
    models: dict[int | None, VQVAE | Prior] = {}

    def open_graph(spec: GraphSpec) -> GraphModule:
        level = spec.model_level
        if level not in models:
            models[level] = load_model(checkpoint, level, precision).to(device)
        return graph_module(spec, models[level])

    return EagerEngine(checkpoint.config, graphs, open_graph, device)


def tool_versions(*packages: str) -> dict[str, str]:
    """Versions of the packages that are installed."""
    import importlib.metadata

    versions: dict[str, Any] = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def existing_folder(path: Path) -> Path:
    """The path, if it is a folder; `EngineError` otherwise."""
    if not path.is_dir():
        raise EngineError(f"{path} is not a folder.")
    return path
