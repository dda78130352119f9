"""Score of a song: what is played and sung, when, and by which part. Pure data.

Times inside a section are in beats from its beginning, so that repeated refrains are equal `Section` objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from jukebox_deploy.data.synthesis.scales import Scale

TAIL_SECONDS = 0.75
"""Time for the last sounds to decay."""


class Part(StrEnum):
    """Instrumental part that plays a note."""

    LEAD = "lead"
    CHORDS = "chords"
    BASS = "bass"


class Drum(StrEnum):
    """Piece of the drum kit."""

    KICK = "kick"
    SNARE = "snare"
    HAT = "hat"


class SectionKind(StrEnum):
    """Kind of a section in the form of a song."""

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
    after: str  # separator that follows in the lyrics: "", a space, or line breaks
    sounds: tuple[str, ...]  # names from `voice_sounds`


@dataclass(frozen=True)
class Section:
    """One section of a song."""

    kind: SectionKind
    beats: int
    notes: tuple[Note, ...]
    hits: tuple[Hit, ...]
    syllables: tuple[Syllable, ...] = ()


class Arrangement(StrEnum):
    """Which parts play in a song."""

    FULL = "full"  # the whole band: lead or voice, chords, bass, drums, and the artist's echo
    SOLO = "solo"  # only the tune, sung or played, without echo
    ANSWERED = "answered"  # as solo, but the lead plays every other sung line instead, in the octave of the voice


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
    grid: float = 0.0  # seconds between two times at which sounds may begin; 0 means any time
    arrangement: Arrangement = Arrangement.FULL

    @property
    def beat_seconds(self) -> float:
        """Duration of a beat in seconds."""
        return 60 / self.tempo

    def time_of(self, beat: float) -> float:
        """Return the time in seconds at which a sound at a beat begins, rounded to the grid if there is one."""
        seconds = beat * self.beat_seconds
        return round(seconds / self.grid) * self.grid if self.grid else seconds

    @property
    def section_beats(self) -> tuple[int, ...]:
        """The beat at which each section begins."""
        return tuple(sum(section.beats for section in self.sections[:n]) for n in range(len(self.sections)))

    @property
    def seconds(self) -> float:
        """Duration, including the tail in which the last sounds decay."""
        return sum(section.beats for section in self.sections) * self.beat_seconds + TAIL_SECONDS

    @property
    def lyrics(self) -> str:
        """Text of all sung lines, with an empty line between sections."""
        syllables = (syllable for section in self.sections for syllable in section.syllables)
        return "".join(syllable.text + syllable.after for syllable in syllables).strip()
