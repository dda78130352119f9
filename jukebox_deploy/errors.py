"""The exceptions that this library raises on purpose.

Each message names the thing, what was found, what was expected, and what to do. Only the command
line prints them and exits; everything else lets them pass.
"""

from __future__ import annotations


class JukeboxError(Exception):
    """Base of every error with a message meant for the user."""


class ConfigError(JukeboxError):
    """A configuration, preset or option that cannot be."""


class CheckpointError(JukeboxError):
    """A checkpoint file or bundle that is missing, corrupt, hostile, or of another model."""


class ExportError(JukeboxError):
    """A graph that could not be traced, checked or written."""


class ParityError(JukeboxError):
    """Two implementations of one graph that disagree beyond the tolerance."""


class EngineError(JukeboxError):
    """An engine or engine bundle that cannot be built, opened or fed."""


class LabelError(JukeboxError):
    """An artist, genre, lyric or duration that a model cannot be conditioned on."""


class AudioError(JukeboxError):
    """A sound file that cannot be read, or is of no use as a prompt."""


class SamplingError(JukeboxError):
    """A request for music that cannot be met, or a song folder that does not fit it."""


class TrainingError(JukeboxError):
    """A training run that cannot begin, or cannot go on."""


class DataError(JukeboxError):
    """A folder of songs, its table or its cache that cannot be trained on."""
