"""Which weights become integers, and how layers to keep are named."""

from __future__ import annotations

import pytest

from jukebox_deploy.checkpoints.layout import component_shapes
from jukebox_deploy.contract import LinearWeights
from jukebox_deploy.errors import ExportError
from jukebox_deploy.export.linear_layers import choose_layers, linear_weights
from jukebox_deploy.export.quantisation import WeightFormat
from jukebox_deploy.presets import preset
from tests.export.small_models import separate_lyrics_config

INT8, INT4 = WeightFormat.of(LinearWeights.INT8), WeightFormat.of(LinearWeights.INT4)
TINY = {f"prior_{prior.level}": component_shapes(prior) for prior in preset("tiny").priors}
LYRICS = {"prior_0": component_shapes(separate_lyrics_config().prior(0))}


def test_only_the_linear_layers_of_stacks():
    names = linear_weights(LYRICS["prior_0"])
    cross = ["query", "encoder_key_value"]
    parts = {name.split(".layers.")[1].split(".", 1)[1] for name in names}
    expected = [*(f"attention.{part}" for part in (*cross, "query_key_value", "output")), "mlp.expand", "mlp.contract"]
    assert parts == {f"{part}.weight" for part in expected}
    assert any(name.startswith("lyric_encoder.") for name in names)


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        ("layers.1", 12),  # layer 1 of each prior, and not layer 10
        ("layers.2.mlp", 6),
        ("prior_0.layers.*.attention.output", 3),
        ("prior_2", 64),
        ("core.transformer.layers.0.mlp.expand.weight", 3),
        ("layers.1?.mlp.contract", 6),
    ],
)
def test_layers_are_kept_by_parts_of_their_names(pattern, kept):
    choices = choose_layers(TINY, INT8, [pattern])
    assert sum(len(choice.kept) for choice in choices.values()) == kept
    total = sum(len(linear_weights(shapes)) for shapes in TINY.values())
    assert sum(len(choice.quantised) for choice in choices.values()) == total - kept


def test_inputs_that_do_not_fall_into_groups_are_left_alone():
    choice = choose_layers(LYRICS, INT4)["prior_0"]
    assert choice.unfit  # a state width of 8, an encoder of width 16
    assert choice.quantised
    assert all(LYRICS["prior_0"][name][0] % 32 for name in choice.unfit)
    assert not choose_layers(LYRICS, INT8)["prior_0"].unfit


def test_a_layer_that_there_is_not_comes_with_the_nearest():
    with pytest.raises(ExportError, match=r"no linear layer 'layers\.71\.mpl' to keep. Nearest are .*layers\.\d+\.mlp"):
        choose_layers(TINY, INT8, ["layers.71.mpl"])


def test_without_priors_nothing_can_be_kept():
    with pytest.raises(ExportError, match="no graph of a prior"):
        choose_layers({}, INT8, ["layers.0"])
