"""Whole songs: the runtime over the eager engine gives the codes and the sound of the original.

The original ran with its draw replaced by argmax, which is our temperature 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from jukebox_deploy.checkpoints.bundle import BundleContents, CheckpointBundle, write_bundle
from jukebox_deploy.checkpoints.components import prior_component
from jukebox_deploy.checkpoints.names import OPENAI, file_names
from jukebox_deploy.checkpoints.tensors import TensorTable
from jukebox_deploy.config import JukeboxConfig, PriorConfig
from jukebox_deploy.errors import ConfigError
from jukebox_deploy.graphs import declare_graphs
from jukebox_deploy.jobs.alignment.attention import alignment_windows, lyric_alignment
from jukebox_deploy.jobs.opening.eager import eager_engine
from jukebox_deploy.labels.rows import LabelledSong, SongLabels
from jukebox_deploy.models.builders import build_vqvae
from jukebox_deploy.runtime.conditioning import WindowConditioner
from jukebox_deploy.runtime.decode import decode_codes
from jukebox_deploy.runtime.level import LevelSampler, SongLevel
from jukebox_deploy.runtime.sampler import SamplingOptions, SongJob, SongSampler
from jukebox_deploy.runtime.song import LevelSettings, Mode, SongRequest
from jukebox_deploy.runtime.store import Fingerprint, read_codes
from jukebox_deploy.runtime.windows import WindowGeometry, partial_window
from tests.models.oracle_names import load_golden, vqvae_config
from tests.models.oracle_priors import our_weights, prior_config, settings

RATE, TOP_HOP = 44_100, 128
GREEDY = (LevelSettings(temperature=0.0),) * 3


@dataclass(frozen=True)
class Original:
    """The original's numbers, and its model as a bundle of ours."""

    golden: dict[str, np.ndarray]
    bundle: CheckpointBundle
    ancestral: Path  # two song folders of ours, "0" and "1"

    def codes(self, run: str, level: int) -> np.ndarray:
        return self.golden[f"out/{run}/z{level}"].astype(np.int64)


def jukebox_config(golden: dict[str, np.ndarray]) -> JukeboxConfig:
    given = settings(golden)
    vqvae = vqvae_config({"cfg": np.array(json.dumps(given["vqvae"]))})
    priors = (prior_config(prior, vqvae) for prior in given["priors"])
    fractions = zip(priors, given["hop_fraction"], strict=True)
    return JukeboxConfig("original", vqvae, tuple(replace(p, hop_fraction=fraction) for p, fraction in fractions))


def make_bundle(golden: dict[str, np.ndarray], folder: Path) -> CheckpointBundle:
    config = jukebox_config(golden)
    names = file_names(OPENAI, config.vqvae, build_vqvae(config.vqvae).state_dict())
    tables = {"vqvae": {ours: torch.from_numpy(golden[f"sd/vqvae/{theirs[0]}"]) for ours, theirs in names.items()}}
    for prior in config.priors:
        tables[prior_component(prior.level)] = our_weights(golden, prior, f"sd/prior{prior.level}/")
    sources = {name: (lambda table=table: TensorTable(table)) for name, table in tables.items()}
    return write_bundle(folder, BundleContents(config, sources))


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Iterator[Original]:
    """With the songs of the ancestral mode already sampled: others continue and upsample them."""
    golden = load_golden("e2e_3level_single_lyrics.npz")
    folder = tmp_path_factory.mktemp("original")
    made = Original(golden, make_bundle(golden, folder / "bundle"), folder / "ancestral")
    with pytest.MonkeyPatch.context() as patch:
        # The lyrics' alphabet is none of the released ones and the levels have other artists each:
        # such labels cannot be written as text, so the runtime is given their numbers.
        patch.setattr("jukebox_deploy.runtime.plan.label_song", lambda *_, **song: label_song(golden, *_, **song))
        sample(made, made.ancestral, song(golden))
        yield made


