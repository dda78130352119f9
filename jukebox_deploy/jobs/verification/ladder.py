"""The rungs of a verification: comparisons with the PyTorch models, from single graphs to sound."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.contract import SLOT_GRAPHS, GraphKind, GraphSpec, Precision, graph_name, sizes_text
from jukebox_deploy.costs import tokens_per_second
from jukebox_deploy.engine import Engine
from jukebox_deploy.engines import quantised_weights
from jukebox_deploy.engines.bundle import EngineBundle
from jukebox_deploy.engines.device import Provider
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.onnxruntime.sessions import OnnxRuntimeOptions
from jukebox_deploy.engines.tensorrt.engine import TensorRtEngine
from jukebox_deploy.engines.tensorrt.features import TensorRtOptions
from jukebox_deploy.export.feeds import random_feed
from jukebox_deploy.export.validation import LIMITS, compare
from jukebox_deploy.graphs import GraphOptions, declare_graphs
from jukebox_deploy.jobs.comparison.difference import Arrays
from jukebox_deploy.jobs.comparison.error_statistics import error_statistics
from jukebox_deploy.jobs.comparison.graph_runs import run_graph
from jukebox_deploy.jobs.comparison.parity import (
    compare_graph,
    let_go,
    reference,
    sizes_to_compare,
    slots_to_compare,
)
from jukebox_deploy.jobs.comparison.quality import compare_logits, times_rounding
from jukebox_deploy.jobs.comparison.window_runs import (
    StretchPlace,
    WindowStretch,
    inputs_of_step,
    make_stretch,
    run_given_codes,
    run_greedy_codes,
)
from jukebox_deploy.jobs.opening.bundle import bundle_engine
from jukebox_deploy.jobs.opening.eager import eager_engine
from jukebox_deploy.jobs.quantised_export import measure_quality, worst_column
from jukebox_deploy.jobs.verification.origin import OriginFinder
from jukebox_deploy.jobs.verification.report import (
    Check,
    CheckKind,
    check_of_error,
    check_of_share,
    check_of_tensors,
    not_run,
)
from jukebox_deploy.jobs.verification.weights import rounded_weights
from jukebox_deploy.training.metrics import error_energy

_Result = TypeVar("_Result")

SOUND_LIMIT = -20 * math.log10(LIMITS[Precision.FP32].relative_error)
"""Least signal-to-error ratio of the audio in decibels: 100. The decoder is fp32 in every bundle."""


@dataclass(frozen=True)
class VerifyRequest:
    """What to compare."""

    graphs: tuple[str, ...] = ()  # names; empty: all of the bundle
    windows: int = 1  # stretches per prior, spread over its window
    steps: int | None = None  # steps per stretch, at most to the window's end; `None`: across the next block boundary
    whole_windows: bool = False  # also step over every position of a window of each prior
    seed: int = 0
    tensorrt: TensorRtOptions | None = None  # how engines for TensorRT are run
    provider: str = Provider.CPU  # execution provider of ONNX Runtime, for ONNX graphs


class Ladder:
    """The checks of one bundle.

    `exported`: the ONNX bundle that engines were built from, if available. It supplies the quantised weights of the
    engines to the models, and allows a difference to be located layer by layer.
    """

    def __init__(
        self,
        bundle: EngineBundle,
        checkpoint: CheckpointBundle,
        request: VerifyRequest,
        exported: EngineBundle | None = None,
    ) -> None:
        manifest = bundle.manifest
        self.config = manifest.config
        self.checkpoint = checkpoint
        self.bundle = bundle
        self.request = request
        graphs = bundle if manifest.target is Target.ONNXRUNTIME else exported
        self.rounded = {} if graphs is None else rounded_weights(graphs)
        onnxruntime = OnnxRuntimeOptions(request.provider, round_activations=not self.rounded)
        self.found = bundle_engine(bundle, onnxruntime, request.tensorrt)
        platform = self.found.platform if isinstance(self.found, TensorRtEngine) else None
        self.origins = OriginFinder(checkpoint, graphs, self.rounded, platform)
        # The model computes the conditioning of windows, whether or not the bundle has those graphs.
        tables = declare_graphs(self.config, GraphOptions(manifest.precision)) | bundle.graphs
        open_model = partial(eager_engine, checkpoint, tables, manifest.precision, rounded=self.rounded)
        self.open_model: Callable[[], Engine] = reference(open_model, self.config)
        open_exact = partial(eager_engine, checkpoint, declare_graphs(self.config), rounded=self.rounded)
        self.open_exact: Callable[[], Engine] = reference(open_exact, self.config)  # the model in fp32

    def climb(self, specs: Mapping[str, GraphSpec]) -> Iterator[Check]:
        """Yield all checks that are possible with the graphs, graph by graph."""
        for spec in specs.values():
            yield from self.random_inputs(spec)
        for spec in specs.values():
            if spec.kind is GraphKind.STEP:
                yield from self.windows(spec)
                yield from self.quantised_weights(spec)
            if spec.kind is GraphKind.VQVAE_DECODE:
                yield self.sound(spec)

    def random_inputs(self, spec: GraphSpec) -> Iterator[Check]:
        """Check one graph on random inputs at two sizes."""
        if reason := self._reason_not_to_run(spec):
            yield not_run(spec.name, CheckKind.RANDOM_INPUTS, reason)
            return
        for sizes in sizes_to_compare(spec):
            rows = compare_graph(self.open_model, self.found, spec, sizes, self.request.seed, error_statistics)
            check = check_of_tensors(spec.name, CheckKind.RANDOM_INPUTS, sizes_text(sizes), rows)
            yield self._with_origin(check, spec, partial(self._random_feeds, spec, sizes))

    def _random_feeds(self, spec: GraphSpec, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
        return {t.name: random_feed(t, spec, self.config, dict(sizes), self.request.seed) for t in spec.inputs}

    def _with_origin(self, check: Check, spec: GraphSpec, feeds: Callable[[], Mapping[str, np.ndarray]]) -> Check:
        """Return a check; if it failed, with the place where the difference starts."""
        return replace(check, origin=self.origins.origin(spec, feeds(), check.tensors)) if check.failed else check

    def windows(self, spec: GraphSpec) -> Iterator[Check]:
        """Check prefill and steps of one prior."""
        if reason := self._reason_not_to_run(spec):
            yield from (not_run(spec.name, kind, reason) for kind in (CheckKind.GIVEN_CODES, CheckKind.GREEDY_CODES))
            return
        for stretch in self._stretches(spec):
            yield from self._given_codes(spec, stretch)
            yield self._greedy_codes(spec, stretch)

    def _stretches(self, spec: GraphSpec) -> Iterator[WindowStretch]:
        prior, slots, request = self.config.prior(spec.level), slots_to_compare(spec, 2), self.request
        for index in range(request.windows):
            place = StretchPlace(index, request.windows)
            stretch = make_stretch(self.open_model(), prior, place, slots, request.seed + index)
            yield stretch if request.steps is None else stretch.with_steps(request.steps, prior)
        if request.whole_windows:
            place = StretchPlace(0, 1)
            seed = request.seed + request.windows
            yield make_stretch(self.open_model(), prior, place, slots, seed).whole_window(prior)

    def quantised_weights(self, spec: GraphSpec) -> Iterator[Check]:
        """Check how much quantised weights differ from the checkpoint's, and how they change probabilities of codes."""
        facts = quantised_weights.facts_of(self.bundle.manifest.graphs[spec.name])
        if facts is None:
            return
        if spec.level in self.rounded:
            error, name = worst_column(self.checkpoint, spec.level, self.rounded[spec.level])
            # The same files give the same number, except for the order of summation.
            limit = 1.001 * facts["column_error"]
            measure = "relative error of a column"
            yield check_of_error(spec.name, CheckKind.QUANTISED_WEIGHTS, f"worst, of {name}", measure, error, limit)
        unmeasured = "" if facts["quality"] else "quality was not measured by the export, so there is no limit for it"
        if reason := self._reason_not_to_open(spec) or unmeasured:
            yield not_run(spec.name, CheckKind.PROBABILITIES, reason)
            return
        found = bundle_engine(self.bundle, OnnxRuntimeOptions(self.request.provider), self.request.tensorrt)
        quality = measure_quality(self.checkpoint, found, spec, self.request.seed)
        where = f"B={quality.slots}, {quality.positions} codes, top-1 {quality.top1_agreement:.1%}"
        limit = facts["quality"]["limit"]
        yield check_of_error(spec.name, CheckKind.PROBABILITIES, where, "nats of mean KL", quality.mean_kl, limit)

    def _reason_not_to_run(self, spec: GraphSpec) -> str:
        """Return why a graph cannot be compared with the model, tensor by tensor; empty if it can."""
        facts = quantised_weights.facts_of(self.bundle.manifest.graphs[spec.name])
        if facts is not None and spec.level not in self.rounded and spec.kind is not GraphKind.CONDITION:
            return (
                "its quantised weights are inside the engine; name the ONNX bundle that it was built from with --onnx"
            )
        return self._reason_not_to_open(spec)

    def _reason_not_to_open(self, spec: GraphSpec) -> str:
        """A step and a prefill are opened together."""
        needed = [graph_name(kind, spec.level) for kind in SLOT_GRAPHS] if spec.states else []
        missing = [name for name in needed if name not in self.found.graphs]
        return f"the bundle has no {missing[0]}" if missing else ""

    def _given_codes(self, spec: GraphSpec, stretch: WindowStretch) -> Iterator[Check]:
        """Check steps over given codes; the first check that fails tells where the difference starts."""
        expected, found = self._on_model_and_engine(partial(self._run_given_codes, spec, stretch))
        located = False
        for check in self._checks_of_given_codes(spec, stretch, expected, found):
            if located or not check.failed:
                yield check
                continue
            located = True
            worst = _worst_step(expected, found)
            yield self._with_origin(check, spec, partial(self._feeds_of_step, spec, stretch, worst))

    def _checks_of_given_codes(
        self, spec: GraphSpec, stretch: WindowStretch, expected: Arrays, found: Arrays
    ) -> Iterator[Check]:
        rows = compare(expected, found.items(), spec.precision, error_statistics)
        yield check_of_tensors(spec.name, CheckKind.GIVEN_CODES, _place_of(stretch), rows)
        if "logits" in expected:
            yield from self._probabilities(spec, stretch, expected["logits"], found["logits"])
            if (limit := LIMITS[spec.precision].times_rounding) is not None:
                yield self._rounding(spec, stretch, expected["logits"], found["logits"], limit)
        else:
            reason = "the step gives no logits; export it without --no-logits"
            yield from (not_run(spec.name, kind, reason) for kind in _kinds_from_logits(spec.precision))

    def _probabilities(
        self, spec: GraphSpec, stretch: WindowStretch, expected: np.ndarray, found: np.ndarray
    ) -> Iterator[Check]:
        quality, limits, where = compare_logits(expected, found), LIMITS[spec.precision], _place_of(stretch)
        yield check_of_error(spec.name, CheckKind.LOGITS, where, "nats of mean KL", quality.mean_kl, limits.mean_kl)
        share, limit = quality.top1_agreement, limits.top1_among(quality.positions)
        yield check_of_share(spec.name, CheckKind.TOP_1, where, "share of equal codes", share, limit)

    def _rounding(
        self, spec: GraphSpec, stretch: WindowStretch, expected: np.ndarray, found: np.ndarray, limit: float
    ) -> Check:
        """Check the error of logits beside the difference between the model in half precision and in fp32."""
        exact = self._run_given_codes(spec, stretch, self.open_exact())["logits"]
        let_go(self.config)
        times, measure = times_rounding(exact, expected, found), f"times what {spec.precision} costs"
        return check_of_error(spec.name, CheckKind.ROUNDING, _place_of(stretch), measure, times, limit)

    def _run_given_codes(self, spec: GraphSpec, stretch: WindowStretch, engine: Engine) -> Arrays:
        session = engine.prior_session(spec.level, stretch.slots)
        return run_given_codes(session, self.config.prior(spec.level), stretch)

    def _feeds_of_step(self, spec: GraphSpec, stretch: WindowStretch, steps: int, given: bool = True) -> Arrays:
        """Return the inputs of the model's step after a number of steps of a stretch."""
        session = self.open_model().prior_session(spec.level, stretch.slots)
        return inputs_of_step(session, self.config.prior(spec.level), stretch, steps, given)

    def _greedy_codes(self, spec: GraphSpec, stretch: WindowStretch) -> Check:
        prior = self.config.prior(spec.level)
        expected, found = self._on_model_and_engine(
            lambda engine: run_greedy_codes(engine.prior_session(spec.level, stretch.slots), prior, stretch)
        )
        equal = expected == found
        limit = LIMITS[spec.precision].equal_codes
        share, where = float(np.mean(equal)), _place_of(stretch)
        check = check_of_share(spec.name, CheckKind.GREEDY_CODES, where, "share of equal codes", share, limit)
        first = int(np.argmin(equal.all(axis=0)))
        return self._with_origin(check, spec, lambda: self._feeds_of_step(spec, stretch, first, given=False))

    def sound(self, spec: GraphSpec) -> Check:
        """Check about one second of audio, by its signal-to-error ratio in decibels."""
        length = min(spec.range("T").maximum, math.ceil(tokens_per_second(self.config.vqvae, spec.level)))
        sizes = {"B": slots_to_compare(spec, 1), "T": length}
        feeds = self._random_feeds(spec, sizes)
        expected, found = self._on_model_and_engine(
            lambda engine: dict(run_graph(engine, spec, sizes["B"], lambda tensor: feeds[tensor.name]))
        )
        ratio = signal_to_error(expected["audio"], found["audio"])
        check = check_of_share(spec.name, CheckKind.SOUND, f"{length} codes", "dB over error", ratio, SOUND_LIMIT)
        return self._with_origin(check, spec, lambda: feeds)

    def _on_model_and_engine(self, run: Callable[[Engine], _Result]) -> tuple[_Result, _Result]:
        """Return what the model gives and what the engine gives; a large model is freed in between."""
        expected = run(self.open_model())
        let_go(self.config)
        return expected, run(self.found)


def signal_to_error(expected: np.ndarray, found: np.ndarray) -> float:
    """Return the signal-to-error ratio in decibels; infinite for equal signals."""
    return error_energy(torch.from_numpy(expected), torch.from_numpy(found)).decibels


def _kinds_from_logits(precision: Precision) -> tuple[CheckKind, ...]:
    kinds = (CheckKind.LOGITS, CheckKind.TOP_1)
    return kinds if LIMITS[precision].times_rounding is None else (*kinds, CheckKind.ROUNDING)


def _worst_step(expected: Arrays, found: Arrays) -> int:
    """The step `[steps, B, V]` whose logits differ most; 0 if there are no logits."""
    if "logits" not in expected:
        return 0
    errors = np.abs(expected["logits"] - found["logits"]).max(axis=(1, 2))
    return int(np.argmax(np.where(np.isnan(errors), np.inf, errors)))


def _place_of(stretch: WindowStretch) -> str:
    return f"B={stretch.slots}, {stretch.steps} steps from {int(stretch.prefix.min())}"
