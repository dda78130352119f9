"""Put traced parts together to one graph: parts become ONNX functions, and ONNX IR inlines them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import onnx_ir.passes.common as ir_passes
import onnxscript.optimizer

from jukebox_deploy.contract import GraphSpec, TensorSpec
from jukebox_deploy.export.graph_parts import MODEL_PREFIX, GraphParts, PartCall
from jukebox_deploy.export.stand_ins import restore_symbols, sizes_to_trace

_DOMAIN = "jukebox_deploy.parts"

_ONNX_TYPES = {
    "float32": ir.DataType.FLOAT,
    "float16": ir.DataType.FLOAT16,
    "bfloat16": ir.DataType.BFLOAT16,
    "int64": ir.DataType.INT64,
    "int32": ir.DataType.INT32,
    "bool": ir.DataType.BOOL,
}


def assemble(spec: GraphSpec, parts: GraphParts, traced: ir.Model, used: Mapping[str, Sequence[str]]) -> ir.Model:
    """The graph that makes the calls; behind its declared inputs come the model's parameters.

    `traced` has all parts side by side (`SideBySide`), `used` the names of the parameters that each uses.
    """
    cut = _cut(spec, parts, _simplified(traced), used)
    fixed = {r.symbol: r.minimum for r in spec.ranges if r.minimum == r.maximum}
    values = {t.input_name: _declared(ir.Value(name=t.input_name), t, fixed) for t in spec.inputs}
    inputs = list(values.values())
    parameters: dict[str, ir.Value] = {}
    nodes = [_call(call, cut[call.part], values, parameters) for call in parts.calls]
    outputs = [_declared(values[t.output_name], t, fixed) for t in spec.outputs]
    graph = ir.Graph(
        [*inputs, *parameters.values()],
        outputs,
        nodes=nodes,
        opset_imports={"": traced.opset_imports[""], _DOMAIN: 1},
        name=spec.name,
    )
    model = ir.Model(
        graph,
        ir_version=traced.ir_version,
        producer_name="jukebox-deploy",
        functions=[part.function for part in cut.values()],
    )
    for simplify in _AFTER_ASSEMBLY:
        simplify(model)
    return model


_AFTER_ASSEMBLY = (
    ir_passes.InlinePass(),
    ir_passes.RemoveUnusedNodesPass(),
    ir_passes.RemoveUnusedOpsetsPass(),
    ir_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    ir_passes.DeduplicateInitializersPass(),
    ir_passes.ClearMetadataAndDocStringPass(),
)


def _simplified(traced: ir.Model) -> ir.Graph:
    """Fold and merge what can be, once per part and before its copies are made."""
    ir_passes.InlinePass()(traced)
    onnxscript.optimizer.optimize_ir(traced)
    ir_passes.CommonSubexpressionEliminationPass()(traced)
    return traced.graph


@dataclass(frozen=True)
class _Part:
    """A part as an ONNX function, and its inputs that stand for parameters, by their names in the part."""

    function: ir.Function
    formals: dict[str, ir.Value]


def _make_constant(graph: ir.Graph, value: ir.Value) -> None:
    """A function has no initialisers: what tracing made one that is no parameter becomes a node."""
    assert value.const_value is not None
    assert value.name is not None
    del graph.initializers[value.name]
    node = ir.Node("", "Constant", [], [ir.AttrTensor("value", value.const_value)], num_outputs=1)
    value.replace_all_uses_with(node.outputs[0])
    graph.insert_before(graph[0], node)


def _cut(spec: GraphSpec, parts: GraphParts, graph: ir.Graph, used: Mapping[str, Sequence[str]]) -> dict[str, _Part]:
    """Cut a graph of parts side by side into one function per part."""
    inputs, outputs = list(graph.inputs), list(graph.outputs)
    cut: dict[str, _Part] = {}
    for name, call in parts.first_calls.items():
        mine, inputs = _split(inputs, len(call.inputs) + len(used[name]))
        results, outputs = _split(outputs, len(call.outputs))
        body = ir.convenience.extract(graph, mine, results)
        arguments, formals = _split(list(body.inputs), len(call.inputs))
        restore_symbols(body, arguments, sizes_to_trace(spec))
        for value in list(body.initializers.values()):
            _make_constant(body, value)
        function = ir.Function(_DOMAIN, name, graph=body, attributes=[])
        names = [parameter.removeprefix(MODEL_PREFIX) for parameter in used[name]]
        cut[name] = _Part(function, dict(zip(names, formals, strict=True)))
    return cut


def _split(values: list[ir.Value], count: int) -> tuple[list[ir.Value], list[ir.Value]]:
    return values[:count], values[count:]


def _call(call: PartCall, part: _Part, values: dict[str, ir.Value], parameters: dict[str, ir.Value]) -> ir.Node:
    """A node that calls a part; its outputs join `values`, its parameters `parameters`."""
    arguments = [values[name] for name in call.inputs]
    for name, formal in part.formals.items():
        full = call.scope + name
        if full not in parameters:
            parameters[full] = ir.Value(name=full, shape=formal.shape, type=formal.type)
        arguments.append(parameters[full])
    node = ir.Node(_DOMAIN, part.function.name, arguments, num_outputs=len(call.outputs))
    for name, value in zip(call.outputs, node.outputs, strict=True):
        value.name = name
        values[name] = value
    return node


def _declared(value: ir.Value, tensor: TensorSpec, fixed: Mapping[str, int]) -> ir.Value:
    """Give a value the declared type and shape; a symbol of one possible size becomes a number."""
    value.type = ir.TensorType(_ONNX_TYPES[tensor.dtype])
    value.shape = ir.Shape([fixed.get(d, d) if isinstance(d, str) else d for d in tensor.dims])
    return value
