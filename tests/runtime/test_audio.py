from __future__ import annotations

import resource
import signal
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from jukebox_deploy.errors import AudioError
from jukebox_deploy.runtime.audio import SampleFormat, read_prompt, writing_wav
from jukebox_deploy.sound_files import erase_time_of_peak
from tests.data.song_folders import streamed, write_sound

RATE, HOP = 44_100, 128


def tone(seconds: float, rate: int, frequency: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def loudest_frequency(audio: np.ndarray, rate: int) -> float:
    return float(np.abs(np.fft.rfft(audio * np.hanning(len(audio)))).argmax() * rate / len(audio))


@pytest.mark.parametrize(
    ("suffix", "subtype", "tolerance"),
    [("wav", "PCM_16", 1e-4), ("wav", "FLOAT", 1e-7), ("flac", "PCM_24", 1e-6), ("ogg", "VORBIS", 0.05)],
)
def test_formats_are_read_as_mono_float(suffix: str, subtype: str, tolerance: float, tmp_path: Path) -> None:
    path = tmp_path / f"prompt.{suffix}"
    soundfile.write(path, tone(1.0, RATE), RATE, subtype=subtype)
    audio = read_prompt(path, RATE, HOP)
    assert audio.dtype == np.float32
    assert audio.shape == (RATE // HOP * HOP,)
    np.testing.assert_allclose(audio, tone(1.0, RATE)[: len(audio)], atol=tolerance)


def test_mp3_is_read(tmp_path: Path) -> None:
    path = tmp_path / "prompt.mp3"
    soundfile.write(path, tone(1.0, RATE), RATE, format="MP3")
    audio = read_prompt(path, RATE, HOP)
    assert len(audio) % HOP == 0
    assert loudest_frequency(audio, RATE) == pytest.approx(440, abs=2)


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    left, right = tone(0.5, RATE), tone(0.5, RATE, 1000.0)
    soundfile.write(path, np.stack([left, right], axis=1), RATE, subtype="FLOAT")
    audio = read_prompt(path, RATE, HOP)
    np.testing.assert_allclose(audio, ((left + right) / 2)[: len(audio)], atol=1e-6)


def test_other_rates_are_resampled(tmp_path: Path) -> None:
    path = tmp_path / "half.wav"
    soundfile.write(path, tone(1.0, 22_050), 22_050, subtype="FLOAT")
    audio = read_prompt(path, RATE, HOP)
    assert len(audio) == RATE // HOP * HOP
    middle = slice(2000, -2000)
    np.testing.assert_allclose(audio[middle], tone(1.0, RATE)[: len(audio)][middle], atol=1e-3)


def test_only_the_beginning_is_kept_on_request(tmp_path: Path) -> None:
    path = tmp_path / "prompt.wav"
    soundfile.write(path, tone(2.0, RATE), RATE)
    assert len(read_prompt(path, RATE, HOP, seconds=0.5)) == RATE // 2 // HOP * HOP


def _write(path: Path, audio: np.ndarray, rate: int = RATE) -> None:
    soundfile.write(path, audio, rate, subtype="FLOAT")


def _write_garbage(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def _write_cut_off(path: Path) -> None:
    soundfile.write(path, tone(1.0, RATE), RATE)
    path.write_bytes(path.read_bytes()[:20])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no such sound file"),
        (lambda path: path.mkdir(), "there is no such sound file"),
        (_write_garbage, "is not a sound file that can be read"),
        (_write_cut_off, "is not a sound file that can be read"),
        (lambda path: path.write_text("la la la"), "is not a sound file that can be read"),
        (lambda path: path.touch(), "is not a sound file that can be read"),
        (lambda path: _write(path, np.zeros(0)), "is empty"),
        (lambda path: _write(path, np.zeros(RATE)), "is silent"),
        (lambda path: _write(path, tone(1.0, RATE)[:100]), "2.27 ms, less than one top-level code .2.90 ms"),
        (lambda path: _write(path, np.append(tone(1.0, RATE), np.nan)), "NaN or infinite"),
        (lambda path: _write(path, np.append(np.inf, tone(1.0, RATE))), "NaN or infinite"),
    ],
)
def test_useless_prompts_are_refused(make, message: str, tmp_path: Path) -> None:
    path = tmp_path / "prompt.wav"
    make(path)
    with pytest.raises(AudioError, match=message) as raised:
        read_prompt(path, RATE, HOP)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("seconds", [None, 0.5, 2.0])
def test_a_prompt_of_unknown_length_is_refused(seconds: float | None, tmp_path: Path) -> None:
    path = streamed(write_sound(tmp_path / "prompt.flac", tone(1.0, RATE), RATE))
    with pytest.raises(AudioError, match="its header does not say how long it is; convert the file again"):
        read_prompt(path, RATE, HOP, seconds)


def _write_wav(path: Path, chunks: list[np.ndarray]) -> None:
    with writing_wav(path, RATE) as wav:
        for chunk in chunks:
            wav.write(chunk.astype(np.float32))


def test_float_files_keep_the_samples_as_they_are(tmp_path: Path) -> None:
    audio = np.array([0.0, -1.5, 0.25, 2.0], np.float32)
    with writing_wav(tmp_path / "song.wav", RATE) as wav:
        wav.write(audio[:3])
        wav.write(audio[3:])
    read, rate = soundfile.read(tmp_path / "song.wav", dtype="float32")
    assert read.tolist() == audio.tolist()
    assert rate == RATE
    report = wav.report()
    assert (report.samples, report.peak, report.scale) == (4, 2.0, 1.0)


def test_equal_samples_give_equal_files_at_any_time(tmp_path: Path) -> None:
    _write_wav(tmp_path / "song.wav", [np.linspace(-0.5, 0.5, 101)])
    content = (tmp_path / "song.wav").read_bytes()
    chunk = content.index(b"PEAK")
    assert content[chunk + 8 : chunk + 16] == struct.pack("<II", 1, 0), "the version of the chunk, and no time"
    assert struct.unpack("<fI", content[chunk + 16 : chunk + 24]) == (0.5, 0)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_a_file_without_a_time_stays_as_it_is(subtype: str, tmp_path: Path) -> None:
    path = tmp_path / "prompt.wav"
    soundfile.write(path, np.linspace(-0.5, 0.5, 101), RATE, subtype)
    before = path.read_bytes()
    erase_time_of_peak(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("peak", "scale"), [(2.0, 0.5), (0.8, 1.0), (1.0, 1.0)])
def test_16_bit_files_are_scaled_only_beyond_1(peak: float, scale: float, tmp_path: Path) -> None:
    audio = (peak * np.sin(np.arange(200_000) / 50)).astype(np.float32)
    audio[1234] = -peak
    with writing_wav(tmp_path / "song.wav", RATE, SampleFormat.PCM_16) as wav:
        for chunk in np.array_split(audio, 7):
            wav.write(chunk)
    read, _ = soundfile.read(tmp_path / "song.wav", dtype="float32")
    assert soundfile.info(tmp_path / "song.wav").subtype == "PCM_16"
    np.testing.assert_allclose(read, audio * scale, atol=1.1 / 32768)
    assert wav.report().scale == pytest.approx(scale)
    assert [p.name for p in tmp_path.iterdir()] == ["song.wav"]


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    path.write_bytes(b"old")
    with pytest.raises(AudioError, match="not finite between samples 4 and 5"):
        _write_wav(path, [np.zeros(4), np.array([np.nan])])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
        with pytest.raises(AudioError, match="could not be written"):
            _write_wav(tmp_path / "song.wav", [np.zeros(4410)] * 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []
