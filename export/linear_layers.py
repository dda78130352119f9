"""Choice of the weights that are quantised: those of the linear layers in the transformer stacks, with exceptions.

The output matrix, embeddings, norms and biases are never quantised: they are small compared with a stack, and their
errors affect the logits directly.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from jukebox_deploy.errors import ExportError
from jukebox_deploy.export.quantisation import WeightFormat
from jukebox_deploy.listing import words_of

_STACK = ".transformer.layers."

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of a component's tensors by name."""


@dataclass(frozen=True)
class LinearChoice:
    """Names of the weights of one component's linear layers, divided by how they are stored."""

    quantised: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()  # not quantised, as the user asked
    unfit: tuple[str, ...] = ()  # not quantised, because the number of inputs is not a multiple of the group size


def linear_weights(shapes: Shapes) -> list[str]:
    """Return the names of the weights of all linear layers in a component's stacks."""
    return [n for n, shape in shapes.items() if _STACK in n and n.endswith(".weight") and len(shape) == 2]


def choose_layers(
    components: Mapping[str, Shapes], form: WeightFormat, keep: Sequence[str] = ()
) -> dict[str, LinearChoice]:
    """Choose which of each component's linear layers are quantised.

    `keep`: patterns for layers that are not quantised. A pattern has some parts of a layer's name in order, for
    instance `layers.0`, `layers.71.mlp` or `prior_2.layers.*.output`. Raises `ExportError` for a pattern that matches
    no layer.
    """
    names = {component: linear_weights(shapes) for component, shapes in components.items()}
    for pattern in keep:
        if not any(_names(pattern, component, name) for component, some in names.items() for name in some):
            raise ExportError(_nothing_to_keep(pattern, names))
    return {component: _choose(component, names[component], components[component], form, keep) for component in names}


def _choose(
    component: str, names: Sequence[str], shapes: Shapes, form: WeightFormat, keep: Sequence[str]
) -> LinearChoice:
    kept = [name for name in names if any(_names(pattern, component, name) for pattern in keep)]
    unfit = [name for name in names if name not in kept and not form.fits(shapes[name])]
    quantised = [name for name in names if name not in kept and name not in unfit]
    return LinearChoice(tuple(quantised), tuple(kept), tuple(unfit))


def _names(pattern: str, component: str, name: str) -> bool:
    """Return whether a weight's full name has the parts of a pattern (between dots) in this order."""
    parts: Iterator[str] = iter([component, *name.split(".")])
    return all(any(fnmatchcase(part, wanted) for part in parts) for wanted in pattern.split("."))


def _nothing_to_keep(pattern: str, names: Mapping[str, Sequence[str]]) -> str:
    """Return the error message for a pattern that matches no layer, with similar patterns that do."""
    if not any(names.values()):
        return f"there is no linear layer {pattern!r} to keep: no graph of a prior is exported."
    layers = [name.removesuffix(".weight") for some in names.values() for name in some]
    shorter = {path[path.index(_STACK) + len(_STACK) - len("layers.") :] for path in layers}
    known = dict.fromkeys(part for path in sorted(shorter) for part in _beginnings(path))
    near = difflib.get_close_matches(pattern, known, n=5, cutoff=0.3) or list(known)[:5]
    return f"there is no linear layer {pattern!r} to keep. Nearest are {words_of(near)}."


def _beginnings(path: str) -> Iterator[str]:
    """Yield the paths that a path begins with: `layers.0.mlp` -> `layers.0`, `layers.0.mlp`."""
    parts = path.split(".")
    return (".".join(parts[:count]) for count in range(2, len(parts) + 1))
