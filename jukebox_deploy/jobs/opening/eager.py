"""From a folder to an engine that runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.checkpoints.layout import VQVAE_COMPONENT, prior_component
from jukebox_deploy.contract import GraphKind, GraphSpec, Precision
from jukebox_deploy.engines.bundle import EngineBundle
from jukebox_deploy.engines.eager.engine import EagerEngine, GraphFunction
from jukebox_deploy.engines.replay import Recorder
from jukebox_deploy.engines.threads import worthwhile_threads
from jukebox_deploy.errors import EngineError
from jukebox_deploy.export.graph_modules import graph_module
from jukebox_deploy.export.weights import WeightFile
from jukebox_deploy.jobs.opening.onnx_graphs import require_current_tables
from jukebox_deploy.models.compilation import compile_for_inference, explained_compilation
from jukebox_deploy.models.prior import Prior
from jukebox_deploy.models.vqvae import VQVAE

WITHOUT_COMPILING = "go on without compiling"
"""What to do where PyTorch cannot compile a step."""


def component_name(level: int | None) -> str:
    """The component of a checkpoint that holds the prior of a level, or the VQ-VAE."""
    return VQVAE_COMPONENT if level is None else prior_component(level)


def load_model(
    checkpoint: CheckpointBundle, level: int | None, precision: Precision, rounded: WeightFile | None = None
) -> VQVAE | Prior:
    """The VQ-VAE (`level` None) or the prior of a level, with its weights, some of them `rounded` (`eager_engine`)."""
    model = checkpoint.load_vqvae() if level is None else checkpoint.load_prior(level, precision)
    if rounded is not None:
        for name in rounded.quantised:
            weight = rounded.load_quantised(name).dequantise().to(model.get_parameter(name).dtype)
            model.load_state_dict({name: weight}, strict=False, assign=True)
    return model


def eager_engine(
    checkpoint: CheckpointBundle,
    graphs: Mapping[str, GraphSpec],
    precision: Precision = Precision.FP32,
    device: str = "cpu",
    threads: int | None = None,
    rounded: Mapping[int | None, WeightFile] | None = None,
    recorder: Recorder | None = None,
    compiled: bool = False,
) -> EagerEngine:
    """The models themselves behind the engine contract. A model's graphs share its weights.

    `threads` of PyTorch while a graph runs; `None`: as many as pay for its model. `rounded`: by level, an
    exported weight file whose quantised weights, multiplied by their scales, take the place of the checkpoint's.
    `recorder`: records the steps of sessions; the device is a GPU then. `compiled`: steps go through `torch.compile`.
    """
    models: dict[int | None, VQVAE | Prior] = {}

    def open_graph(spec: GraphSpec) -> GraphFunction:
        level = spec.model_level
        if level not in models:
            models[level] = load_model(checkpoint, level, precision, (rounded or {}).get(level)).to(device)
        weight_bytes = sum(parameter.nbytes for parameter in models[level].parameters())
        return graph_function(spec, models[level], threads or worthwhile_threads(spec, weight_bytes), compiled)

    return EagerEngine(checkpoint.config, graphs, open_graph, device, recorder)


def require_same_model(bundle: EngineBundle, checkpoint: CheckpointBundle) -> None:
    """Raise `EngineError` unless a bundle was made from this checkpoint, by a version with the same tables."""
    found, expected = checkpoint.fingerprint(), bundle.manifest.checkpoint
    if found != expected:
        raise EngineError(
            f"{bundle.folder} was not made from {checkpoint.folder}: that checkpoint has the fingerprint "
            f"{found[:12]}…, expected {expected[:12]}…. Give the checkpoint that was exported, or export again."
        )
    require_current_tables(bundle)


def graph_function(spec: GraphSpec, model: VQVAE | Prior, threads: int, compiled: bool = False) -> GraphFunction:
    """The function of a graph over its model, on so many of PyTorch's threads; of `compiled` ones, the step is."""
    module = graph_module(spec, model)
    return on_threads(_compiled_step(spec, module) if compiled and spec.kind is GraphKind.STEP else module, threads)


def _compiled_step(spec: GraphSpec, step: GraphFunction) -> GraphFunction:
    """Only steps are worth it: all else runs once for hundreds of them. Raises `EngineError` at its first call."""
    compiled = compile_for_inference(step, spec.name)

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        with explained_compilation(EngineError, WITHOUT_COMPILING):
            return compiled(*tensors)

    return run


def on_threads(function: GraphFunction, threads: int) -> GraphFunction:
    """A graph's function that sets the number of PyTorch's threads while it runs, and multiplies as engines do."""

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        with pytorch_threads(threads), exact_products(tensors[0].device):
            return function(*tensors)

    return run


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """On a GPU, fp32 stays fp32 meanwhile: neither products nor convolutions are rounded to TF32.

    And convolutions sum in the same order every time, for songs that go on.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def pytorch_threads(threads: int | None) -> Iterator[None]:
    """PyTorch computes with that many threads meanwhile; `None`: with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
