"""Checks of an ONNX graph before a runtime parses it.

A cache that violates one of these rules is copied at every step by ONNX Runtime, rejected by TensorRT, or, worst,
silently read after it was overwritten (measured; docs/design.md, "Graphs"). Weights are not read. All violations are
reported together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jukebox_deploy.contract import Dimension, GraphSpec, TensorSpec, dimension_symbol, numpy_dtype
from jukebox_deploy.engines.onnx_files import read_graph
from jukebox_deploy.errors import EngineError
from jukebox_deploy.listing import words_of

UPDATE_OPERATOR = "TensorScatter"
CACHE_AXIS = 2  # of [B, H, S, D]
CACHE_RANK = 4
CACHE_DTYPES = ("float32", "float16", "bfloat16")
SHAPE_READERS = ("Shape", "Size")  # read no elements, so they may also read a tensor that has been overwritten
STANDARD_DOMAINS = ("", "ai.onnx")


def check_graph_file(path: Path, spec: GraphSpec, weight_files: Collection[str] = ()) -> None:
    """Load an `.onnx` file without its weights and check it. Raises `EngineError`, which lists all violations.

    `weight_files`: the files in the same folder that external weights may come from.
    """
    model = read_graph(path)
    if violations := find_violations(model, spec, weight_files):
        listed = "\n".join(f"  - {violation}" for violation in violations)
        raise EngineError(f"{path.name} does not match the declaration of {spec.name}:\n{listed}\nExport it again.")


def find_violations(model: Any, spec: GraphSpec, weight_files: Collection[str] = ()) -> list[str]:
    """Return one sentence for each rule that an `onnx.ModelProto` violates."""
    uses = _Uses.of(model)
    violations = [
        *_check_values(spec, "input", model.graph.input, {t.input_name: t for t in spec.inputs}),
        *_check_values(spec, "output", model.graph.output, {t.output_name: t for t in spec.outputs}),
        *_check_operators(uses),
        *_check_weight_files(model, weight_files),
    ]
    in_place = [state for state in spec.states if state.in_place]
    for state in in_place:
        violations += _check_cache_declaration(state)
        violations += _check_cache_update(state, uses)
    violations += _check_undeclared_updates(uses, in_place)
    return violations


@dataclass
class _Uses:
    """The nodes that read and the node that writes each tensor, sub-graphs included."""

    nodes: list[Any] = field(default_factory=list)
    nested: list[Any] = field(default_factory=list)  # nodes inside loops, branches and functions
    readers: dict[str, list[Any]] = field(default_factory=dict)
    writers: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(model: Any) -> _Uses:
        uses = _Uses()
        for node in model.graph.node:
            uses._add(node, nested=False)
        for function in model.functions:
            for node in function.node:
                uses._add(node, nested=True)
        return uses

    def _add(self, node: Any, nested: bool) -> None:
        (self.nested if nested else self.nodes).append(node)
        for name in node.input:
            self.readers.setdefault(name, []).append(node)
        for name in node.output:
            self.writers[name] = node
        for inner in _nodes_of_subgraphs(node):
            self._add(inner, nested=True)


def _nodes_of_subgraphs(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        yield from attribute.g.node
        for graph in attribute.graphs:
            yield from graph.node


def _check_values(spec: GraphSpec, side: str, values: Sequence[Any], expected: dict[str, TensorSpec]) -> Iterator[str]:
    """Check names, order, dtypes and dimensions of the inputs or outputs."""
    found = [value.name for value in values]
    if found != list(expected):
        missing = [name for name in expected if name not in found]
        extra = [name for name in found if name not in expected]
        amiss = {"missing": missing, "unknown": extra, "found in this order": [] if missing or extra else found}
        detail = "; ".join(f"{what}: {words_of(names)}" for what, names in amiss.items() if names)
        yield f"the {side}s are not the declared ones ({detail})."
    for value in values:
        if value.name in expected:
            yield from _check_value(spec, side, value, expected[value.name])


def _check_value(spec: GraphSpec, side: str, value: Any, tensor: TensorSpec) -> Iterator[str]:
    from onnx import TensorProto, helper

    kind = value.type.tensor_type
    wanted = helper.np_dtype_to_tensor_dtype(numpy_dtype(tensor.dtype))
    if kind.elem_type != wanted:
        names = TensorProto.DataType
        yield f"{side} {value.name!r} has dtype {names.Name(kind.elem_type)}, expected {names.Name(wanted)}."
    dims = [_dimension(d) for d in kind.shape.dim]
    named = side == "input"  # a tracer may use any symbols for the dimensions of outputs
    fits = len(dims) == len(tensor.dims) and all(
        _fits(found, dimension, spec.fixed_sizes, named) for found, dimension in zip(dims, tensor.dims, strict=True)
    )
    if not fits:
        yield f"{side} {value.name!r} has dimensions {dims}, expected {list(tensor.dims)}."


def _dimension(dimension: Any) -> Dimension | None:
    """Convert a dimension to the form of declarations; `None` if the graph does not specify it."""
    if dimension.WhichOneof("value") == "dim_value":
        return int(dimension.dim_value)
    return str(dimension.dim_param).replace(" ", "") or None


def _fits(found: Dimension | None, declared: Dimension, fixed: Mapping[str, int], named: bool) -> bool:
    """Return whether a dimension of the graph is the declared one.

    A symbol with a single possible size may be a number in the graph. `named`: whether symbols must have the same name.
    """
    symbol, factor = dimension_symbol(declared)
    if symbol is None or isinstance(found, int):
        return found == (declared if symbol is None else factor * fixed.get(symbol, 0))
    return not named or found == declared


def _check_operators(uses: _Uses) -> Iterator[str]:
    """Check that there are only standard operators, because a vendor's operators tie the graph to one runtime."""
    nodes = (*uses.nodes, *uses.nested)
    odd = {f"{node.domain}.{node.op_type}" for node in nodes if node.domain not in STANDARD_DOMAINS}
    if odd:
        yield f"there are operators that are not standard ONNX, so TensorRT cannot parse them: {words_of(sorted(odd))}."


