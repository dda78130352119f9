"""Priors against `transformers` with the same weights: equal where it is right, and where it is wrong, how.

Specification 16.4 lists what the original does otherwise than `transformers`; the numbers of the
original are in `test_prior.py` and `tests/jobs/test_original_songs.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from jukebox_deploy.attention_patterns import AttentionOrder
from jukebox_deploy.checkpoints.names import HUGGING_FACE, file_names
from jukebox_deploy.config import (
    ConditionerConfig,
    LabelConfig,
    LabelRules,
    LyricsConfig,
    PriorConfig,
    TimingConfig,
    TransformerConfig,
)
from jukebox_deploy.labels.rows import SongLabels, window_labels
from jukebox_deploy.models.builders import build_prior
from jukebox_deploy.models.prior import Prior
from jukebox_deploy.models.prior_loss import PriorBatch, prior_loss
from jukebox_deploy.runtime.windows import WindowGeometry, partial_window
from tests.models.cached_windows import SlotWindow, open_session, run_windows

transformers = pytest.importorskip("transformers", "4.57.6")
if not hasattr(transformers, "JukeboxPrior"):
    pytest.skip("this version of transformers has no Jukebox any more", allow_module_level=True)

RATE, CODES, WINDOW, LYRICS, VOCABULARY = 44_100, 50, 64, 24, 80
TOTAL = 80 * 128 * 4
LABELS = LabelConfig(LabelRules.NAMES, artists=9, genres=6, genre_slots=1)
TIMED = LabelConfig(LabelRules.NAMES, 9, 6, 1, TimingConfig(8, 0.1, 3.0))

SHARED = {
    "hidden_size": 32,
    "n_heads": 2,
    "n_ctx": WINDOW,
    "blocks": 8,
    "mask": True,
    "metadata_dims": [6, 9],
    "max_nb_genres": 1,
    "music_vocab_size": CODES,
    "lyric_vocab_size": VOCABULARY,
    "timing_dims": 8,
    "min_duration": 0.1,
    "max_duration": 3.0,
    "nb_relevant_lyric_tokens": 0,
    "is_encoder_decoder": False,
    "merged_decoder": False,
}
FACTORED = "raw_column_previous_row_attention"
ENCODER = {
    **SHARED,
    "hidden_size": 16,
    "num_layers": 3,
    "blocks": 4,
    "n_ctx": LYRICS,
    "attention_pattern": FACTORED,
    "nb_relevant_lyric_tokens": LYRICS,
}
THEIRS: dict[str, dict[str, Any]] = {
    "factored": {"num_layers": 6, "attention_pattern": FACTORED, "merged_decoder": True},
    "late_cross": {
        "num_layers": 19,
        "attention_pattern": "large_separated_enc_dec_w_lyrics",
        "merged_decoder": True,
        "nb_relevant_lyric_tokens": LYRICS,
        "encoder_config": ENCODER,
    },
    "prime_and_dense": {
        "num_layers": 48,
        "attention_pattern": "enc_dec_with_lyrics",
        "is_encoder_decoder": True,
        "nb_relevant_lyric_tokens": LYRICS,
    },
    "upsampler": {
        "num_layers": 3,
        "attention_pattern": FACTORED,
        "res_conv_width": 8,
        "res_conv_depth": 3,
        "res_dilation_growth_rate": 3,
        "res_dilation_cycle": 2,
        "conv_res_scale": True,
    },
}


def stack(depth: int, order: AttentionOrder, *, prime: int = 0, cross: int = 0) -> TransformerConfig:
    return TransformerConfig(WINDOW + prime, 32, depth, 2, order, blocks=8, prime_tokens=prime, encoder_tokens=cross)


ENCODER_STACK = TransformerConfig(LYRICS, 16, 3, 2, AttentionOrder.FACTORED, blocks=4)
OURS = {
    "factored": PriorConfig(2, WINDOW, CODES, stack(6, AttentionOrder.FACTORED), TIMED, merged_decoder=True),
    "late_cross": PriorConfig(
        2,
        WINDOW,
        CODES,
        stack(19, AttentionOrder.FACTORED_LATE_CROSS, cross=LYRICS),
        TIMED,
        LyricsConfig(LYRICS, VOCABULARY, encoder=ENCODER_STACK),
        merged_decoder=True,
    ),
    "prime_and_dense": PriorConfig(
        2,
        WINDOW,
        CODES,
        stack(48, AttentionOrder.FACTORED_PRIME_AND_DENSE, prime=LYRICS),
        TIMED,
        LyricsConfig(LYRICS, VOCABULARY),
    ),
    "upsampler": PriorConfig(
        1,
        WINDOW,
        CODES,
        stack(3, AttentionOrder.FACTORED),
        LABELS,
        conditioner=ConditionerConfig(8, 3, 2, 2, dilation_cycle=2, scale_residual=True),
    ),
}


@dataclass(frozen=True)
class Pair:
    """The same prior twice."""

    config: PriorConfig
    ours: Prior
    theirs: Any

    def song(self, item: int = 0) -> SongLabels:
        lyrics = tuple(1 + (7 * i + 31 * item) % 70 for i in range(100)) if self.config.lyrics else ()
        return SongLabels(TOTAL, 0, 3 + item, (1 + item,), lyrics)

    def row(self, item: int = 0, start: int = 0) -> torch.Tensor:
        """Their label row of a window, `[1, ...]`, made of our labels."""
        labels = self.window(item, start)
        hop = 128 if self.config.level == 2 else 32
        row = [TOTAL, start * hop, WINDOW * hop, labels["artist"], *labels["genres"], *labels.get("lyric_tokens", ())]
        return torch.tensor([[int(value) for value in row]])

    def window(self, item: int = 0, start: int = 0) -> dict[str, np.ndarray]:
        """Our inputs of the graphs `condition` and `lyrics`."""
        hop = 128 if self.config.level == 2 else 32
        return window_labels(self.config, RATE, hop, self.song(item), start).arrays()

    def batch(self, codes: torch.Tensor, upper: torch.Tensor | None, item: int = 0) -> PriorBatch:
        """Our teacher-forced window `[1, n]`."""
        arrays = {name: torch.from_numpy(array)[None] for name, array in self.window(item).items()}
        lyrics = arrays.pop("lyric_tokens", None)
        start, conditioning = self.ours.condition(arrays, upper)
        if not self.config.lyric_prefix:
            return PriorBatch(codes, start, conditioning, lyrics)
        assert lyrics is not None
        return PriorBatch(torch.cat([lyrics, codes + self.config.code_shift], dim=1), start, conditioning)

    def slot_window(self, batch: PriorBatch, known: int, end: int) -> SlotWindow:
        """The same window for a slot."""
        prefix = self.config.lyric_prefix
        named = {"start": batch.start, "conditioning": batch.conditioning}
        if batch.lyric_tokens is not None:
            for layer, cache in self.ours.encode_lyrics(batch.lyric_tokens).items():
                named |= {f"cross_key_{layer}": cache.key, f"cross_value_{layer}": cache.value}
        tensors = {name: tensor[0].numpy() for name, tensor in named.items() if tensor is not None}
        return SlotWindow(batch.tokens[0, : prefix + known].numpy(), prefix + end, tensors)

    def greedy(self, batch: PriorBatch, known: int, end: int = WINDOW) -> np.ndarray:
        """Our codes of a window, temperature 0."""
        session = open_session(self.config, self.ours, 1)
        (run,) = run_windows(session, self.config, [self.slot_window(batch, known, end)])
        return np.maximum(run.ids[self.config.lyric_prefix :] - self.config.code_shift, 0)


def random_weight(key: str, parameter: torch.Tensor) -> torch.Tensor:
    """Large enough to matter, also for what starts at zero or is left unset."""
    value = torch.randn_like(parameter)
    if "norm" in key and key.endswith("weight"):
        return 1 + 0.3 * value
    if parameter.ndim == 1:
        return 0.3 * value
    if "emb" in key or "start_token" in key:
        return value
    inputs = parameter[0].numel() if parameter.ndim == 3 else parameter.shape[0]
    return value * inputs**-0.5


@cache
def pair(name: str) -> Pair:
    from transformers.models.deprecated.jukebox.configuration_jukebox import JukeboxPriorConfig

    torch.manual_seed(0)
    level = 1 if name == "upsampler" else 0  # they count from the top
    theirs = transformers.JukeboxPrior(JukeboxPriorConfig(**{**SHARED, **THEIRS[name]}, level=level), level=level)
    theirs = theirs.eval().requires_grad_(False)
    for key, parameter in theirs.named_parameters():
        parameter.copy_(random_weight(key, parameter))
    config = OURS[name]
    ours = build_prior(config).eval().requires_grad_(False)
    state = theirs.state_dict()
    names = file_names(HUGGING_FACE, config, ours.state_dict())
    ours.load_state_dict({name: state[first] for name, (first, *_) in names.items()})
    return Pair(config, ours, theirs)


@pytest.fixture(params=OURS)
def priors(request) -> Pair:
    return pair(request.param)


def random_codes(length: int = WINDOW, batch: int = 1) -> torch.Tensor:
    return torch.randint(CODES, (batch, length), generator=torch.Generator().manual_seed(length))


def upper_codes(given: Pair, length: int = WINDOW // 4) -> torch.Tensor | None:
    return random_codes(length) if given.config.conditioner else None


def their_logits(given: Pair, codes: torch.Tensor, upper: torch.Tensor | None) -> torch.Tensor:
    """Teacher-forced; past their loss, which fails without lyrics."""
    rows, start, lyrics = given.theirs.get_cond([upper], given.row())
    states = None
    if given.config.lyric_prefix:
        codes, rows = given.theirs.prior_preprocess([lyrics, codes.clone()], [None, rows])
    else:
        states = given.theirs.get_encoder_states(lyrics)
    _, logits = given.theirs.prior(codes, rows, start, states, get_preds=True)
    return logits


def test_teacher_forced_logits_are_equal(priors):
    codes, upper = random_codes(), upper_codes(priors)
    batch = priors.batch(codes, upper)
    states = priors.ours.lyric_encoder(batch.lyric_tokens) if priors.ours.lyric_encoder is not None else None
    found = priors.ours(batch.tokens, batch.start, batch.conditioning, states)
    expected = their_logits(priors, codes, upper)
    torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-5)


@pytest.mark.parametrize("known", [0, 37])
def test_greedy_windows_are_equal(priors, known):
    codes, upper = random_codes(), upper_codes(priors)
    conditioning = None if upper is None else [upper]
    # Only the most likely code is left to draw from.
    options = {"music_tokens_conds": conditioning, "metadata": priors.row(), "top_k": 1, "chunk_size": 8}
    expected = priors.theirs.sample(1, codes[:, :known], **options)
    found = priors.greedy(priors.batch(codes, upper), known)
    np.testing.assert_array_equal(found, expected[0])


# --- where `transformers` is wrong ----------------------------------------------------------------


def test_songs_of_a_batch_keep_their_own_lyrics():
    """Theirs gives every item the lyrics of the first one (16.4, number 5)."""
    given = pair("prime_and_dense")
    songs = [given.song(item) for item in range(2)]
    full = torch.tensor([[TOTAL, 0, 0, s.artist, *s.genres, *s.lyric_tokens] for s in songs])
    theirs = given.theirs.get_metadata(full, 0, TOTAL, 0)[:, 5:]
    ours = np.stack([given.window(item)["lyric_tokens"] for item in range(2)])
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_array_equal(theirs[1], theirs[0])
    first = songs[1].lyric_tokens.index(ours[1][0])
    np.testing.assert_array_equal(ours[1], songs[1].lyric_tokens[first : first + LYRICS])
    assert (ours[1] != ours[0]).any()


def test_upsamplers_see_the_upper_codes_of_their_window():
    """Theirs cuts the window's codes out and then passes all of them (16.4, number 2)."""
    given = pair("upsampler")
    whole = random_codes(WINDOW // 2)  # two windows
    start, end = WINDOW // 2, WINDOW + WINDOW // 2
    (passed,) = given.theirs.get_music_tokens_conds([whole, random_codes()], start, end)
    assert passed.shape == whole.shape
    window = whole[:, start // 4 : end // 4]
    ours = given.batch(random_codes(), window).conditioning
    assert ours is not None
    torch.testing.assert_close(ours, given.theirs.embed_tokens([window]), atol=1e-5, rtol=1e-5)
    rows = given.theirs.embed_tokens([passed])
    for first in (0, start):  # the rows they would use, and those that belong to the window
        assert not torch.allclose(rows[:, first : first + WINDOW], ours, atol=1e-2)


def test_partial_windows_have_the_length_asked_for():
    """21 codes are there and 29 more are asked for: theirs gives 64, ours 50 (16.4, number 3).

    Theirs draws the 29, but then counts 43 new codes and takes some of those that were there again.
    """
    given = pair("factored")
    present, batch = random_codes()[:, :21], given.batch(random_codes(), None)
    model = SimpleNamespace(priors=[given.theirs], total_length=TOTAL)
    model.split_batch = partial(transformers.JukeboxModel.split_batch, model)
    model.sample_single_window = partial(transformers.JukeboxModel.sample_single_window, model)
    (theirs,) = transformers.JukeboxModel.sample_partial_window(
        model, [present], given.row(), 0, {"temp": 1.0, "top_k": 1}, 0, 29, 1
    )
    assert theirs.shape[1] == 64
    window = partial_window(WindowGeometry.of(given.config), 21, 29)
    assert (window.start, window.known, window.end) == (0, 21, 50)
    ours = given.greedy(batch._replace(tokens=present), window.known, window.end)
    np.testing.assert_array_equal(ours[21:], theirs[0, -29:])
    np.testing.assert_array_equal(theirs[0, 21:35], present[0, 7:])


@pytest.mark.parametrize(("name", "layer"), [("late_cross", 18), ("prime_and_dense", 15)])
def test_attention_weights_are_those_of_the_softmax(name, layer):
    """Theirs records the matrix of the projection (16.4, number 8)."""
    given = pair(name)
    batch = given.batch(random_codes(), None)
    recorded = given.theirs.forward_tokens(random_codes(), [], given.row(), get_attn_weights={layer})
    assert any(recorded[0] is parameter for parameter in given.theirs.parameters())
    lyrics = torch.from_numpy(given.window()["lyric_tokens"])[None]
    weights = given.ours.lyric_attention(batch.tokens, batch.start, batch.conditioning, lyrics, layer)
    assert weights.shape == (1, 2, WINDOW, LYRICS)
    assert (weights >= 0).all()
    if name == "late_cross":
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(1, 2, WINDOW))
    else:  # some of it goes to the first music positions
        assert ((weights.sum(dim=-1) > 0) & (weights.sum(dim=-1) <= 1 + 1e-5)).all()


def test_losses_without_lyrics_can_be_had():
    """Theirs raises (16.4, number 6)."""
    given = pair("factored")
    with pytest.raises(AttributeError):
        given.theirs.forward_tokens(random_codes(), [], given.row())
    batch = given.batch(random_codes(), None)
    assert batch.start is not None
    bits, _ = given.theirs.prior(batch.tokens, batch.conditioning, batch.start[:, None], None)
    assert float(prior_loss(given.ours, batch).total) == pytest.approx(float(bits), rel=1e-5)


def test_losses_of_several_songs_with_a_lyric_encoder_can_be_had():
    """Theirs raises, as the original does (16.4, number 7); the loss of a batch is the mean of its songs'."""
    given = pair("late_cross")
    codes = random_codes(batch=2)
    songs = [given.batch(codes[i : i + 1], None, item=i) for i in range(2)]
    with pytest.raises(RuntimeError):
        given.theirs.forward_tokens(codes, [], torch.cat([given.row(0), given.row(1)]))
    together = PriorBatch(*(torch.cat(parts) for parts in zip(*songs, strict=True)))
    losses = [float(prior_loss(given.ours, song, 0.4).total) for song in songs]
    assert float(prior_loss(given.ours, together, 0.4).total) == pytest.approx(np.mean(losses), rel=1e-5)
    theirs, _ = given.theirs.forward_tokens(codes[:1], [], given.row())
    assert losses[0] == pytest.approx(float(theirs), rel=1e-5)
