"""Steps in which a VQ-VAE reconstructs audio and its codebooks learn from it, as the original takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from jukebox_deploy.models.bottleneck import (
    CandidateDraw,
    CodebookMetrics,
    CodebookState,
    UpdateRule,
    flatten_latents,
    initialise_codebook,
    update_codebook,
)
from jukebox_deploy.models.vqvae import VQVAE, Reconstruction


class CodebookStep(NamedTuple):
    """What a step gives."""

    reconstruction: Reconstruction
    codebooks: dict[int, CodebookState]  # by level, as are the metrics
    metrics: dict[int, CodebookMetrics]


def codebook_step(
    model: VQVAE,
    audio: Tensor,
    states: Mapping[int, CodebookState | None],
    draw: CandidateDraw,
    rule: UpdateRule | None = None,
) -> CodebookStep:
    """Reconstruct audio with the codes of some levels and update these; a state of `None` begins with this audio."""
    current = {level: state or _initial(model, audio, level, draw) for level, state in states.items()}
    done = model.training_pass(audio, {level: state.codes for level, state in current.items()})
    updates = {n: update_codebook(state, done.uses[n], rule or UpdateRule(), draw) for n, state in current.items()}
    codebooks = {level: state for level, (state, _) in updates.items()}
    return CodebookStep(done.reconstruction, codebooks, {level: metrics for level, (_, metrics) in updates.items()})


def _initial(model: VQVAE, audio: Tensor, level: int, draw: CandidateDraw) -> CodebookState:
    rows = flatten_latents(model.encode_latents(audio, level).detach())
    return initialise_codebook(draw(rows, len(model.codebooks[level].codes)))  # type: ignore[arg-type]  # a buffer
