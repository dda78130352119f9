"""Assembly of a graph from traced modules, which become ONNX functions that ONNX IR inlines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import onnx_ir.passes.common as ir_passes
import onnxscript.optimizer

from jukebox_deploy.contract import GraphSpec, TensorSpec, numpy_dtype
from jukebox_deploy.export.graph_calls import MODEL_PREFIX, ModuleCall, Piece, split_at
from jukebox_deploy.export.stand_ins import restore_symbols

_DOMAIN = "jukebox_deploy.modules"
_IR_VERSION = 10  # that of torch's exporter, and the first version with 4-bit integers


def assemble(spec: GraphSpec, calls: Sequence[ModuleCall], functions: Mapping[str, TracedFunction]) -> ir.Model:
    """Build the model of a graph, or of a part of a cut graph, that makes these calls.

    The model's parameters are inputs after the declared ones.
    """
    values = {t.input_name: _declared(ir.Value(name=t.input_name), t, spec.fixed_sizes) for t in spec.inputs}
    inputs = list(values.values())
    parameters: dict[str, ir.Value] = {}
    nodes = [_call(call, functions[call.module], values, parameters) for call in calls]
    outputs = [_declared(values[t.output_name], t, spec.fixed_sizes) for t in spec.outputs]
    graph = ir.Graph(
        [*inputs, *parameters.values()],
        outputs,
        nodes=nodes,
        opset_imports={"": functions[calls[0].module].opset, _DOMAIN: 1},
        name=spec.name,
    )
    used = dict.fromkeys(call.module for call in calls)
    model = ir.Model(
        graph,
        ir_version=_IR_VERSION,
        producer_name="jukebox-deploy",
        functions=[functions[name].onnx for name in used],
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


def cut_pieces(traced: ir.Model, pieces: Sequence[Piece]) -> list[TracedModule]:
    """Divide the result of tracing `SideBySide` into its pieces."""
    ir_passes.InlinePass()(traced)
    inputs, outputs = list(traced.graph.inputs), list(traced.graph.outputs)
    cut: list[TracedModule] = []
    for piece in pieces:
        mine, inputs = split_at(inputs, len(piece.inputs) + len(piece.parameters))
        results, outputs = split_at(outputs, len(piece.results))
        body = ir.convenience.extract(traced.graph, mine, results)
        cut.append(TracedModule(piece.call.module, body, len(piece.inputs), tuple(piece.parameters)))
    return cut


@dataclass(frozen=True)
class TracedModule:
    """A traced module of a graph."""

    name: str
    body: ir.Graph
    arguments: int  # number of inputs that are not parameters
    parameters: tuple[str, ...]  # names in the module of the remaining inputs

    def as_function(self, sizes: Mapping[str, int]) -> TracedFunction:
        """Turn the module into a function, with symbols restored in place of the stand-in `sizes`.

        It is optimised here, once, rather than in every copy that inlining makes.
        """
        onnxscript.optimizer.optimize_ir(ir.Model(self.body, ir_version=_IR_VERSION), num_iterations=1)
        arguments, formals = split_at(list(self.body.inputs), self.arguments)
        restore_symbols(self.body, arguments, sizes)
        for value in list(self.body.initializers.values()):
            _make_constant(self.body, value)
        names = [name.removeprefix(MODEL_PREFIX) for name in self.parameters]
        function = ir.Function(_DOMAIN, self.name, graph=self.body, attributes=[])
        return TracedFunction(function, dict(zip(names, formals, strict=True)), self.body.opset_imports[""])


@dataclass(frozen=True)
class TracedFunction:
    """A module as an ONNX function. `formals` are its inputs for parameters, by their names in the module."""

    onnx: ir.Function
    formals: dict[str, ir.Value]
    opset: int


def _make_constant(graph: ir.Graph, value: ir.Value) -> None:
    """Turn an initialiser that is not a parameter into a `Constant` node, because functions have no initialisers."""
    assert value.const_value is not None
    assert value.name is not None
    del graph.initializers[value.name]
    node = ir.Node("", "Constant", [], [ir.AttrTensor("value", value.const_value)], num_outputs=1)
    value.replace_all_uses_with(node.outputs[0])
    graph.insert_before(graph[0], node)


def _call(
    call: ModuleCall, function: TracedFunction, values: dict[str, ir.Value], parameters: dict[str, ir.Value]
) -> ir.Node:
    """Make a node that calls a function, and add its outputs to `values` and its parameters to `parameters`."""
    arguments = [values[name] for name in call.inputs]
    for name, formal in function.formals.items():
        full = call.scope + name
        if full not in parameters:
            parameters[full] = ir.Value(name=full, shape=formal.shape, type=formal.type)
        arguments.append(parameters[full])
    node = ir.Node(_DOMAIN, function.onnx.name, arguments, num_outputs=len(call.outputs))
    for name, value in zip(call.outputs, node.outputs, strict=True):
        value.name = name
        values[name] = value
    return node


def _declared(value: ir.Value, tensor: TensorSpec, fixed: Mapping[str, int]) -> ir.Value:
    """Set the declared type and shape of a value; a symbol with a single possible size becomes a number."""
    value.type = ir.TensorType(ir.DataType.from_numpy(numpy_dtype(tensor.dtype)))
    value.shape = ir.Shape([fixed.get(d, d) if isinstance(d, str) else d for d in tensor.dims])
    return value
