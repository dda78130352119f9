"""Songs as codes of a VQ-VAE, kept in a folder that training and evaluation find them in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.checkpoints.layout import VQVAE_COMPONENT
from jukebox_deploy.checkpoints.tensors import TensorSource
from jukebox_deploy.config import VQVAEConfig
from jukebox_deploy.data.catalogue import Catalogue, read_catalogue
from jukebox_deploy.data.code_cache import CodeCache, CodedSongs, encode_catalogue
from jukebox_deploy.engine import Engine
from jukebox_deploy.engines.bundle import open_bundle
from jukebox_deploy.engines.onnxruntime.sessions import OnnxRuntimeOptions
from jukebox_deploy.graphs import declare_graphs
from jukebox_deploy.jobs.opening.bundle import bundle_engine
from jukebox_deploy.jobs.opening.eager import eager_engine, require_same_model
from jukebox_deploy.runtime.decode import encode_audio


@dataclass(frozen=True)
class EncodeRequest:
    """Which songs, by which VQ-VAE, to where."""

    data: Path  # folder of songs
    bundle: Path  # a checkpoint bundle; codes are known by the weights of its VQ-VAE
    codes: Path
    engines: Path | None = None  # made from that bundle, to encode with; default: PyTorch
    metadata: Path | None = None  # table of the songs, if it is not in their folder
    threads: int | None = None  # of the CPU; `None`: as many as pay

    def open_engine(self, checkpoint: CheckpointBundle) -> Engine:
        """The VQ-VAE as it is to run; `EngineError` for engines that were made from another checkpoint."""
        if self.engines is None:
            graphs = declare_graphs(replace(checkpoint.config, priors=()))
            return eager_engine(checkpoint, graphs, threads=self.threads)
        engines = open_bundle(self.engines)
        require_same_model(engines, checkpoint)
        return bundle_engine(engines, OnnxRuntimeOptions(threads=self.threads))


def encode_corpus(request: EncodeRequest, listen: Callable[[int, int], None] = lambda done, total: None) -> CodedSongs:
    """Encode all songs that have no codes yet; `listen` gets how many are done, and how many there are.

    Engines round otherwise than PyTorch: where a latent lies between two codes, the other one may be chosen.

    Raises:
        DataError: if there are no songs.
        CheckpointError: if `request.bundle` is none.
        EngineError: for engines of another checkpoint, or without a VQ-VAE.
    """
    songs = read_catalogue(request.data, metadata=request.metadata)
    checkpoint = CheckpointBundle.open(request.bundle)
    engine = request.open_engine(checkpoint)
    digest = weights_digest(checkpoint.tensors(VQVAE_COMPONENT))
    return encode_songs(songs, engine, code_cache(request.codes, digest, checkpoint.config.vqvae), listen)


def code_cache(folder: Path, fingerprint: str, vqvae: VQVAEConfig) -> CodeCache:
    """Where the codes of a VQ-VAE with that fingerprint are kept."""
    return CodeCache(folder, fingerprint, vqvae.hop_lengths, vqvae.sample_rate)


def encode_songs(songs: Catalogue, engine: Engine, cache: CodeCache, listen: Callable[[int, int], None]) -> CodedSongs:
    """The codes of songs by an engine's VQ-VAE; those that are kept already are not made again."""
    return encode_catalogue(songs, cache, lambda audio, level: encode_audio(engine, level, audio), listen)


def weights_digest(tensors: TensorSource) -> str:
    """What a component's weights are: codes of one VQ-VAE are of no use to another."""
    digest = hashlib.sha256()
    for name in sorted(tensors.infos):
        digest.update(name.encode())
        digest.update(tensors.load(name).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
