"""A timing cache belongs to one build: its name is a hash of all that the build depends on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jukebox_deploy.engines.tensorrt.timing import TimingCache


class Config:
    """A builder configuration that takes timings of its own GPU only."""

    def __init__(self) -> None:
        self.cache: Any = None

    def create_timing_cache(self, data: bytes) -> Any:
        return SimpleNamespace(serialize=lambda: memoryview(data or b"gpu 1: timed")) if data[:5] != b"other" else None

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.cache = cache
        return not bytes(cache.serialize()).startswith(b"gpu 2")

    def get_timing_cache(self) -> Any:
        return self.cache


def timings(folder: Path, graph: bytes = b"graph", choices: str = "8.9", version: str = "11.4") -> TimingCache:
    (folder / "graph.onnx").write_bytes(graph)
    library = SimpleNamespace(__name__="tensorrt", __version__=version)
    return TimingCache.of(library, folder / "timings", [folder / "graph.onnx"], choices)


def test_everything_that_a_build_depends_on_is_in_the_name(tmp_path: Path) -> None:
    caches = [
        timings(tmp_path),
        timings(tmp_path, graph=b"graph 2"),
        timings(tmp_path, choices="8.6"),
        timings(tmp_path, version="11.5"),
    ]
    assert len({cache.path for cache in caches}) == 4
    assert timings(tmp_path) == caches[0]


def test_what_was_timed_is_found_again(tmp_path: Path) -> None:
    first, second = Config(), Config()
    timings(tmp_path).load(first)
    timings(tmp_path).save(first)
    timings(tmp_path).load(second)
    assert bytes(second.cache.serialize()) == b"gpu 1: timed"
    assert [path.suffix for path in (tmp_path / "timings").iterdir()] == [".timing"]


@pytest.mark.parametrize("content", [b"gpu 2: timed", b"other library"])
def test_timings_of_something_else_are_not_used(tmp_path: Path, content: bytes) -> None:
    cache, config = timings(tmp_path), Config()
    cache.path.parent.mkdir()
    cache.path.write_bytes(content)
    cache.load(config)
    assert bytes(config.cache.serialize()) == b"gpu 1: timed"
