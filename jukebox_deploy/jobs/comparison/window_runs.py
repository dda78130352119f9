"""Running a stretch of a window on any engine: prefill a prefix, then step over given or chosen codes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from jukebox_deploy.config import PriorConfig
from jukebox_deploy.contract import GraphKind, GraphSpec, find_graph, numpy_dtype
from jukebox_deploy.engine import Engine, PriorSession, open_conditioning, run_by_row
from jukebox_deploy.export.feeds import random_feed, random_feeds


@dataclass(frozen=True)
class WindowStretch:
    """The inputs of each slot, and the part of its window that is run."""

    tensors: Mapping[str, np.ndarray]  # inputs of the step by name, `[B, ...]`
    prefix: np.ndarray  # [B] number of positions to prefill; ends in the middle of a block, or 0
    steps: int

    @property
    def slots(self) -> int:
        """Number of slots, `B`."""
        return len(self.prefix)

    def with_steps(self, steps: int, prior: PriorConfig) -> WindowStretch:
        """Return the stretch with this number of steps, at most to the end of the window."""
        return replace(self, steps=min(steps, prior.transformer.context - int(self.prefix.max())))

    def whole_window(self, prior: PriorConfig) -> WindowStretch:
        """Return the stretch over every position of music, with only the lyrics as its prefix."""
        prefix = np.full_like(self.prefix, prior.lyric_prefix)
        return replace(self, prefix=prefix, steps=prior.transformer.context - prior.lyric_prefix)


@dataclass(frozen=True)
class StretchPlace:
    """The index of a stretch among several, spread evenly over a window."""

    index: int
    count: int

    def block(self, prior: PriorConfig) -> int:
        """The block in whose middle the prefix ends, from the one after the lyrics to the last block."""
        stack = prior.transformer
        last = stack.block_count - 1
        first = min(prior.lyric_prefix // stack.block_length + 1, last)
        return first + (last - first) * self.index // max(self.count - 1, 1)


def make_stretch(model: Engine, prior: PriorConfig, place: StretchPlace, slots: int, seed: int) -> WindowStretch:
    """Make a stretch of random codes and labels; `model` computes the conditioning from the labels.

    The steps cross the next block boundary, unless the window ends before.
    """
    stack = prior.transformer
    spec = find_graph(model.graphs, GraphKind.STEP, prior.level)
    tensors = {
        name: random_feed(spec.tensor(name), spec, model.config, {"B": slots}, seed) for name in ("codes", "uniform")
    }
    tensors |= random_conditioning(model, prior, slots, seed)
    offset = (stack.block_length // 2 + np.arange(slots)) % stack.block_length
    prefix = place.block(prior) * stack.block_length + offset
    steps = min(stack.block_length + 1, stack.context - int(prefix.max()))
    return WindowStretch(tensors, prefix, steps)


def random_conditioning(model: Engine, prior: PriorConfig, slots: int, seed: int) -> dict[str, np.ndarray]:
    """Compute conditioning for random labels, lyrics and upper codes with `model`: inputs of the step by name."""
    tensors: dict[str, np.ndarray] = {}
    for runner in open_conditioning(model, prior):
        tensors.update(run_by_row(runner, random_feeds(runner.spec, model.config, {"B": slots}, seed)))
    return tensors


def run_given_codes(session: PriorSession, prior: PriorConfig, stretch: WindowStretch) -> dict[str, np.ndarray]:
    """Step over given codes; return `logits` `[steps, B, V]` if the step outputs them, else the final caches.

    Caches do not show what the last layer does after its attention; without logits, only chosen codes show it.
    """
    if gives_logits(session.spec):
        return {"logits": np.stack(list(logits_of_given_codes(session, prior, stretch)))}
    _prefill(session, prior, stretch)
    _write(session, "known_end", stretch.prefix + stretch.steps)
    session.step(stretch.steps)
    slots = range(session.slots)
    return {t.name: np.stack([session.read(t.name, s) for s in slots]) for t in session.spec.states if t.in_place}


def gives_logits(step: GraphSpec) -> bool:
    """Whether a step outputs its logits."""
    return any(tensor.name == "logits" for tensor in step.tensors)


def logits_of_given_codes(session: PriorSession, prior: PriorConfig, stretch: WindowStretch) -> Iterator[np.ndarray]:
    """Step over given codes and yield the logits of each step, `[B, V]`. The step must output them."""
    _prefill(session, prior, stretch)
    _write(session, "known_end", stretch.prefix + stretch.steps)
    yield from _logits_of_steps(session, stretch.steps)


def inputs_of_step(
    session: PriorSession, prior: PriorConfig, stretch: WindowStretch, steps: int, given: bool
) -> dict[str, np.ndarray]:
    """Return the inputs, by tensor name, of the step after a number of steps over `given` or chosen codes."""
    _prefill(session, prior, stretch)
    if given:
        _write(session, "known_end", stretch.prefix + stretch.steps)
    if steps:
        session.step(steps)
    slots = range(session.slots)
    return {t.name: np.stack([session.read(t.name, slot) for slot in slots]) for t in session.spec.inputs}


def run_greedy_codes(session: PriorSession, prior: PriorConfig, stretch: WindowStretch) -> np.ndarray:
    """Step with the most likely code each time; return the codes `[B, steps]`."""
    _prefill(session, prior, stretch)
    session.step(stretch.steps)
    return _chosen_codes(session, stretch)


def run_sampled_codes(
    session: PriorSession, prior: PriorConfig, stretch: WindowStretch
) -> tuple[np.ndarray, np.ndarray]:
    """Step and sample each code from the model's distribution, at temperature 1.

    The step must output its logits. Returns the codes `[B, steps]` and the logits `[steps, B, V]` they were sampled
    from.
    """
    _prefill(session, prior, stretch)
    _write(session, "temperature", np.ones(session.slots))
    logits = np.stack(list(_logits_of_steps(session, stretch.steps)))
    return _chosen_codes(session, stretch), logits


def _logits_of_steps(session: PriorSession, steps: int) -> Iterator[np.ndarray]:
    """Step and yield the logits of each step, `[B, V]`."""
    for _ in range(steps):
        session.step(1)
        yield np.stack([session.read("logits", slot) for slot in range(session.slots)])


def _chosen_codes(session: PriorSession, stretch: WindowStretch) -> np.ndarray:
    rows = [session.read("codes", slot) for slot in range(session.slots)]
    return np.stack([row[start : start + stretch.steps] for row, start in zip(rows, stretch.prefix, strict=True)])


def _prefill(session: PriorSession, prior: PriorConfig, stretch: WindowStretch) -> None:
    """Fill the slots, at temperature 0, and prefill the prefix."""
    slots, stack = session.slots, prior.transformer
    numbers = {"position": 0, "window_end": stack.context, "temperature": 0, "top_k": 0, "top_p": 0, "not_finite": 0}
    tensors = {name: np.full(slots, value) for name, value in numbers.items()}
    for name, values in (tensors | {"known_end": stretch.prefix} | dict(stretch.tensors)).items():
        _write(session, name, values)
    blocks = -(-int(stretch.prefix.max()) // stack.block_length)
    for _ in range(blocks):
        session.prefill(range(slots))


def _write(session: PriorSession, name: str, values: np.ndarray) -> None:
    dtype = numpy_dtype(session.spec.tensor(name).dtype)
    for slot, value in enumerate(values):
        session.write(name, slot, np.asarray(value, dtype))
