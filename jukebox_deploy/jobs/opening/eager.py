"""Create the engine that runs a checkpoint bundle in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.contract import GraphKind, GraphSpec, Precision
from jukebox_deploy.engines.device import Provider
from jukebox_deploy.engines.eager.engine import EagerEngine, GraphFunction
from jukebox_deploy.engines.replay import Recorder
from jukebox_deploy.engines.threads import worthwhile_threads
from jukebox_deploy.errors import EngineError
from jukebox_deploy.export.graph_modules import graph_module
from jukebox_deploy.export.weights import WeightFile
from jukebox_deploy.models.bf16_products import quick_bf16_products
from jukebox_deploy.models.compilation import compile_for_inference, explained_compilation
from jukebox_deploy.models.prior import Prior
from jukebox_deploy.models.vqvae import VQVAE

WITHOUT_COMPILING = "go on without compiling"
"""Advice for when PyTorch cannot compile a step."""


class OpenModels:
    """The models of a checkpoint, by level (`None`: the VQ-VAE), shared by all graphs that use them.

    Of the models that no graph uses any more, only the one that was asked for last is kept: its other graphs are often
    opened next.
    """

    def __init__(self, load: Callable[[int | None], VQVAE | Prior]) -> None:
        self._load = load
        self._used: WeakValueDictionary[int | None, VQVAE | Prior] = WeakValueDictionary()
        self._last: VQVAE | Prior | None = None

    def get(self, level: int | None) -> VQVAE | Prior:
        """Return the model of a level, loaded unless it is still in memory."""
        model = self._used.get(level)
        if model is None:
            self.release()  # before loading, so that memory never holds a second model that no graph uses
            model = self._load(level)
            self._used[level] = model
        self._last = model
        return model

    def release(self) -> None:
        """Keep only models that graphs use."""
        self._last = None


def load_model(
    checkpoint: CheckpointBundle, level: int | None, precision: Precision, rounded: WeightFile | None = None
) -> VQVAE | Prior:
    """Load the VQ-VAE (`level` None) or the prior of a level; for `rounded` see `eager_engine`."""
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
    """Return an engine that runs the PyTorch models themselves. The graphs of a model share its weights.

    `threads`: PyTorch's threads while a graph runs; `None`: as many as speed up its model. `rounded`: by level, an
    exported weight file whose quantised weights, multiplied by their scales, replace the checkpoint's.
    `recorder`: records the steps of sessions; requires a GPU. `compiled`: steps are compiled with `torch.compile`.
    """

    def load(level: int | None) -> VQVAE | Prior:
        return load_model(checkpoint, level, precision, (rounded or {}).get(level)).to(device)

    models = OpenModels(load)

    def open_graph(spec: GraphSpec) -> GraphFunction:
        model = models.get(spec.model_level)
        weight_bytes = sum(parameter.nbytes for parameter in model.parameters())
        return graph_function(spec, model, threads or worthwhile_threads(spec, weight_bytes), compiled)

    return EagerEngine(checkpoint.config, graphs, open_graph, device, recorder, models.release)


def require_device(provider: str) -> None:
    """Raise `EngineError` if PyTorch does not have the device of a provider here."""
    if provider == Provider.CUDA and not torch.cuda.is_available():
        raise EngineError("this PyTorch sees no CUDA device; use --provider cpu.")


def graph_function(spec: GraphSpec, model: VQVAE | Prior, threads: int, compiled: bool = False) -> GraphFunction:
    """Return the function of a graph, run with `threads` of PyTorch's threads; `compiled` applies to steps only."""
    module = graph_module(spec, model)
    if compiled and spec.kind is GraphKind.STEP:
        return on_threads(_compiled_step(spec, module), threads)
    return on_threads(_with_quick_products(module) if spec.precision is Precision.BF16 else module, threads)


def _with_quick_products(function: GraphFunction) -> GraphFunction:
    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        with quick_bf16_products(tensors[0].device):
            return function(*tensors)

    return run


def _compiled_step(spec: GraphSpec, step: GraphFunction) -> GraphFunction:
    """Compile a step. Other graphs run too seldom to be worth it. The first call raises `EngineError` if it fails."""
    compiled = compile_for_inference(step, spec.name)

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        with explained_compilation(EngineError, WITHOUT_COMPILING):
            return compiled(*tensors)

    return run


def on_threads(function: GraphFunction, threads: int) -> GraphFunction:
    """Wrap a graph's function to set PyTorch's threads while it runs, and to compute exact products."""

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        with pytorch_threads(threads), exact_products(tensors[0].device):
            return function(*tensors)

    return run


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Disable TF32 on a GPU, for matrix products and convolutions in fp32.

    Convolutions are also made deterministic, so that continued songs are reproducible.
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
    """Set the number of PyTorch's threads temporarily; `None`: leave it unchanged."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
