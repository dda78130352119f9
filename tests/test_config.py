"""What a configuration refuses: parts that do not fit each other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.errors import ConfigError
from jukebox_deploy.presets import PRESETS, preset

SMALL = preset("small")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_fits_itself(name: str) -> None:
    """A preset is built from its parts again, with all checks."""
    found = preset(name)
    assert replace(found, priors=tuple(replace(prior) for prior in found.priors)) == found


def _with_conditioner_stages(config: JukeboxConfig, stages: int) -> JukeboxConfig:
    upsampler = config.prior(0)
    assert upsampler.conditioner is not None
    changed = replace(upsampler, conditioner=replace(upsampler.conditioner, stages=stages))
    return replace(config, priors=(changed, *config.priors[1:]))


def test_an_upsampler_must_have_the_factor_of_its_vqvae() -> None:
    """Another factor would take the wrong slice of the upper codes, without an error where it is larger."""
    with pytest.raises(ConfigError, match="prior 0: the conditioner upsamples by 32, the VQ-VAE by 8"):
        _with_conditioner_stages(SMALL, 5)


def test_the_top_level_has_nothing_above() -> None:
    """A conditioner belongs to a level that has another one above it."""
    top = replace(SMALL.prior(0), level=SMALL.top_level)
    with pytest.raises(ConfigError, match="is the top prior, but has a conditioner"):
        replace(SMALL, priors=(top,))


def test_priors_are_listed_from_level_zero() -> None:
    """One order, so that a level's prior is where a reader looks for it."""
    with pytest.raises(ConfigError, match="level 0 first"):
        replace(SMALL, priors=SMALL.priors[::-1])


def test_codebooks_are_of_one_size() -> None:
    """A prior gives codes that its VQ-VAE has."""
    with pytest.raises(ConfigError, match="has a codebook size of"):
        replace(SMALL, vqvae=replace(SMALL.vqvae, codebook_size=7))
