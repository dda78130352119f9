"""Random inputs for a graph, valid for its model: for validation, benchmarks and tests."""

from __future__ import annotations

import zlib

import numpy as np

from jukebox_deploy.config import JukeboxConfig, PriorConfig
from jukebox_deploy.contract import VQVAE_GRAPHS, GraphKind, GraphSpec, TensorSpec, numpy_dtype


def random_feed(
    tensor: TensorSpec, spec: GraphSpec, config: JukeboxConfig, sizes: dict[str, int], seed: int
) -> np.ndarray:
    """Make one input of a graph for the given sizes; its values depend only on the seed and the tensor's name."""
    random = np.random.default_rng([seed, zlib.crc32(tensor.name.encode())])
    shape, dtype = tensor.shape(sizes), numpy_dtype(tensor.dtype)
    if spec.kind in VQVAE_GRAPHS:
        return _vqvae_feed(tensor, config, shape, random).astype(dtype)
    return _prior_feed(tensor, spec.kind, config.prior(spec.level), shape, random).astype(dtype)


def random_feeds(spec: GraphSpec, config: JukeboxConfig, sizes: dict[str, int], seed: int) -> dict[str, np.ndarray]:
    """Make all inputs of a graph, by input name."""
    return {t.input_name: random_feed(t, spec, config, sizes, seed) for t in spec.inputs}


def _vqvae_feed(
    tensor: TensorSpec, config: JukeboxConfig, shape: tuple[int, ...], random: np.random.Generator
) -> np.ndarray:
    if tensor.name == "codes":
        return random.integers(0, config.vqvae.codebook_size, shape)
    return (0.3 * random.standard_normal(shape)).clip(-1, 1)


def _prior_feed(
    tensor: TensorSpec, kind: GraphKind, prior: PriorConfig, shape: tuple[int, ...], random: np.random.Generator
) -> np.ndarray:
    if tensor.name == "position":
        return _random_positions(prior, kind, shape, random)
    if tensor.name == "known_end":  # so that a prefill advances by a whole block, and a step chooses a code
        return np.full(shape, prior.transformer.context if kind is GraphKind.PREFILL else 0)
    if tensor.name == "window_end":
        return np.full(shape, prior.transformer.context)
    if tensor.name in ("top_k", "top_p", "not_finite"):
        return np.zeros(shape)
    if tensor.name in ("uniform", "temperature"):
        return random.uniform(0.0 if tensor.name == "uniform" else 0.8, 1.0 - 2**-20, shape)
    bounds = _integer_bounds(tensor.name, prior)
    return random.integers(*bounds, shape) if bounds else random.standard_normal(shape, np.float32)


def _random_positions(
    prior: PriorConfig, kind: GraphKind, shape: tuple[int, ...], random: np.random.Generator
) -> np.ndarray:
    stack = prior.transformer
    if kind is GraphKind.PREFILL:
        return random.integers(0, stack.block_count, shape) * stack.block_length
    return random.integers(0, stack.context, shape)


def _integer_bounds(name: str, prior: PriorConfig) -> tuple[int, int] | None:
    """Return the lowest value of an integer tensor, and its highest value plus one; `None` for other tensors."""
    bounds: dict[str, tuple[int, int]] = {"codes": (0, prior.bins), "upper_codes": (0, prior.codebook_size)}
    if prior.labels:
        bounds |= {"artist": (0, prior.labels.artists), "genres": (-1, prior.labels.genres)}
    if prior.timing:
        bounds |= dict.fromkeys(("total_bin", "absolute_bins", "relative_bins"), (0, prior.timing.bins))
    if prior.lyrics:
        bounds["lyric_tokens"] = (0, prior.lyrics.vocabulary)
    return bounds.get(name)
