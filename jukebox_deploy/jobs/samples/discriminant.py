"""Classification by features: linear discriminant analysis, and its predictions on held-out clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from jukebox_deploy.jobs.samples.sound_features import Numbers

SHRINKAGE = 0.3
"""Shrinkage of the within-label covariance towards a sphere: there are not many more clips than features."""


@dataclass(frozen=True, eq=False)
class LinearDiscriminant:
    """A nearest-centroid classifier, with the within-label covariance shrunk towards a sphere as the metric."""

    names: tuple[str, ...]  # the labels, sorted
    centre: Numbers  # [F]
    scale: Numbers  # [F]
    centroids: Numbers  # [labels, F], of centred and scaled features
    precision: Numbers  # [F, F], the inverse of the covariance

    @classmethod
    def fit(cls, features: Numbers, labels: Sequence[str], shrinkage: float = SHRINKAGE) -> Self:
        """Fit to features `[N, F]` and a label for each row."""
        centre, scale = features.mean(axis=0), features.std(axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        rows = (features - centre) / scale
        names, index = np.unique(np.asarray(labels), return_inverse=True)
        centroids = np.stack([rows[index == n].mean(axis=0) for n in range(len(names))])
        rest = rows - centroids[index]
        spread = rest.T @ rest / len(rest)
        sphere = max(np.trace(spread) / len(spread), np.finfo(float).tiny) * np.eye(len(spread))
        precision = np.linalg.inv((1 - shrinkage) * spread + shrinkage * sphere)
        return cls(tuple(map(str, names)), centre, scale, centroids, precision)

    def predict(self, features: Numbers) -> list[str]:
        """Return the most likely label of each row of `[N, F]`."""
        away = ((features - self.centre) / self.scale)[:, None] - self.centroids
        distances = np.einsum("nlf,fg,nlg->nl", away, self.precision, away)
        return [self.names[index] for index in distances.argmin(axis=1)]


def predict_held_out(
    features: Numbers, labels: Sequence[str], groups: Sequence[int], shrinkage: float = SHRINKAGE
) -> list[str]:
    """Predict the label of each row of `[N, F]` with a discriminant fitted without the rows of its group.

    There must be at least two groups.
    """
    names, membership = np.asarray(labels), np.asarray(groups)
    predicted = np.empty(len(names), object)
    for group in np.unique(membership):
        out = membership == group
        predicted[out] = LinearDiscriminant.fit(features[~out], names[~out].tolist(), shrinkage).predict(features[out])
    return predicted.tolist()
