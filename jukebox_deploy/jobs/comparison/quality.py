"""How far logits differ: as probabilities of codes, and beside what rounding to half precision costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jukebox_deploy.config import PriorConfig
from jukebox_deploy.engine import Engine
from jukebox_deploy.jobs.comparison.forced_windows import ForcedWindows
from jukebox_deploy.jobs.comparison.window_runs import run_given_codes


@dataclass(frozen=True)
class Quality:
    """How closely two models agree in the probabilities of codes."""

    mean_kl: float  # KL divergence in nats of the found from the expected distributions
    top1_agreement: float  # share of positions with the same most likely code
    positions: int
    slots: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "mean_kl_nats": self.mean_kl,
            "top1_agreement": self.top1_agreement,
            "positions": self.positions,
            "slots": self.slots,
        }

    def __str__(self) -> str:
        return f"KL {self.mean_kl:.2g} nats, top-1 {self.top1_agreement:.1%} over {self.positions} codes"


def compare_logits(expected: np.ndarray, found: np.ndarray) -> Quality:
    """Compare logits `[steps, B, V]`; a NaN makes the divergence NaN."""
    expected_log, found_log = _log_softmax(expected), _log_softmax(found)
    distance = np.sum(np.exp(expected_log) * (expected_log - found_log), axis=-1)
    agreement = np.mean(expected.argmax(-1) == found.argmax(-1))
    return Quality(float(distance.mean()), float(agreement), distance.size, expected.shape[1])


def times_rounding(exact: np.ndarray, expected: np.ndarray, found: np.ndarray) -> float:
    """Return the error of logits `[steps, B, V]` in multiples of what the precision costs, as root mean squares.

    `exact`: of the model in fp32; `expected`: of the model in the precision; `found`: of the engine. Rounding is of
    about the same size wherever it happens, so a sound engine is at about 1 or below, however deep the model. NaN stays
    NaN.
    """
    cost = _root_mean_square(expected, exact)
    return _root_mean_square(found, expected) / max(cost, float(np.finfo(np.float32).tiny))


def _root_mean_square(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(one.astype(np.float64) - other))))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    shifted: np.ndarray = wide - np.log(np.exp(wide).sum(-1, keepdims=True))
    return shifted


def logits_of(engine: Engine, prior: PriorConfig, windows: ForcedWindows) -> np.ndarray:
    """Step over the windows' codes on an engine whose step outputs its logits: `[steps, B, V]`."""
    stretch = windows.stretch(prior)
    session = engine.prior_session(prior.level, stretch.slots)
    return run_given_codes(session, prior, stretch)["logits"]
