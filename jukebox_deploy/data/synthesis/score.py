"""A song as it is written down: what is played and sung, when, by which part. Pure data.

Times inside a section are in beats from its beginning, so that a refrain that comes again is an equal `Section`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from jukebox_deploy.data.synthesis.scales import Scale

TAIL_SECONDS = 0.75
"""What the last sounds get to die away."""


class Part(StrEnum):
    """Who plays a note."""

    LEAD = "lead"
    CHORDS = "chords"
    BASS = "bass"


class Drum(StrEnum):
    """What of the drum kit is hit."""

    KICK = "kick"
    SNARE = "snare"
    HAT = "hat"


class SectionKind(StrEnum):
    """The parts of a form."""

    INTRO = "intro"
    VERSE = "verse"
    REFRAIN = "refrain"
    BRIDGE = "bridge"
    OUTRO = "outro"


@dataclass(frozen=True)
class Note:
    """One note of one part."""

    part: Part
    start: float  # beats from the section's beginning
    length: float  # beats
    pitch: int  # MIDI
    loudness: float = 1.0


@dataclass(frozen=True)
class Hit:
    """One hit of a drum."""

    drum: Drum
    start: float  # beats from the section's beginning
    loudness: float = 1.0


@dataclass(frozen=True)
class Syllable:
    """One syllable, sung on one note."""

    start: float  # beats from the section's beginning
    length: float  # beats
    pitch: int  # MIDI
    text: str
    after: str  # what follows in the lyrics: "", a space, or line ends
    sounds: tuple[str, ...]  # as `lyrics` spells them


@dataclass(frozen=True)
class Section:
    """A stretch of a song."""

    kind: SectionKind
    beats: int
    notes: tuple[Note, ...]
    hits: tuple[Hit, ...]
    syllables: tuple[Syllable, ...] = ()


class Arrangement(StrEnum):
    """Who plays in a song."""

    FULL = "full"  # a band: lead or voice, chords, bass, drums, the artist's echo
    SOLO = "solo"  # the tune alone, sung or played, without echo
    ANSWERED = "answered"  # the same, and the lead plays every other line of verses and refrains, in the voice's octave


@dataclass(frozen=True)
class Song:
    """A whole song."""

    seed: int
    number: int
    artist: str
    genre: str
    tempo: float  # beats per minute
    tonic: int  # pitch class, C is 0
    scale: Scale
    sections: tuple[Section, ...]
    grid: float = 0.0  # seconds between two places where sounds may begin; 0: anywhere
    arrangement: Arrangement = Arrangement.FULL

    @property
    def beat_seconds(self) -> float:
        """Length of a beat."""
        return 60 / self.tempo

    def time_of(self, beat: float) -> float:
        """When a sound begins that is written at a beat, in seconds: on the grid, if there is one."""
        seconds = beat * self.beat_seconds
        return round(seconds / self.grid) * self.grid if self.grid else seconds

    @property
    def section_beats(self) -> tuple[int, ...]:
        """The beat at which each section begins."""
        return tuple(sum(section.beats for section in self.sections[:n]) for n in range(len(self.sections)))

    @property
    def seconds(self) -> float:
        """Length, with the tail in which the last sounds die away."""
        return sum(section.beats for section in self.sections) * self.beat_seconds + TAIL_SECONDS

    @property
    def lyrics(self) -> str:
        """All that is sung, as text: lines, and an empty line between sections."""
        syllables = (syllable for section in self.sections for syllable in section.syllables)
        return "".join(syllable.text + syllable.after for syllable in syllables).strip()
