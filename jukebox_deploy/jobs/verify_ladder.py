"""The rungs of a verification: what is compared with the eager models, from single graphs to sound."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.contract import GraphKind, GraphSpec, Precision
from jukebox_deploy.costs import tokens_per_second
from jukebox_deploy.engine import Engine
from jukebox_deploy.engines import quantised_weights
from jukebox_deploy.engines.bundle import EngineBundle
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.onnxruntime_build import is_ready
from jukebox_deploy.engines.onnxruntime_sessions import GraphFile, OnnxRuntimeOptions
from jukebox_deploy.engines.tensorrt_features import TensorRtOptions
from jukebox_deploy.errors import EngineError
from jukebox_deploy.export.feeds import random_feed
from jukebox_deploy.export.graph_modules import graph_module
from jukebox_deploy.export.validation import LIMITS, TensorParity, compare
from jukebox_deploy.export.weights import WeightFile, weights_of_graphs
from jukebox_deploy.graphs import GraphOptions, declare_graphs
from jukebox_deploy.jobs.bundle_opening import bundle_engine
from jukebox_deploy.jobs.difference import find_difference, first_difference
from jukebox_deploy.jobs.graph_runs import run_graph
from jukebox_deploy.jobs.opening import eager_engine, load_model
from jukebox_deploy.jobs.parity import (
    compare_graph,
    reason_not_to_run,
    reference,
    sizes_to_compare,
    slots_to_compare,
)
from jukebox_deploy.jobs.quality import compare_logits
from jukebox_deploy.jobs.quantised_export import largest_column_error, measure_quality
from jukebox_deploy.jobs.verify_report import Check, CheckKind, Outcome
from jukebox_deploy.jobs.window_runs import (
    StretchPlace,
    WindowStretch,
    make_stretch,
    run_given_codes,
    run_greedy_codes,
)
from jukebox_deploy.training.metrics import error_energy

SOUND_LIMIT = -20 * math.log10(LIMITS[Precision.FP32].relative_error)
"""Decibels by which the audio must exceed its error: 100. The decoder is fp32 in every bundle."""


@dataclass(frozen=True)
class VerifyRequest:
    """What to compare."""

    graphs: tuple[str, ...] = ()  # names; empty: all of the bundle
    windows: int = 1  # stretches per prior, spread over its window
    steps: int | None = None  # codes of a stretch, as far as the window goes; `None`: over the next border of blocks
    seed: int = 0
    tensorrt: TensorRtOptions | None = None  # how engines for TensorRT are run


class Ladder:
    """The checks of one bundle."""

    def __init__(self, bundle: EngineBundle, checkpoint: CheckpointBundle, request: VerifyRequest) -> None:
        manifest = bundle.manifest
        self.config = manifest.config
        self.precision = manifest.precision
        self.checkpoint = checkpoint
        self.bundle = bundle
        self.request = request
        self.on_cpu = manifest.target is Target.ONNXRUNTIME
        self.rounded = rounded_weights(bundle) if self.on_cpu else {}
        onnxruntime = OnnxRuntimeOptions(round_activations=not self.rounded)
        self.found = bundle_engine(bundle, onnxruntime, request.tensorrt)
        # What conditions a window is worked out by the model, whether or not the bundle has those graphs.
        tables = declare_graphs(manifest.config, GraphOptions(manifest.precision)) | bundle.graphs
        open_model = partial(eager_engine, checkpoint, tables, manifest.precision, rounded=self.rounded)
        self.open_model: Callable[[], Engine] = reference(open_model, manifest.config)

    def climb(self, specs: Mapping[str, GraphSpec]) -> Iterator[Check]:
        """All checks that the graphs allow, graph by graph."""
        for spec in specs.values():
            yield from self.random_inputs(spec)
        for spec in specs.values():
            if spec.kind is GraphKind.STEP:
                yield from self.windows(spec)
                yield from self.quantised_weights(spec)
            if spec.kind is GraphKind.VQVAE_DECODE:
                yield self.sound(spec)

    def random_inputs(self, spec: GraphSpec) -> Iterator[Check]:
        """One graph at two sizes."""
        if reason := self._reason_not_to_run(spec):
            yield not_run(spec.name, CheckKind.RANDOM_INPUTS, reason)
            return
        for sizes in sizes_to_compare(spec):
            rows = compare_graph(self.open_model, self.found, spec, sizes, self.precision, self.request.seed)
            where = ", ".join(f"{symbol}={size}" for symbol, size in sizes.items())
            check = _of_tensors(spec.name, CheckKind.RANDOM_INPUTS, where, rows)
            failed = check.outcome is Outcome.FAILED
            yield replace(check, origin=self._origin(spec, sizes, rows)) if failed else check

    def _origin(self, spec: GraphSpec, sizes: Mapping[str, int], rows: list[TensorParity]) -> str:
        """The layer where a graph begins to differ; of an engine, which has no insides, the first output."""
        if not self.on_cpu:
            return first_difference(rows)
        feeds = {t.name: random_feed(t, spec, self.config, dict(sizes), self.request.seed) for t in spec.inputs}
        model = load_model(self.checkpoint, spec.model_level, self.precision, self.rounded.get(spec.model_level))
        tables = self.bundle.parts.get(spec.name) or (spec,)
        pieces = [GraphFile.read(table, self.bundle.paths[table.name]) for table in tables]
        return str(find_difference(pieces, graph_module(spec, model), feeds, self.precision))

    def windows(self, spec: GraphSpec) -> Iterator[Check]:
        """Prefill and steps of one prior."""
        if reason := self._reason_not_to_run(spec):
            yield from (not_run(spec.name, kind, reason) for kind in (CheckKind.GIVEN_CODES, CheckKind.GREEDY_CODES))
            return
        prior = self.config.prior(spec.level)
        slots = slots_to_compare(spec, 2)
        for index in range(self.request.windows):
            place = StretchPlace(index, self.request.windows)
            stretch = make_stretch(self.open_model(), prior, place, slots, self.request.seed + index)
            if self.request.steps is not None:
                stretch = stretch.with_steps(self.request.steps, prior)
            yield from self._given_codes(spec, stretch)
            yield self._greedy_codes(spec, stretch)

    def quantised_weights(self, spec: GraphSpec) -> Iterator[Check]:
        """How far the quantised weights of a prior are from the checkpoint's, and what that does to its codes."""
        facts = quantised_weights.facts_of(self.bundle.manifest.graphs[spec.name])
        if facts is None:
            return
        if spec.level in self.rounded:
            error = largest_column_error(self.checkpoint, spec.level, self.rounded[spec.level])
            # The same files give the same number, but for the order of additions.
            limit = 1.001 * facts["column_error"]
            measure = "relative error of a column"
            yield _of_value(spec.name, CheckKind.QUANTISED_WEIGHTS, "worst column", measure, error, limit)
        unmeasured = "" if facts["quality"] else "quality was not measured by the export, so there is no limit for it"
        if reason := self._reason_not_to_open(spec) or unmeasured:
            yield not_run(spec.name, CheckKind.PROBABILITIES, reason)
            return
        quality = measure_quality(
            self.checkpoint, bundle_engine(self.bundle, tensorrt=self.request.tensorrt), spec, self.request.seed
        )
        where = f"B={quality.slots}, {quality.positions} codes, top-1 {quality.top1_agreement:.1%}"
        limit = facts["quality"]["limit"]
        yield _of_value(spec.name, CheckKind.PROBABILITIES, where, "nats of mean KL", quality.mean_kl, limit)

    def _reason_not_to_run(self, spec: GraphSpec) -> str:
        """Why a graph cannot be compared with the model, tensor by tensor; empty if it can."""
        facts = quantised_weights.facts_of(self.bundle.manifest.graphs[spec.name])
        if facts is not None and spec.level not in self.rounded:
            return "its quantised weights are inside the engine; verify the ONNX bundle that it was built from"
        return self._reason_not_to_open(spec)

    def _reason_not_to_open(self, spec: GraphSpec) -> str:
        """A step and a prefill are opened together."""
        needed = (GraphKind.PREFILL, GraphKind.STEP) if spec.states else ()
        missing = [name for kind in needed if (name := f"{kind}_{spec.level}") not in self.found.graphs]
        if missing:
            return f"the bundle has no {missing[0]}"
        return reason_not_to_run(spec) if self.on_cpu else ""

    def _given_codes(self, spec: GraphSpec, stretch: WindowStretch) -> Iterator[Check]:
        prior = self.config.prior(spec.level)
        expected, found = (
            run_given_codes(engine.prior_session(spec.level, stretch.slots), prior, stretch)
            for engine in self._model_then_engine()
        )
        rows = compare(expected, found.items(), self.precision)
        yield _of_tensors(spec.name, CheckKind.GIVEN_CODES, _place_of(stretch), rows)
        if "logits" in expected:
            quality = compare_logits(expected["logits"], found["logits"])
            where = f"{_place_of(stretch)}, top-1 {quality.top1_agreement:.1%}"
            limit = LIMITS[self.precision].mean_kl
            yield _of_value(spec.name, CheckKind.LOGITS, where, "nats of mean KL", quality.mean_kl, limit)

    def _greedy_codes(self, spec: GraphSpec, stretch: WindowStretch) -> Check:
        prior = self.config.prior(spec.level)
        expected, found = (
            run_greedy_codes(engine.prior_session(spec.level, stretch.slots), prior, stretch)
            for engine in self._model_then_engine()
        )
        agreement = float(np.mean(expected == found))
        limit = LIMITS[self.precision].equal_codes
        outcome = Outcome.PASSED if limit is None or agreement >= limit else Outcome.FAILED
        where = _place_of(stretch)
        return Check(spec.name, CheckKind.GREEDY_CODES, where, outcome, "share of equal codes", agreement, limit)

    def sound(self, spec: GraphSpec) -> Check:
        """About a second of audio, as decibels of signal over error."""
        (codes,) = [r for r in spec.ranges if r.symbol == "T"]
        length = min(codes.maximum, math.ceil(tokens_per_second(self.config.vqvae, spec.level)))
        sizes = {"B": slots_to_compare(spec, 1), "T": length}
        expected, found = (
            dict(
                run_graph(
                    engine, spec, sizes["B"], lambda t: random_feed(t, spec, self.config, sizes, self.request.seed)
                )
            )
            for engine in self._model_then_engine()
        )
        ratio = signal_to_error(expected["audio"], found["audio"])
        outcome = Outcome.PASSED if ratio >= SOUND_LIMIT else Outcome.FAILED
        return Check(spec.name, CheckKind.SOUND, f"{length} codes", outcome, "dB over error", ratio, SOUND_LIMIT)

    def _model_then_engine(self) -> Iterator[Engine]:
        yield self.open_model()
        yield self.found