def labels_of(golden: dict[str, np.ndarray], level: int, item: int) -> SongLabels:
    """The original's label row of one of its two songs."""
    given = settings(golden)
    total, offset, _, artist, *rest = given["label_ids"][level][item]
    slots = given["priors"][level]["max_bow_genre_size"]
    genres = tuple(genre for genre in rest[:slots] if genre >= 0)
    lyrics = tuple(given["full_tokens"][item]) if given["priors"][level]["use_tokens"] else ()
    return SongLabels(total, offset, artist, genres, lyrics)


def label_song(golden: dict[str, np.ndarray], prior: PriorConfig, _vocabulary, text, **_) -> LabelledSong:
    """Stands for the look-up of names: the song's number is its artist."""
    return LabelledSong(labels_of(golden, prior.level, int(text.artist)), ())


def song(golden: dict[str, np.ndarray], samples: int | None = None, **options) -> list[SongRequest]:
    """The original's two songs."""
    seconds = (samples or settings(golden)["sample_length"]) / RATE
    both = range(2)
    sources = options.pop("sources", [None, None])
    given = {"seconds": seconds, "levels": GREEDY, "total_seconds": 3.0, **options}
    return [SongRequest(artist=str(i), source=sources[i], song=i, **given) for i in both]


def sample(original: Original, folder: Path, requests: list[SongRequest], lowest_level: int = 0) -> None:
    engine = eager_engine(original.bundle, declare_graphs(original.bundle.config))
    sampler = SongSampler(engine, Fingerprint("eager", "original"), options=SamplingOptions(lowest_level=lowest_level))
    list(sampler.sample([SongJob(request, folder / str(i)) for i, request in enumerate(requests)]))


def assert_codes(original: Original, folder: Path, run: str, levels: range = range(3)) -> None:
    for level in levels:
        found = np.stack([read_codes(folder / str(i), level, 64) for i in range(2)])
        np.testing.assert_array_equal(found, original.codes(run, level), err_msg=f"level {level}")


def test_ancestral(original):
    """Some codes at the top were chosen as lyric tokens, which count as code 0 behind their window."""
    assert_codes(original, original.ancestral, "ancestral")


def test_the_sound_of_the_ancestral_songs(original):
    expected, step = kept_samples(original, level=0)
    for i in range(2):
        audio, rate = soundfile.read(original.ancestral / str(i) / "level_0.wav", dtype="float32")
        assert (len(audio), rate) == (settings(original.golden)["sample_length"], RATE)
        np.testing.assert_allclose(audio[::step], expected[i], atol=1e-4)


@pytest.mark.parametrize("level", [1, 2])
def test_upper_levels_decode_to_sound_too(original, level):
    """Every level has a decoder of its own, straight to audio."""
    engine = eager_engine(original.bundle, declare_graphs(original.bundle.config))
    expected, step = kept_samples(original, level)
    for i in range(2):
        audio = np.concatenate(list(decode_codes(engine, level, original.codes("ancestral", level)[i])))
        np.testing.assert_allclose(audio[::step], expected[i], atol=1e-4)


def kept_samples(original: Original, level: int) -> tuple[np.ndarray, int]:
    """The original's sound `[2, samples / step]`, of which the golden has every `step`-th sample."""
    key = f"out/ancestral/x_level{level}"
    return original.golden[key][..., 0], settings(original.golden)["row_steps"].get(key, 1)


@pytest.mark.slow
def test_continue(original, tmp_path):
    cut, samples = settings(original.golden)["cont"]
    sources = [str(original.ancestral / str(i)) for i in range(2)]
    requests = song(original.golden, samples, mode=Mode.CONTINUE, sources=sources, source_seconds=cut / RATE)
    sample(original, tmp_path, requests)
    assert_codes(original, tmp_path, "continue")


@pytest.mark.slow
def test_upsample(original, tmp_path):
    sources = [str(original.ancestral / str(i)) for i in range(2)]
    sample(original, tmp_path, song(original.golden, mode=Mode.UPSAMPLE, sources=sources))
    assert_codes(original, tmp_path, "upsample")


