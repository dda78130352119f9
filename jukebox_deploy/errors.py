"""The exceptions that this library raises deliberately.

Each message names the subject, what was found, what was expected, and what to do. Only the command line catches them,
prints the message and exits; all other code lets them propagate.
"""

from __future__ import annotations


class JukeboxError(Exception):
    """Base of every error with a message meant for the user."""


class MissingPackageError(JukeboxError, ImportError):
    """A package that only some commands need, and that is not installed."""


class ConfigError(JukeboxError):
    """A configuration, preset or option that is invalid or unknown."""


class CheckpointError(JukeboxError):
    """A checkpoint file or bundle that is missing, corrupt, unsafe, or of another model."""


class ExportError(JukeboxError):
    """A graph that could not be traced, checked or written."""


class ParityError(JukeboxError):
    """Two implementations of one graph that disagree beyond the tolerance."""


class NotVerifiedError(JukeboxError):
    """An engine bundle of which nothing could be run, so that it neither agrees nor disagrees with its checkpoint."""


class EngineError(JukeboxError):
    """An engine or engine bundle that cannot be built, opened or run."""


class LabelError(JukeboxError):
    """An artist, genre, lyric or duration that a model cannot be conditioned on."""


class AudioError(JukeboxError):
    """A sound file that cannot be read or written, or audio that is unusable for its purpose."""


class SamplingError(JukeboxError):
    """A sampling request that cannot be fulfilled, or a song folder that does not match it."""


class TrainingError(JukeboxError):
    """A training run that cannot begin or continue."""


class DataError(JukeboxError):
    """A folder of songs, its metadata table or its code cache that cannot be used for training."""
