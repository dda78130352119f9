"""Models that no preset is like, but that a configuration may describe: they are exported and run like all others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jukebox_deploy.attention_patterns import AttentionOrder
from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.checkpoints.random_bundle import write_random_bundle
from jukebox_deploy.config import JukeboxConfig, LyricsConfig, PriorConfig, TransformerConfig, VQVAEConfig
from jukebox_deploy.engines.bundle import open_bundle
from jukebox_deploy.export.cutting import Cutting
from jukebox_deploy.graphs import declare_graphs
from jukebox_deploy.jobs.export_job import ExportRequest, export_bundle
from jukebox_deploy.jobs.opening.eager import eager_engine
from jukebox_deploy.jobs.tensorrt_check import TensorRtCheck
from jukebox_deploy.runtime.decode import decode_codes, encode_audio
from tests.export.small_models import separate_lyrics_config

VQVAE = VQVAEConfig(8_000, (1,), (2,), (1,), width=4, depth=1, embedding_width=4, codebook_size=16)


def export(checkpoint: CheckpointBundle, folder: Path, *graphs: str, parts: int = 1) -> set[str]:
    """Export graphs, each compared with PyTorch; returns the names of the bundle's graphs."""
    request = ExportRequest(graphs=graphs, processes=1, tensorrt=TensorRtCheck.AUTO, cutting=Cutting(parts))
    export_bundle(checkpoint, folder, request)
    return set(open_bundle(folder).graphs)


def test_blocks_of_one_position_can_be_cut_into_parts(tmp_path: Path) -> None:
    stack = TransformerConfig(4, 16, 2, 1, AttentionOrder.BLOCK_COLUMN, blocks=4)
    checkpoint = write_random_bundle(JukeboxConfig("ones", VQVAE, (PriorConfig(0, 4, 16, stack),)), tmp_path / "bundle")
    assert export(checkpoint, tmp_path / "graphs", "step_0", parts=2) == {"step_0", "prefill_0"}


@pytest.mark.parametrize("order", [AttentionOrder.BLOCK_SUMMARY, AttentionOrder.BLOCK_SPREAD_SUMMARY])
def test_a_lyric_encoder_may_have_orders_without_caches(order: AttentionOrder, tmp_path: Path) -> None:
    config = separate_lyrics_config()
    (prior,) = config.priors
    assert prior.lyrics is not None
    encoder = TransformerConfig(16, width=16, depth=2, heads=1, order=order, blocks=4, spread=2)
    prior = replace(prior, lyrics=LyricsConfig(16, 80, encoder=encoder))
    checkpoint = write_random_bundle(replace(config, priors=(prior,)), tmp_path / "bundle")
    assert export(checkpoint, tmp_path / "graphs", "lyrics_0") == {"lyrics_0"}


def test_levels_of_few_codes_per_second(tmp_path: Path) -> None:
    """A code of the top level is two seconds here."""
    vqvae = replace(VQVAE, downs=(3, 4), strides=(4, 4), multipliers=(1, 1), width=2)
    assert vqvae.hop_length(1) > 2 * vqvae.sample_rate
    checkpoint = write_random_bundle(JukeboxConfig("coarse", vqvae, ()), tmp_path / "bundle")
    decoder = export(checkpoint, tmp_path / "graphs", "vqvae_decode_1")
    assert decoder == {"vqvae_decode_1"}


def test_a_context_longer_than_any_stretch_of_sound(tmp_path: Path) -> None:
    """Dilations of 3 to the 8th: a code depends on seconds before and after it."""
    vqvae = replace(VQVAE, downs=(3,), multipliers=(3,), width=2, depth=3)
    checkpoint = write_random_bundle(JukeboxConfig("wide", vqvae, ()), tmp_path / "bundle")
    graphs = declare_graphs(checkpoint.config)
    assert graphs["vqvae_decode_0"].range("T").maximum > 2 * 17_224
    engine = eager_engine(checkpoint, graphs)
    codes = np.arange(40) % 16
    whole = np.concatenate(list(decode_codes(engine, 0, codes)))
    assert whole.shape == (320,)
    assert encode_audio(engine, 0, whole).shape == (40,)


def test_a_short_song_needs_no_context_in_graphs_with_too_short_a_range(tmp_path: Path) -> None:
    """Graphs of an older export took 15 seconds, whatever the context."""
    vqvae = replace(VQVAE, downs=(3,), multipliers=(3,), width=2, depth=3)
    checkpoint = write_random_bundle(JukeboxConfig("wide", vqvae, ()), tmp_path / "bundle")
    spec = declare_graphs(checkpoint.config)["vqvae_decode_0"]
    short = tuple(replace(r, optimum=64, maximum=64) if r.symbol == "T" else r for r in spec.ranges)
    engine = eager_engine(checkpoint, {spec.name: replace(spec, ranges=short)})
    assert len(np.concatenate(list(decode_codes(engine, 0, np.arange(40) % 16)))) == 320
