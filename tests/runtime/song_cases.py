"""Small models and requests for the tests of the runtime, and songs sampled the slow and plain way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from jukebox_deploy.attention_patterns import AttentionOrder
from jukebox_deploy.config import (
    ConditionerConfig,
    JukeboxConfig,
    LabelConfig,
    LabelRules,
    LyricsConfig,
    PriorConfig,
    TimingConfig,
    TransformerConfig,
    VQVAEConfig,
)
from jukebox_deploy.contract import GraphKind
from jukebox_deploy.labels.rows import SongLabels, SongText, label_song, window_labels
from jukebox_deploy.labels.vocabulary import Vocabulary
from jukebox_deploy.runtime.events import Event
from jukebox_deploy.runtime.randomness import uniforms
from jukebox_deploy.runtime.sampler import SamplingOptions, SongJob, SongSampler
from jukebox_deploy.runtime.song import LevelSettings, Mode, SongRequest
from jukebox_deploy.runtime.store import Fingerprint, read_codes
from tests.runtime.fake_engine import FakeEngine, choose, digest, noise

RATE = 800
VQVAE = VQVAEConfig(
    sample_rate=RATE,
    downs=(2, 1, 1),
    strides=(2, 2, 2),
    multipliers=(1, 1, 1),
    width=8,
    depth=1,
    embedding_width=4,
    codebook_size=40,
)
LABELS = LabelConfig(LabelRules.NAMES, artists=16, genres=16, genre_slots=1)
TIMED = replace(LABELS, timing=TimingConfig(8, 0.2, 60.0))
STACK = TransformerConfig(32, width=8, depth=3, heads=1, order=AttentionOrder.FACTORED, blocks=4)


def upsampler(level: int) -> PriorConfig:
    conditioner = ConditionerConfig(width=4, depth=1, stages=1, stride=2)
    return PriorConfig(level, 32, 40, STACK, labels=LABELS, conditioner=conditioner, hop_fraction=0.5)


LYRICS_IN_SEQUENCE = PriorConfig(
    2,
    24,
    40,
    replace(STACK, depth=16, order=AttentionOrder.FACTORED_PRIME_AND_DENSE, prime_tokens=8),
    labels=TIMED,
    lyrics=LyricsConfig(tokens=8, vocabulary=79),
    hop_fraction=0.25,
)
LYRICS_ENCODED = PriorConfig(
    2,
    24,
    40,
    replace(STACK, context=24, depth=10, order=AttentionOrder.FACTORED_CROSS_EVERY_10, encoder_tokens=8),
    labels=TIMED,
    lyrics=LyricsConfig(
        tokens=8, vocabulary=79, encoder=TransformerConfig(8, 8, 3, 1, AttentionOrder.FACTORED, blocks=2)
    ),
    hop_fraction=0.25,
)
UNLABELLED = PriorConfig(2, 24, 40, replace(STACK, context=24), hop_fraction=0.5)

MODELS = {
    name: JukeboxConfig(name, VQVAE, (upsampler(0), upsampler(1), top))
    for name, top in (
        ("lyrics_in_sequence", LYRICS_IN_SEQUENCE),
        ("lyrics_encoded", LYRICS_ENCODED),
        ("unlabelled", UNLABELLED),
    )
}
MODEL = MODELS["lyrics_in_sequence"]
FINGERPRINT = Fingerprint("engine 1", "checkpoint 1")
TOP_SECOND = 16 / RATE  # seconds per top code

REQUESTS = (
    SongRequest(seconds=50 * TOP_SECOND, artist="#3", genre="#5", lyrics="La la la, a song of stars", seed=1),
    SongRequest(seconds=17 * TOP_SECOND, artist="#3", genre="#5", lyrics="Oh", seed=1, song=1),  # partial at the top
    SongRequest(
        seconds=31 * TOP_SECOND, lyrics="Something else to sing", seed=2, total_seconds=9.0, offset_seconds=2.0
    ),
    SongRequest(
        seconds=24 * TOP_SECOND,
        seed=3,
        levels=(LevelSettings(0.5, top_k=3), LevelSettings(0.0), LevelSettings(1.2, top_p=0.8)),
    ),
    SongRequest(seconds=40 * TOP_SECOND, artist="#7", seed=4, song=2),
)


def sample(engine: FakeEngine, jobs: Iterable[SongJob], options: SamplingOptions | None = None) -> list[Event]:
    return list(SongSampler(engine, FINGERPRINT, options=options).sample(list(jobs)))


def all_codes(folder: Path) -> list[list[int]]:
    return [read_codes(folder, level, 40).tolist() for level in range(3)]


def plain_song(engine: FakeEngine, request: SongRequest, given: list[np.ndarray] | None = None) -> list[list[int]]:
    """The codes of a song, worked out window by window without slots, sessions, commits or plans."""
    config = engine.config
    samples = round((request.seconds or 0) * RATE) // 16 * 16
    codes = list(given or [np.zeros(0, np.int64)] * 3)
    for level in (2, 1, 0):
        total = samples // VQVAE.hop_length(level)
        if len(codes[level]) < total:
            codes[level] = plain_level(engine, config.prior(level), request, samples, codes, total)
    return [level_codes.tolist() for level_codes in codes]


def plain_level(
    engine: FakeEngine, prior: PriorConfig, request: SongRequest, samples: int, codes: list[np.ndarray], total: int
) -> np.ndarray:
    offset = round(request.offset_seconds * RATE)
    length = round(request.total_seconds * RATE) if request.total_seconds else max(samples + offset, 160)
    text = SongText(request.artist, request.genre, request.lyrics)
    song = label_song(prior, Vocabulary(), text, total_length=length, offset=offset).labels
    result = codes[prior.level]
    start = 0
    while len(result) < total:
        start = max(0, min(start, total - prior.window))
        if start + prior.window > len(result):
            window = result[start:]
            upper = codes[prior.level + 1] if prior.level < 2 else None
            filled = plain_window(engine, prior, request, song, start, window, min(prior.window, total), upper)
            result = np.concatenate([result[:start], filled])
        start += prior.hop
    return result


def plain_window(
    engine: FakeEngine,
    prior: PriorConfig,
    request: SongRequest,
    song: SongLabels,
    start: int,
    known: np.ndarray,
    end: int,
    upper: np.ndarray | None,
) -> np.ndarray:
    """One window: hashes as the fake session makes them, but in one loop over positions."""
    arrays = window_labels(prior, RATE, VQVAE.hop_length(prior.level), song, start).arrays()
    if upper is not None:
        arrays["upper_codes"] = upper[start // 2 : start // 2 + prior.window // 2]
    tensors = {}
    for kind in (GraphKind.CONDITION, GraphKind.LYRICS):
        if f"{kind}_{prior.level}" in engine.graphs:
            runner = engine.runner(kind, prior.level)
            tensors.update(runner({t.name: arrays[t.name][None] for t in runner.spec.inputs}))
    prefix = arrays["lyric_tokens"].tolist() if prior.lyric_prefix else []
    ids = [*prefix, *(known + prior.code_shift).tolist()]
    prefilled = len(ids)
    cross = [value[0] for name, value in tensors.items() if name.startswith("cross_")]
    settings = request.settings(prior.level)
    numbers = uniforms(request.seed, request.song, prior.level, start, end)
    before: tuple[object, ...] = ("begin", *(tensors[n][0] for n in ("start",) if n in tensors))
    for position in range(len(prefix) + end):
        kernel = "prefill" if position < prefilled else "step"
        row = tensors["conditioning"][0, position] if "conditioning" in tensors else None
        memory = np.uint64(digest(prior.level, kernel, position, *before, row, *cross))
        if position >= prefilled:
            logits = 2 * noise((prior.bins,), "logits", memory)
            uniform = numbers[position - len(prefix)]
            temperature = np.float32(settings.temperature)
            ids.append(choose(logits, temperature, settings.top_k or 0, np.float32(settings.top_p or 0), uniform))
        before = (memory, ids[position])
    return np.maximum(np.array(ids[len(prefix) :]) - prior.code_shift, 0)


def primed_request(path: Path, seconds: float) -> SongRequest:
    return SongRequest(Mode.PRIMED, seconds, lyrics="with a prompt", seed=9, source=str(path))
