"""Configuration of a whole system: a VQ-VAE and its priors."""

from __future__ import annotations

from dataclasses import dataclass, field

from jukebox_deploy.config.checks import require
from jukebox_deploy.config.convolutions import VQVAEConfig
from jukebox_deploy.config.prior import PriorConfig
from jukebox_deploy.errors import ConfigError
from jukebox_deploy.listing import words_of


@dataclass(frozen=True)
class JukeboxConfig:
    """A whole system. `priors` is in order of level, 0 first; it may be empty or have only some of the levels."""

    name: str
    vqvae: VQVAEConfig
    priors: tuple[PriorConfig, ...] = field(default=())

    def __post_init__(self) -> None:
        levels = [prior.level for prior in self.priors]
        in_order = f"{self.name}: priors must be listed level 0 first, found levels {words_of(map(str, levels))}."
        require(levels == sorted(set(levels)), in_order)
        for prior in self.priors:
            where = f"{self.name}: prior {prior.level}"
            found, size = prior.codebook_size, self.vqvae.codebook_size
            require(0 <= prior.level < self.vqvae.levels, f"{where}: the VQ-VAE has {self.vqvae.levels} levels.")
            require(found == size, f"{where} has a codebook size of {found}, the VQ-VAE {size}.")
            self._check_timing(where, prior)
            if prior.conditioner is not None:
                above = prior.level + 1
                require(above < self.vqvae.levels, f"{where} is the top prior, but has a conditioner for upper codes.")
                factor, step = prior.conditioner.upsampling, self.vqvae.downsampling(above)
                require(factor == step, f"{where}: the conditioner upsamples by {factor}, the VQ-VAE by {step}.")

    def _check_timing(self, where: str, prior: PriorConfig) -> None:
        if prior.timing is None:
            return
        window = prior.window * self.vqvae.hop_length(prior.level) / self.vqvae.sample_rate
        longest = prior.timing.max_duration
        require(window <= longest, f"{where}: a window lasts {window:.2f} s, and whole songs at most {longest:g} s.")

    def prior(self, level: int) -> PriorConfig:
        """Return the prior of a level. Raises `ConfigError` if there is none."""
        for prior in self.priors:
            if prior.level == level:
                return prior
        others = f"those for level {words_of(str(prior.level) for prior in self.priors)}" if self.priors else "none"
        raise ConfigError(f"{self.name} has no prior for level {level}; it has {others}.")

    @property
    def top_level(self) -> int:
        """The coarsest level, which is the last one."""
        return self.vqvae.levels - 1
