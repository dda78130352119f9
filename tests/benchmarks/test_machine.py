"""The card of the machine, and the probe's arithmetic."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jukebox_deploy.benchmarks import machine
from jukebox_deploy.benchmarks.machine import describe_this_machine, read_bandwidth
from jukebox_deploy.engines.installed_gpus import Gpu


def test_the_bandwidth_is_that_of_the_best_round(monkeypatch):
    monkeypatch.setattr(machine, "_READ_AT_LEAST", 1 << 20)
    times = iter([0.0, 4.0, 10.0, 10.5, 20.0, 21.0])
    assert read_bandwidth(1 << 18, rounds=3, clock=lambda: next(times)) == (1 << 20) / 0.5


@pytest.mark.parametrize("size", [1, 1000, 1 << 22])
def test_every_byte_is_read_as_often_as_counted(monkeypatch, size):
    read = []
    monkeypatch.setattr(machine, "_READ_AT_LEAST", 1 << 20)
    monkeypatch.setattr(machine, "_read", lambda part, repeats: read.append(part.nbytes * repeats))
    times = iter([0.0, 1.0])
    assert read_bandwidth(size, rounds=1, clock=lambda: next(times)) == sum(read)


def test_the_card_says_what_ran_where(monkeypatch):
    monkeypatch.setattr(machine, "LARGE_READ", 1 << 20)
    monkeypatch.setattr(machine, "_READ_AT_LEAST", 1 << 20)
    monkeypatch.setattr(machine, "installed_gpus", lambda: (Gpu("NVIDIA L4", 1 << 34, "8.9", "550.54"),))
    card = json.loads(json.dumps(describe_this_machine().to_json()))
    assert card["packages"]["numpy"] == np.__version__
    assert card["gpu"] is None
    assert [gpu["compute_capability"] for gpu in card["gpus"]] == ["8.9"]
    assert card["processor"]
    assert card["cores"] >= 1
    assert card["read_bytes_per_second"] > 0
