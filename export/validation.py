"""Is the graph the model? Structure by ONNX's own checks, numbers by comparison, misses are errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jukebox_deploy.contract import GraphSpec, Precision
from jukebox_deploy.errors import ExportError, ParityError


@dataclass(frozen=True)
class Limits:
    """How far a graph may be from its model where both compute in the same precision."""

    relative_error: float  # of a tensor, over its largest value
    mean_kl: float  # nats, of the probabilities of codes
    top1: float  # least share of positions with the same most likely code
    equal_codes: float | None  # least share of codes chosen alike; `None`: two can be as good as equal, either is right


LIMITS = {
    Precision.FP32: Limits(1e-5, 1e-8, 1.0, 1.0),
    Precision.FP16: Limits(1e-2, 1e-3, 0.95, None),
    Precision.BF16: Limits(8e-2, 6e-2, 0.8, None),  # rounds eight times as coarsely, which the distance has squared
}
"""Of a graph's own precision (`GraphSpec.precision`): the VQ-VAE and what conditions a window are fp32 everywhere."""

Statistics = Mapping[str, float]
"""Of one tensor's errors, by what they are called."""


@dataclass(frozen=True)
class TensorParity:
    """How far one tensor is off."""

    tensor: str
    largest_error: float  # absolute; for integers and flags the share of unequal elements
    relative_error: float  # over the largest expected value
    tolerance: float  # of the relative error
    statistics: Statistics | None = None  # of all its elements, if they were asked for

    @property
    def holds(self) -> bool:
        """Whether the error is within the tolerance (a NaN is not)."""
        return self.relative_error <= self.tolerance

    def __str__(self) -> str:
        return (
            f"{self.tensor}: error {self.largest_error:.3g}, "
            f"relative {self.relative_error:.3g}, allowed {self.tolerance:.3g}"
        )


def check_structure(path: Path, spec: GraphSpec) -> None:
    """ONNX's checker and strict shape inference on a saved graph, and its names against the table.

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
    """Compare arrays of the same names, found ones as they come; integers and flags must be equal.

    `measure`: what else is told of each tensor. Raises `ParityError` for names or shapes that differ.
    """
    rows = []
    for name, array in found:
        row = _compare(name, expected[name], array, precision)
        rows.append(row if measure is None else replace(row, statistics=measure(expected[name], array)))
    if missing := set(expected) - {row.tensor for row in rows}:
        raise ParityError(f"expected {sorted(missing)} as well.")
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
    """Of integers all must be equal, but for a code that a step in half precision draws.

    The number that it is drawn with may lie within the rounding of a border between two codes.
    """
    draws = precision is not Precision.FP32 and name.removeprefix("present_") == "codes"
    return 1 / expected.shape[-1] if draws else 0.0


def require_parity(graph: str, where: str, rows: Sequence[TensorParity]) -> None:
    """Raise `ParityError` with a line per tensor that misses its tolerance."""
    misses = [row for row in rows if not row.holds]
    if not misses:
        return
    lines = "".join(f"\n  {row}" for row in misses)
    raise ParityError(f"{graph} disagrees with the model at {where} in {len(misses)} of {len(rows)} tensors:{lines}")