@pytest.mark.slow
def test_primed_by_sound(original, tmp_path):
    sources = []
    for i, audio in enumerate(original.golden["in/prompt_audio"][..., 0]):
        sources.append(str(tmp_path / f"prompt_{i}.wav"))
        soundfile.write(sources[-1], audio, RATE, subtype="FLOAT")
    sample(original, tmp_path, song(original.golden, mode=Mode.PRIMED, sources=sources))
    assert_codes(original, tmp_path, "primed")


@pytest.mark.parametrize(("run", "present"), [("partial_empty", 0), ("partial_prefix", 21)])
def test_partial_windows_at_the_top(original, tmp_path, run, present):
    expected = original.golden[f"out/{run}/z_top"].astype(np.int64)
    options: dict[str, object] = {}
    if present:
        options["sources"] = [str(original.ancestral / str(i)) for i in range(2)]
        options |= {"mode": Mode.CONTINUE, "source_seconds": present * TOP_HOP / RATE}
    sample(original, tmp_path, song(original.golden, expected.shape[1] * TOP_HOP, **options), lowest_level=2)
    for i in range(2):
        np.testing.assert_array_equal(read_codes(tmp_path / str(i), 2, 64), expected[i])


def test_a_partial_window_that_slides(original):
    """After a full window, 17 codes more: the window moves so that it ends with them."""
    expected = original.golden["out/partial_slide/z_top"].astype(np.int64)
    engine = eager_engine(original.bundle, declare_graphs(original.bundle.config))
    prior = original.bundle.config.prior(2)
    window = partial_window(WindowGeometry.of(prior), present=64, new=17)
    assert (window.start, window.known, window.end) == (17, 47, 64)
    conditioner, made = WindowConditioner(engine, prior), {}

    def level(i: int) -> SongLevel:
        labels = labels_of(original.golden, 2, i)
        return SongLevel(
            i,
            song(original.golden)[i],
            81,
            [window],
            original.codes("ancestral", 2)[i, :64],
            lambda w: conditioner(w, labels, np.zeros(0, np.int64)),
            lambda codes: made.update({i: codes}),
        )

    list(LevelSampler(engine.prior_session(2, 2), prior).run([level(0), level(1)]))
    np.testing.assert_array_equal(np.stack([made[0], made[1]]), expected)


@pytest.mark.parametrize("item", [0, 1], ids=["long lyrics", "short lyrics"])
def test_lyric_alignment(original, item):
    expected = original.golden[f"out/ancestral/alignment{item}"]
    config, labels = original.bundle.config.prior(2), labels_of(original.golden, 2, item)
    codes = original.codes("ancestral", 2)[item]
    windows = alignment_windows(config, RATE, TOP_HOP, labels, len(codes))
    found = lyric_alignment(original.bundle.load_prior(2), config, codes, windows, len(labels.lyric_tokens))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_alignment_of_less_than_a_window(original):
    """The codes are filled up to a window; the rows of the filling are not given."""
    config, labels = original.bundle.config.prior(2), labels_of(original.golden, 2, 0)
    codes = original.codes("ancestral", 2)[0, :40]
    windows = alignment_windows(config, RATE, TOP_HOP, labels, len(codes))
    assert list(windows) == [0]
    prior = original.bundle.load_prior(2)
    found = lyric_alignment(prior, config, codes, windows, 200)
    whole = lyric_alignment(prior, config, original.codes("ancestral", 2)[0, :64], windows, 200)
    assert found.shape == (40, 200)
    np.testing.assert_allclose(found, whole[:40], atol=1e-6)  # causal: what follows does not matter


def test_alignment_needs_a_layer_that_looks_at_lyrics(original):
    with pytest.raises(ConfigError, match="no alignment layer"):
        lyric_alignment(original.bundle.load_prior(0), original.bundle.config.prior(0), np.zeros(64), {}, 5)
