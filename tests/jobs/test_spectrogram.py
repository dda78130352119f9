from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jukebox_deploy.errors import AudioError
from jukebox_deploy.jobs.spectrogram import PictureStyle, log_magnitudes, write_spectrogram

RATE = 8000


def tone(frequency: float, seconds: float = 2.0) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)


def test_a_tone_is_loudest_at_its_frequency_all_the_time() -> None:
    decibel = log_magnitudes(tone(1000.0))
    assert set(decibel.argmax(axis=0)) == {1000 * 2048 // RATE}
    assert decibel.max() == pytest.approx(0)
    assert decibel.min() == pytest.approx(-90)


@pytest.mark.parametrize("samples", [1, 100, 2048, 10_000_000])
def test_any_length_has_frames_but_never_too_many(samples: int) -> None:
    frequencies, frames = log_magnitudes(np.ones(samples, np.float32)).shape
    assert frequencies == 1025
    assert 1 <= frames <= 2001


def test_silence_has_a_picture() -> None:
    assert np.isfinite(log_magnitudes(np.zeros(5000))).all()


def test_one_panel_per_song(tmp_path: Path) -> None:
    from matplotlib.image import imread

    write_spectrogram(tmp_path / "one.png", {"a": tone(500)}, RATE)
    write_spectrogram(tmp_path / "two.png", {"a": tone(500), "b": tone(900)}, RATE)
    one, two = imread(tmp_path / "one.png"), imread(tmp_path / "two.png")
    assert two.shape[0] == pytest.approx(2 * one.shape[0], abs=2)
    assert one.std() > 0.05


def test_a_picture_in_few_colours_is_smaller_and_as_large(tmp_path: Path) -> None:
    from matplotlib.image import imread

    noise = np.random.default_rng(1).standard_normal(2 * RATE)
    for name, colours in (("all.png", None), ("few.png", 32), ("again.png", 32)):
        write_spectrogram(tmp_path / name, {"a": noise}, RATE, PictureStyle(512, (4.0, 2.0), 50, colours))
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes["few.png"] < sizes["all.png"] / 2
    assert imread(tmp_path / "few.png").shape[:2] == imread(tmp_path / "all.png").shape[:2] == (100, 200)
    assert (tmp_path / "few.png").read_bytes() == (tmp_path / "again.png").read_bytes()


def test_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="at least one sample"):
        write_spectrogram(tmp_path / "none.png", {}, RATE)
    with pytest.raises(AudioError, match="at least one sample"):
        write_spectrogram(tmp_path / "none.png", {"a": np.zeros(0)}, RATE)
    assert list(tmp_path.iterdir()) == []
