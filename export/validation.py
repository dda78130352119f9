"""Validation of exported graphs: ONNX's own structural checks, and comparison of numbers with the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jukebox_deploy.contract import GraphSpec, Precision
from jukebox_deploy.errors import ExportError, ParityError


@dataclass(frozen=True)
class Limits:
    """Tolerances for the difference between a graph and its model, which compute in the same precision."""

    relative_error: float  # largest error of a tensor over its largest value
    mean_kl: float  # nats; mean KL divergence of the probabilities of codes
    top1: float  # smallest share of positions with the same most likely code
    times_rounding: float | None  # largest error of logits, in multiples of what computing in this precision costs
    equal_codes: float | None  # smallest share of equal greedy codes; `None`: no limit, as rounding decides near ties

    def top1_among(self, positions: int) -> float:
        """The smallest share among this many positions: where any may differ, two may, however few there are."""
        return self.top1 if self.top1 == 1.0 else min(self.top1, 1.0 - 2 / positions)


LIMITS = {
    Precision.FP32: Limits(1e-5, 1e-8, 1.0, None, 1.0),
    Precision.FP16: Limits(1e-2, 1e-3, 0.95, 3.0, None),
    Precision.BF16: Limits(8e-2, 6e-2, 0.8, 3.0, None),  # rounding is 8 times as coarse, so KL grows about 64 times
}
"""Limits by a graph's own precision (`GraphSpec.precision`): the VQ-VAE and conditioning graphs are fp32 everywhere."""

Statistics = Mapping[str, float]
"""Statistics of one tensor's errors, by name."""


@dataclass(frozen=True)
class TensorParity:
    """The error of one tensor."""

    tensor: str
    largest_error: float  # absolute; for integers and booleans the share of unequal elements
    relative_error: float  # largest error over the largest expected value
    tolerance: float  # limit of the relative error
    statistics: Statistics | None = None  # statistics of all elements, if requested

    @property
    def holds(self) -> bool:
        """Whether the error is within the tolerance (NaN is not)."""
        return self.relative_error <= self.tolerance

    def __str__(self) -> str:
        return (
            f"{self.tensor}: error {self.largest_error:.3g}, "
            f"relative {self.relative_error:.3g}, allowed {self.tolerance:.3g}"
        )


def check_structure(path: Path, spec: GraphSpec) -> None:
    """Check a saved graph with ONNX's checker and strict shape inference, and its names against the declaration.

    Raises `ExportError`.
    """
    import onnx

    try:
        onnx.checker.check_model(str(path))
        model = onnx.load(path, load_external_data=False)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{spec.name}: the exported graph is not valid ONNX: {error}") from error
    _check_names(spec, "inputs", [v.name for v in model.graph.input], [t.input_name for t in spec.inputs])
    _check_names(spec, "outputs", [v.name for v in model.graph.output], [t.output_name for t in spec.outputs])


def _check_names(spec: GraphSpec, what: str, found: list[str], expected: list[str]) -> None:
    if found != expected:
        odd = sorted(set(found) ^ set(expected)) or "their order"
        raise ExportError(f"{spec.name}: the exported graph's {what} differ from the table in {odd}.")


def compare(
    expected: Mapping[str, np.ndarray],
    found: Iterable[tuple[str, np.ndarray]],
    precision: Precision,
    measure: Callable[[np.ndarray, np.ndarray], Statistics] | None = None,
) -> list[TensorParity]:
    """Compare arrays by name, one after the other as `found` yields them; integers and booleans must be equal.

    `measure` computes further statistics of each tensor. Raises `ParityError` for names or shapes that differ.
    """
    rows = []
    for name, array in found:
        row = _compare(name, expected[name], array, precision)
        rows.append(row if measure is None else replace(row, statistics=measure(expected[name], array)))
    if missing := set(expected) - {row.tensor for row in rows}:
        raise ParityError(f"the tensors {sorted(missing)} are missing.")
    return rows


def _compare(name: str, expected: np.ndarray, found: np.ndarray, precision: Precision) -> TensorParity:
    if expected.shape != found.shape:
        raise ParityError(f"{name}: expected shape {expected.shape}, found {found.shape}.")
    if expected.dtype == bool or np.issubdtype(expected.dtype, np.integer):
        unequal = float(np.mean(expected != found)) if expected.size else 0.0
        return TensorParity(name, unequal, unequal, _unequal_share(name, expected, precision))
    wide = np.float32 if expected.dtype.itemsize < 4 else expected.dtype
    error = float(np.max(np.abs(expected.astype(wide) - found.astype(wide)), initial=0.0))
    largest = float(np.max(np.abs(expected.astype(wide)), initial=0.0))
    return TensorParity(name, error, error / max(largest, 1e-6), LIMITS[precision].relative_error)


def _unequal_share(name: str, expected: np.ndarray, precision: Precision) -> float:
    """Return the permitted share of unequal integers: none, except for the code that a step in half precision draws.

    The random number for this code may lie so close to the border between two codes that rounding decides.
    """
    draws = precision is not Precision.FP32 and name.removeprefix("present_") == "codes"
    return 1 / expected.shape[-1] if draws else 0.0


def require_parity(graph: str, where: str, rows: Sequence[TensorParity]) -> None:
    """Raise `ParityError`, with a line for each tensor that exceeds its tolerance, if there are any."""
    misses = [row for row in rows if not row.holds]
    if not misses:
        return
    lines = "".join(f"\n  {row}" for row in misses)
    raise ParityError(f"{graph} disagrees with the model at {where} in {len(misses)} of {len(rows)} tensors:{lines}")
