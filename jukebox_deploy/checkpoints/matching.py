"""Identification of the component and the preset that a file's tensors belong to, with explanations of mismatches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from jukebox_deploy.checkpoints.components import component_configs, prior_component
from jukebox_deploy.checkpoints.layout import FileLayout, Shapes, file_layout
from jukebox_deploy.checkpoints.names import Dialect
from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.errors import CheckpointError
from jukebox_deploy.listing import listed, shape_text
from jukebox_deploy.presets import PRESETS, preset

_LISTED = 3  # maximum number of tensors that a message lists per kind of difference


@dataclass(frozen=True)
class Mismatch:
    """Differences between a file's tensors and those of a component; false if there are none."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: tuple[str, ...]

    def __bool__(self) -> bool:
        return self.size > 0

    @classmethod
    def between(cls, found: Shapes, names: Mapping[str, tuple[str, ...]], expected: Shapes) -> Self:
        """Compare the tensors `found` with those `expected`; `names` lists the alternative names of each.

        One of the two names of a tied embedding is enough, because some writers omit the other.
        """
        return cls(
            missing=tuple(aliases[0] for aliases in names.values() if not any(name in found for name in aliases)),
            unexpected=tuple(name for name in found if name not in expected),
            misshaped=tuple(
                f"{name} {shape_text(found[name])} (expected {shape_text(shape)})"
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
        return "\n".join(f"  {kind} ({len(names)}): {listed(names, _LISTED)}" for kind, names in kinds.items() if names)


def compare(found: Shapes, layout: FileLayout) -> Mismatch:
    """Compare a file's tensors with those of a component."""
    return Mismatch.between(found, layout.names, layout.shapes)


def layouts(config: JukeboxConfig, dialect: Dialect) -> dict[str, FileLayout]:
    """Return the file layouts of all components of a model."""
    return {name: file_layout(dialect, part) for name, part in component_configs(config).items()}


def fitting_components(found: Shapes, config: JukeboxConfig, dialect: Dialect) -> list[str]:
    """Return the components of a model that have exactly these tensors."""
    return [name for name, layout in layouts(config, dialect).items() if not compare(found, layout)]


def fitting_presets(found: Shapes, dialect: Dialect) -> list[str]:
    """Return the presets with a component that has exactly these tensors."""
    return [name for name, config in PRESETS.items() if fitting_components(found, config, dialect)]


def explain_mismatch(
    label: str, found: Shapes, config: JukeboxConfig, dialect: Dialect, component: str | None = None
) -> str:
    """Explain which preset the tensors of the file `label` belong to, and how they differ from a component.

    Without `component`, it is the component of `config` that differs least.
    """
    expected = layouts(config, dialect)
    nearest = component or min(expected, key=lambda name: _distance(found, expected[name]))
    mismatch = compare(found, expected[nearest])
    return (
        f"{label}: {_verdict(fitting_presets(found, dialect), config.name)} "
        f"Compared with {nearest} of {config.name}, {_counted(mismatch)}:\n{mismatch}"
    )


def explain_unknown(files: Mapping[str, Shapes], dialect: Dialect) -> str:
    """Explain for each file which preset its tensors belong to, or are nearest to, if no preset matches all files."""
    lines = [_explain_one(label, found, dialect) for label, found in files.items()]
    return "\n".join(lines if len(lines) == 1 else ["No preset has all of these.", *lines])


def _explain_one(label: str, found: Shapes, dialect: Dialect) -> str:
    if presets := fitting_presets(found, dialect):
        return f"{label}: these are the tensors of preset {' or '.join(presets)}."
    known = [(name, part, at) for name, config in PRESETS.items() for part, at in layouts(config, dialect).items()]
    distances = [_distance(found, layout) for _, _, layout in known]
    least = min(distances)
    near = [choice for choice, distance in zip(known, distances, strict=True) if distance == least]
    _, component, layout = near[0]
    presets = list(dict.fromkeys(name for name, part, _ in near if part == component))
    mismatch = compare(found, layout)
    return (
        f"{label}: these are not the tensors of any preset. Compared with the nearest, {component} of "
        f"{' or '.join(presets)}, {_counted(mismatch)}:\n{mismatch}"
    )


def _counted(mismatch: Mismatch) -> str:
    return "1 tensor differs" if mismatch.size == 1 else f"{mismatch.size:,} tensors differ"


def _verdict(presets: Sequence[str], asked: str) -> str:
    if presets:
        names = " or ".join(presets)
        return f"these are the tensors of preset {names}, not of {asked}; import them as that preset."
    return f"these are not the tensors of {asked}, nor of any preset."


def _distance(found: Shapes, layout: FileLayout) -> float:
    """Return the share of tensors that differ, from 0 to 1; one with the right name and a wrong shape counts half."""
    mismatch = compare(found, layout)
    return (mismatch.size - len(mismatch.misshaped) / 2) / (len(found) + len(mismatch.missing))


def resolve(choice: str | JukeboxConfig) -> JukeboxConfig:
    """Return a configuration itself, or the preset of that name; raise `ConfigError` if there is none."""
    return preset(choice) if isinstance(choice, str) else choice


def restrict(config: JukeboxConfig, components: Iterable[str]) -> JukeboxConfig:
    """Return the configuration with only those priors that are among the components."""
    kept = set(components)
    return replace(config, priors=tuple(prior for prior in config.priors if prior_component(prior.level) in kept))


def one_system(candidates: Mapping[str, JukeboxConfig], label: str) -> str:
    """Return the name of the preset among one or more candidates, which must be restricted to the available parts.

    Presets that share these parts are equivalent, so the first one is returned. Raises `CheckpointError` if the
    candidates differ.
    """
    if len({(config.vqvae, config.priors) for config in candidates.values()}) > 1:
        raise CheckpointError(f"{label}: matches the presets {', '.join(candidates)}; say which one it is.")
    return next(iter(candidates))
