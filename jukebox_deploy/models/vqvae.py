"""The multi-level VQ-VAE: audio to codes and back. Its levels share nothing.

Everything is float32, because half precision cannot distinguish neighbouring codes.
Source: specification section 2; paper section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from jukebox_deploy.errors import AudioError
from jukebox_deploy.models.bottleneck import Codebook, CodebookUse, codebook_use, quantise
from jukebox_deploy.models.convolution import DecoderBlock, EncoderBlock
from jukebox_deploy.models.full_precision import full_precision


class Encoder(nn.Module):
    """Encoder of audio to the latents of one level; block 0 is next to the audio."""

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
    """Decoder of the latents of one level to audio; block 0 is next to the audio and runs last."""

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
    """Reconstructions of the audio by some of the levels."""

    levels: tuple[int, ...]  # the levels that made them
    audio: tuple[Tensor, ...]  # [B, 1, T] per level
    commit_losses: tuple[Tensor, ...]  # scalar per level


@dataclass(frozen=True)
class TrainingPass:
    """A reconstruction made in training, and the statistics for the update of the codebooks."""

    reconstruction: Reconstruction
    uses: dict[int, CodebookUse]  # by level


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
        return latents.to(audio.dtype)  # under autocast they are in half precision

    def encode(self, audio: Tensor, level: int) -> Tensor:
        """Audio `[B, 1, T]` in [-1, 1] -> codes `[B, T // hop]`."""
        return self._codebook(level).encode(self.encode_latents(audio, level))

    def decode(self, codes: Tensor, level: int) -> Tensor:
        """Codes `[B, T]` of one level -> audio `[B, 1, hop * T]`."""
        audio: Tensor = self.decoders[level](self._codebook(level).dequantise(codes))
        return audio

    def forward(self, audio: Tensor) -> Reconstruction:
        """Encode, quantise and decode audio `[B, 1, T]` with every level and its own codebook.

        Raises `AudioError` if `T` is not a multiple of every hop length.
        """
        levels = range(len(self.codebooks))
        latents = [self.encode_latents(audio, level) for level in levels]
        return self._reconstruct(audio, levels, latents, [self._codebook(level).codes for level in levels])

    def training_pass(self, audio: Tensor, codebooks: Mapping[int, Tensor]) -> TrainingPass:
        """Reconstruct audio `[B, 1, T]` with the given codes `[K, E]` by level; other levels are skipped.

        The codebook buffers of this module are neither read nor written. Raises `AudioError` if `T` is not a multiple
        of every hop length.
        """
        latents = [self.encode_latents(audio, level) for level in codebooks]
        codes = list(codebooks.values())
        reconstruction = self._reconstruct(audio, tuple(codebooks), latents, codes)
        uses = [codebook_use(x, k) for x, k in zip(latents, codes, strict=True)]
        return TrainingPass(reconstruction, dict(zip(codebooks, uses, strict=True)))

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
                    f"audio of {audio.shape[-1]} samples becomes {reconstruction.shape[-1]} samples at level {level}; "
                    "cut it to a multiple of the hop length."
                )
        return Reconstruction(tuple(levels), decoded, tuple(q.commit_loss for q in quantisations))
