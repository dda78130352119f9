"""The tables of specification section 14, and the paper's own figures, against the formulas."""

from __future__ import annotations

import pytest

from jukebox_deploy.attention_patterns import AttentionOrder, AttentionPattern
from jukebox_deploy.config import TransformerConfig
from jukebox_deploy.contract import LinearWeights, Precision
from jukebox_deploy.costs import (
    WeightStorage,
    allocated_cache_bytes,
    audio_second_flops,
    full_cache_bytes,
    linear_weight_bytes,
    mean_attention_flops,
    mean_visible_keys,
    position_bytes,
    step_bytes,
    sufficient_cache_bytes,
    system_tokens_per_second,
    visible_keys,
    weight_bytes,
    weight_flops,
    window_seconds,
)
from jukebox_deploy.parameter_counts import (
    PriorParameters,
    prior_parameters,
    system_parameters,
    vqvae_parameters,
)
from jukebox_deploy.presets import (
    PRESETS,
    PRIOR_1B_LYRICS,
    PRIOR_5B,
    PRIOR_5B_LYRICS,
    RELEASED_UPSAMPLERS,
    RELEASED_VQVAE,
    SMALL_LABELLED_PRIOR,
    SMALL_PRIOR,
    SMALL_SEPARATE_PRIOR,
    SMALL_SINGLE_PRIOR,
    SMALL_UPSAMPLER,
    SMALL_VQVAE,
)

UPSAMPLER_0, UPSAMPLER_1 = RELEASED_UPSAMPLERS


class TestParameters:
    @pytest.mark.parametrize(
        ("prior", "expected"),
        [
            (
                PRIOR_5B,
                PriorParameters(
                    attention=1_659_484_800,
                    mlp=3_318_451_200,
                    norms=1_382_400,
                    token_embedding=9_830_400,
                    output=9_830_400,
                    position_embedding=39_321_600,
                    start_token=0,
                    labels=22_152_000,
                    conditioner=0,
                    lyric_core=0,
                    lyric_head=0,
                ),
            ),
            (
                PRIOR_5B_LYRICS,
                PriorParameters(
                    attention=1_820_823_600,
                    mlp=3_641_078_400,
                    norms=1_516_800,
                    token_embedding=9_830_400,
                    output=9_830_400,
                    position_embedding=39_321_600,
                    start_token=0,
                    labels=22_152_000,
                    conditioner=0,
                    lyric_core=89_411_200,
                    lyric_head=6_148_800 + 9_600 + 384_000,
                ),
            ),
            (
                PRIOR_1B_LYRICS,
                PriorParameters(
                    attention=302_247_936,
                    mlp=604_274_688,
                    norms=589_824,
                    token_embedding=4_356_096,
                    output=0,
                    position_embedding=13_369_344,
                    start_token=0,
                    labels=17_805_312,
                    conditioner=0,
                    lyric_core=0,
                    lyric_head=0,
                ),
            ),
            *[
                (
                    upsampler,
                    PriorParameters(
                        attention=265_662_720,
                        mlp=531_118_080,
                        norms=552_960,
                        token_embedding=3_932_160,
                        output=0,
                        position_embedding=15_728_640,
                        start_token=0,
                        labels=8_123_520,
                        conditioner=156_180_096,
                        lyric_core=0,
                        lyric_head=0,
                    ),
                )
                for upsampler in RELEASED_UPSAMPLERS
            ],
        ],
        ids=["5b", "5b_lyrics", "1b_lyrics", "upsampler_0", "upsampler_1"],
    )
    def test_components_of_released_priors(self, prior, expected):
        assert prior_parameters(prior) == expected

    @pytest.mark.parametrize(
        ("prior", "expected"),
        [
            (PRIOR_5B, 5_060_452_800),
            (PRIOR_5B_LYRICS, 5_640_506_800),
            (PRIOR_1B_LYRICS, 942_643_200),
            (UPSAMPLER_0, 981_298_176),
            (UPSAMPLER_1, 981_298_176),
            (SMALL_PRIOR, 160_814_080),
            (SMALL_LABELLED_PRIOR, 161_122_304),
            (SMALL_SINGLE_PRIOR, 159_499_264),
            (SMALL_SEPARATE_PRIOR, 167_584_704),
            (SMALL_UPSAMPLER, 218_015_232),
        ],
    )
    def test_totals(self, prior, expected):
        assert prior_parameters(prior).total == expected

    def test_released_vqvae(self):
        counts = vqvae_parameters(RELEASED_VQVAE)
        assert counts.encoders == (441_856, 116_384, 168_224)
        assert counts.decoders == (458_177, 124_641, 176_481)
        assert counts.codebooks == 393_216
        assert counts.total == 1_485_763 + 393_216

    def test_small_vqvae(self):
        counts = vqvae_parameters(SMALL_VQVAE)
        assert sum(counts.encoders) + sum(counts.decoders) == 586_050
        assert counts.codebooks == 131_072

    @pytest.mark.parametrize(
        ("name", "expected"), [("5b", 7_024_928_131), ("5b_lyrics", 7_604_982_131), ("1b_lyrics", 2_907_118_531)]
    )
    def test_systems(self, name, expected):
        assert system_parameters(PRESETS[name]) == expected


