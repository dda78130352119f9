"""The trained model in the source repository.

Like `sampling.json`, its checkpoint bundle may contain `prompt.flac`, a sound to use as a prompt.
"""

from __future__ import annotations

from pathlib import Path

SHIPPED = Path(__file__).resolve().parents[2] / "models" / "small_demo"
"""Its folder in a clone of the repository; the wheel does not contain it."""

PROMPT_FILE = "prompt.flac"
_CONFIG_FILE = "config.json"


def shipped_model(folder: Path = SHIPPED) -> Path | None:
    """Return the folder of the checkpoint bundle in a clone; `None` if there is none."""
    return folder if (folder / _CONFIG_FILE).is_file() else None
