"""Locating the first module of a model at which an ONNX graph differs from it.

Weights in a graph have the same names as in the model, which shows the module each node belongs to. The result of a
module in PyTorch is compared with the output of its last node, in order: in ONNX Runtime, or in an engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from jukebox_deploy.contract import Precision, Role, numpy_dtype
from jukebox_deploy.engines.eager.tensors import to_tensor
from jukebox_deploy.engines.onnxruntime.memory import run_on_arrays
from jukebox_deploy.engines.onnxruntime.sessions import GraphFile, OnnxRuntimeOptions, open_session
from jukebox_deploy.export.graph_modules import GraphModule
from jukebox_deploy.export.validation import LIMITS, TensorParity, compare
from jukebox_deploy.jobs.comparison.quality import times_rounding
from jukebox_deploy.models.bf16_products import quick_bf16_products

_PARAMETERS = (".weight", ".bias")

Arrays = Mapping[str, np.ndarray]
"""Arrays by the name of a tensor or of a module."""


RunPiece = Callable[[GraphFile, Sequence[str], Arrays], Sequence[np.ndarray]]
"""Runs a graph on inputs, given by tensor name, and returns values of it, by their names in it."""


@dataclass(frozen=True)
class Difference:
    """The result of comparing all modules."""

    module: str | None  # the first whose result differs, as a path in the model; `None`: all agree
    relative_error: float  # largest error over the largest value
    agreeing: int  # modules before it whose results agree

    def __str__(self) -> str:
        if self.module is None:
            return f"all {self.agreeing} layers agree within the limits: the difference starts after them, or is small"
        return (
            f"the difference starts in {self.module} (relative error {self.relative_error:.3g}); "
            f"{self.agreeing} layers before it agree"
        )


def run_on_cpu(piece: GraphFile, names: Sequence[str], values: Arrays) -> Sequence[np.ndarray]:
    """Run a graph on ONNX Runtime; see `RunPiece`."""
    session = open_session(with_outputs(piece, names), OnnxRuntimeOptions(round_activations=False))
    return run_on_arrays(session, names, {tensor.input_name: values[tensor.name] for tensor in piece.spec.inputs})


def find_difference(
    pieces: Sequence[GraphFile],
    module: GraphModule,
    feeds: Arrays,
    precision: Precision,
    run: RunPiece = run_on_cpu,
    exact: Arrays | None = None,
) -> Difference:
    """Compare a graph (whole, or its parts in order) with its module on the same inputs, given by tensor name.

    `exact`: the results of the modules in fp32. With these, an error is also too large if it is a multiple of what
    rounding costs at the same place, see `times_rounding`.
    """
    expected = results_of_modules(module, feeds)
    agreeing = 0
    for name, found in _results_of_nodes(pieces, feeds, run):
        if name not in expected or expected[name].size != found.size:
            continue  # the graph computes it in another layout
        found = found.reshape(expected[name].shape)
        (row,) = compare({name: expected[name]}, [(name, found)], precision)
        if not row.holds or _beyond_rounding(None if exact is None else exact[name], expected[name], found, precision):
            return Difference(name, row.relative_error, agreeing)
        agreeing += 1
    return Difference(None, 0.0, agreeing)


def _beyond_rounding(exact: np.ndarray | None, expected: np.ndarray, found: np.ndarray, precision: Precision) -> bool:
    limit = LIMITS[precision].times_rounding
    return limit is not None and exact is not None and not times_rounding(exact, expected, found) <= limit


def first_difference(rows: Sequence[TensorParity]) -> str:
    """Describe the first difference from a graph's outputs alone: caches come in the order of the layers."""
    row = next((row for row in rows if not row.holds), None)
    return "" if row is None else f"the first tensor that differs is {row.tensor}"


def results_of_modules(module: GraphModule, feeds: Arrays) -> dict[str, np.ndarray]:
    """Return the results of the modules with weights, by their paths, when the graph's function runs.

    `feeds`: inputs by tensor name, converted to the dtypes that the module declares.
    """
    results: dict[str, np.ndarray] = {}

    def keep(path: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                results.setdefault(path, output.detach().float().numpy().copy())

        return hook

    parts = dict(module.model.named_modules()).items()
    hooks = [part.register_forward_hook(keep(path)) for path, part in parts if list(part.parameters(recurse=False))]
    try:
        with torch.inference_mode(), quick_bf16_products(torch.device("cpu")):
            module(*(_tensor(feeds[tensor.name], tensor.dtype) for tensor in module.spec.inputs))
    finally:
        for hook in hooks:
            hook.remove()
    return results


def _tensor(array: np.ndarray, dtype: str) -> Tensor:
    return to_tensor(array.astype(numpy_dtype(dtype)), "cpu")  # a copy, because a module may write into it


def _results_of_nodes(pieces: Sequence[GraphFile], feeds: Arrays, run: RunPiece) -> Iterator[tuple[str, np.ndarray]]:
    """Return the output of the last node of each module, in the order of the graph."""
    values = dict(feeds)
    for piece in pieces:
        marked = marked_values(piece.model)
        outputs = [t for t in piece.spec.outputs if t.role is Role.OUTPUT]
        names = [*marked.values(), *(tensor.output_name for tensor in outputs)]
        found = run(piece, names, values)
        yield from zip(marked, (_single(array) for array in found), strict=False)
        values |= dict(zip((tensor.name for tensor in outputs), found[len(marked) :], strict=True))


def _single(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32)


def marked_values(model: onnx.ModelProto) -> dict[str, str]:
    """Return, by module, the output value of its last node."""
    owners = {tensor.name: _module_of(tensor.name) for tensor in model.graph.initializer}
    marked: dict[str, str] = {}
    complete: set[str] = set()  # modules whose bias was added: the output matrix may be the embedding again
    for node in model.graph.node:
        for name in node.input:
            module = owners.get(name)
            if module is None or module in complete:
                continue
            if node.op_type == "DequantizeLinear":
                owners[node.output[0]] = module
                continue
            marked.pop(module, None)  # the order is that of the last nodes
            marked[module] = node.output[0]
            if node.op_type == "Gather" or name.endswith(".bias"):
                complete.add(module)
    return marked


def _module_of(parameter: str) -> str | None:
    return next((parameter.removesuffix(end) for end in _PARAMETERS if parameter.endswith(end)), None)


def with_outputs(piece: GraphFile, names: Sequence[str]) -> GraphFile:
    """Add values to the outputs of a graph."""
    model = onnx.ModelProto()
    model.CopyFrom(piece.model)
    known = {output.name for output in model.graph.output}
    # The runtime infers their types.
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    return GraphFile(piece.spec, piece.path, model)
