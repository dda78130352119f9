"""jukebox-deploy: Jukebox checkpoints in, music out through exported engines."""

__version__ = "0.1.0"
