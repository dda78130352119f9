"""Receptive fields of the convolutional encoders and decoders, by exact interval arithmetic (pure Python).

They allow a long song to be encoded or decoded in chunks: a chunk with this much context on either side gives the same
codes or samples as the whole song, up to float rounding. Source: specification 2.2 to 2.4 and 2.7.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from jukebox_deploy.config import VQVAEConfig
from jukebox_deploy.errors import ConfigError


@dataclass(frozen=True)
class ReceptiveField:
    """Numbers of positions needed before and after a position itself."""

    before: int
    after: int


@dataclass(frozen=True)
class _Interval:
    """Positions `first` to `last`, both included."""

    first: int
    last: int


@dataclass(frozen=True)
class _Convolution:
    kernel: int
    stride: int = 1
    dilation: int = 1
    padding: int = 0

    def inputs(self, outputs: _Interval) -> _Interval:
        """Return the input positions that these output positions depend on."""
        reach = (self.kernel - 1) * self.dilation
        return _Interval(self.stride * outputs.first - self.padding, self.stride * outputs.last - self.padding + reach)


@dataclass(frozen=True)
class _TransposedConvolution:
    kernel: int
    stride: int
    padding: int

    def inputs(self, outputs: _Interval) -> _Interval:
        """Return the input positions that these output positions depend on."""
        first = -((self.kernel - 1 - self.padding - outputs.first) // self.stride)  # rounded up
        return _Interval(first, (outputs.last + self.padding) // self.stride)


_Layer = _Convolution | _TransposedConvolution


def residual_dilations(depth: int, growth: int, cycle: int | None = None, reverse: bool = False) -> tuple[int, ...]:
    """Return the dilation of every residual block of a stack, in the order in which they run (specification 2.4)."""
    dilations = tuple(growth ** (i % cycle if cycle else i) for i in range(depth))
    return dilations[::-1] if reverse else dilations


def encoder_receptive_field(config: VQVAEConfig, level: int) -> ReceptiveField:
    """Return how many audio samples before and after its first sample a code depends on."""
    needed = _trace_back(_encoder_layers(config, _checked(config, level)), _Interval(0, 0))
    return ReceptiveField(before=-needed.first, after=needed.last)


def decoder_receptive_field(config: VQVAEConfig, level: int) -> ReceptiveField:
    """Return how many codes on either side of a code its `hop_length` samples depend on."""
    samples = _Interval(0, config.hop_length(_checked(config, level)) - 1)
    needed = _trace_back(_decoder_layers(config, level), samples)
    return ReceptiveField(before=-needed.first, after=needed.last)


def _checked(config: VQVAEConfig, level: int) -> int:
    if not 0 <= level < config.levels:
        raise ConfigError(f"there is no level {level}: the VQ-VAE has levels 0 to {config.levels - 1}; choose one.")
    return level


def _trace_back(layers: Iterable[_Layer], outputs: _Interval) -> _Interval:
    """Return the inputs of the first layer that the outputs of the last layer depend on."""
    for layer in reversed(list(layers)):
        outputs = layer.inputs(outputs)
    return outputs


def _residual_layers(config: VQVAEConfig, level: int) -> list[_Layer]:
    """Return the stack's kernel-3 convolutions: their order and kernel-1 convolutions do not change the reach."""
    dilations = residual_dilations(config.level_depth(level), config.dilation_growth, config.dilation_cycle)
    return [_Convolution(3, dilation=dilation, padding=dilation) for dilation in dilations]


def _encoder_layers(config: VQVAEConfig, level: int) -> Iterator[_Layer]:
    for block in range(level + 1):
        stride = config.strides[block]
        for _ in range(config.downs[block]):
            yield _Convolution(2 * stride, stride=stride, padding=stride // 2)
            yield from _residual_layers(config, level)
        yield _Convolution(3, padding=1)


def _decoder_layers(config: VQVAEConfig, level: int) -> Iterator[_Layer]:
    for block in reversed(range(level + 1)):
        stride = config.strides[block]
        yield _Convolution(3, padding=1)
        for _ in range(config.downs[block]):
            yield from _residual_layers(config, level)
            yield _TransposedConvolution(2 * stride, stride=stride, padding=stride // 2)
    yield _Convolution(3, padding=1)