class TestBytes:
    @pytest.mark.parametrize(
        ("prior", "half", "half_linear", "single"),
        [
            (PRIOR_5B, 10_120_905_600, 10_288_531_200, 20_241_811_200),
            (PRIOR_5B_LYRICS, 11_281_013_600, 11_451_832_000, 22_562_027_200),
            (PRIOR_1B_LYRICS, 1_885_286_400, 1_958_633_472, 3_770_572_800),
            (UPSAMPLER_0, 1_962_596_352, 2_332_667_904, 3_925_192_704),
        ],
    )
    def test_weights(self, prior, half, half_linear, single):
        assert weight_bytes(prior, WeightStorage.HALF) == half
        assert weight_bytes(prior, WeightStorage.HALF_LINEAR) == half_linear
        assert weight_bytes(prior, WeightStorage.SINGLE) == single

    @pytest.mark.parametrize(
        ("prior", "position", "full", "sufficient"),
        [
            (PRIOR_5B, 4800, 2_831_155_200, 965_836_800),
            (PRIOR_5B_LYRICS, 4800, 2_848_358_400, 983_040_000),
            (PRIOR_1B_LYRICS, 2048, 962_592_768, 337_821_696),
            (UPSAMPLER_1, 1920, 1_132_462_080, 386_334_720),
            (SMALL_PRIOR, 1024, 402_653_184, 140_509_184),
            (SMALL_UPSAMPLER, 1024, 402_653_184, 140_509_184),
            (SMALL_SINGLE_PRIOR, 1024, 320_864_256, 112_572_416),
            (SMALL_SEPARATE_PRIOR, 1024, 285_081_600, 100_761_600),
        ],
    )
    def test_caches(self, prior, position, full, sufficient):
        stack = prior.transformer
        assert position_bytes(stack, Precision.FP16) == position
        assert full_cache_bytes(stack, Precision.FP16) == full
        assert sufficient_cache_bytes(stack, Precision.FP16) == sufficient
        assert sufficient_cache_bytes(stack, Precision.FP32) == 2 * sufficient

    @pytest.mark.parametrize(
        "prior", [PRIOR_5B, PRIOR_5B_LYRICS, UPSAMPLER_0, SMALL_SEPARATE_PRIOR], ids=lambda prior: str(prior.level)
    )
    def test_the_graphs_ask_for_no_more_than_sufficient(self, prior):
        assert allocated_cache_bytes(prior, Precision.FP16) == sufficient_cache_bytes(prior.transformer, Precision.FP16)

    def test_the_lyric_prefix_is_rounded_to_blocks(self):
        # Three layers with prime attention keep 6 blocks of 102 positions instead of 448 positions.
        extra = allocated_cache_bytes(PRIOR_1B_LYRICS, Precision.FP16) - sufficient_cache_bytes(
            PRIOR_1B_LYRICS.transformer, Precision.FP16
        )
        assert extra == 3 * (612 - 448) * 2048

    def test_a_step_of_one_slot_reads_the_stack(self):
        # Specification 14.4: 9.96 GB of stack weights per token in float16 for the 5B prior.
        parameters = prior_parameters(PRIOR_5B)
        stack = 2 * (parameters.attention + parameters.mlp + parameters.norms)
        assert stack / 1e9 == pytest.approx(9.96, abs=0.005)
        caches = (24 * (32.5 + 64.5 + 64 * 127 / 128) + 72) * 4800
        assert step_bytes(PRIOR_5B, 1, Precision.FP16) == stack + 4 * parameters.output + round(caches)

    def test_slots_share_the_weights(self):
        one, two, three = (step_bytes(PRIOR_1B_LYRICS, slots, Precision.FP32) for slots in (1, 2, 3))
        assert two - one == three - two
        assert two - one < one / 100


