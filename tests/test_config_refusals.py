"""Configurations that cannot be: each is refused where it is made, with the place, what was found and what is right."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

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
from jukebox_deploy.config_json import config_from_dict, config_to_dict
from jukebox_deploy.errors import ConfigError
from jukebox_deploy.runtime.windows import WindowGeometry

VQVAE = VQVAEConfig(8_000, (1, 1), (2, 2), (1, 1), width=4, depth=1, embedding_width=4, codebook_size=16)
STACK = TransformerConfig(16, 16, 3, 2, AttentionOrder.FACTORED, 4)
LABELS = LabelConfig(LabelRules.NAMES, artists=3, genres=3, genre_slots=1, timing=TimingConfig(4, 0.0, 60.0))
TOP = PriorConfig(1, 16, 16, STACK, LABELS)
UPSAMPLER = PriorConfig(0, 16, 16, STACK, conditioner=ConditionerConfig(4, depth=1, stages=1, stride=2))
ENCODER = TransformerConfig(4, 8, 1, 1)
CROSS = TransformerConfig(16, 16, 4, 2, AttentionOrder.FACTORED_CROSS_EVERY_4, 4, encoder_tokens=4)
CROSS_TOP = PriorConfig(1, 16, 16, CROSS, LABELS, LyricsConfig(4, 79, encoder=ENCODER))
PRIME = TransformerConfig(20, 16, 16, 2, AttentionOrder.FACTORED_PRIME_AND_DENSE, 4, prime_tokens=4)
PRIME_TOP = PriorConfig(1, 16, 16, PRIME, LABELS, LyricsConfig(4, 79))
SYSTEM = JukeboxConfig("system", VQVAE, (UPSAMPLER, TOP))

_CHANGES: list[tuple[Any, dict[str, Any], str]] = [
    (VQVAE, {"downs": (), "strides": (), "multipliers": ()}, "vqvae: there are no levels"),
    (VQVAE, {"downs": (0, 1)}, "vqvae: downs must be at least 1, found 0"),
    (VQVAE, {"strides": (0, 2)}, "vqvae: strides must be even and at least 2, found 0 and 2."),
    (VQVAE, {"strides": (3, 2)}, "vqvae: strides must be even and at least 2, found 3 and 2."),
    (VQVAE, {"multipliers": (1, -1)}, "vqvae: multipliers must be at least 1, found -1"),
    (VQVAE, {"depth": 0}, "vqvae: depth must be at least 1, found 0"),
    (VQVAE, {"codebook_size": 0}, "vqvae: codebook_size must be at least 1, found 0"),
    (VQVAE, {"convolution_ratio": math.nan}, "vqvae: convolution_ratio must be finite and not negative, found nan"),
    (VQVAE, {"convolution_ratio": 0.1}, "vqvae: convolution_ratio 0.1 leaves 4 channels none inside"),
    (VQVAE, {"dilation_growth": 0}, "vqvae: dilation_growth must be at least 1, found 0"),
    (VQVAE, {"dilation_cycle": -1}, "vqvae: dilation_cycle must be at least 1, found -1"),
    (STACK, {"depth": 0}, "transformer: depth must be at least 1, found 0"),
    (STACK, {"heads": -2}, "transformer: heads must be at least 1, found -2"),
    (STACK, {"blocks": 0}, "transformer: blocks must be at least 1, found 0"),
    (STACK, {"blocks": 5}, "transformer: context over blocks: 16 is not a multiple of 5"),
    (STACK, {"blocks": None}, "attention order factored needs a number of blocks"),
    (STACK, {"attention_ratio": 0.01}, "transformer: state_width must be at least 1, found 0"),
    (STACK, {"mlp_ratio": -1.0}, "transformer: mlp_ratio must be finite and not negative, found -1.0"),
    (STACK, {"init_scale": 0.0}, "transformer: init_scale must be above 0, found 0.0"),
    (LABELS, {"artists": 0}, "labels: artists must be at least 1, found 0"),
    (LABELS, {"genre_slots": -1}, "labels: genre_slots must be at least 1, found -1"),
    (LABELS.timing, {"bins": 0}, "timing: bins must be at least 1, found 0"),
    (LABELS.timing, {"min_duration": 60.0}, "timing: songs of 60 to 60 s"),
    (LABELS.timing, {"max_duration": math.inf}, "timing: max_duration must be finite"),
    (CROSS_TOP.lyrics, {"tokens": 5}, "lyrics: tokens must be even, found 5"),
    (CROSS_TOP.lyrics, {"vocabulary": 0}, "lyrics: vocabulary must be at least 1, found 0"),
    (CROSS_TOP.lyrics, {"encoder": CROSS}, "lyrics: the encoder has 16 positions for 4 tokens"),
    (CROSS_TOP.lyrics, {"encoder": replace(CROSS, context=4)}, "an encoder cannot have order factored_cross_every_4"),
    (CROSS_TOP.lyrics, {"alignment_layer": 3}, "alignment_layer and alignment_head belong together"),
    (UPSAMPLER.conditioner, {"width": 0}, "conditioner: width must be at least 1, found 0"),
    (UPSAMPLER.conditioner, {"convolution_ratio": 0.1}, "conditioner: convolution_ratio 0.1 leaves 4 channels"),
    (TOP, {"window": 12}, "prior 1: the stack has 16 positions, lyrics + window 12"),
    (TOP, {"hop_fraction": math.nan}, "prior 1: hop_fraction must be finite and not negative, found nan"),
    (TOP, {"hop_fraction": 0.01}, "prior 1: hop_fraction 0.01 makes a hop of 0 codes, not 1 to 16"),
    (TOP, {"hop_fraction": 2.0}, "prior 1: hop_fraction 2.0 makes a hop of 32 codes, not 1 to 16"),
    (UPSAMPLER, {"hop_fraction": 3 / 16}, "prior 0: hop between windows over upsampling: 3 is not a multiple of 2"),
    (UPSAMPLER, {"labels": LABELS}, "prior 0: timing is for top priors"),
    (CROSS_TOP, {"lyrics": None}, "prior 1: cross-attention needs a lyric encoder"),
    (TOP, {"lyrics": CROSS_TOP.lyrics}, "order factored with 3 layers has no cross-attention"),
    (CROSS_TOP, {"transformer": replace(CROSS, encoder_tokens=6)}, "encoder_tokens is 6, and there are 4 lyric tokens"),
    (PRIME_TOP, {"transformer": replace(PRIME, prime_tokens=8)}, "prime_tokens is 8, and 4 lyric tokens precede"),
    (PRIME_TOP, {"lyrics": None, "window": 20}, "prime_tokens is 4, and 0 lyric tokens precede the codes"),
    (
        PRIME_TOP,
        {"lyrics": LyricsConfig(4, 79, alignment_layer=99, alignment_head=0)},
        "prior 1: alignment_layer 99 of a stack of 16 layers",
    ),
    (
        PRIME_TOP,
        {"lyrics": LyricsConfig(4, 79, alignment_layer=15, alignment_head=2)},
        "prior 1: alignment_head 2 of 2 heads",
    ),
    (
        PRIME_TOP,
        {"lyrics": LyricsConfig(4, 79, alignment_layer=0, alignment_head=0)},
        "prior 1: alignment_layer 0 has block, and sees no lyrics",
    ),
    (
        SYSTEM,
        {"priors": (replace(TOP, labels=replace(LABELS, timing=TimingConfig(4, 0.0, 0.004))),)},
        "system: prior 1: a window lasts 0.01 s, and whole songs at most 0.004 s",
    ),
]


@pytest.mark.parametrize(("config", "changes", "message"), _CHANGES, ids=[message for _, _, message in _CHANGES])
def test_what_cannot_be_is_refused(config: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        replace(config, **changes)
    assert message in str(raised.value)


@pytest.mark.parametrize("config", [SYSTEM, replace(SYSTEM, priors=(CROSS_TOP,)), replace(SYSTEM, priors=(PRIME_TOP,))])
def test_what_they_are_changed_from_is_right(config: JukeboxConfig) -> None:
    plain = json.loads(json.dumps(config_to_dict(config)))
    assert config_from_dict(JukeboxConfig, plain) == config


def test_a_fraction_of_a_window_loses_no_code_to_rounding() -> None:
    """`int(15 / 22 * 22)` is 14."""
    stack = TransformerConfig(22, 16, 3, 2, AttentionOrder.FACTORED, 2)
    prior = PriorConfig(0, 22, 16, stack, hop_fraction=15 / 22)
    assert prior.hop == WindowGeometry.of(prior).hop == 15
