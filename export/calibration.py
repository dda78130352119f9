"""Quantisation of a prior layer by layer, each on the outputs of the quantised layers before it.

The weights of only one layer are in memory at a time. The calibration windows go through the stack as whole sequences.
Each linear part of a layer is quantised on its inputs just before it runs, and then runs with the quantised weights.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from jukebox_deploy.checkpoints.layout import without_weights
from jukebox_deploy.checkpoints.tensors import TensorSource
from jukebox_deploy.config import PriorConfig
from jukebox_deploy.export.gptq import quantise_with_feedback, second_moments
from jukebox_deploy.export.quantisation import QuantisedWeight, WeightFormat, quantise
from jukebox_deploy.models.builders import build_prior
from jukebox_deploy.models.prior import Prior
from jukebox_deploy.models.transformer import Projection, Transformer

_LAYERS = "transformer.layers."
_CORE, _LYRIC = "core.", "lyric_encoder."

NamedWeights = Iterator[tuple[str, QuantisedWeight]]
"""Names of parameters with their quantised weights, one after the other."""


@dataclass(frozen=True)
class CalibrationWindows:
    """Windows of known codes; `T` is a whole number of blocks."""

    codes: Tensor  # [B, T] ids of the stack's vocabulary
    start: Tensor | None  # [B, W]
    conditioning: Tensor | None  # [B, n, W]
    lyric_tokens: Tensor | None  # [B, L], for a separate lyric encoder


def quantise_nearest(
    source: TensorSource, names: Collection[str], form: WeightFormat, dtypes: dict[str, torch.dtype]
) -> NamedWeights:
    """Quantise weights without calibration, one after the other; `dtypes` are those of the scales."""
    for name in names:
        yield name, quantise(source.load(name), form, dtypes[name])


def quantise_calibrated(
    source: TensorSource,
    config: PriorConfig,
    windows: CalibrationWindows,
    form: WeightFormat,
    dtypes: dict[str, torch.dtype],
) -> NamedWeights:
    """Quantise the weights named in `dtypes` with error feedback on the windows; `dtypes` are those of the scales."""
    yield from _LayerByLayer(source, config, form, dtypes).run(windows)


class _LayerByLayer:
    """A prior in float32 whose layers have weights only while they are quantised."""

    def __init__(
        self, source: TensorSource, config: PriorConfig, form: WeightFormat, dtypes: dict[str, torch.dtype]
    ) -> None:
        self._source = source
        self._form = form
        self._dtypes = dtypes
        self._done: list[tuple[str, QuantisedWeight]] = []
        with without_weights():
            self._prior: Prior = build_prior(config)
        around = [n for n in self._prior.state_dict() if n.startswith((_CORE, _LYRIC)) and _LAYERS not in n]
        _fill(self._prior, "", source, around)

    def run(self, windows: CalibrationWindows) -> NamedWeights:
        """Yield the quantised weights, in the order in which the windows reach them."""
        core, states = self._prior.core, None
        with torch.inference_mode():
            rows = core.embed(windows.codes, windows.start, windows.conditioning)
        if (lyrics := self._prior.lyric_encoder) is not None:
            assert windows.lyric_tokens is not None
            with torch.inference_mode():
                lyric_rows = lyrics.core.embed(windows.lyric_tokens, None, None)
            lyric_rows = yield from self._stack(_LYRIC + _CORE + _LAYERS, lyrics.core.transformer, lyric_rows, None)
            with torch.inference_mode():
                states = lyrics.norm(lyrics.projection(lyric_rows))
        yield from self._stack(_CORE + _LAYERS, core.transformer, rows, states)

    def _stack(
        self, scope: str, stack: Transformer, rows: Tensor, states: Tensor | None
    ) -> Generator[tuple[str, QuantisedWeight], None, Tensor]:
        """Yield the quantised weights of a stack, and return its output, `[B, T, W]`."""
        for index, layer in enumerate(stack.typed_layers()):
            prefix = f"{scope}{index}."
            _fill(layer, prefix, self._source, list(layer.state_dict()))
            hooks = [
                part.register_forward_pre_hook(partial(self._quantise, f"{prefix}{name}.weight"))
                for name, part in layer.named_modules()
                if isinstance(part, Projection) and f"{prefix}{name}.weight" in self._dtypes
            ]
            with torch.inference_mode():
                rows = layer(rows, stack.geometry, states)
            for hook in hooks:
                hook.remove()
            yield from self._done
            self._done.clear()
            layer.to_empty(device="meta")
        return rows

    def _quantise(self, name: str, part: Projection, inputs: tuple[Tensor]) -> None:
        """Quantise a linear layer on the inputs that it is about to run on, and replace its weights."""
        moments = second_moments(inputs[0])
        quantised = quantise_with_feedback(part.weight, moments, self._form, self._dtypes[name])
        part.weight = nn.Parameter(quantised.dequantise().float(), requires_grad=False)
        self._done.append((name, quantised))


def _fill(module: nn.Module, prefix: str, source: TensorSource, names: list[str]) -> None:
    """Load the weights of a part of a model, in float32."""
    weights = {name: source.load(prefix + name).float() for name in names}
    module.load_state_dict(weights, strict=False, assign=True)