class TestOperations:
    @pytest.mark.parametrize(
        ("name", "level", "weights", "mean", "last", "second"),
        [
            ("5b", 2, 9.973e9, 18.5e6, 29.5e6, 3.44e12),
            ("5b_lyrics", 2, 10.779e9, 35.7e6, 46.7e6, 3.73e12),
            ("1b_lyrics", 2, 1.821e9, 17.9e6, 28.5e6, 0.634e12),
            ("5b", 1, 1.600e9, 7.4e6, 11.8e6, 2.22e12),
            ("5b", 0, 1.600e9, 7.4e6, 11.8e6, 8.86e12),
        ],
    )
    def test_released_priors(self, name, level, weights, mean, last, second):
        config = PRESETS[name]
        prior = config.prior(level)
        stack = prior.transformer
        assert weight_flops(prior) == pytest.approx(weights, rel=5e-4)
        assert mean_attention_flops(stack) == pytest.approx(mean, rel=5e-3)
        keys = sum(visible_keys(stack, pattern, stack.context - 1) for pattern in stack.patterns)
        assert 4 * stack.state_width * keys == pytest.approx(last, rel=5e-3)
        assert audio_second_flops(config, prior) == pytest.approx(second, rel=5e-3)

    def test_visible_keys_by_counting(self):
        stack = TransformerConfig(
            24,
            width=16,
            depth=1,
            heads=1,
            order=AttentionOrder.FACTORED,
            blocks=6,
            prime_tokens=5,
            encoder_tokens=7,
            spread=2,
        )
        c, count, prime = 4, 6, 6  # block length, number of blocks, (5 // 6 + 1) * 6
        conditions = {
            AttentionPattern.DENSE: lambda i, j: j <= i,
            AttentionPattern.BLOCK: lambda i, j: j <= i and j // c == i // c,
            AttentionPattern.COLUMN: lambda i, j: j <= i and j % c == i % c,
            AttentionPattern.PREVIOUS_BLOCK: lambda i, j: j // c == i // c - 1,
            AttentionPattern.SUMMARY: lambda i, j: j <= i and j % c == c - 1 and j // c < count - 1,
            AttentionPattern.SPREAD_SUMMARY: lambda i, j: j <= i and j % c >= c - 2 and j // c < count - 1,
            AttentionPattern.PRIME: lambda i, j: j <= i and j < prime,
        }
        always = {AttentionPattern.SUMMARY: 1, AttentionPattern.SPREAD_SUMMARY: 2}
        for pattern, sees in conditions.items():
            counted = [always.get(pattern, 0) + sum(sees(i, j) for j in range(24)) for i in range(24)]
            assert [visible_keys(stack, pattern, i) for i in range(24)] == counted, pattern
            assert mean_visible_keys(stack, pattern) == pytest.approx(sum(counted) / 24)
        assert visible_keys(stack, AttentionPattern.CROSS, 3) == 7


class TestTime:
    def test_tokens_per_second_of_audio(self):
        assert round(system_tokens_per_second(RELEASED_VQVAE)) == 7235

    @pytest.mark.parametrize(
        ("name", "level", "seconds"), [("5b", 2, 23.777), ("5b", 1, 5.944), ("5b", 0, 1.486), ("1b_lyrics", 2, 17.833)]
    )
    def test_windows(self, name, level, seconds):
        config = PRESETS[name]
        assert window_seconds(config, config.prior(level)) == pytest.approx(seconds, abs=5e-4)


def test_integer_weights_and_their_scales_are_what_a_step_moves():
    """A released upsampler: 1920 wide, 72 layers; a scale per column, or per column and 32 inputs."""
    layer = (1920, 480)
    assert linear_weight_bytes(layer, Precision.FP32, LinearWeights.AS_PRECISION) == 4 * 1920 * 480
    assert linear_weight_bytes(layer, Precision.FP32, LinearWeights.INT8) == 1920 * 480 + 4 * 480
    assert linear_weight_bytes(layer, Precision.FP16, LinearWeights.INT4) == 960 * 480 + 2 * 60 * 480
    assert linear_weight_bytes((40, 8), Precision.FP32, LinearWeights.INT4) == 4 * 40 * 8  # no whole groups of 32
    upsampler = RELEASED_UPSAMPLERS[0]
    moved = {weights: step_bytes(upsampler, 1, Precision.FP32, weights) for weights in LinearWeights}
    assert moved[LinearWeights.AS_PRECISION] == step_bytes(upsampler, 1, Precision.FP32)
    assert 3.8 < moved[LinearWeights.AS_PRECISION] / moved[LinearWeights.INT8] < 4
    assert 6 < moved[LinearWeights.AS_PRECISION] / moved[LinearWeights.INT4] < 6.4
