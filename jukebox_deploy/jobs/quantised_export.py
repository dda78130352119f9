"""Quantised weights of an export: the request, making the weights, and judging their quality."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.checkpoints.components import component_configs, component_name
from jukebox_deploy.checkpoints.layout import component_shapes
from jukebox_deploy.config import PriorConfig
from jukebox_deploy.contract import GraphSpec, LinearWeights, Precision
from jukebox_deploy.engine import Engine
from jukebox_deploy.errors import ExportError, ParityError, SamplingError
from jukebox_deploy.export.calibration import NamedWeights, quantise_calibrated, quantise_nearest
from jukebox_deploy.export.linear_layers import LinearChoice, choose_layers
from jukebox_deploy.export.quantisation import WeightFormat, column_error
from jukebox_deploy.export.weights import RawTensor, WeightFile, quantised_tensors
from jukebox_deploy.graphs import GraphOptions, declare_graphs, declare_step
from jukebox_deploy.jobs.comparison.forced_windows import (
    ForcedWindows,
    require_songs,
    sample_windows,
    song_windows,
    whole_blocks,
)
from jukebox_deploy.jobs.comparison.quality import Quality, compare_logits, logits_of
from jukebox_deploy.jobs.opening.eager import eager_engine
from jukebox_deploy.runtime.store import find_songs

MAX_KL = {LinearWeights.INT8: 0.01, LinearWeights.INT4: 0.05, LinearWeights.FP8: 0.05}
"""Mean KL divergence in nats, from the checkpoint's own weights, above which an export is rejected."""

MEASURED_CODES = 128
"""Codes per slot for measuring quality."""

_CALIBRATION_CODES = 4096
_SLOTS = 4
_SAMPLING_MEMORY = 4 << 30  # largest size in bytes of the slots used for sampling


class Calibration(StrEnum):
    """The calibration data: codes on which the inputs of linear layers are observed."""

    NONE = "none"
    SELF = "self"  # codes that the model samples
    SONGS = "songs"  # codes of song folders


@dataclass(frozen=True)
class QuantisationRequest:
    """How the weights of linear layers are stored."""

    weights: LinearWeights = LinearWeights.AS_PRECISION
    keep: tuple[str, ...] = ()  # layers that are not quantised, see `choose_layers`
    calibration: Calibration | None = None  # `None`: SELF for int4, which needs it, else NONE
    songs: tuple[Path, ...] = ()
    max_kl: float | None = None  # `None`: `MAX_KL`
    judge_quality: bool = True  # whether to compare a step with the checkpoint's weights, and apply the limit

    def __post_init__(self) -> None:
        """Raises `ExportError` for settings that would have no effect."""
        choices = self.keep or self.calibration or self.max_kl is not None or not self.judge_quality
        if self.weights is LinearWeights.AS_PRECISION and choices:
            raise ExportError("keeping layers, calibration and quality are for quantised weights; add --weights int8.")
        if self.max_kl is not None and not self.judge_quality:
            raise ExportError("a limit is for a quality that is measured; give either, a limit or no measurement.")
        if bool(self.songs) != (self.calibration is Calibration.SONGS):
            raise ExportError("calibration on songs needs song folders, and nothing else takes them.")

    @property
    def chosen_calibration(self) -> Calibration:
        """The calibration data, with the default resolved."""
        return self.calibration or (Calibration.SELF if self.weights is LinearWeights.INT4 else Calibration.NONE)

    @property
    def limit(self) -> float:
        """The largest accepted mean KL divergence, in nats."""
        return MAX_KL[self.weights] if self.max_kl is None else self.max_kl


