"""Fixtures of the runtime's tests."""

import os

import pytest


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tests commit after every step; that the disk has it is for tests of `files` to show."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
