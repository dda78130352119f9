"""Encoding of songs into codes, kept in a folder that training and evaluation share."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.checkpoints.components import VQVAE_COMPONENT
from jukebox_deploy.checkpoints.tensors import TensorSource
from jukebox_deploy.config import VQVAEConfig
from jukebox_deploy.data.catalogue import Catalogue, read_catalogue
from jukebox_deploy.data.code_cache import CodeCache, CodedSongs, encode_catalogue
from jukebox_deploy.engine import Engine
from jukebox_deploy.engines.bundle import open_bundle
from jukebox_deploy.engines.onnxruntime.sessions import OnnxRuntimeOptions
from jukebox_deploy.graphs import declare_graphs
from jukebox_deploy.jobs.opening.bundle import bundle_engine
from jukebox_deploy.jobs.opening.eager import eager_engine
from jukebox_deploy.jobs.opening.same_model import require_same_model
from jukebox_deploy.runtime.decode import Encoder


@dataclass(frozen=True)
class EncodeRequest:
    """The songs to encode, the VQ-VAE, and the folder for the codes."""

    data: Path  # folder of songs
    bundle: Path  # a checkpoint bundle; codes are identified by the weights of its VQ-VAE
    codes: Path
    engines: Path | None = None  # engine bundle made from `bundle`, to encode with; default: PyTorch
    metadata: Path | None = None  # table of the songs, if it is not in their folder
    threads: int | None = None  # CPU threads; `None`: as many as speed it up

    def open_engine(self, checkpoint: CheckpointBundle) -> Engine:
        """Open the VQ-VAE. Raises `EngineError` for engines made from another checkpoint."""
        if self.engines is None:
            graphs = declare_graphs(replace(checkpoint.config, priors=()))
            return eager_engine(checkpoint, graphs, threads=self.threads)
        engines = open_bundle(self.engines)
        require_same_model(engines, checkpoint)
        return bundle_engine(engines, OnnxRuntimeOptions(threads=self.threads))


def encode_corpus(request: EncodeRequest, listen: Callable[[int, int], None] = lambda done, total: None) -> CodedSongs:
    """Encode all songs that have no codes yet; `listen` is called with the number done and the total.

    Engines round differently from PyTorch: a latent that is equally near to two codes may get the other one.

    Raises:
        DataError: if there are no songs.
        CheckpointError: if `request.bundle` is not a checkpoint bundle.
        EngineError: for engines of another checkpoint, or without a VQ-VAE.
    """
    songs = read_catalogue(request.data, metadata=request.metadata)
    checkpoint = CheckpointBundle.open(request.bundle)
    engine = request.open_engine(checkpoint)
    digest = weights_digest(checkpoint.tensors(VQVAE_COMPONENT))
    return encode_songs(songs, engine, code_cache(request.codes, digest, checkpoint.config.vqvae), listen)


def code_cache(folder: Path, fingerprint: str, vqvae: VQVAEConfig) -> CodeCache:
    """Return the cache in `folder` for codes of the VQ-VAE with this fingerprint."""
    return CodeCache(folder, fingerprint, vqvae.hop_lengths, vqvae.sample_rate)


def encode_songs(songs: Catalogue, engine: Engine, cache: CodeCache, listen: Callable[[int, int], None]) -> CodedSongs:
    """Encode songs with an engine's VQ-VAE; codes already in the cache are reused."""
    encoder = functools.cache(functools.partial(Encoder, engine))
    return encode_catalogue(songs, cache, lambda audio, level: encoder(level)(audio), listen)


def weights_digest(tensors: TensorSource) -> str:
    """Return a hash of a component's weights; it identifies the VQ-VAE that codes belong to."""
    digest = hashlib.sha256()
    for name in sorted(tensors.infos):
        digest.update(name.encode())
        digest.update(tensors.load(name).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
