"""Scoring of windows of known codes by a model, in bits per token.

A checkpoint scores all positions of a window at once; an engine steps through it as in sampling, with teacher forcing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jukebox_deploy.config import PriorConfig
from jukebox_deploy.contract import GraphKind, GraphSpec, find_graph
from jukebox_deploy.data.windows import WindowBatch
from jukebox_deploy.engine import Engine, open_conditioning, prior_graphs, require_graphs, run_by_row
from jukebox_deploy.errors import EngineError
from jukebox_deploy.jobs.comparison.window_runs import WindowStretch, gives_logits, logits_of_given_codes
from jukebox_deploy.jobs.quantised_export import measured_slots
from jukebox_deploy.models.prior import Prior
from jukebox_deploy.training.metrics import TokenScore, token_score
from jukebox_deploy.training.objective import PriorObjective

Listener = Callable[[int, int], None]
"""Called with the number of positions done and the total."""

_HEARD_STEPS = 16  # steps of an engine between calls of the listener


@dataclass(frozen=True)
class PriorScore:
    """How well a prior predicts the tokens of windows."""

    music: TokenScore
    lyrics: TokenScore | None = None  # for a prior that also predicts lyrics


def score_with_model(prior: Prior, config: PriorConfig, windows: Sequence[WindowBatch], listen: Listener) -> PriorScore:
    """Score batches of windows with a prior in PyTorch, on its device, all positions of a batch at once."""
    objective, device = PriorObjective(prior, config), next(prior.parameters()).device
    music = lyrics = TokenScore()
    for number, arrays in enumerate(windows):
        with torch.inference_mode():
            batch = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
            window = objective.whole_windows(batch)
            states = None
            if prior.lyric_encoder is not None and window.lyric_tokens is not None:
                states = prior.lyric_encoder(window.lyric_tokens)
                lyrics += token_score(prior.lyric_encoder.output(states), window.lyric_tokens)
            logits = prior(window.tokens, window.start, window.conditioning, states)
        lyrics += _score_part(logits, window.tokens, slice(0, config.lyric_prefix))
        music += _score_part(logits, window.tokens, slice(config.lyric_prefix, None))
        listen((number + 1) * config.transformer.context, len(windows) * config.transformer.context)
    return PriorScore(music, lyrics if lyrics.tokens else None)


def _score_part(logits: Tensor, tokens: Tensor, part: slice) -> TokenScore:
    return token_score(logits[:, part], tokens[:, part])


def _step_with_logits(engine: Engine, prior: PriorConfig) -> GraphSpec:
    require_graphs(engine, prior_graphs(prior), f"scoring level {prior.level}")
    step = find_graph(engine.graphs, GraphKind.STEP, prior.level)
    if not gives_logits(step):
        raise EngineError(f"{step.name} gives no logits; export it without --no-logits.")
    return step


def score_with_engine(
    engine: Engine, prior: PriorConfig, windows: Sequence[WindowBatch], listen: Listener
) -> PriorScore:
    """Score windows, one in each batch, by an engine's own graphs; several windows go through its slots at a time.

    The lyrics of a lyric encoder have no logits in an engine. Raises `EngineError` for graphs that are missing,
    and for a step that gives no logits.
    """
    slots = measured_slots(prior, _step_with_logits(engine, prior))
    session = engine.prior_session(prior.level, slots)
    context, total = prior.transformer.context, len(windows) * prior.transformer.context
    music = lyrics = TokenScore()
    for first in range(0, len(windows), slots):
        rows = list(windows[first : first + slots])
        # A session always runs all of its slots; results of idle ones are ignored.
        filled = _stacked([*rows, *[rows[-1]] * (slots - len(rows))])
        stretch = WindowStretch(_step_inputs(engine, prior, filled), np.zeros(slots, np.int64), context)
        codes = torch.from_numpy(stretch.tensors["codes"][: len(rows)])
        for position, logits in enumerate(logits_of_given_codes(session, prior, stretch)):
            score = token_score(torch.from_numpy(logits[: len(rows)]), codes[:, position])
            if position < prior.lyric_prefix:
                lyrics += score
            else:
                music += score
            if position % _HEARD_STEPS == 0:
                listen(first * context + position * len(rows), total)
    listen(total, total)
    return PriorScore(music, lyrics if lyrics.tokens else None)


def _stacked(batches: Sequence[WindowBatch]) -> WindowBatch:
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def _step_inputs(engine: Engine, prior: PriorConfig, windows: WindowBatch) -> dict[str, np.ndarray]:
    """Return codes as ids of the prior's vocabulary, and conditioning by the engine's own graphs."""
    tensors: dict[str, np.ndarray] = {}
    for runner in open_conditioning(engine, prior):
        tensors |= run_by_row(runner, {tensor.name: windows[tensor.name] for tensor in runner.spec.inputs})
    ids = windows["codes"] + prior.code_shift
    if prior.lyric_prefix:
        ids = np.concatenate([windows["lyric_tokens"], ids], axis=1)
    return {**tensors, "codes": ids}
