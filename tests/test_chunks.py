"""Songs in chunks: nothing twice, nothing left out, enough context."""

from __future__ import annotations

import pytest

from jukebox_deploy.chunks import Chunk, encoder_context, plan_chunks
from jukebox_deploy.presets import preset
from jukebox_deploy.receptive_field import ReceptiveField


def test_chunks_cover_everything_once_with_context_inside_the_song() -> None:
    assert list(plan_chunks(25, 10, ReceptiveField(before=3, after=12))) == [
        Chunk(0, 10, 0, 22),
        Chunk(10, 20, 7, 25),
        Chunk(20, 25, 17, 25),
    ]


def test_what_is_given_and_what_is_wanted_of_it() -> None:
    chunk = Chunk(first=10, last=20, outer_first=7, outer_last=25)
    assert range(30)[chunk.outer()][chunk.inner()] == range(10, 20)
    assert range(120)[chunk.outer(4)][chunk.inner(4)] == range(40, 80)


@pytest.mark.parametrize(("level", "before", "after"), [(0, 5742, 5742), (1, 80, 80), (2, 82, 82)])
def test_context_of_the_released_encoders_in_whole_codes(level: int, before: int, after: int) -> None:
    """45935 / 45942, 2551 / 2582 and 10455 / 10582 samples, of which a code covers 8, 32 and 128 itself."""
    assert encoder_context(preset("5b").vqvae, level) == ReceptiveField(before, after)
