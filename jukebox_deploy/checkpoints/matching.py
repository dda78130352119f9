"""Which component and which preset a file's tensors belong to, and what is wrong if to none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from jukebox_deploy.checkpoints.layout import (
    VQVAE_COMPONENT,
    FileLayout,
    Shapes,
    component_configs,
    file_layout,
)
from jukebox_deploy.checkpoints.names import Dialect
from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.errors import CheckpointError
from jukebox_deploy.presets import PRESETS, preset

_LISTED = 36  # tensors that one message spells out per kind


@dataclass(frozen=True)
class Mismatch:
    """How a file's tensors differ from a component's. False when they do not."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: tuple[str, ...]

    def __bool__(self) -> bool:
        return self.size > 0

    @classmethod
    def between(cls, found: Shapes, names: Mapping[str, tuple[str, ...]], expected: Shapes) -> Self:
        """Compare the tensors found with those expected, of which `names` says what each may be called.

        Of the two names of a tied embedding one is enough; some writers leave the other out.
        """
        return cls(
            missing=tuple(aliases[0] for aliases in names.values() if not any(name in found for name in aliases)),
            unexpected=tuple(name for name in found if name not in expected),
            misshaped=tuple(
                f"{name} {list(found[name])} (expected {list(shape)})"
                for name, shape in expected.items()
                if name in found and found[name] != shape
            ),
        )

    @property
    def size(self) -> int:
        """Number of tensors that differ."""
        return len(self.missing) + len(self.unexpected) + len(self.misshaped)

    def __str__(self) -> str:
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self.misshaped}
        return "\n".join(f"  {kind} ({len(names)}): {_cut(names)}" for kind, names in kinds.items() if names)


def _cut(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f", and {more} more" if more > 0 else "")


def compare(found: Shapes, layout: FileLayout) -> Mismatch:
    """Compare a file's tensors with what a component needs."""
    return Mismatch.between(found, layout.names, layout.shapes)


def layouts(config: JukeboxConfig, dialect: Dialect) -> dict[str, FileLayout]:
    """What the files of each component of a system hold."""
    return {name: file_layout(dialect, part) for name, part in component_configs(config).items()}


def fitting_components(found: Shapes, config: JukeboxConfig, dialect: Dialect) -> list[str]:
    """The components of a system that have exactly these tensors."""
    return [name for name, layout in layouts(config, dialect).items() if not compare(found, layout)]


def fitting_presets(found: Shapes, dialect: Dialect) -> list[str]:
    """The presets with a component that has exactly these tensors."""
    return [name for name, config in PRESETS.items() if fitting_components(found, config, dialect)]


def explain_mismatch(
    label: str, found: Shapes, config: JukeboxConfig, dialect: Dialect, component: str | None = None
) -> str:
    """Say how the tensors of `label` differ from a component, and which preset has them.

    Without `component`, the one that differs least.
    """
    expected = layouts(config, dialect)
    names = [component] if component else list(expected)
    mismatches = {name: compare(found, expected[name]) for name in names}
    nearest = min(mismatches, key=lambda name: mismatches[name].size)
    presets = fitting_presets(found, dialect)
    advice = f"They are those of preset {' or '.join(presets)}." if presets else "No preset has them either."
    return (
        f"{label}: these are not the tensors of {config.name}; compared with its {nearest}, "
        f"{mismatches[nearest].size} differ. {advice}\n{mismatches[nearest]}"
    )


def resolve(choice: str | JukeboxConfig) -> JukeboxConfig:
    """A configuration, or the preset of that name (`ConfigError` if there is none)."""
    return preset(choice) if isinstance(choice, str) else choice


def restrict(config: JukeboxConfig, components: Iterable[str]) -> JukeboxConfig:
    """The system with only those priors that are among the components."""
    kept = set(components)
    names = component_configs(config)
    priors = tuple(prior for name, prior in names.items() if name in kept and name != VQVAE_COMPONENT)
    return replace(config, priors=priors)  # type: ignore[arg-type]  # all but the VQ-VAE are priors


def one_system(candidates: Mapping[str, JukeboxConfig], label: str) -> str:
    """The name of the only preset among candidates (each restricted to the parts at hand).

    Presets that share these parts are as good as each other: the first is taken. Raises
    `CheckpointError` when there is none, or when the candidates differ.
    """
    if not candidates:
        raise CheckpointError(f"{label}: these are not the tensors of any preset ({', '.join(PRESETS)}).")
    if len({(config.vqvae, config.priors) for config in candidates.values()}) > 1:
        raise CheckpointError(f"{label}: fits the presets {', '.join(candidates)}; say which one it is.")
    return next(iter(candidates))