def _check_weight_files(model: Any, allowed: Collection[str]) -> Iterator[str]:
    """Check that external weights come only from the listed files, because only their hashes were checked."""
    found = {entry.value for tensor in _tensors(model) for entry in tensor.external_data if entry.key == "location"}
    if odd := sorted(found - set(allowed)):
        listed = words_of(sorted(allowed)) or "none"
        yield f"weights come from {words_of(odd)}, but the manifest lists other files for this graph ({listed})."


def _tensors(message: Any) -> Iterator[Any]:
    """Yield all tensors of a model: initialisers (dense or sparse) and attributes, also in sub-graphs and functions."""
    from onnx import TensorProto

    if isinstance(message, TensorProto):
        yield message
        return
    for kind, value in message.ListFields():
        if kind.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from _tensors(inner)


def _check_cache_declaration(state: TensorSpec) -> Iterator[str]:
    if len(state.dims) != CACHE_RANK:
        yield f"cache {state.name!r} has {len(state.dims)} dimensions; an in-place update needs {CACHE_RANK}."
    elif not isinstance(state.dims[CACHE_AXIS], int):
        yield f"cache {state.name!r} has a dynamic length {state.dims[CACHE_AXIS]!r}; it must be a number."
    if state.dtype not in CACHE_DTYPES:
        yield f"cache {state.name!r} has dtype {state.dtype}; an in-place update needs {words_of(CACHE_DTYPES, 'or')}."


def _check_cache_update(state: TensorSpec, uses: _Uses) -> Iterator[str]:
    """Check for `past` -> one TensorScatter -> `present`, and that nothing else reads the elements of `past`."""
    past, present = state.input_name, state.output_name
    readers = uses.readers.get(past, [])
    updates = [node for node in readers if _updates(node, past)]
    for node in readers:
        if node not in updates and node.op_type not in SHAPE_READERS:
            yield f"{past!r} is read by {_label(node)}; only its update may read it, because it is overwritten."
    if len(updates) != 1:
        yield f"{past!r} feeds {len(updates)} updates, expected exactly one {UPDATE_OPERATOR}."
    writer = uses.writers.get(present)
    if writer is None or writer not in updates:
        found = _label(writer) if writer else "nothing"
        yield f"{present!r} is written by {found}, expected the {UPDATE_OPERATOR} that reads {past!r}."
    for node in updates:
        yield from _check_update_node(state, node, uses)


def _check_update_node(state: TensorSpec, node: Any, uses: _Uses) -> Iterator[str]:
    from onnx import helper

    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    axis, mode = attributes.get("axis", -2), attributes.get("mode", b"linear").decode()
    if axis not in (CACHE_AXIS, CACHE_AXIS - CACHE_RANK):
        yield f"the update of {state.name!r} is along axis {axis}, expected {CACHE_AXIS}."
    if mode != "linear":
        yield f"the update of {state.name!r} has mode {mode!r}, expected 'linear': compute the index in the graph."
    if node in uses.nested:
        yield f"the update of {state.name!r} is in a loop, branch or function, where it cannot be in place."
    if any(_updates(reader, state.output_name) for reader in uses.readers.get(state.output_name, [])):
        yield f"cache {state.name!r} is updated twice; combine both writes in one {UPDATE_OPERATOR}."


def _updates(node: Any, name: str) -> bool:
    """Return whether a node updates a tensor and does not also read it."""
    return node.op_type == UPDATE_OPERATOR and node.input[0] == name and name not in node.input[1:]


def _check_undeclared_updates(uses: _Uses, in_place: Sequence[TensorSpec]) -> Iterator[str]:
    """Check that only declared caches are updated, because no other update can be in place."""
    known = {name for state in in_place for name in (state.input_name, state.output_name)}
    for node in (*uses.nodes, *uses.nested):
        if node.op_type == UPDATE_OPERATOR and node.input[0] not in known:
            yield f"{_label(node)} updates {node.input[0]!r}, which is not declared as a cache."


def _label(node: Any) -> str:
    return f"{node.op_type} {node.name!r}" if node.name else str(node.op_type)
