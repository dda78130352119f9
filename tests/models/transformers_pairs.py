"""The same model twice, ours and that of `transformers`, with the same random weights.

Specification 16.4 lists what the original does otherwise than `transformers`; the numbers of the
original are in `test_prior.py` and `tests/jobs/test_original_songs.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
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
    VQVAEConfig,
)
from jukebox_deploy.labels.rows import SongLabels, window_labels
from jukebox_deploy.models.builders import build_prior
from jukebox_deploy.models.prior import Prior
from jukebox_deploy.models.prior_loss import PriorBatch
from jukebox_deploy.models.vqvae import VQVAE
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

    def logits(self, codes: torch.Tensor, upper: torch.Tensor | None = None) -> torch.Tensor:
        """Our teacher-forced logits of a window."""
        batch = self.batch(codes, upper)
        states = self.ours.lyric_encoder(batch.lyric_tokens) if self.ours.lyric_encoder is not None else None
        return self.ours(batch.tokens, batch.start, batch.conditioning, states)

    def their_logits(self, codes: torch.Tensor, upper: torch.Tensor | None = None) -> torch.Tensor:
        """Theirs; past their loss, which fails without lyrics."""
        labelled = self.config.labels is not None
        rows, start, lyrics = self.theirs.get_cond([upper], self.row() if labelled else None)
        states = None
        if self.config.lyric_prefix:
            codes, rows = self.theirs.prior_preprocess([lyrics, codes.clone()], [None, rows])
        else:
            states = self.theirs.get_encoder_states(lyrics)
        _, logits = self.theirs.prior(codes, rows, start, states, get_preds=True)
        return logits

    def their_greedy(self, codes: torch.Tensor, upper: torch.Tensor | None = None) -> np.ndarray:
        """Their window that goes on from `codes` with the most likely codes."""
        conditioning = None if upper is None else [upper]
        # Only the most likely code is left to draw from.
        options = {"music_tokens_conds": conditioning, "metadata": self.row(), "top_k": 1, "chunk_size": 8}
        (window,) = self.theirs.sample(1, codes, **options)
        return window.numpy()


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


def make_pair(config: PriorConfig, theirs_differ: dict[str, Any]) -> Pair:
    """Both priors of a configuration; theirs has the settings `SHARED` but for `theirs_differ`."""
    from transformers.models.deprecated.jukebox.configuration_jukebox import JukeboxPriorConfig

    torch.manual_seed(0)
    level = 2 - config.level  # they count from the top
    theirs = transformers.JukeboxPrior(JukeboxPriorConfig(**{**SHARED, **theirs_differ}, level=level), level=level)
    theirs = theirs.eval().requires_grad_(False)
    for key, parameter in theirs.named_parameters():
        parameter.copy_(random_weight(key, parameter))
    ours = build_prior(config).eval().requires_grad_(False)
    state = theirs.state_dict()
    names = file_names(HUGGING_FACE, config, ours.state_dict())
    ours.load_state_dict({name: state[first] for name, (first, *_) in names.items()})
    return Pair(config, ours, theirs)


@cache
def pair(name: str) -> Pair:
    """One of the pairs by its name."""
    return make_pair(OURS[name], THEIRS[name])


def their_vqvae(config: VQVAEConfig, ours: VQVAE) -> Any:
    """The VQ-VAE of `transformers` with our weights."""
    from transformers.models.deprecated.jukebox.configuration_jukebox import JukeboxVQVAEConfig
    from transformers.models.deprecated.jukebox.modeling_jukebox import JukeboxVQVAE

    theirs = JukeboxVQVAE(
        JukeboxVQVAEConfig(
            nb_discrete_codes=config.codebook_size,
            embed_dim=config.embedding_width,
            levels=config.levels,
            multipliers=list(config.multipliers),
            res_conv_depth=config.depth,
            res_conv_width=config.width,
            res_downs_t=list(config.downs),
            res_strides_t=list(config.strides),
            hop_fraction=[0.125, 0.5, 0.5][: config.levels],
            sample_length=4096,
        )
    )
    state = ours.state_dict()
    theirs.load_state_dict({name: state[own] for own, (name,) in file_names(HUGGING_FACE, config, state).items()})
    return theirs.eval().requires_grad_(False)


def random_codes(length: int = WINDOW, batch: int = 1) -> torch.Tensor:
    """Codes `[batch, length]`, always the same ones."""
    return torch.randint(CODES, (batch, length), generator=torch.Generator().manual_seed(length))


def upper_codes(given: Pair, length: int = WINDOW // 4) -> torch.Tensor | None:
    """What an upsampler is conditioned on; `None` for other priors."""
    return random_codes(length) if given.config.conditioner else None


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal but for the order of additions in float32."""
    torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-5)
