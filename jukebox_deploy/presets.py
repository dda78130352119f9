"""Configurations of the released and small models by name.

Three presets are this project's own: `mid` is for benchmarks; `tiny` has all parts of a released model but samples
within a minute on a laptop; `small_demo` is small enough to be trained on a laptop.

Source: specification sections 3.4 and 13.
"""

from __future__ import annotations

import difflib
from dataclasses import replace

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
from jukebox_deploy.errors import ConfigError

RELEASED_VQVAE = VQVAEConfig()
SMALL_VQVAE = VQVAEConfig(sample_rate=22_050, downs=(5, 3), strides=(2, 2), multipliers=(1, 1), codebook_size=1024)

_WORD_LABELS = LabelConfig(LabelRules.WORDS, artists=4111, genres=120, genre_slots=5)
_NAME_LABELS = LabelConfig(LabelRules.NAMES, artists=7898, genres=604, genre_slots=1)
_SMALL_LABELS = LabelConfig(
    LabelRules.NAMES, artists=100, genres=10, genre_slots=1, timing=TimingConfig(64, 60.0, 600.0)
)


def _released_upsampler(level: int, *, scale_residual: bool) -> PriorConfig:
    return PriorConfig(
        level=level,
        window=8192,
        codebook_size=2048,
        transformer=TransformerConfig(
            8192, width=1920, depth=72, heads=1, order=AttentionOrder.FACTORED, blocks=128, init_scale=0.4
        ),
        labels=_WORD_LABELS,
        conditioner=ConditionerConfig(width=1024, depth=16, stages=2, stride=2, scale_residual=scale_residual),
        hop_fraction=0.5,
    )


RELEASED_UPSAMPLERS = (
    _released_upsampler(0, scale_residual=False),
    _released_upsampler(1, scale_residual=True),
)

PRIOR_5B = PriorConfig(
    level=2,
    window=8192,
    codebook_size=2048,
    transformer=TransformerConfig(
        8192, width=4800, depth=72, heads=8, order=AttentionOrder.FACTORED, blocks=128, init_scale=0.1
    ),
    labels=replace(_WORD_LABELS, timing=TimingConfig(128, 60.0, 600.0)),
    merged_decoder=True,
    hop_fraction=0.125,
)

PRIOR_5B_LYRICS = replace(
    PRIOR_5B,
    transformer=replace(PRIOR_5B.transformer, depth=79, order=AttentionOrder.FACTORED_LATE_CROSS, encoder_tokens=512),
    labels=replace(_WORD_LABELS, timing=TimingConfig(128, 23.8, 600.0)),
    lyrics=LyricsConfig(
        tokens=512,
        vocabulary=80,
        encoder=TransformerConfig(
            512, width=1280, depth=18, heads=4, order=AttentionOrder.FACTORED, blocks=32, init_scale=0.7
        ),
        alignment_layer=68,
        alignment_head=2,
    ),
)

PRIOR_1B_LYRICS = PriorConfig(
    level=2,
    window=6144,
    codebook_size=2048,
    transformer=TransformerConfig(
        6144 + 384,
        width=2048,
        depth=72,
        heads=2,
        order=AttentionOrder.FACTORED_PRIME_AND_DENSE,
        blocks=64,
        prime_tokens=384,
        init_scale=0.2,
    ),
    labels=replace(_NAME_LABELS, timing=TimingConfig(64, 17.84, 600.0)),
    lyrics=LyricsConfig(tokens=384, vocabulary=79, alignment_layer=63, alignment_head=0),
    hop_fraction=0.125,
)

SMALL_PRIOR = PriorConfig(
    level=1,
    window=8192,
    codebook_size=1024,
    transformer=TransformerConfig(
        8192, width=1024, depth=48, heads=1, order=AttentionOrder.FACTORED, blocks=64, init_scale=0.7
    ),
)
SMALL_LABELLED_PRIOR = replace(SMALL_PRIOR, labels=_SMALL_LABELS)
SMALL_SINGLE_PRIOR = replace(
    SMALL_LABELLED_PRIOR,
    window=6144,
    transformer=replace(
        SMALL_PRIOR.transformer,
        context=6144 + 384,
        heads=2,
        order=AttentionOrder.FACTORED_PRIME_AND_DENSE,
        prime_tokens=384,
    ),
    lyrics=LyricsConfig(tokens=384, vocabulary=79),
)
SMALL_SEPARATE_PRIOR = replace(
    SMALL_LABELLED_PRIOR,
    window=6144,
    transformer=replace(
        SMALL_PRIOR.transformer,
        context=6144,
        depth=50,
        heads=2,
        order=AttentionOrder.FACTORED_CROSS_EVERY_10,
        encoder_tokens=384,
    ),
    lyrics=LyricsConfig(
        tokens=384,
        vocabulary=79,
        encoder=TransformerConfig(
            384, width=256, depth=9, heads=2, order=AttentionOrder.FACTORED, blocks=32, init_scale=0.7
        ),
    ),
)
SMALL_UPSAMPLER = replace(
    SMALL_PRIOR,
    level=0,
    conditioner=ConditionerConfig(width=512, depth=16, stages=3, stride=2),
)

_MID_UPSAMPLER = replace(
    RELEASED_UPSAMPLERS[0],
    transformer=replace(RELEASED_UPSAMPLERS[0].transformer, width=512, depth=24),
    conditioner=ConditionerConfig(width=256, depth=16, stages=2, stride=2),
)
"""A small version of a released upsampler: the same window and patterns with a fiftieth of the stack's weights."""

