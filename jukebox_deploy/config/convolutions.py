"""Configuration of the convolutional networks: the VQ-VAE, and the conditioner of an upsampler (specification 2, 9)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jukebox_deploy.config.checks import require, require_at_least, require_finite
from jukebox_deploy.listing import words_of


@dataclass(frozen=True)
class VQVAEConfig:
    """The multi-level VQ-VAE; every level has its own encoder, codebook and decoder."""

    sample_rate: int = 44_100  # Hz
    downs: tuple[int, ...] = (3, 2, 2)  # number of strided stages that each level adds
    strides: tuple[int, ...] = (2, 2, 2)  # stride of each of those stages, even
    multipliers: tuple[int, ...] = (2, 1, 1)  # factors of width and depth, per level
    width: int = 32  # channels of the residual stacks
    depth: int = 4  # residual blocks per stack
    embedding_width: int = 64  # channels of a codebook entry
    codebook_size: int = 2048
    convolution_ratio: float = 1.0  # inner over outer channels of a residual block
    dilation_growth: int = 3
    dilation_cycle: int | None = None
    reverse_decoder_dilation: bool = True

    def __post_init__(self) -> None:
        lengths = {len(self.downs), len(self.strides), len(self.multipliers)}
        require(len(lengths) == 1, "vqvae: downs, strides and multipliers need one entry per level each.")
        require(len(self.downs) > 0, "vqvae: there are no levels; give downs, strides and multipliers for each.")
        require_at_least(
            1,
            "vqvae",
            sample_rate=self.sample_rate,
            downs=min(self.downs),
            multipliers=min(self.multipliers),
            width=self.width,
            depth=self.depth,
            embedding_width=self.embedding_width,
            codebook_size=self.codebook_size,
        )
        even = all(stride >= 2 and stride % 2 == 0 for stride in self.strides)
        require(even, f"vqvae: strides must be even and at least 2, found {words_of(map(str, self.strides))}.")
        require_residual_blocks("vqvae", self.width * min(self.multipliers), self)

    @property
    def levels(self) -> int:
        """Number of levels."""
        return len(self.downs)

    def downsampling(self, level: int) -> int:
        """Codes of `level - 1` (for level 0: samples) per code of `level`."""
        return int(self.strides[level] ** self.downs[level])

    def hop_length(self, level: int) -> int:
        """Audio samples per code of `level`."""
        return math.prod(self.downsampling(m) for m in range(level + 1))

    @property
    def hop_lengths(self) -> tuple[int, ...]:
        """Audio samples per code, level 0 first."""
        return tuple(self.hop_length(level) for level in range(self.levels))

    def level_width(self, level: int) -> int:
        """Channels of the residual stacks of `level`."""
        return self.width * self.multipliers[level]

    def level_depth(self, level: int) -> int:
        """Residual blocks per stack of `level`."""
        return self.depth * self.multipliers[level]


@dataclass(frozen=True)
class ConditionerConfig:
    """The network of an upsampler that maps the codes of the level above to conditioning rows."""

    width: int
    depth: int
    stages: int  # number of transposed convolutions: `downs` of the level above
    stride: int
    dilation_growth: int = 3
    dilation_cycle: int | None = 8
    convolution_ratio: float = 1.0
    scale_residual: bool = False

    def __post_init__(self) -> None:
        require_at_least(1, "conditioner", width=self.width, depth=self.depth, stages=self.stages, stride=self.stride)
        require_residual_blocks("conditioner", self.width, self)

    @property
    def upsampling(self) -> int:
        """Codes of this level per code of the level above."""
        return int(self.stride**self.stages)


def require_residual_blocks(where: str, width: int, config: VQVAEConfig | ConditionerConfig) -> None:
    """Raise `ConfigError` unless residual blocks of that width can be built with these settings."""
    require_finite(where, convolution_ratio=config.convolution_ratio)
    inner = int(config.convolution_ratio * width)
    require(inner >= 1, f"{where}: convolution_ratio {config.convolution_ratio} leaves {width} channels none inside.")
    require_at_least(1, where, dilation_growth=config.dilation_growth, dilation_cycle=config.dilation_cycle)
