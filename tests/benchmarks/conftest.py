"""Rounds as short as they can be: no test looks at how fast this machine is today."""

from __future__ import annotations

import pytest

from jukebox_deploy.benchmarks import rounds


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass a round, and few single calls."""
    monkeypatch.setattr(rounds, "ROUND_SECONDS", 0.0)
    monkeypatch.setattr(rounds, "_CALL_SECONDS", 0.0)
