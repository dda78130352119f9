from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from jukebox_deploy.contract import DimensionRange, GraphKind, GraphSpec, Precision, Role, TensorSpec
from jukebox_deploy.errors import ExportError, ParityError
from jukebox_deploy.export.validation import LIMITS, check_structure, compare, require_parity

SPEC = GraphSpec(
    GraphKind.VQVAE_DECODE,
    0,
    (TensorSpec("codes", "float32", ("B",), Role.INPUT), TensorSpec("audio", "float32", ("B",), Role.OUTPUT)),
    (DimensionRange("B", 1, 1, 4),),
)


def _holds(expected: np.ndarray, found: np.ndarray, precision: Precision = Precision.FP32) -> bool:
    (row,) = compare({"x": expected}, [("x", found)], precision)
    return row.holds


@pytest.mark.parametrize("precision", list(Precision))
def test_errors_are_measured_against_the_largest_value(precision: Precision):
    expected = np.array([100.0, 1.0])
    allowed = LIMITS[precision].relative_error * 100
    assert _holds(expected, expected + np.array([0.0, 0.9 * allowed]), precision)
    assert not _holds(expected, expected + np.array([0.0, 1.1 * allowed]), precision)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_never_holds(bad: float):
    assert not _holds(np.array([1.0, 2.0]), np.array([1.0, bad]))
    assert not _holds(np.array([1.0, bad]), np.array([1.0, 2.0]))


def test_codes_and_flags_must_be_equal():
    codes = np.arange(5)
    assert _holds(codes, codes)
    assert not _holds(codes, codes + np.array([0, 0, 0, 0, 1]))
    assert not _holds(np.array([True]), np.array([False]))


def test_another_shape_is_an_error():
    with pytest.raises(ParityError, match=r"expected shape \(2,\), found \(2, 1\)"):
        compare({"x": np.zeros(2)}, [("x", np.zeros((2, 1)))], Precision.FP32)


def test_misses_are_listed_by_tensor():
    good, bad = np.ones(3), np.full(3, 1.5)
    rows = compare({"a": good, "b": good}, [("a", good), ("b", bad)], Precision.FP32)
    with pytest.raises(ParityError, match=r"(?s)step_0 disagrees .* 1 of 2 tensors:.*b: error 0.5"):
        require_parity("step_0", "B=1", rows)
    require_parity("step_0", "B=1", rows[:1])


def _save(path: Path, output: str, operator: str = "Neg") -> Path:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B"]) for name in ("codes", output)]
    graph = helper.make_graph([helper.make_node(operator, ["codes"], [output])], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=11), path)
    return path


def test_structure_is_checked(tmp_path: Path):
    check_structure(_save(tmp_path / "good.onnx", "audio"), SPEC)
    with pytest.raises(ExportError, match=r"outputs differ from the table in \['audio', 'sound'\]"):
        check_structure(_save(tmp_path / "names.onnx", "sound"), SPEC)
    with pytest.raises(ExportError, match="not valid ONNX"):
        check_structure(_save(tmp_path / "operator.onnx", "audio", "NoSuchOperator"), SPEC)


@pytest.mark.parametrize(
    ("precision", "positions", "equal", "holds"),
    [
        (Precision.FP16, 18, 16, True),  # of sound models, too, rounding decides one now and then
        (Precision.FP16, 18, 15, False),
        (Precision.FP16, 1000, 950, True),
        (Precision.FP16, 1000, 949, False),
        (Precision.BF16, 2, 0, True),
        (Precision.FP32, 18, 17, False),
    ],
)
def test_among_few_positions_two_may_have_another_most_likely_code(precision, positions, equal, holds):
    assert (equal / positions >= LIMITS[precision].top1_among(positions)) is holds
