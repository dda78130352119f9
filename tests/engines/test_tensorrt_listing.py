"""A builder's listing is counted where it is understood, and left alone where it is not."""

from __future__ import annotations

from jukebox_deploy.engines.tensorrt.listing import LISTING_BEGINS, Launches, read_launches

WEIGHTS = "{ Name: layer.weight_constantInt8_myl0, Dimensions: [8,4], Datatype: Int8, Format: (Linear) }"
ROWS = "{ Name: rows [profile 1], Dimensions: [-1,8], Datatype: Half, Format: (Linear) }"


def layer(name: str, kind: str = "kgen", inputs: str = f" {ROWS}", constants: str = "") -> str:
    head = f"Name: {name}, LayerType: {kind}, Inputs: [{inputs}], Constants: [{constants}]"
    return f"{head}, Outputs: [{ROWS}], StreamId: 0"


def listing(*layers: str) -> str:
    return "\n".join([LISTING_BEGINS, *layers, "", "Bindings:", "rows"])


def test_kernels_are_counted_and_signals_are_not() -> None:
    text = listing(
        layer("__mye1_0_myl0_0", "shape_call"),
        layer("__myl_CastMulCastFc_myl0_1", "runtime_fusion", constants=WEIGHTS),
        layer("node_matmul_myl0_2", "gemm"),
        layer("__mye2_myl0_3", "signal", inputs=""),
        layer("__mye3_myl0_4", "wait", inputs=""),
    )
    assert read_launches(text, 1) == Launches(kernels=2, written_weights=0)


def test_kernels_that_only_write_weights_out_are_counted() -> None:
    text = listing(
        layer("__myl_CastMulCast_myl0_0", inputs="", constants=WEIGHTS),
        layer("__myl_Move_myl0_1", inputs="", constants=ROWS),
        layer("node_matmul_myl0_2", "gemm"),
    )
    assert read_launches(text, 1) == Launches(kernels=3, written_weights=1, written_types=frozenset({"Int8"}))


def test_of_several_profiles_the_longest_counts() -> None:
    text = listing(
        *(layer(f"__myl_Fc_myl0_{index}") for index in range(2)),
        *(layer(f"node_matmul [profile 1]_myl1_{index}", "gemm") for index in range(3)),
    )
    assert read_launches(text, 2) == Launches(kernels=3, written_weights=0)


def test_what_is_not_understood_is_left_out() -> None:
    assert read_launches("", 1) is None
    assert read_launches("Layer(Myelin): {ForeignNode[a...b]}, Tactic: 0x0", 1) is None
    assert read_launches(listing(layer("a_myl0_0"), layer("b_myl1_0"), layer("c_myl2_0")), 2) is None
