"""A stretch of a window: where it lies, and that its two ways of running agree with each other."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jukebox_deploy.graphs import GraphOptions, declare_graphs
from jukebox_deploy.jobs.comparison.window_runs import StretchPlace, make_stretch, run_given_codes, run_greedy_codes
from jukebox_deploy.jobs.opening.eager import eager_engine
from jukebox_deploy.presets import preset

TINY = preset("tiny")


@pytest.mark.parametrize(
    ("level", "place", "block"),
    [
        (0, StretchPlace(0, 1), 1),
        (0, StretchPlace(1, 2), 31),
        (0, StretchPlace(1, 3), 16),
        (2, StretchPlace(0, 1), 3),  # after 64 lyric tokens, two blocks of 32
        (2, StretchPlace(1, 2), 15),
    ],
)
def test_stretches_are_spread_from_behind_the_lyrics_to_the_end(level, place, block):
    assert place.block(TINY.prior(level)) == block


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return eager_engine(tiny_checkpoint, declare_graphs(TINY, GraphOptions(logits=True)))


@pytest.mark.parametrize("level", [1, 2])
def test_a_stretch_is_conditioned_and_crosses_a_border_of_blocks(model, level):
    prior = TINY.prior(level)
    stretch = make_stretch(model, prior, StretchPlace(0, 1), slots=2, seed=0)
    length = prior.transformer.block_length
    assert set(stretch.tensors) == {"codes", "uniform", "start", "conditioning"}
    assert list(stretch.prefix % length) == [length // 2, length // 2 + 1]  # slots stand at different places
    assert (stretch.prefix.min() + stretch.steps) // length > stretch.prefix.max() // length


@pytest.mark.parametrize("level", [1, 2])
def test_given_greedy_codes_give_logits_that_choose_them(model, level):
    prior = TINY.prior(level)
    stretch = make_stretch(model, prior, StretchPlace(0, 1), slots=2, seed=0)
    chosen = run_greedy_codes(model.prior_session(level, 2), prior, stretch)
    codes = stretch.tensors["codes"].copy()
    for slot, first in enumerate(stretch.prefix):
        codes[slot, first : first + stretch.steps] = chosen[slot]
    given = dataclasses.replace(stretch, tensors={**stretch.tensors, "codes": codes})
    logits = run_given_codes(model.prior_session(level, 2), prior, given)["logits"]
    assert logits.shape == (stretch.steps, 2, prior.bins)
    np.testing.assert_array_equal(logits.argmax(-1).T, chosen)
