"""Songs of one section, to test with in no time."""

from __future__ import annotations

from dataclasses import replace

from jukebox_deploy.data.synthesis.artists import ARTISTS
from jukebox_deploy.data.synthesis.composition import compose_outline
from jukebox_deploy.data.synthesis.genres import GENRES
from jukebox_deploy.data.synthesis.outline import outline
from jukebox_deploy.data.synthesis.score import SectionKind, Song

RATE = 16_000


def short_song(number: int, artist: str = "", genre: str = "", form=(SectionKind.REFRAIN,)) -> Song:
    """Song `number` of seed 3, its form replaced, and if named its artist and genre."""
    plan = outline(3, number)
    plan = replace(plan, form=form, artist=ARTISTS.get(artist, plan.artist))
    if genre:
        chosen = GENRES[genre]
        plan = replace(plan, genre=chosen, tempo=chosen.tempo[number % 2], tonic=chosen.tonics[number // 2 % 2])
    return compose_outline(plan)
