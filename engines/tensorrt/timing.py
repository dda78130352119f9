"""Timing caches, which store measured kernel times for later builds of the same graph.

TensorRT chooses kernels by timing them on the GPU. TensorRT-RTX compiles kernels on the machine that runs an engine,
and times nothing during a build.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from jukebox_deploy.errors import EngineError
from jukebox_deploy.files import atomic_path, sha256_of_file


@dataclass(frozen=True)
class TimingCache:
    """A timing cache file, named after a hash of all that a build depends on, so that no other build uses it."""

    path: Path

    @classmethod
    def of(cls, trt: Any, folder: Path, files: Iterable[Path], choices: str) -> Self:
        """Return the cache for these files (graph and weights) and choices, and this version of the library.

        Raises `EngineError` for a flavour that times nothing.
        """
        if hasattr(trt, "IRuntimeCache"):  # only TensorRT-RTX has it
            raise EngineError(
                f"{trt.__name__.replace('_', '-')} times no kernels while it builds, so it has no timing cache: "
                "leave --timing-caches out."
            )
        content = [trt.__name__, str(trt.__version__), choices, *(sha256_of_file(file) for file in files)]
        return cls(folder / f"{hashlib.sha256(chr(10).join(content).encode()).hexdigest()}.timing")

    def load(self, builder_config: Any) -> None:
        """Pass the cached timings to the builder. A cache that it rejects, such as another GPU's, is replaced."""
        known = self.path.read_bytes() if self.path.is_file() else b""
        cache = builder_config.create_timing_cache(known)
        if cache is None or not builder_config.set_timing_cache(cache, False):
            builder_config.set_timing_cache(builder_config.create_timing_cache(b""), False)

    def save(self, builder_config: Any) -> None:
        """Write the builder's current timings to the file."""
        with atomic_path(self.path) as part:
            cache = builder_config.get_timing_cache()
            part.write_bytes(bytes(cache.serialize()))
