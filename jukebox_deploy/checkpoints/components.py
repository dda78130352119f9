"""Names of the parts of a checkpoint: the VQ-VAE and the priors."""

from __future__ import annotations

from jukebox_deploy.config import JukeboxConfig, PriorConfig, VQVAEConfig

ComponentConfig = VQVAEConfig | PriorConfig

VQVAE_COMPONENT = "vqvae"


def prior_component(level: int) -> str:
    """Return the component name of a level's prior, which is also the stem of its file name."""
    return f"prior_{level}"


def component_name(level: int | None) -> str:
    """Return the component name of the prior of a level, or of the VQ-VAE (`level` None)."""
    return VQVAE_COMPONENT if level is None else prior_component(level)


def component_configs(config: JukeboxConfig) -> dict[str, ComponentConfig]:
    """Return the components of a model by name: the VQ-VAE, then the priors, level 0 first."""
    priors = {prior_component(prior.level): prior for prior in config.priors}
    return {VQVAE_COMPONENT: config.vqvae, **priors}
