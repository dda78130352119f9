"""A common interface to evaluate checkpoint bundles (in PyTorch) and engine bundles (as they run)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.checkpoints.components import VQVAE_COMPONENT
from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import LinearWeights, Precision
from jukebox_deploy.data.windows import WindowBatch
from jukebox_deploy.engine import Engine
from jukebox_deploy.engines.bundle import EngineBundle, is_engine_bundle, open_bundle
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.onnxruntime.sessions import OnnxRuntimeOptions
from jukebox_deploy.errors import EngineError
from jukebox_deploy.graphs import declare_graphs
from jukebox_deploy.jobs.evaluation.token_scoring import Listener, PriorScore, score_with_engine, score_with_model
from jukebox_deploy.jobs.opening.bundle import bundle_engine
from jukebox_deploy.jobs.opening.eager import eager_engine, pytorch_threads
from jukebox_deploy.jobs.song_codes import weights_digest
from jukebox_deploy.labels.vocabulary import Vocabulary


class EvaluatedBundle(Protocol):
    """The interface of a bundle that can be evaluated."""

    @property
    def folder(self) -> Path:
        """The folder of the bundle."""

    @property
    def config(self) -> JukeboxConfig:
        """The configuration of the model."""

    @property
    def vocabulary(self) -> Vocabulary:
        """Its names of artists and genres."""

    @property
    def checkpoint(self) -> str:
        """The fingerprint of the checkpoint that its weights came from."""

    @property
    def vqvae(self) -> str:
        """The hash of the VQ-VAE's weights that identifies its codes in a folder of encoded songs."""

    @property
    def backend(self) -> str:
        """What runs it."""

    @property
    def precision(self) -> str:
        """The element type of its stacks."""

    @property
    def weights(self) -> str:
        """How the weights of its linear layers are stored."""

    @property
    def engine(self) -> Engine:
        """An engine with at least the graphs of its VQ-VAE, if any. Raises `EngineError` if they cannot run here."""

    def score(self, level: int, windows: Sequence[WindowBatch], listen: Listener) -> PriorScore:
        """Score windows, one in each batch. Raises `EngineError` if that is not possible here."""


def open_evaluated(folders: Sequence[Path], threads: int | None = None) -> tuple[EvaluatedBundle, ...]:
    """Open checkpoint bundles and engine bundles; `CheckpointError` or `EngineError` if one is neither.

    `threads`: CPU threads; `None`: as many as speed it up.
    """
    bundles = [open_bundle(folder) if is_engine_bundle(folder) else CheckpointBundle.open(folder) for folder in folders]
    if threads is not None and all(map(_runs_on_gpu, bundles)):
        raise EngineError("--threads: not supported by TensorRT engines, which run on a GPU; drop it.")
    return tuple(
        _Checkpoint(bundle, threads) if isinstance(bundle, CheckpointBundle) else _Engines(bundle, threads)
        for bundle in bundles
    )


def _runs_on_gpu(bundle: CheckpointBundle | EngineBundle) -> bool:
    return isinstance(bundle, EngineBundle) and bundle.manifest.target is not Target.ONNXRUNTIME


@dataclass(frozen=True)
class _Checkpoint:
    """An `EvaluatedBundle`, in fp32."""

    bundle: CheckpointBundle
    threads: int | None = None

    backend = "PyTorch"
    precision = weights = str(Precision.FP32)

    @property
    def folder(self) -> Path:
        return self.bundle.folder

    @property
    def config(self) -> JukeboxConfig:
        return self.bundle.config

    @property
    def vocabulary(self) -> Vocabulary:
        return self.bundle.vocabulary

    @cached_property
    def checkpoint(self) -> str:
        return self.bundle.fingerprint()

    @cached_property
    def vqvae(self) -> str:
        return weights_digest(self.bundle.tensors(VQVAE_COMPONENT))

    @cached_property
    def engine(self) -> Engine:
        return eager_engine(self.bundle, declare_graphs(replace(self.config, priors=())), threads=self.threads)

    def score(self, level: int, windows: Sequence[WindowBatch], listen: Listener) -> PriorScore:
        with pytorch_threads(self.threads):
            return score_with_model(self.bundle.load_prior(level), self.config.prior(level), windows, listen)


@dataclass(frozen=True)
class _Engines:
    """An `EvaluatedBundle`, on what it was made for."""

    bundle: EngineBundle
    threads: int | None = None

    @property
    def folder(self) -> Path:
        return self.bundle.folder

    @property
    def config(self) -> JukeboxConfig:
        return self.bundle.manifest.config

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.from_json(self.bundle.manifest.vocabulary)

    @property
    def checkpoint(self) -> str:
        return self.bundle.manifest.checkpoint

    @property
    def vqvae(self) -> str:
        return self.checkpoint

    @property
    def backend(self) -> str:
        return str(self.bundle.manifest.target)

    @property
    def precision(self) -> str:
        return str(self.bundle.manifest.precision)

    @property
    def weights(self) -> str:
        weights = self.bundle.manifest.linear_weights
        return self.precision if weights is LinearWeights.AS_PRECISION else str(weights)

    @cached_property
    def engine(self) -> Engine:
        return bundle_engine(self.bundle, OnnxRuntimeOptions(threads=self.threads))

    def score(self, level: int, windows: Sequence[WindowBatch], listen: Listener) -> PriorScore:
        return score_with_engine(self.engine, self.config.prior(level), windows, listen)
