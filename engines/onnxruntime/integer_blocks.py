"""Size of the blocks into which ONNX Runtime divides integer weights that have one scale per column.

Its kernel requires a scale for every block of inputs. So it repeats the column's scale for each block, stores the sum
of the block's weights beside it, and rounds activations to 8 bits block by block. With blocks of 32, its default,
scales and sums are a fifth of what a step reads. The last block of a column is padded, so large blocks can also cost
more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto

SIZES = (32, 64)
"""Block sizes to choose from. The kernels also support 128 and 256, but then are not batch-invariant: a song alone gets
other sums than a song beside others.
"""

_BYTES_PER_BLOCK = 8  # a scale and a sum, in float32


GPU_SIZES = (64, 32, 16)
"""Block sizes to choose from on a GPU."""


def gpu_block_size(model: ModelProto) -> int:
    """Return the largest block size that divides every column.

    With other sizes, the CUDA provider dequantises all weights to memory before it multiplies.
    """
    inputs = [inputs for inputs, _ in _matrices(model)]
    return next((size for size in GPU_SIZES if all(count % size == 0 for count in inputs)), GPU_SIZES[-1])


def block_size(model: ModelProto) -> int:
    """Return the block size with which a graph's steps read the fewest bytes; of equally good ones, the larger."""
    matrices = list(_matrices(model))
    return min(reversed(SIZES), key=lambda size: sum(_bytes_read(*matrix, size) for matrix in matrices))


def _matrices(model: ModelProto) -> Iterator[tuple[int, int]]:
    """Yield the numbers of inputs and outputs of each matrix with one scale per column."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        blocked = any(attribute.name == "block_size" for attribute in node.attribute)
        if node.op_type == "DequantizeLinear" and not blocked and len(shapes.get(node.input[0], ())) == 2:
            inputs, outputs = shapes[node.input[0]]
            yield inputs, outputs


def _bytes_read(inputs: int, outputs: int, size: int) -> int:
    blocks = -(-inputs // size)
    return outputs * blocks * (size + _BYTES_PER_BLOCK)
