"""Where `transformers` makes a song otherwise than the original does, and that ours does not (specification 16.4)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from jukebox_deploy.config import ConditionerConfig, JukeboxConfig
from jukebox_deploy.models.builders import build_conditioner
from jukebox_deploy.presets import PRESETS
from jukebox_deploy.runtime.sampler import SongJob
from tests.runtime.fake_engine import FakeEngine
from tests.runtime.song_cases import MODEL, REQUESTS, VQVAE, all_codes, plain_song, sample, upsampler

transformers = pytest.importorskip("transformers", "4.57.6")
if not hasattr(transformers, "JukeboxModel"):
    pytest.skip("this version of transformers has no Jukebox any more", allow_module_level=True)

DOWNS = (2, 1, 3)
"""Halvings per level: 4 samples, 2 codes of level 0 and 8 codes of level 1 become one code."""


def unequal_model() -> JukeboxConfig:
    """A model whose levels are 4, 8 and 64 samples per code."""
    conditioners = [ConditionerConfig(width=4, depth=1, stages=DOWNS[level + 1], stride=2) for level in range(2)]
    upsamplers = [replace(upsampler(level), conditioner=conditioners[level]) for level in range(2)]
    return JukeboxConfig("unequal", replace(VQVAE, downs=DOWNS), (*upsamplers, MODEL.prior(2)))


def their_upsampler(level: int, window: int) -> Any:
    """The upsampler of a level of `unequal_model` by `transformers`, as small as can be."""
    settings: dict[str, object] = {
        "hidden_size": 8,
        "n_ctx": window,
        "num_layers": 1,
        "n_heads": 1,
        "blocks": 4,
        "attention_pattern": "raw_column_previous_row_attention",
        "is_encoder_decoder": False,
        "metadata_conditioning": False,
        "nb_relevant_lyric_tokens": 0,
        "res_conv_width": 4,
        "res_downs_t": list(DOWNS),
    }
    config = transformers.models.deprecated.jukebox.JukeboxPriorConfig(**settings)
    return transformers.JukeboxPrior(config, level=2 - level)


@pytest.mark.parametrize(("level", "factor", "theirs"), [(0, 2, 8), (1, 8, 2)])
def test_an_upsampler_s_factor_is_that_of_the_level_above(level: int, factor: int, theirs: int, tmp_path: Path) -> None:
    """Upper codes are counted in steps of the level above, not of another one (specification 16.4, point 12).

    Theirs counts the levels from the top but the factors from the bottom.
    """
    engine, window = FakeEngine(unequal_model()), 32
    sample(engine, [SongJob(REQUESTS[0], tmp_path)])
    codes = all_codes(tmp_path)
    (runner,) = (runner for runner in engine.runners if runner.spec.name == f"condition_{level}")
    starts = range(0, len(codes[level]) - window + 1, window // 2)
    assert [call["upper_codes"][0].tolist() for call in runner.calls] == [
        codes[level + 1][start // factor : (start + window) // factor] for start in starts
    ]
    conditioner = engine.config.prior(level).conditioner
    assert conditioner is not None
    upper = torch.zeros(1, window // factor, dtype=torch.long)
    assert build_conditioner(conditioner, 40, 8)(upper).shape == (1, window, 8)
    prior = their_upsampler(level, window)
    assert prior.raw_to_tokens == engine.config.vqvae.hop_length(level)
    assert prior.cond_downsample == theirs
    assert prior.embed_tokens([upper]).shape[1] == window // factor * theirs != window


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)
def test_upsamplers_of_the_presets_fit_their_vqvae(config: JukeboxConfig) -> None:
    """Known upsamplers have the factor of the level above, also where levels differ (specification 16.4, point 12)."""
    hops = config.vqvae.hop_lengths
    factors = {prior.level: prior.conditioner.upsampling for prior in config.priors if prior.conditioner}
    below_top = [prior.level for prior in config.priors if prior.level < config.top_level]
    assert factors == {level: hops[level + 1] // hops[level] for level in below_top}


def test_every_level_has_its_own_batch_limit(tmp_path: Path) -> None:
    """The top level has a batch limit of its own and keeps to it (specification 16.4, point 16).

    Theirs takes the limit of the lower levels everywhere.
    """
    engine = FakeEngine(MODEL)
    narrow = FakeEngine(MODEL, slots=(1, 1, 2)).graphs
    engine.graphs |= {name: graph for name, graph in narrow.items() if name.endswith("_2")}
    jobs = [SongJob(request, tmp_path / str(i)) for i, request in enumerate(REQUESTS[:3])]
    sample(engine, jobs)
    assert [(session.prior.level, session.slots) for session in engine.sessions] == [(2, 2), (1, 3), (0, 3)]
    assert [all_codes(job.folder) for job in jobs] == [plain_song(FakeEngine(MODEL), job.request) for job in jobs]
    assert their_batch_limits(top=2, lower=3) == [3, 3, 3]


def their_batch_limits(top: int, lower: int) -> list[int]:
    """The limits with which `JukeboxModel` samples its levels, the top level first."""
    limits: list[int] = []

    def sample_level(codes: list[torch.Tensor], *arguments: Any) -> list[torch.Tensor]:
        limits.append(arguments[-1])
        return codes

    priors = [SimpleNamespace(raw_to_tokens=hop, n_ctx=32) for hop in (16, 8, 4)]
    config = SimpleNamespace(hop_fraction=[0.5] * 3)
    model = SimpleNamespace(priors=priors, config=config, sample_level=sample_level)
    options = {"lower_batch_size": lower, "max_batch_size": top, "sample_length": 800, "save_results": False}
    transformers.JukeboxModel._sample(model, [torch.zeros(3, 0)] * 3, [None] * 3, [0, 1, 2], **options)
    return limits