@dataclass(frozen=True)
class Quantiser:
    """Makes and judges the quantised weights of one checkpoint."""

    checkpoint: CheckpointBundle
    request: QuantisationRequest
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises `ExportError` for unknown layers to keep, and if no layer is left to quantise."""
        choices = self.choices.values()
        kept, unfit = sum(len(choice.kept) for choice in choices), sum(len(choice.unfit) for choice in choices)
        if kept + unfit and not any(choice.quantised for choice in choices):
            raise ExportError(
                f"nothing is left to store as {self.request.weights} in any prior: of {kept + unfit} linear layers "
                f"--keep leaves {kept} in the precision, and {unfit} have no whole groups of inputs. Keep fewer, or "
                "leave out --weights."
            )

    def require_songs(self, levels: Iterable[int]) -> None:
        """Raise `SamplingError` for a song of the request that cannot calibrate the priors of these levels."""
        config = self.checkpoint.config
        require_songs(config, map(config.prior, levels), self.request.songs)

    @cached_property
    def choices(self) -> Mapping[str, LinearChoice]:
        """Which linear layers of each prior are quantised, by component."""
        priors = {
            name: component_shapes(part)
            for name, part in component_configs(self.checkpoint.config).items()
            if isinstance(part, PriorConfig)
        }
        return choose_layers(priors, self.form, self.request.keep)

    @cached_property
    def form(self) -> WeightFormat:
        """How the weights are stored."""
        return WeightFormat.of(self.request.weights)

    def choice(self, level: int | None) -> LinearChoice:
        """Return which linear layers of a prior are quantised; for the VQ-VAE (`None`), none."""
        return self.choices.get(component_name(level), LinearChoice())

    def tensors(self, level: int, dtypes: Mapping[str, torch.dtype]) -> Iterator[RawTensor]:
        """Yield the quantised values and scales of a prior's weights; `dtypes` are those of the scales."""
        if not dtypes:  # skip calibration, which would sample in vain
            return
        for name, weight in self._weights(level, dict(dtypes)):
            yield from quantised_tensors(name, weight, self.form)

    def _weights(self, level: int, dtypes: dict[str, torch.dtype]) -> NamedWeights:
        source = self.checkpoint.tensors(component_name(level))
        if self.request.chosen_calibration is Calibration.NONE:
            return quantise_nearest(source, dtypes, self.form, dtypes)
        prior = self.checkpoint.config.prior(level)
        return quantise_calibrated(source, prior, self._calibration(prior).calibration(), self.form, dtypes)

    def _calibration(self, prior: PriorConfig) -> ForcedWindows:
        slots = sampling_slots(prior)
        model = reference_engine(self.checkpoint, slots)
        if self.request.chosen_calibration is Calibration.SONGS:
            count = -(-_CALIBRATION_CODES // prior.window)
            return song_windows(model, prior, self.checkpoint.vocabulary, self.request.songs, count)
        length = whole_blocks(prior, _CALIBRATION_CODES // slots)
        windows, _ = sample_windows(model, prior, slots, length, self.seed + 1)
        return windows

    def judge(self, found: Engine, step: GraphSpec) -> Quality:
        """Compare an exported step, as it runs, with the checkpoint's own weights.

        Raises `ParityError` if a prior with quantised weights exceeds the limit of the request.
        """
        quality = measure_quality(self.checkpoint, found, step, self.seed)
        if self.choice(step.level).quantised and not quality.mean_kl <= self.request.limit:
            raise ParityError(self._refusal(step, quality))
        return quality

    def _refusal(self, step: GraphSpec, quality: Quality) -> str:
        remedies = ["Keep sensitive layers with --keep"]
        if self.request.chosen_calibration is not Calibration.SONGS:
            remedies.append("calibrate on songs with --calibrate")
        if self.request.weights is not LinearWeights.INT8:
            remedies.append("choose int8")
        return (
            f"{step.name}: with {self.request.weights} weights the probabilities of codes are off by a mean of "
            f"{quality.mean_kl:.3g} nats, allowed are {self.request.limit:g}; the most likely code stays the same at "
            f"{quality.top1_agreement:.0%} of {quality.positions} positions. {', '.join(remedies)}, or accept it with "
            "--max-kl."
        )

    def facts(self, level: int, stored: WeightFile | None, quality: Quality | None) -> dict[str, Any] | None:
        """Return the manifest entry on a prior's quantised weights; `None` if it has none.

        `quality`: the measured quality, if any.
        """
        if stored is None or not stored.quantised:
            return None
        choice = self.choice(level)
        return {
            "column_error": worst_column(self.checkpoint, level, stored)[0],
            "weights": str(self.request.weights),
            "calibration": str(self.request.chosen_calibration),
            "quantised": len(choice.quantised),
            "kept": list(choice.kept),
            "not_in_whole_groups": list(choice.unfit),
            "quality": None if quality is None else {**quality.to_json(), "limit": self.request.limit},
        }


def song_folders(folder: Path) -> tuple[Path, ...]:
    """Return a song folder, or all song folders in a folder. Raises `SamplingError` if there is none."""
    songs = find_songs(folder)
    if not songs:
        raise SamplingError(f"{folder} is neither `none`, `self` nor a folder with songs; `sample` makes some.")
    return songs


def slot_bytes(prior: PriorConfig) -> int:
    """Return the bytes per slot of the step in fp32."""
    return sum(tensor.bytes({"B": 1}) for tensor in declare_step(prior, GraphOptions()).tensors)


def sampling_slots(prior: PriorConfig) -> int:
    """Return the number of slots for sampling calibration data: several, if they fit into memory."""
    return max(1, min(2 * _SLOTS, _SAMPLING_MEMORY // slot_bytes(prior)))


def measured_slots(prior: PriorConfig, step: GraphSpec) -> int:
    """Return the number of slots for measuring quality: several, if they fit and the step allows it."""
    slots = step.range("B")
    return max(slots.minimum, min(_SLOTS, slots.maximum, _SAMPLING_MEMORY // slot_bytes(prior)))


def reference_engine(checkpoint: CheckpointBundle, slots: int) -> Engine:
    """Return the PyTorch model with the checkpoint's own weights, in fp32 and with logits."""
    tables = declare_graphs(checkpoint.config, GraphOptions(Precision.FP32, (1, slots, slots), logits=True))
    return eager_engine(checkpoint, tables)


def measure_quality(checkpoint: CheckpointBundle, found: Engine, step: GraphSpec, seed: int) -> Quality:
    """Compare an engine's step with the checkpoint's own weights in fp32, on codes sampled by the latter."""
    prior = checkpoint.config.prior(step.level)
    slots = measured_slots(prior, step)
    model = reference_engine(checkpoint, slots)
    windows, expected = sample_windows(model, prior, slots, whole_blocks(prior, MEASURED_CODES), seed)
    del model
    gc.collect()  # modules have reference cycles; avoids having two large models in memory
    return compare_logits(expected, logits_of(found, prior, windows))


def worst_column(checkpoint: CheckpointBundle, level: int, stored: WeightFile) -> tuple[float, str]:
    """Return the largest relative error of an output column of quantised weights, and the name of that weight."""
    source = checkpoint.tensors(component_name(level))
    errors = (
        (column_error(source.load(name), stored.load_quantised(name).dequantise()), name) for name in stored.quantised
    )
    return max(errors, default=(0.0, ""))
