"""Put traced parts together to one graph: parts become ONNX functions, and ONNX IR inlines them."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
import onnx_ir.passes.common as ir_passes
import onnxscript.optimizer

from jukebox_deploy.contract import GraphSpec, TensorSpec
from jukebox_deploy.errors import ExportError
from jukebox_deploy.export.graph_parts import GraphParts, PartCall

_DOMAIN = "jukebox_deploy.parts"
_MODEL_INFIX = ".model."
"""Tracing names a parameter `parts.PART.model.NAME`."""

_ONNX_TYPES = {
    "float32": ir.DataType.FLOAT,
    "float16": ir.DataType.FLOAT16,
    "bfloat16": ir.DataType.BFLOAT16,
    "int64": ir.DataType.INT64,
    "int32": ir.DataType.INT32,
    "bool": ir.DataType.BOOL,
}


def assemble(spec: GraphSpec, parts: GraphParts, traced: ir.Model) -> ir.Model:
    """The graph that makes the calls; behind its declared inputs come the model's parameters.

    `traced` has all parts side by side (`SideBySide`).
    """
    cut = _cut(parts, _simplified(traced))
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
    """Fold and merge what can be, once per part and before its copies are made; parameters become inputs."""
    ir_passes.InlinePass()(traced)
    graph = traced.graph
    for name, value in list(graph.initializers.items()):
        if _MODEL_INFIX in name:
            del graph.initializers[name]
            value.const_value = None
            graph.inputs.append(value)
    onnxscript.optimizer.optimize_ir(traced)
    ir_passes.CommonSubexpressionEliminationPass()(traced)
    return graph


class _Part:
    """A part as an ONNX function: its inputs, then the parameters that it uses."""

    def __init__(self, name: str, graph: ir.Graph, scope: str) -> None:
        """`scope`: where in the graph's model the traced call had its weights."""
        named = {str(value.name).partition(_MODEL_INFIX)[2]: value for value in graph.inputs}
        self.parameters = [parameter.removeprefix(scope) for parameter in named if parameter]
        for value in list(graph.initializers.values()):
            _make_constant(graph, value)
        self.function = ir.Function(_DOMAIN, name, graph=graph, attributes=[])

    @property
    def formals(self) -> dict[str, ir.Value]:
        """The inputs that stand for parameters, by the parameter's name within the scope."""
        inputs = list(self.function.inputs)
        return dict(zip(self.parameters, inputs[len(inputs) - len(self.parameters) :], strict=True))


def _make_constant(graph: ir.Graph, value: ir.Value) -> None:
    """A function has no initialisers: what tracing made one that is no parameter becomes a node."""
    assert value.const_value is not None
    assert value.name is not None
    del graph.initializers[value.name]
    node = ir.Node("", "Constant", [], [ir.AttrTensor("value", value.const_value)], num_outputs=1)
    value.replace_all_uses_with(node.outputs[0])
    graph.insert_before(graph[0], node)


def _cut(parts: GraphParts, graph: ir.Graph) -> dict[str, _Part]:
    """Cut a graph of parts side by side into one function per part."""
    outputs = list(graph.outputs)
    cut: dict[str, _Part] = {}
    first = 0
    for name, call in parts.first_calls.items():
        results, outputs = outputs[: len(call.outputs)], outputs[len(call.outputs) :]
        body = ir.convenience.extract(graph, list(graph.inputs), results)
        _keep_inputs(body, first, len(call.inputs))
        cut[name] = _Part(name, body, call.scope)
        first += len(call.inputs)
    return cut


def _keep_inputs(body: ir.Graph, first: int, count: int) -> None:
    """Drop the inputs of other parts.

    Tracing reads a symbolic size from any input that has it. Within a part it is read from the first
    input, which is never a cache: those are read by nothing but their update.
    """
    mine = list(body.inputs)[first : first + count]
    kept = {*mine, *(value for value in body.inputs if _MODEL_INFIX in str(value.name) and value.uses())}
    for node in body:
        if node.op_type == "Shape" and node.inputs[0] in set(body.inputs) and _reads_first_size(node):
            node.replace_input_with(0, mine[0])
    for value in [value for value in body.inputs if value not in kept]:
        if value.uses():
            users = sorted({use.node.op_type for use in value.uses()})
            raise ExportError(f"{body.name}: a part reads {value.name}, an input of another part, in {users}.")
        body.inputs.remove(value)


def _reads_first_size(node: ir.Node) -> bool:
    return all(node.attributes.get_int(name, -1) == value for name, value in (("start", 0), ("end", 1)))


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
