"""The convolution blocks of the VQ-VAE and of the upsamplers' conditioners.

Source: specification 2.2 to 2.4; paper section 3 and appendix A.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """`x + scale * outer(relu(inner(relu(x))))`; the inner convolution is dilated."""

    def __init__(self, width: int, inner_width: int, dilation: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.inner = nn.Conv1d(width, inner_width, 3, padding=dilation, dilation=dilation)
        self.outer = nn.Conv1d(inner_width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, width, T] -> [B, width, T]`."""
        update: Tensor = self.outer(torch.relu(self.inner(torch.relu(x))))
        return x + update if self.scale == 1.0 else x + self.scale * update


class ResidualStack(nn.Module):
    """Residual blocks with the given dilations, in the order in which they run."""

    def __init__(self, width: int, inner_width: int, dilations: Sequence[int], scale: float = 1.0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(width, inner_width, dilation, scale) for dilation in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, width, T] -> [B, width, T]`."""
        for block in self.blocks:
            x = block(x)
        return x


class EncoderStage(nn.Module):
    """A convolution that shortens by `stride`, then a residual stack."""

    def __init__(self, input_width: int, width: int, stride: int, residual: ResidualStack) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(input_width, width, 2 * stride, stride=stride, padding=stride // 2)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """`[B, input_width, T] -> [B, width, T // stride]`."""
        shortened: Tensor = self.residual(self.convolution(x))
        return shortened


class EncoderBlock(nn.Module):
    """`stages` times a strided convolution and a residual stack, then one convolution.

    Args:
        input_width: channels of the input.
        width: channels of the residual stacks.
        output_width: channels of the output.
        stages: number of strided convolutions.
        stride: stride of each of them; must be even.
        inner_width: channels inside a residual block.
        dilations: of the residual blocks of each stack.
    """

    def __init__(
        self,
        input_width: int,
        width: int,
        output_width: int,
        stages: int,
        stride: int,
        inner_width: int,
        dilations: Sequence[int],
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            EncoderStage(width if stage else input_width, width, stride, ResidualStack(width, inner_width, dilations))
            for stage in range(stages)
        )
        self.output = nn.Conv1d(width, output_width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, input_width, T] -> [B, output_width, T / stride**stages]`, rounded down stage by stage."""
        for stage in self.stages:
            x = stage(x)
        latents: Tensor = self.output(x)
        return latents


class DecoderStage(nn.Module):
    """A residual stack, then a transposed convolution that lengthens by `stride`."""

    def __init__(self, width: int, output_width: int, stride: int, residual: ResidualStack) -> None:
        super().__init__()
        self.residual = residual
        self.convolution = nn.ConvTranspose1d(width, output_width, 2 * stride, stride=stride, padding=stride // 2)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, width, T] -> [B, output_width, stride * T]`."""
        lengthened: Tensor = self.convolution(self.residual(x))
        return lengthened


class DecoderBlock(nn.Module):
    """One convolution, then `stages` times a residual stack and a transposed convolution.

    Args:
        input_width: channels of the input.
        width: channels of the residual stacks.
        output_width: channels of the output.
        stages: number of transposed convolutions.
        stride: stride of each of them; must be even.
        inner_width: channels inside a residual block.
        dilations: of the residual blocks of each stack, in the order in which they run.
        scale: factor of the update that a residual block adds.
    """

    def __init__(
        self,
        input_width: int,
        width: int,
        output_width: int,
        stages: int,
        stride: int,
        inner_width: int,
        dilations: Sequence[int],
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.input = nn.Conv1d(input_width, width, 3, padding=1)
        self.stages = nn.ModuleList(
            DecoderStage(
                width,
                output_width if stage == stages - 1 else width,
                stride,
                ResidualStack(width, inner_width, dilations, scale),
            )
            for stage in range(stages)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, input_width, T] -> [B, output_width, stride**stages * T]`."""
        x = self.input(x)
        for stage in self.stages:
            x = stage(x)
        return x
