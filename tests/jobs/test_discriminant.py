"""The discriminant finds what differs along a narrow direction, and rows it has not seen are really held out."""

from __future__ import annotations

import numpy as np

from jukebox_deploy.jobs.samples.discriminant import LinearDiscriminant, predict_held_out


def clouds(seed: int = 0, count: int = 200) -> tuple[np.ndarray, list[str]]:
    """Two clouds that are wide along a diagonal and apart across it."""
    random = np.random.default_rng(seed)
    labels = ["left", "right"] * (count // 2)
    along, across = random.normal(0, 10, count), random.normal(0, 0.3, count)
    across += np.where(np.array(labels) == "left", -1, 1)
    return np.stack([along + across, along - across], axis=1), labels


def accuracy(found, labels) -> float:
    return float(np.mean(np.array(found) == np.array(labels)))


def test_a_narrow_difference_is_found_where_centroids_alone_do_not_find_it():
    features, labels = clouds()
    others, their_labels = clouds(1)
    sharp = LinearDiscriminant.fit(features, labels, shrinkage=1e-3)
    assert accuracy(sharp.predict(others), their_labels) > 0.98
    round_one = LinearDiscriminant.fit(features, labels, shrinkage=1)
    assert accuracy(round_one.predict(others), their_labels) < 0.75


def test_units_of_features_do_not_count():
    features, labels = clouds()
    moved = features * [1000, 0.001] + [5, -7]
    assert LinearDiscriminant.fit(features, labels).predict(features) == (
        LinearDiscriminant.fit(moved, labels).predict(moved)
    )


def test_a_feature_that_never_changes_does_no_harm():
    features, labels = clouds()
    padded = np.column_stack([features, np.ones(len(features))])
    assert LinearDiscriminant.fit(padded, labels, 1e-3).predict(padded) == (
        LinearDiscriminant.fit(features, labels, 1e-3).predict(features)
    )


def test_random_labels_are_not_found_where_they_are_held_out():
    """The discriminant fits what it is given; only rows that it was made without tell the truth."""
    random = np.random.default_rng(2)
    features, labels = random.normal(size=(200, 60)), ["a", "b"] * 100
    assert accuracy(LinearDiscriminant.fit(features, labels).predict(features), labels) > 0.75
    assert accuracy(predict_held_out(features, labels, range(200)), labels) < 0.6


def test_the_rows_of_a_group_are_held_out_together():
    """Copies of a row would give each other away."""
    random = np.random.default_rng(3)
    features, labels = random.normal(size=(60, 60)).repeat(2, axis=0), np.repeat(["a", "b"] * 30, 2).tolist()
    assert accuracy(predict_held_out(features, labels, range(120), shrinkage=0.01), labels) > 0.9
    pairs = [row // 2 for row in range(120)]
    assert accuracy(predict_held_out(features, labels, pairs, shrinkage=0.01), labels) < 0.6


def test_a_label_that_only_its_group_has_is_not_found():
    features, labels = clouds(count=200)
    found = predict_held_out(features, [*labels[:-1], "odd"], [0] * 100 + [1] * 100)
    assert found[-1] in {"left", "right"}
