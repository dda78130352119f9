"""Priors small enough to trace in seconds, with every kind of part."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from jukebox_deploy.attention_patterns import AttentionOrder, AttentionPattern
from jukebox_deploy.checkpoints.bundle import BundleContents, CheckpointBundle, write_bundle
from jukebox_deploy.checkpoints.components import component_configs
from jukebox_deploy.checkpoints.tensors import TensorTable
from jukebox_deploy.config import (
    JukeboxConfig,
    LabelConfig,
    LabelRules,
    LyricsConfig,
    PriorConfig,
    TimingConfig,
    TransformerConfig,
    VQVAEConfig,
)
from jukebox_deploy.labels.vocabulary import Vocabulary
from jukebox_deploy.models.builders import build_model

VQVAE = VQVAEConfig(downs=(1,), strides=(2,), multipliers=(1,), width=8, depth=1, embedding_width=8, codebook_size=32)
NAMELESS = Vocabulary()


def separate_lyrics_config() -> JukeboxConfig:
    """A top prior with a lyric encoder and one layer of each pattern of the cross-attention orders."""
    encoder = TransformerConfig(16, width=16, depth=3, heads=2, order=AttentionOrder.FACTORED, blocks=4)
    stack = TransformerConfig(
        48, width=32, depth=4, heads=2, order=AttentionOrder.FACTORED_CROSS_EVERY_4, blocks=6, encoder_tokens=16
    )
    prior = PriorConfig(
        level=0,
        window=48,
        codebook_size=32,
        transformer=stack,
        labels=LabelConfig(LabelRules.WORDS, artists=5, genres=4, genre_slots=3, timing=TimingConfig(8, 0.1, 9.0)),
        lyrics=LyricsConfig(tokens=16, vocabulary=80, encoder=encoder),
        merged_decoder=True,
    )
    return JukeboxConfig("separate", VQVAE, (prior,))


def unlabelled_config(
    order: AttentionOrder = AttentionOrder.FACTORED, depth: int = 3, width: int = 32
) -> JukeboxConfig:
    """A prior without labels or upper codes; cross and prime patterns get the lyrics that they attend to."""
    plain = TransformerConfig(
        48, width=width, depth=depth, heads=2, order=order, blocks=6, encoder_tokens=10, prime_tokens=8
    )
    lyrics = None
    if AttentionPattern.CROSS in plain.patterns:
        encoder = TransformerConfig(10, width=16, depth=1, heads=2)
        lyrics = LyricsConfig(tokens=10, vocabulary=80, encoder=encoder)
    elif AttentionPattern.PRIME in plain.patterns:
        lyrics = LyricsConfig(tokens=8, vocabulary=80)
    window = 48 - (lyrics.tokens if lyrics and lyrics.encoder is None else 0)
    prior = PriorConfig(level=0, window=window, codebook_size=32, transformer=plain, lyrics=lyrics)
    return JukeboxConfig("plain", VQVAE, (prior,))


def randomise(module: torch.nn.Module, seed: int = 0) -> None:
    """Weights that make every path count, zero-initialised ones included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.copy_(0.2 * torch.randn(tensor.shape, generator=generator))


def write_checkpoint(
    config: JukeboxConfig, folder: Path, seed: int = 0, vocabulary: Vocabulary = NAMELESS
) -> CheckpointBundle:
    """A checkpoint bundle with random weights that make every path count."""
    components = {}
    for name, part in component_configs(config).items():
        model = build_model(config, part.level if isinstance(part, PriorConfig) else None)
        randomise(model, seed)
        components[name] = partial(TensorTable, model.state_dict())
    return write_bundle(folder, BundleContents(config, components, vocabulary=vocabulary))
