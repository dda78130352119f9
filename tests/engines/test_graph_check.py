"""Every rule of the check has a graph that breaks it, and the sound graphs break none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from jukebox_deploy.contract import DimensionRange, GraphSpec
from jukebox_deploy.engines.graph_check import check_graph_file, find_violations
from jukebox_deploy.errors import EngineError
from tests.engines.handmade_graphs import cache_model, cache_spec, decode_model, decode_spec


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_sound_cache_graph_breaks_no_rule(dtype: str) -> None:
    spec = cache_spec(dtype)
    assert find_violations(cache_model(spec), spec) == []


def test_a_sound_decoder_breaks_no_rule() -> None:
    assert find_violations(decode_model(), decode_spec()) == []


def test_the_shape_of_past_may_be_read() -> None:
    spec = cache_spec()
    model = cache_model(spec)
    model.graph.node.append(helper.make_node("Shape", ["past_key_0"], ["shape"]))
    assert find_violations(model, spec) == []


def test_how_output_sizes_are_called_does_not_matter() -> None:
    spec = cache_spec()
    model = cache_model(spec)
    model.graph.output[1].type.tensor_type.shape.dim[0].dim_param = "s47"
    assert find_violations(model, spec) == []


def test_a_symbol_of_one_possible_size_may_be_a_number() -> None:
    spec = replace(cache_spec(), ranges=(DimensionRange("B", 4, 4, 4),))
    model = cache_model(spec)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    assert find_violations(model, spec) == []
    frozen_slots(model)
    assert len(find_violations(model, spec)) == 1


def update_of(model: Any) -> Any:
    return next(node for node in model.graph.node if node.op_type == "TensorScatter")


def set_attribute(name: str, value: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        node = update_of(model)
        kept = [a for a in node.attribute if a.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return change


def past_through_identity(model: Any) -> None:
    update_of(model).input[0] = "alias"
    model.graph.node.insert(0, helper.make_node("Identity", ["past_key_0"], ["alias"], "aliasing"))


def present_through_identity(model: Any) -> None:
    update_of(model).output[0] = "updated"
    model.graph.node.append(helper.make_node("Identity", ["updated"], ["present_key_0"], "copying"))


def past_read_elsewhere(model: Any) -> None:
    next(n for n in model.graph.node if n.op_type == "Transpose").input[0] = "past_key_0"


def past_written_into_itself(model: Any) -> None:
    update_of(model).input[1] = "past_key_0"


def past_read_in_a_branch(model: Any) -> None:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["past_key_0"], ["seen"], "peek")],
        "branch",
        [],
        [helper.make_tensor_value_info("seen", onnx.TensorProto.FLOAT16, None)],
    )
    model.graph.node.append(helper.make_node("If", ["condition"], ["chosen"], then_branch=inner, else_branch=inner))


def second_update(model: Any) -> None:
    first = update_of(model)
    first.output[0] = "once"
    model.graph.node.insert(
        1, helper.make_node("TensorScatter", ["once", "query", "past_position"], ["present_key_0"], "again", axis=2)
    )


def update_of_the_updated(model: Any) -> None:
    model.graph.node.append(
        helper.make_node("TensorScatter", ["present_key_0", "query", "past_position"], ["twice"], "again", axis=2)
    )


def two_updates_of_past(model: Any) -> None:
    model.graph.node.append(
        helper.make_node("TensorScatter", ["past_key_0", "query", "past_position"], ["other"], "other", axis=2)
    )


def update_of_something_else(model: Any) -> None:
    model.graph.node.append(
        helper.make_node("TensorScatter", ["scores", "query", "past_position"], ["other"], "stray", axis=2)
    )


def update_inside_a_branch(model: Any) -> None:
    node = update_of(model)
    inner = helper.make_graph(
        [node], "branch", [], [helper.make_tensor_value_info("present_key_0", onnx.TensorProto.FLOAT16, None)]
    )
    branch = helper.make_node("If", ["condition"], ["out"], then_branch=inner, else_branch=inner)
    model.graph.node.remove(node)
    model.graph.node.insert(0, branch)


def vendor_operator(model: Any) -> None:
    model.graph.node.append(helper.make_node("QuickGelu", ["scores"], ["gated"], domain="com.microsoft"))


def renamed_input(model: Any) -> None:
    model.graph.input[1].name = "question"


def swapped_outputs(model: Any) -> None:
    outputs = list(model.graph.output)
    del model.graph.output[:]
    model.graph.output.extend([outputs[1], outputs[0], *outputs[2:]])


def wrong_input_dtype(model: Any) -> None:
    model.graph.input[1].type.tensor_type.elem_type = onnx.TensorProto.FLOAT


def wrong_output_size(model: Any) -> None:
    model.graph.output[1].type.tensor_type.shape.dim[3].dim_value = 17


def frozen_slots(model: Any) -> None:
    model.graph.input[1].type.tensor_type.shape.dim[0].dim_value = 1


def renamed_slots(model: Any) -> None:
    model.graph.input[1].type.tensor_type.shape.dim[0].dim_param = "batch"


def frozen_output_slots(model: Any) -> None:
    model.graph.output[1].type.tensor_type.shape.dim[0].dim_value = 1


def lost_output_rank(model: Any) -> None:
    del model.graph.output[1].type.tensor_type.shape.dim[:]


def weights_from_elsewhere(model: Any) -> None:
    weight = model.graph.initializer[0]
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../secret")


def stored_at(location: str) -> Any:
    tensor = onnx.TensorProto(name="hidden", data_type=onnx.TensorProto.FLOAT, dims=[1])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def constant_from_elsewhere(model: Any) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["hidden"], value=stored_at("constant.bin")))


def branch_from_elsewhere(model: Any) -> None:
    branch = helper.make_graph([], "branch", [], [], [stored_at("branch.bin")])
    model.graph.node.append(helper.make_node("If", ["one"], ["chosen"], then_branch=branch, else_branch=branch))


def function_from_elsewhere(model: Any) -> None:
    node = helper.make_node("Constant", [], ["out"], value=stored_at("function.bin"))
    model.functions.append(helper.make_function("", "Given", [], ["out"], [node], model.opset_import))


def sparse_weights_from_elsewhere(model: Any) -> None:
    model.graph.sparse_initializer.append(
        onnx.SparseTensorProto(values=stored_at("values.bin"), indices=stored_at("indices.bin"), dims=[4])
    )


BROKEN: list[tuple[Callable[[Any], None], str]] = [
    (set_attribute("axis", 1), "along axis 1, expected 2"),
    (set_attribute("mode", "circular"), "mode 'circular', expected 'linear'"),
    (past_through_identity, "'past_key_0' is read by Identity 'aliasing'; only its update may read it"),
    (past_through_identity, "'past_key_0' feeds 0 updates"),
    (present_through_identity, "'present_key_0' is written by Identity 'copying'"),
    (past_read_elsewhere, "'past_key_0' is read by Transpose; only its update"),
    (past_written_into_itself, "'past_key_0' is read by TensorScatter 'update'; only its update"),
    (past_read_in_a_branch, "'past_key_0' is read by Identity 'peek'"),
    (second_update, "'present_key_0' is written by TensorScatter 'again'"),
    (update_of_the_updated, "cache 'key_0' is updated twice"),
    (two_updates_of_past, "'past_key_0' feeds 2 updates"),
    (update_of_something_else, "TensorScatter 'stray' updates 'scores', which is not declared as a cache"),
    (update_inside_a_branch, "is in a loop, branch or function"),
    (vendor_operator, "operators that are not standard ONNX, so TensorRT cannot parse them: com.microsoft.QuickGelu"),
    (renamed_input, "the inputs are not the declared ones (missing: query; unknown: question)"),
    (swapped_outputs, "the outputs are not the declared ones (found in this order: "),
    (wrong_input_dtype, "input 'query' has dtype FLOAT, expected FLOAT16"),
    (wrong_output_size, "output 'result' has dimensions ['B', 2, 1, 17], expected ['B', 2, 1, 16]"),
    (frozen_slots, "input 'query' has dimensions [1, 2, 1, 16], expected ['B', 2, 1, 16]"),
    (renamed_slots, "input 'query' has dimensions ['batch', 2, 1, 16], expected ['B', 2, 1, 16]"),
    (frozen_output_slots, "output 'result' has dimensions [1, 2, 1, 16], expected ['B', 2, 1, 16]"),
    (lost_output_rank, "output 'result' has dimensions [], expected ['B', 2, 1, 16]"),
    (weights_from_elsewhere, "weights come from ../secret, but the manifest lists other files"),
    (constant_from_elsewhere, "weights come from constant.bin, but"),
    (branch_from_elsewhere, "weights come from branch.bin, but"),
    (function_from_elsewhere, "weights come from function.bin, but"),
    (sparse_weights_from_elsewhere, "weights come from indices.bin and values.bin, but"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_each_rule_finds_the_graph_that_breaks_it(change: Callable[[Any], None], message: str) -> None:
    spec = cache_spec()
    model = cache_model(spec)
    change(model)
    violations = find_violations(model, spec)
    assert any(message in violation for violation in violations), violations


def changed_cache(**changes: Any) -> GraphSpec:
    spec = cache_spec(changes.pop("base", "float16"))
    tensors = [replace(t, **changes) if t.name == "key_0" else t for t in spec.tensors]
    return replace(spec, tensors=tuple(tensors))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (changed_cache(dims=("B", 8, 16)), "cache 'key_0' has 3 dimensions; an in-place update needs 4"),
        (changed_cache(dims=("B", 2, "B", 16)), "cache 'key_0' has a dynamic length 'B'"),
        (changed_cache(dtype="int32"), "cache 'key_0' has dtype int32"),
    ],
)
def test_a_table_that_no_runtime_can_keep_in_place(spec: GraphSpec, message: str) -> None:
    assert any(message in violation for violation in find_violations(cache_model(spec), spec))


def test_all_violations_are_reported_together(tmp_path: Path) -> None:
    spec = cache_spec()
    model = cache_model(spec)
    for change in (set_attribute("mode", "circular"), past_read_elsewhere, vendor_operator):
        change(model)
    onnx.save(model, tmp_path / "step_0.onnx")
    with pytest.raises(EngineError) as error:
        check_graph_file(tmp_path / "step_0.onnx", spec)
    for part in ("circular", "read by Transpose", "com.microsoft.QuickGelu"):
        assert part in str(error.value)


def test_a_file_that_is_not_onnx(tmp_path: Path) -> None:
    (tmp_path / "step_0.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(EngineError, match="cannot be read as an ONNX graph"):
        check_graph_file(tmp_path / "step_0.onnx", cache_spec())


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="is missing"):
        check_graph_file(tmp_path / "step_0.onnx", cache_spec())