def not_run(graph: str, kind: CheckKind, reason: str) -> Check:
    """A check that says why it was not made."""
    return Check(graph, kind, "", Outcome.NOT_RUN, reason=reason)


def signal_to_error(expected: np.ndarray, found: np.ndarray) -> float:
    """Energy of a signal over that of the error, in decibels; infinite for equal signals."""
    return error_energy(torch.from_numpy(expected), torch.from_numpy(found)).decibels


def rounded_weights(bundle: EngineBundle) -> dict[int | None, WeightFile]:
    """By level, the weight files of the priors that have quantised ones; `EngineError` if those were turned."""
    manifest = bundle.manifest
    if any(is_ready(entry) for entry in manifest.graphs.values()):
        raise EngineError(
            f"{bundle.folder} was made ready for ONNX Runtime, bit for bit what the exported graphs are; verify those."
        )
    quantised = [e.spec for e in manifest.graphs.values() if quantised_weights.facts_of(e) is not None]
    return {
        level: weights_of_graphs(
            bundle.folder / piece.file
            for entry in manifest.graphs.values()
            for piece in entry.pieces
            if entry.spec.model_level == level
        )
        for level in {spec.model_level for spec in quantised}
    }


def _of_value(graph: str, kind: CheckKind, where: str, measure: str, value: float, limit: float) -> Check:
    outcome = Outcome.PASSED if value <= limit else Outcome.FAILED
    return Check(graph, kind, where, outcome, measure, value, limit)


def _of_tensors(graph: str, kind: CheckKind, where: str, rows: list[TensorParity]) -> Check:
    """The check that the worst of its tensors makes."""
    worst = max(rows, key=lambda row: (not row.holds, row.relative_error))
    outcome = Outcome.PASSED if worst.holds else Outcome.FAILED
    measure = f"relative error of {worst.tensor}"
    return Check(graph, kind, where, outcome, measure, worst.relative_error, worst.tolerance, tuple(rows))


def _place_of(stretch: WindowStretch) -> str:
    return f"B={stretch.slots}, {stretch.steps} steps from {int(stretch.prefix.min())}"
