"""OGG files that are the same for the same sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from jukebox_deploy.errors import AudioError
from jukebox_deploy.jobs.samples.ogg_files import with_serial_number, write_ogg

RATE = 8000
SOUND = 0.5 * np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE)


def test_the_same_sound_is_the_same_file(tmp_path: Path) -> None:
    for name in ("a.ogg", "b.ogg"):
        write_ogg(tmp_path / name, SOUND, RATE)
    assert (tmp_path / "a.ogg").read_bytes() == (tmp_path / "b.ogg").read_bytes()


def test_the_file_holds_the_sound(tmp_path: Path) -> None:
    # Decoders pass over pages with a wrong checksum.
    write_ogg(tmp_path / "a.ogg", 4 * SOUND, RATE, quality=0.9)
    audio, rate = soundfile.read(tmp_path / "a.ogg")
    assert (len(audio), rate) == (len(SOUND), RATE)
    assert np.abs(audio - np.clip(4 * SOUND, -0.999, 0.999)).mean() < 0.05


def test_streams_differ_in_their_number_alone(tmp_path: Path) -> None:
    write_ogg(tmp_path / "a.ogg", SOUND, RATE)
    zero = (tmp_path / "a.ogg").read_bytes()
    other = with_serial_number(zero, 77)
    assert zero != other
    assert with_serial_number(other, 0) == zero


def test_what_is_no_stream_is_refused() -> None:
    with pytest.raises(AudioError, match="begins no page"):
        with_serial_number(b"RIFF" + bytes(100), 0)
