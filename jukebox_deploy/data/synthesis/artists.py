"""Artists: their instruments with their loudness, and their singers."""

from __future__ import annotations

from dataclasses import dataclass

from jukebox_deploy.data.synthesis.drums import DrumKit
from jukebox_deploy.data.synthesis.instruments import Bell, Instrument, Organ, Oscillator, Pluck, Shape
from jukebox_deploy.data.synthesis.score import Part
from jukebox_deploy.data.synthesis.voice import Singer


@dataclass(frozen=True)
class Player:
    """An instrument and its loudness in the mix."""

    instrument: Instrument
    gain: float


@dataclass(frozen=True)
class Artist:
    """A band: an instrument for each part, a drum kit, a singer, and the mix."""

    name: str
    lead: Player
    chords: Player
    bass: Player
    drums: DrumKit
    drum_gain: float
    singer: Singer
    voice_gain: float = 0.5
    echo: float = 0.0  # share of the sound that is repeated after three quarters of a beat

    def player(self, part: Part) -> Player:
        """Return the player of a part."""
        return {Part.LEAD: self.lead, Part.CHORDS: self.chords, Part.BASS: self.bass}[part]


_FULL_DRAWBARS = (0.5, 0.3, 1.0, 0.7, 0.2, 0.4, 0.1, 0.1, 0.3)
_FLUTE_DRAWBARS = (0.2, 0.0, 1.0, 0.3, 0.0, 0.05, 0.0, 0.0, 0.0)
_PEDAL_DRAWBARS = (0.3, 0.0, 1.0, 0.2, 0.0, 0.0, 0.0, 0.0, 0.0)

_BANDS = (
    Artist(
        "the copper strings",
        lead=Player(Pluck(brightness=0.9, ring=3.0), 2.4),
        chords=Player(Pluck(brightness=0.6, ring=2.5), 1.0),
        bass=Player(Pluck(brightness=0.3, ring=2.0), 2.4),
        drums=DrumKit(kick_hertz=55, length=0.8),
        drum_gain=0.55,
        singer=Singer(lowest=45, vibrato=15),
    ),
    Artist(
        "organ valley",
        lead=Player(Organ(_FULL_DRAWBARS, tremolo=0.3), 0.5),
        chords=Player(Organ(_FULL_DRAWBARS), 0.2),
        bass=Player(Organ(_PEDAL_DRAWBARS), 0.35),
        drums=DrumKit(kick_hertz=48, length=1.1),
        drum_gain=0.6,
        singer=Singer(lowest=55, tract=1.15, vibrato=35),
    ),
    Artist(
        "glass lanterns",
        lead=Player(Bell(ratio=3.5, depth=1.2, ring=2.5), 0.7),
        chords=Player(Bell(ratio=2.0, depth=0.8, ring=1.8), 0.35),
        bass=Player(Oscillator(Shape.SINE, decay=4.0, attack=0.01, release=0.1), 0.7),
        drums=DrumKit(kick_hertz=45, snare_tone=0.1, length=0.6),
        drum_gain=0.4,
        singer=Singer(lowest=57, tract=1.2, vibrato=20, breath=0.08),
        echo=0.3,
    ),
    Artist(
        "eight bit harbour",
        lead=Player(Oscillator(Shape.PULSE, duty=0.25, vibrato=12), 0.6),
        chords=Player(Oscillator(Shape.PULSE, duty=0.125, decay=3.0), 0.5),
        bass=Player(Oscillator(Shape.TRIANGLE), 0.5),
        drums=DrumKit(kick_hertz=60, snare_tone=0.2, length=0.7, chip=True),
        drum_gain=0.8,
        singer=Singer(lowest=52, vibrato=0, breath=0.0, tilt=0.6),
        voice_gain=0.45,
    ),
    Artist(
        "the night ferry",
        lead=Player(Oscillator(Shape.SAW, softness=0.4, attack=0.02, vibrato=15), 0.4),
        chords=Player(Pluck(brightness=0.8, ring=1.2), 1.2),
        bass=Player(Oscillator(Shape.SAW, softness=0.8, decay=1.5), 1.2),
        drums=DrumKit(kick_hertz=50, snare_tone=0.5),
        drum_gain=1.2,
        singer=Singer(lowest=48, tract=0.95, vibrato=10, breath=0.05),
    ),
    Artist(
        "paper orchestra",
        lead=Player(Organ(_FLUTE_DRAWBARS, tremolo=0.4, tremolo_hertz=4.5), 0.45),
        chords=Player(Oscillator(Shape.SAW, softness=0.9, attack=0.12, release=0.25, vibrato=8), 0.16),
        bass=Player(Oscillator(Shape.SAW, softness=1.2, attack=0.04, release=0.1), 0.35),
        drums=DrumKit(kick_hertz=42, length=1.6),
        drum_gain=0.5,
        singer=Singer(lowest=60, tract=1.2, vibrato=45, vibrato_hertz=6.0),
        echo=0.15,
    ),
)

ARTISTS = {artist.name: artist for artist in _BANDS}
"""All artists by name."""
