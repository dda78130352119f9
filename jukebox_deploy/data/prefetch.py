"""Prefetching: threads make batches while the trainer works on earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

from jukebox_deploy.errors import ConfigError
from jukebox_deploy.threads import map_in_threads

T = TypeVar("T")


def prefetched(
    make: Callable[[int], T], first: int, stop: int, ahead: int = 4, threads: int = 2
) -> Generator[T, None, None]:
    """Yield `make(first)` to `make(stop - 1)` in order, with up to `ahead` results computed in advance.

    `make` is called from several threads at once. An error of a call is raised in place of its result. Close the
    generator to end the threads before the last result. Raises `ConfigError` for fewer than 1 thread.
    """
    if threads < 1 or ahead < 0:
        raise ConfigError(f"prefetching: expected 1 or more threads and 0 or more ahead, found {threads}, {ahead}.")
    return map_in_threads(make, range(first, stop), threads=threads, ahead=ahead)
