"""Numbers that stand for sizes while tracing, and come back as symbols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import pytest

from jukebox_deploy.contract import DimensionRange, GraphKind, GraphSpec, Role, TensorSpec
from jukebox_deploy.errors import ExportError
from jukebox_deploy.export.stand_ins import restore_symbols, sizes_to_trace

SLOTS = DimensionRange("B", 1, 4, 16)
TIME = DimensionRange("T", 2, 8, 32)


def _spec(*ranges: DimensionRange) -> GraphSpec:
    codes = TensorSpec("codes", "int64", ("B", "T"), Role.INPUT)
    return GraphSpec(GraphKind.VQVAE_DECODE, 0, (codes,), ranges)


def _constant(numbers: int | Sequence[int]) -> ir.Value:
    node = ir.node("Constant", [], {"value": ir.tensor(np.array(numbers, dtype=np.int64))})
    return node.outputs[0]


def _restored(
    operator: str, constants: Sequence[int | Sequence[int]], shape: Sequence[int], sizes: Mapping[str, int]
) -> onnx.ModelProto:
    """A graph with one node over an input and constants (a `Range` takes the constants alone), restored."""
    entry = ir.Value(name="entry", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
    values = [_constant(numbers) for numbers in constants]
    node = ir.node(operator, values if operator == "Range" else [entry, *values])
    node.outputs[0].name = "result"
    kind = ir.DataType.INT64 if operator == "Range" else ir.DataType.FLOAT
    node.outputs[0].type = ir.TensorType(kind)
    nodes = [value.producer() for value in values]
    graph = ir.Graph([entry], node.outputs, nodes=[*(n for n in nodes if n), node], opset_imports={"": 24}, name="part")
    restore_symbols(graph, [entry], sizes)
    return ir.to_proto(ir.Model(graph, ir_version=10))


def _run(model: onnx.ModelProto, entry: np.ndarray) -> np.ndarray:
    (result,) = onnx.reference.ReferenceEvaluator(model).run(None, {"entry": entry})
    assert isinstance(result, np.ndarray)
    return result


def _operators(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


def test_a_fixed_size_needs_no_stand_in() -> None:
    """What cannot change is traced as it is; what can, with numbers that no model has."""
    sizes = sizes_to_trace(_spec(DimensionRange("B", 1, 1, 1), TIME))
    assert sizes["B"] == 1
    assert sizes["T"] > 100_000
    both = sizes_to_trace(_spec(SLOTS, TIME))
    assert both["B"] != both["T"]


def test_a_reshape_works_out_the_size() -> None:
    """One size in a target shape becomes -1, without reading it anywhere."""
    sizes = sizes_to_trace(_spec(SLOTS))
    model = _restored("Reshape", [[2 * sizes["B"], 3]], [sizes["B"], 6], sizes)
    assert "Shape" not in _operators(model)
    assert _run(model, np.zeros((5, 6), np.float32)).shape == (10, 3)


def test_products_of_a_size_with_a_window_are_recognised() -> None:
    """Slots times 8192 positions times a width: far beyond 32 bits."""
    sizes = sizes_to_trace(_spec(SLOTS))
    model = _restored("Reshape", [[8192 * 4800 * sizes["B"], 1]], [sizes["B"], 8192 * 4800], sizes)
    assert _run(model, np.zeros((2, 4), np.float32)).shape == (8, 1)


def test_two_sizes_are_read_from_the_input() -> None:
    """A multiple of an axis is divided, and multiplied again."""
    sizes = sizes_to_trace(_spec(SLOTS, TIME))
    model = _restored("Expand", [[4, sizes["B"], 6 * sizes["T"]]], [sizes["B"], 2 * sizes["T"]], sizes)
    with pytest.raises(ValueError, match="broadcast"):
        _run(model, np.zeros((5, 14), np.float32))  # 14 is no 42: the shape was worked out from the input
    assert _run(
        _restored("Expand", [[4, sizes["B"], 6]], [sizes["B"], 1], sizes), np.zeros((5, 1), np.float32)
    ).shape == (
        4,
        5,
        6,
    )


@pytest.mark.parametrize("factor", [1, 3])
def test_a_single_number_stays_one(factor: int) -> None:
    """The end of a range has no axis."""
    sizes = sizes_to_trace(_spec(SLOTS))
    model = _restored("Range", [0, factor * sizes["B"], 1], [sizes["B"], 6], sizes)
    assert _run(model, np.zeros((5, 6), np.float32)).tolist() == list(range(5 * factor))


def test_the_end_of_a_slice_without_an_end_is_no_size() -> None:
    """Tracing writes it as the largest integer."""
    sizes = sizes_to_trace(_spec(SLOTS))
    end = np.iinfo(np.int64).max
    assert _run(_restored("Slice", [[1], [end]], [sizes["B"], 6], sizes), np.zeros((5, 6), np.float32)).shape == (4, 6)


def test_shapes_get_their_symbols() -> None:
    """What is no single size is left unknown."""
    sizes = sizes_to_trace(_spec(SLOTS))
    model = _restored("Reshape", [[2 * sizes["B"], 3]], [sizes["B"], 6], sizes)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["B", 6]


def test_a_number_from_nowhere_is_refused() -> None:
    """One less than the slots is no multiple: whoever writes such a model hears of it here."""
    sizes = sizes_to_trace(_spec(SLOTS))
    with pytest.raises(ExportError, match=r"which is not a multiple of \d+ \("):
        _restored("Reshape", [[sizes["B"] + 1, 3]], [sizes["B"], 6], sizes)


def test_a_size_that_no_input_has_is_refused() -> None:
    """A part can read a size only from what it is given."""
    sizes = sizes_to_trace(_spec(SLOTS))
    with pytest.raises(ExportError, match="none of its inputs has"):
        _restored("Range", [0, sizes["B"], 1], [5, 6], sizes)
