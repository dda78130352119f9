"""Chunks with context against one pass; the fake decoder and encoder see exactly their receptive fields."""

from __future__ import annotations

import numpy as np
import pytest

from jukebox_deploy.errors import AudioError, EngineError, SamplingError
from jukebox_deploy.receptive_field import decoder_receptive_field
from jukebox_deploy.runtime.decode import decode_codes, encode_audio
from tests.runtime.fake_engine import FakeEngine, FakeRunner
from tests.runtime.song_cases import MODEL, RATE, VQVAE


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("chunk_seconds", [0.001, 0.09, 0.5])
def test_decoding_in_chunks_is_one_pass(level: int, chunk_seconds: float) -> None:
    codes = np.random.default_rng(0).integers(0, 40, 101)
    whole = list(decode_codes(FakeEngine(MODEL), level, codes, chunk_seconds=1e6))
    assert len(whole) == 1
    engine = FakeEngine(MODEL)
    chunks = list(decode_codes(engine, level, codes, chunk_seconds))
    assert len(chunks) > 1
    np.testing.assert_array_equal(np.concatenate(chunks), whole[0])
    field = decoder_receptive_field(VQVAE, level)
    longest = max(call["codes"].shape[1] for call in engine.runners[0].calls)
    assert longest <= max(1, int(chunk_seconds * RATE / VQVAE.hop_length(level))) + field.before + field.after


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("chunk_seconds", [0.001, 0.09, 0.5])
def test_encoding_in_chunks_is_one_pass(level: int, chunk_seconds: float) -> None:
    audio = np.random.default_rng(0).uniform(-1, 1, 101 * VQVAE.hop_length(level)).astype(np.float32)
    whole = encode_audio(FakeEngine(MODEL), level, audio, chunk_seconds=1e6)
    engine = FakeEngine(MODEL)
    np.testing.assert_array_equal(encode_audio(engine, level, audio, chunk_seconds), whole)
    assert len(engine.runners[0].calls) > 1
    assert len(set(whole.tolist())) > 10


def test_chunks_at_once_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.random.default_rng(0).integers(0, 40, 101)
    audio = np.random.default_rng(0).uniform(-1, 1, 101 * VQVAE.hop_length(1)).astype(np.float32)
    one_by_one = (
        list(decode_codes(FakeEngine(MODEL), 1, codes, 0.001)),
        encode_audio(FakeEngine(MODEL), 1, audio, 0.001),
    )
    monkeypatch.setattr(FakeRunner, "concurrent_calls", 3)
    at_once = list(decode_codes(FakeEngine(MODEL), 1, codes, 0.001)), encode_audio(FakeEngine(MODEL), 1, audio, 0.001)
    assert len(at_once[0]) == len(one_by_one[0]) > 3
    np.testing.assert_array_equal(np.concatenate(at_once[0]), np.concatenate(one_by_one[0]))
    np.testing.assert_array_equal(at_once[1], one_by_one[1])


def test_no_more_chunks_wait_than_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory does not grow with the song, however slowly chunks are taken."""
    monkeypatch.setattr(FakeRunner, "concurrent_calls", 3)
    engine = FakeEngine(MODEL)
    chunks = decode_codes(engine, 1, np.random.default_rng(0).integers(0, 40, 101), 0.001)
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]  # a generator
    assert len(engine.runners[0].calls) <= 3


def test_a_graph_too_short_for_its_context_is_named() -> None:
    engine = FakeEngine(MODEL)
    spec = engine.graphs["vqvae_decode_0"]
    short = tuple(type(r)(r.symbol, 1, 2, 4) for r in spec.ranges)
    engine.graphs["vqvae_decode_0"] = type(spec)(spec.kind, spec.level, spec.tensors, short)
    with pytest.raises(EngineError, match="vqvae_decode_0 takes at most 4 codes at once"):
        list(decode_codes(engine, 0, np.zeros(10, np.int64)))


def test_nothing_to_decode_and_half_a_code_are_refused() -> None:
    with pytest.raises(SamplingError, match="level 1 has no codes yet"):
        list(decode_codes(FakeEngine(MODEL), 1, np.zeros(0, np.int64)))
    with pytest.raises(AudioError, match="17 samples are not a whole number of codes of level 2"):
        encode_audio(FakeEngine(MODEL), 2, np.zeros(17, np.float32))
