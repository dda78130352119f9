"""The multi-level VQ-VAE: audio to codes and back. Levels share nothing.

Everything is float32; codes near each other are not told apart in half precision.
Source: specification section 2; paper section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jukebox_deploy.errors import AudioError
from jukebox_deploy.models.bottleneck import (
    ALONE,
    CandidateDraw,
    Codebook,
    CodebookMetrics,
    CodebookState,
    Peers,
    UpdateRule,
    flatten_latents,
    initialise_codebook,
    quantise,
    update_codebook,
)
from jukebox_deploy.models.convolution import DecoderBlock, EncoderBlock
from jukebox_deploy.models.full_precision import full_precision


class Encoder(nn.Module):
    """Audio to latents of one level; block 0 is the one next to the audio."""

    def __init__(self, blocks: Sequence[EncoderBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, audio: Tensor) -> Tensor:
        """`[B, 1, T] -> [B, E, T // hop]`."""
        x = audio
        for block in self.blocks:
            x = block(x)
        return x


class Decoder(nn.Module):
    """Latents of one level to audio; block 0 is the one next to the audio and runs last."""

    def __init__(self, blocks: Sequence[DecoderBlock], embedding_width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.output = nn.Conv1d(embedding_width, 1, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """`[B, E, T] -> [B, 1, hop * T]`."""
        x = latents
        for block in reversed(self.blocks):
            x = block(x)
        with full_precision(x):
            audio: Tensor = self.output(x.to(self.output.weight.dtype))
        return audio


@dataclass(frozen=True)
class Reconstruction:
    """Attempts of some levels at the audio."""

    levels: tuple[int, ...]  # whose attempts these are
    audio: tuple[Tensor, ...]  # [B, 1, T] per level
    commit_losses: tuple[Tensor, ...]  # scalar per level


@dataclass(frozen=True)
class TrainingStep:
    """A reconstruction made while training, and what it taught the codebooks."""

    reconstruction: Reconstruction
    codebooks: dict[int, CodebookState]  # by level, for the next step
    metrics: dict[int, CodebookMetrics]  # by level


class VQVAE(nn.Module):
    """An encoder, a codebook and a decoder per level, level 0 (the finest) first."""

    def __init__(self, encoders: Sequence[Encoder], decoders: Sequence[Decoder], codebooks: Sequence[Codebook]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.decoders = nn.ModuleList(decoders)
        self.codebooks = nn.ModuleList(codebooks)

    def encode_latents(self, audio: Tensor, level: int) -> Tensor:
        """Audio `[B, 1, T]` in [-1, 1] -> latents `[B, E, T // hop]`, not quantised."""
        latents: Tensor = self.encoders[level](audio)
        return latents.to(audio.dtype)  # which autocast may have lowered

    def encode(self, audio: Tensor, level: int) -> Tensor:
        """Audio `[B, 1, T]` in [-1, 1] -> codes `[B, T // hop]`."""
        return self._codebook(level).encode(self.encode_latents(audio, level))

    def decode(self, codes: Tensor, level: int) -> Tensor:
        """Codes `[B, T]` of one level -> audio `[B, 1, hop * T]`."""
        audio: Tensor = self.decoders[level](self._codebook(level).dequantise(codes))
        return audio

    def forward(self, audio: Tensor) -> Reconstruction:
        """Encode, quantise and decode audio `[B, 1, T]` with every level and its own codebook.

        Raises `AudioError` where `T` is not a multiple of every hop.
        """
        levels = range(len(self.codebooks))
        latents = [self.encode_latents(audio, level) for level in levels]
        return self._reconstruct(audio, levels, latents, [self._codebook(level).codes for level in levels])

    def training_step(
        self,
        audio: Tensor,
        states: Mapping[int, CodebookState | None],
        rule: UpdateRule,
        draw: CandidateDraw,
        peers: Peers = ALONE,
    ) -> TrainingStep:
        """Reconstruct audio `[B, 1, T]` with the states' codes, and let the codebooks learn from it.

        `states`: by the levels that are trained; other levels do nothing. A state of `None` is initialised
        from this batch. The buffers of this module are neither read nor written; see `store_codebooks`.
        `draw` picks the latents at which codes (re)start, the same for all of the `peers`, whose codebooks
        learn together. Raises `AudioError` where `T` is not a multiple of every hop.
        """
        latents = [self.encode_latents(audio, level) for level in states]
        current = [
            state or initialise_codebook(draw(flatten_latents(x.detach()), self._codebook(level).codes.shape[0]))
            for (level, state), x in zip(states.items(), latents, strict=True)
        ]
        # The output uses the codes from before the update.
        reconstruction = self._reconstruct(audio, tuple(states), latents, [state.codes for state in current])
        updates = [update_codebook(state, x, rule, draw, peers) for state, x in zip(current, latents, strict=True)]
        codebooks = {level: state for level, (state, _) in zip(states, updates, strict=True)}
        metrics = {level: metric for level, (_, metric) in zip(states, updates, strict=True)}
        return TrainingStep(reconstruction, codebooks, metrics)

    @torch.no_grad()
    def store_codebooks(self, states: Mapping[int, CodebookState]) -> None:
        """Copy trained codes, by level, into the module, for encoding, decoding and saving."""
        for level, state in states.items():
            self._codebook(level).codes.copy_(state.codes)

    def _codebook(self, level: int) -> Codebook:
        codebook = self.codebooks[level]
        assert isinstance(codebook, Codebook)
        return codebook

    def _reconstruct(
        self, audio: Tensor, levels: Sequence[int], latents: Sequence[Tensor], codebooks: Sequence[Tensor]
    ) -> Reconstruction:
        quantisations = [quantise(x, codes) for x, codes in zip(latents, codebooks, strict=True)]
        decoded = tuple(self.decoders[level](q.latents) for level, q in zip(levels, quantisations, strict=True))
        for level, reconstruction in zip(levels, decoded, strict=True):
            if reconstruction.shape != audio.shape:
                raise AudioError(
                    f"audio of {audio.shape[-1]} samples does not come back whole from level {level} "
                    f"({reconstruction.shape[-1]} samples); cut it to a multiple of the hop length."
                )
        return Reconstruction(tuple(levels), decoded, tuple(q.commit_loss for q in quantisations))