_TINY_VQVAE = replace(RELEASED_VQVAE, width=16, depth=2, multipliers=(1, 1, 1), embedding_width=32, codebook_size=512)
_TINY_LABELS = LabelConfig(LabelRules.NAMES, artists=16, genres=16, genre_slots=1)


_TINY_STACK = TransformerConfig(1024, width=96, depth=3, heads=1, order=AttentionOrder.FACTORED, blocks=32)
_TINY_CONDITIONER = ConditionerConfig(width=32, depth=4, stages=2, stride=2, dilation_cycle=4)


def _laptop_upsampler(
    level: int, labels: LabelConfig, transformer: TransformerConfig, conditioner: ConditionerConfig
) -> PriorConfig:
    return PriorConfig(
        level=level,
        window=transformer.context,
        codebook_size=512,
        transformer=transformer,
        labels=labels,
        conditioner=replace(conditioner, scale_residual=level == 1),
        hop_fraction=0.5,
    )


_TINY_TOP = PriorConfig(
    level=2,
    window=448,
    codebook_size=512,
    transformer=TransformerConfig(
        448 + 64,
        width=128,
        depth=16,
        heads=2,
        order=AttentionOrder.FACTORED_PRIME_AND_DENSE,
        blocks=16,
        prime_tokens=64,
    ),
    labels=replace(_TINY_LABELS, timing=TimingConfig(32, 1.0, 120.0)),
    lyrics=LyricsConfig(tokens=64, vocabulary=79, alignment_layer=15, alignment_head=0),
    hop_fraction=0.25,
)

_DEMO_VQVAE = replace(RELEASED_VQVAE, sample_rate=8_000, downs=(3, 2, 3), multipliers=(1, 1, 1), codebook_size=512)
_DEMO_LABELS = LabelConfig(LabelRules.NAMES, artists=8, genres=8, genre_slots=1)

# Attention is twice as wide as usual and has four heads, because a tone has to continue the waveform before it. The
# middle level is larger than the lowest because its task is harder: the upper codes tell it which notes sound, and it
# has to find their waveforms.
_DEMO_STACK = replace(_TINY_STACK, width=160, depth=6, heads=4, attention_ratio=0.5)
_DEMO_CONDITIONER = replace(_TINY_CONDITIONER, width=64)
_DEMO_UPSAMPLERS = (
    _laptop_upsampler(0, _DEMO_LABELS, _DEMO_STACK, _DEMO_CONDITIONER),
    _laptop_upsampler(1, _DEMO_LABELS, replace(_DEMO_STACK, width=192, depth=8), replace(_DEMO_CONDITIONER, stages=3)),
)

_DEMO_TOP = PriorConfig(
    level=2,
    window=192,
    codebook_size=512,
    transformer=TransformerConfig(
        192 + 128,
        width=128,
        depth=16,
        heads=4,
        order=AttentionOrder.FACTORED_PRIME_AND_DENSE,
        blocks=10,
        attention_ratio=0.5,
        prime_tokens=128,
    ),
    labels=replace(_DEMO_LABELS, timing=TimingConfig(64, 6.2, 120.0)),
    lyrics=LyricsConfig(tokens=128, vocabulary=79, alignment_layer=15, alignment_head=0),
    hop_fraction=0.25,
)

PRESETS: dict[str, JukeboxConfig] = {
    config.name: config
    for config in (
        JukeboxConfig("5b", RELEASED_VQVAE, (*RELEASED_UPSAMPLERS, PRIOR_5B)),
        JukeboxConfig("5b_lyrics", RELEASED_VQVAE, (*RELEASED_UPSAMPLERS, PRIOR_5B_LYRICS)),
        JukeboxConfig("1b_lyrics", RELEASED_VQVAE, (*RELEASED_UPSAMPLERS, PRIOR_1B_LYRICS)),
        JukeboxConfig("small", SMALL_VQVAE, (SMALL_UPSAMPLER, SMALL_PRIOR)),
        JukeboxConfig("small_labelled", SMALL_VQVAE, (SMALL_UPSAMPLER, SMALL_LABELLED_PRIOR)),
        JukeboxConfig("small_single_lyrics", SMALL_VQVAE, (SMALL_UPSAMPLER, SMALL_SINGLE_PRIOR)),
        JukeboxConfig("small_separate_lyrics", SMALL_VQVAE, (SMALL_UPSAMPLER, SMALL_SEPARATE_PRIOR)),
        JukeboxConfig("mid", RELEASED_VQVAE, (_MID_UPSAMPLER,)),
        JukeboxConfig(
            "tiny",
            _TINY_VQVAE,
            (*(_laptop_upsampler(i, _TINY_LABELS, _TINY_STACK, _TINY_CONDITIONER) for i in (0, 1)), _TINY_TOP),
        ),
        JukeboxConfig(
            "small_demo",
            _DEMO_VQVAE,
            (*_DEMO_UPSAMPLERS, _DEMO_TOP),
        ),
    )
}
"""All presets by name."""


def preset(name: str) -> JukeboxConfig:
    """Return the preset of that name; raise a `ConfigError` that lists all presets if there is none."""
    if name in PRESETS:
        return PRESETS[name]
    close = difflib.get_close_matches(name, PRESETS, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise ConfigError(f"There is no preset {name!r}.{hint} Presets: {', '.join(PRESETS)}.")
