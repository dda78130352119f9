"""Instruments, drums and the voice: pitch, envelopes, spectra."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from jukebox_deploy.data.dice import Dice, Stream
from jukebox_deploy.data.synthesis import drums
from jukebox_deploy.data.synthesis.artists import ARTISTS
from jukebox_deploy.data.synthesis.drums import DrumKit
from jukebox_deploy.data.synthesis.instruments import Oscillator, Shape
from jukebox_deploy.data.synthesis.scales import frequency
from jukebox_deploy.data.synthesis.score import Drum, Part
from jukebox_deploy.data.synthesis.voice import Singer, formant_filter
from jukebox_deploy.data.synthesis.voice_sounds import SOUNDS, VOWELS, Manner
from jukebox_deploy.data.synthesis.waveforms import wave

RATE = 44_100
DICE = Dice(0, Stream.SOUND)
PLAYERS = {f"{name}, {part}": (artist.player(part), part) for name, artist in ARTISTS.items() for part in Part}
PITCHES = {Part.LEAD: (62, 81), Part.CHORDS: (52, 63), Part.BASS: (33, 44)}


def cents_off(samples, hertz, rate=RATE):
    """How far the partial next to a frequency is from it; the loudest one within a semitone."""
    size = 1 << 20
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), size))
    low, high = (round(hertz * 2 ** (shift / 12) * size / rate) for shift in (-1, 1))
    peak = low + int(power[low:high].argmax())
    assert power[peak] > 0.05 * power.max()
    return 1200 * np.log2(peak * rate / size / hertz)


@pytest.mark.parametrize("name", PLAYERS)
def test_instruments_play_the_pitch(name):
    player, part = PLAYERS[name]
    for pitch in PITCHES[part]:
        tone = player.instrument.tone(frequency(pitch), 1.0, RATE, DICE)
        assert abs(cents_off(tone[: 2 * (len(tone) // 2)], frequency(pitch))) < 20, pitch


@pytest.mark.parametrize("name", PLAYERS)
@pytest.mark.parametrize(("seconds", "rate"), [(0.01, 8000), (0.1, 44_100), (1.5, 22_050)])
def test_notes_begin_and_end_without_a_click(name, seconds, rate):
    player, part = PLAYERS[name]
    tone = player.instrument.tone(frequency(PITCHES[part][1]), seconds, rate, DICE)
    assert_soft_ends(tone)
    assert seconds * rate <= len(tone) <= (seconds + 0.5) * rate + 1


def assert_soft_ends(tone):
    assert np.isfinite(tone).all()
    assert 0 < np.abs(tone).max() <= 1 + 1e-12
    assert abs(tone[0]) < 1e-3
    assert abs(tone[-1]) < 0.02


@pytest.mark.parametrize("shape", Shape)
def test_oscillators_have_no_aliases(shape):
    hertz, rate = 2093.0, 22_050
    tone = Oscillator(shape).tone(hertz, 1.0, rate, DICE)
    power = np.abs(np.fft.rfft(tone * np.blackman(len(tone)))) ** 2
    frequencies = np.fft.rfftfreq(len(tone), 1 / rate)
    near = np.abs(frequencies / hertz - np.round(frequencies / hertz)) * hertz < 30
    assert power[~near].sum() < 1e-5 * power.sum()


def test_a_wave_is_the_sum_of_its_sines():
    phase = np.linspace(-1, 2, 1000)
    expected = np.sin(2 * np.pi * phase) + 0.5 * np.sin(6 * np.pi * phase)
    samples = wave(np.array([1.0, 0.0, 0.5]), phase)
    np.testing.assert_allclose(samples, expected / np.abs(expected).max(), atol=2e-3)


@pytest.mark.parametrize("rate", [8000, 44_100])
@pytest.mark.parametrize("drum", Drum)
@pytest.mark.parametrize("chip", [False, True])
def test_drums(drum, chip, rate):
    hit = DrumKit(chip=chip).sound(drum, rate, DICE)
    assert_soft_ends(hit)
    assert np.abs(hit[: len(hit) // 4]).max() > 4 * np.abs(hit[-len(hit) // 8 :]).max()


def test_the_snare_has_a_body_of_its_pitch(monkeypatch):
    snare = DrumKit(snare_tone=1.0).sound(Drum.SNARE, RATE, DICE)
    monkeypatch.setattr(drums, "_SNARE_HERTZ", 2 * drums._SNARE_HERTZ)
    higher = DrumKit(snare_tone=1.0).sound(Drum.SNARE, RATE, DICE)
    assert centre(higher) > 1.5 * centre(snare)


def test_drums_lie_in_their_registers():
    centres = {drum: centre(DrumKit().sound(drum, RATE, DICE)) for drum in Drum}
    assert centres[Drum.KICK] < 300 < centres[Drum.SNARE] < 5000 < centres[Drum.HAT]


def centre(samples):
    power = np.abs(np.fft.rfft(samples)) ** 2
    return (power * np.fft.rfftfreq(len(samples), 1 / RATE)).sum() / power.sum()


def sing(*sounds, singer, hertz=110.0, seconds=1.0, rate=RATE):
    return singer.sing(sounds, hertz, seconds, rate, Dice(0, Stream.SOUND))


PLAIN = Singer(lowest=40, vibrato=0, breath=0)


def envelope(samples, hertz):
    """Frequencies and levels of the harmonics."""
    middle = samples[RATE // 5 : RATE // 5 + RATE // 2] * np.hanning(RATE // 2)
    power = np.abs(np.fft.rfft(middle))
    harmonics = np.arange(1, int(5000 / hertz)) * hertz
    return harmonics, np.array([power[round(h / 2) - 2 : round(h / 2) + 3].max() for h in harmonics])


@pytest.mark.parametrize("vowel", VOWELS)
def test_vowels_have_their_formants(vowel):
    """The two lowest formants are peaks among the harmonics, as near as these lie."""
    hertz = 62.0
    harmonics, levels = envelope(sing(vowel, singer=PLAIN, hertz=hertz), hertz)
    inner = levels[1:-1]
    peaks = harmonics[1:-1][(inner > levels[:-2]) & (inner > levels[2:])]
    for formant in VOWELS[vowel].formants[:2]:
        assert np.abs(peaks - formant).min() < hertz, (formant, peaks)


def test_vowels_differ_and_one_vowel_is_the_same_on_other_pitches():
    """Nearest neighbour among the vowels of another pitch, by the levels of coarse bands."""

    def features(hertz):
        rows = []
        for vowel in VOWELS:
            harmonics, levels = envelope(sing(vowel, singer=PLAIN, hertz=hertz), hertz)
            bands = np.interp(np.arange(200, 4000, 150), harmonics, np.log(levels))
            rows.append(bands - bands.mean())
        return np.array(rows)

    low, high = features(100.0), features(131.0)
    distances = np.linalg.norm(low[:, None] - high[None], axis=-1)
    assert distances.argmin(axis=1).tolist() == list(range(len(VOWELS)))


@pytest.mark.parametrize("name", ARTISTS)
@pytest.mark.parametrize("vowel", ["ah", "ee", "oo"])
def test_singers_hold_the_pitch(name, vowel):
    singer = ARTISTS[name].singer
    for pitch in (singer.lowest, singer.lowest + 15):
        tone = sing(vowel, singer=singer, hertz=frequency(pitch))
        assert abs(cents_off(tone[: RATE // 4], frequency(pitch))) < 20


@pytest.mark.parametrize("rate", [8000, 44_100])
@pytest.mark.parametrize("sound", SOUNDS)
def test_every_sound_can_be_sung_for_any_length(sound, rate):
    sounds = (sound,) if SOUNDS[sound].manner is Manner.VOWEL else (sound, "ah", sound)
    for seconds in (0.05, 0.4):
        assert_soft_ends(sing(*sounds, singer=ARTISTS["organ valley"].singer, seconds=seconds, rate=rate))


def test_consonants_sound_different():
    """By their spectra in the first 50 milliseconds; each voiced with the same vowel."""
    consonants = ["m", "s", "sh", "h", "l", "z", "f"]
    starts = [sing(c, "ah", singer=PLAIN)[: RATE // 20] for c in consonants]
    spectra = np.array([np.log(np.abs(np.fft.rfft(s)) + 1e-3)[:800].reshape(-1, 20).mean(axis=1) for s in starts])
    distances = [np.abs(a - b).mean() for a, b in itertools.combinations(spectra, 2)]
    assert min(distances) > 0.2


def test_a_plosive_is_silent_before_its_burst():
    tone = sing("t", "ah", singer=PLAIN)
    closure, burst = tone[: round(0.035 * RATE)], tone[round(0.05 * RATE) : round(0.07 * RATE)]
    assert np.abs(closure).max() < 0.02 < 0.2 < np.abs(burst).max()


def test_formants_above_the_rate_are_left_out():
    assert formant_filter((300, 870, 2240, 3300), 1.2, 8000).shape == (3, 6)
    assert formant_filter((300, 870, 2240, 3300), 1.0, 44_100).shape == (4, 6)
