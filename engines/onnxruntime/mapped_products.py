"""Multi-threaded products with memory-mapped weights.

ONNX Runtime divides the product of a row and a matrix among threads by columns, so each thread reads a piece of every
row of the matrix; with memory-mapped weights that reached two thirds of the bandwidth (docs/log.md). Divided by rows of
the matrix, each thread reads one contiguous stretch of the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

SMALLEST = 1 << 20
"""Bytes below which a matrix is not divided, because it fits into the CPU's caches."""

_PIECES_PER_THREAD = 4  # so that other threads can take over pieces of a thread that is delayed


def divide_products(model: ModelProto, threads: int) -> int:
    """Divide a graph's products of one row `[1, K]` and a large float32 matrix `[K, N]` by rows; return their number.

    `x @ W` becomes the sum over `p` of `x[p] @ W[p]`, with `W` reshaped to `[P, K / P, N]`, which are the same bytes.
    The model is changed in place. Only for graphs that run with one slot. Sums are rounded in another order.
    """
    graph = model.graph
    matrices = _matrices(model)
    nodes: list[NodeProto] = []
    divided = 0
    for node in graph.node:
        matrix = matrices.get(node.input[1]) if node.op_type == "MatMul" else None
        pieces = _pieces(matrix.dims[0], threads) if matrix is not None else 1
        if matrix is None or pieces == 1:
            nodes.append(node)
            continue
        rows, columns = matrix.dims
        shape = _integers(f"{matrix.name}/row_pieces", [pieces, 1, rows // pieces])
        graph.initializer.append(shape)
        matrix.ClearField("dims")
        matrix.dims.extend([pieces, rows // pieces, columns])
        nodes += _divided(node, shape.name)
        divided += 1
    if divided:
        graph.initializer.append(_integers(_FIRST_AXIS, [0]))
    del graph.node[:]
    graph.node.extend(nodes)
    return divided


_FIRST_AXIS = "row_pieces/axis"


def _matrices(model: ModelProto) -> dict[str, TensorProto]:
    """Return the large float32 matrices in external weight files that only one node uses."""
    from onnx import TensorProto

    uses = Counter(name for node in model.graph.node for name in node.input)
    return {
        tensor.name: tensor
        for tensor in model.graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL
        and tensor.data_type == TensorProto.FLOAT
        and len(tensor.dims) == 2
        and 4 * tensor.dims[0] * tensor.dims[1] >= SMALLEST
        and uses[tensor.name] == 1
    }


def _pieces(rows: int, threads: int) -> int:
    """Return a multiple of the threads that divides the rows; 1 if there is none, or with one thread."""
    counts = (threads * n for n in range(_PIECES_PER_THREAD, 0, -1))
    return next((count for count in counts if threads > 1 and rows % count == 0), 1)


def _divided(product: NodeProto, shape: str) -> Iterator[NodeProto]:
    """Yield the nodes that reshape `[1, K]` to `[P, 1, K / P]`, multiply by `[P, K / P, N]`, and sum to `[1, N]`."""
    from onnx import helper

    row, matrix = product.input
    (result,) = product.output
    pieces, parts = f"{result}/row_pieces", f"{result}/products"
    yield helper.make_node("Reshape", [row, shape], [pieces])
    yield helper.make_node("MatMul", [pieces, matrix], [parts])
    yield helper.make_node("ReduceSum", [parts, _FIRST_AXIS], [result], keepdims=0)


def _integers(name: str, values: list[int]) -> TensorProto:
    from onnx import TensorProto, helper

    return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
