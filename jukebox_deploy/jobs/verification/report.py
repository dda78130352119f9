"""The report of a verification, check by check, as text and as plain data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from jukebox_deploy.errors import NotVerifiedError, ParityError
from jukebox_deploy.export.validation import TensorParity


class Outcome(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    REPORTED = "reported"  # measured, without a limit
    NOT_RUN = "not run"


class CheckKind(StrEnum):
    """The rungs of the ladder from single graphs to sound."""

    RANDOM_INPUTS = "random inputs"  # one graph, all its outputs
    GIVEN_CODES = "given codes"  # prefill, then steps over codes that are given
    LOGITS = "logits"  # of these steps, compared as probabilities of codes
    TOP_1 = "top-1"  # the most likely code at each of these steps
    ROUNDING = "rounding"  # the error of these logits, beside what half precision costs this model
    GREEDY_CODES = "greedy codes"  # prefill, then steps that choose the most likely code
    QUANTISED_WEIGHTS = "quantised weights"  # as they are stored, against the checkpoint's
    PROBABILITIES = "probabilities"  # of codes: quantised weights as they run, against the checkpoint's
    SOUND = "sound"  # the decoder's audio
    BUILD = "parse and build"  # by TensorRT, where its engines cannot run
    ENGINE = "engine"  # by itself, where it cannot run


_OF_FILES = (CheckKind.QUANTISED_WEIGHTS, CheckKind.BUILD)
"""Kinds of checks that run no graph."""


@dataclass(frozen=True)
class Check:
    """One comparison of the engine with the model."""

    graph: str
    kind: CheckKind
    where: str  # at which sizes or positions
    outcome: Outcome
    measure: str = ""  # what `value` measures
    value: float = math.nan
    limit: float | None = None  # of the value; `None`: it is only reported
    tensors: tuple[TensorParity, ...] = ()
    reason: str = ""  # why it was not run
    origin: str = ""  # where the difference starts, if that was determined

    def to_json(self) -> dict[str, Any]:
        """Return plain data; numbers that JSON lacks (infinity, NaN) become null."""
        return {
            "graph": self.graph,
            "check": str(self.kind),
            "where": self.where,
            "outcome": str(self.outcome),
            "measure": self.measure,
            "value": _json_number(self.value),
            "limit": self.limit,
            "tensors": [_tensor_to_json(row) for row in self.tensors],
            "reason": self.reason,
            "origin": self.origin,
        }

    @property
    def failed(self) -> bool:
        """Whether the check found a difference beyond its limit."""
        return self.outcome is Outcome.FAILED

    def finding(self) -> tuple[str, str]:
        """Return the measured value and its limit as text."""
        if self.reason:
            return self.reason, ""
        value = "equal" if self.value == math.inf else f"{self.value:.3g}"
        return f"{value} {self.measure}", "" if self.limit is None else f"{self.limit:.3g}"

    def describe_failure(self) -> str:
        """Describe the failure: one line, and one for each tensor beyond its tolerance."""
        if self.reason:
            return f"  {self.graph}, {self.kind} at {self.where}: {self.reason}"
        misses = "".join(f"\n    {row}" for row in self.tensors if not row.holds)
        origin = f"\n    {self.origin}" if self.origin else ""
        return (
            f"  {self.graph}, {self.kind} at {self.where}: {self.measure} {self.value:.3g}, "
            f"limit {self.limit}{misses}{origin}"
        )


def not_run(graph: str, kind: CheckKind, reason: str) -> Check:
    """Return a check that was not run, with the reason."""
    return Check(graph, kind, "", Outcome.NOT_RUN, reason=reason)


def check_of_error(graph: str, kind: CheckKind, where: str, measure: str, value: float, limit: float) -> Check:
    """Return the check of a number that must not exceed its limit."""
    return Check(graph, kind, where, _outcome(value <= limit), measure, value, limit)


def check_of_share(graph: str, kind: CheckKind, where: str, measure: str, value: float, limit: float | None) -> Check:
    """Return the check of a number that must reach its limit, if it has one."""
    outcome = Outcome.REPORTED if limit is None else _outcome(value >= limit)
    return Check(graph, kind, where, outcome, measure, value, limit)


def check_of_tensors(graph: str, kind: CheckKind, where: str, rows: Sequence[TensorParity]) -> Check:
    """Return a check of several tensors, represented by the worst."""
    worst = max(rows, key=lambda row: (not row.holds, row.relative_error))
    measure = f"relative error of {worst.tensor}"
    return Check(graph, kind, where, _outcome(worst.holds), measure, worst.relative_error, worst.tolerance, tuple(rows))


def _outcome(holds: bool) -> Outcome:
    return Outcome.PASSED if holds else Outcome.FAILED


@dataclass(frozen=True)
class VerifyReport:
    """All checks of one engine bundle against one checkpoint."""

    bundle: str
    target: str
    precision: str
    checkpoint: str  # the fingerprint, the same on both sides
    files: Mapping[str, str]  # SHA-256 by file name; manifest and files agree
    tools: Mapping[str, str]  # versions of the tools used
    checks: tuple[Check, ...]

    @property
    def outcomes(self) -> dict[str, int]:
        """The number of checks by outcome; `reported` only if there are any."""
        counts = Counter(check.outcome for check in self.checks)
        return {str(outcome): counts[outcome] for outcome in Outcome if counts[outcome] or outcome != Outcome.REPORTED}

    @property
    def ran_engines(self) -> bool:
        """Whether a check ran any graph of the bundle itself, not of the ONNX bundle that it was built from."""
        replaced = {check.graph for check in self.checks if check.kind is CheckKind.ENGINE}
        return any(
            check.outcome is not Outcome.NOT_RUN and check.kind not in _OF_FILES and check.graph not in replaced
            for check in self.checks
        )

    def require(self) -> None:
        """Raise a `ParityError` that lists every failed check, tensor by tensor."""
        failures = [check.describe_failure() for check in self.checks if check.failed]
        if failures:
            lines = "\n".join(failures)
            raise ParityError(
                f"{self.bundle} disagrees with its checkpoint in {len(failures)} of {len(self.checks)} checks:\n{lines}"
            )

    def require_engines(self) -> None:
        """Raise a `NotVerifiedError` if no graph of the bundle itself ran."""
        if not self.ran_engines:
            raise NotVerifiedError(
                f"{self.bundle} is not verified: nothing in it ran on this machine, for the reasons in the report."
            )

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "bundle": self.bundle,
            "target": self.target,
            "precision": self.precision,
            "checkpoint": self.checkpoint,
            "files": dict(self.files),
            "tools": dict(self.tools),
            "outcomes": self.outcomes,
            "ran_engines": self.ran_engines,
            "checks": [check.to_json() for check in self.checks],
        }


def _tensor_to_json(row: TensorParity) -> dict[str, Any]:
    statistics = row.statistics or {}
    return {
        "tensor": row.tensor,
        "largest_error": _json_number(row.largest_error),
        "relative_error": _json_number(row.relative_error),
        "tolerance": row.tolerance,
        "holds": row.holds,
        "statistics": {name: _json_number(value) for name, value in statistics.items()},
    }


def _json_number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
