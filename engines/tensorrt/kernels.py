"""Kernels that TensorRT-RTX compiled where an engine runs, kept from one run to the next.

The engine holds no kernels for the shapes of a session; they are compiled when its context is made. A cache
belongs to one engine, one version of the library and one GPU, and its file is named after all of them. Kernels are
code, so beside each file stands a record with its hash, and what does not match the record is never loaded.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from jukebox_deploy.engines.tensorrt.runtime import Platform
from jukebox_deploy.errors import EngineError, JukeboxError
from jukebox_deploy.files import atomic_path, write_json_atomic


@dataclass(frozen=True)
class KernelKey:
    """All that compiled kernels depend on."""

    engine: str  # SHA-256 of the engine file, hexadecimal
    target: str
    version: str  # of the flavour
    device: str
    compute_capability: str


class KernelCache:
    """The kernels of one engine in a folder, and in the memory of the library while the engine is open."""

    def __init__(self, folder: Path, key: KernelKey) -> None:
        self._folder = folder
        self._key = key
        self._kept: str | None = None  # the hash of what is in the file
        self._held: Any = None

    @classmethod
    def of(cls, folder: Path, engine_sha256: str, platform: Platform) -> Self:
        """The cache of an engine on a platform."""
        gpu = platform.device.properties
        key = KernelKey(engine_sha256, str(platform.target), platform.version, gpu.name, gpu.compute_capability)
        return cls(folder, key)

    @cached_property
    def path(self) -> Path:
        """The file with the kernels."""
        content = json.dumps(asdict(self._key), sort_keys=True)
        return self._folder / f"{hashlib.sha256(content.encode()).hexdigest()}.kernels"

    @property
    def record_path(self) -> Path:
        """The file with the key and the hash of the kernels."""
        return self.path.with_suffix(".json")

    def attach(self, runtime_config: Any, platform: Platform) -> None:
        """Give a context that is about to be made what is known, and take what it will compile.

        What is damaged, or of another environment by the library's own check, is begun anew. Raises `EngineError`.
        """
        if not hasattr(runtime_config, "create_runtime_cache"):
            raise EngineError(no_kernels_to_keep(platform.target))
        runtime_cache = runtime_config.create_runtime_cache()
        if content := self._read():
            if runtime_cache.deserialize(content):
                self._kept = hashlib.sha256(content).hexdigest()
            else:
                platform.failure("not taken")  # which forgets what the library said: it is no news of the next call
        taken = runtime_config.set_runtime_cache(runtime_cache)
        platform.require(taken, f"{platform.target} takes no cache of kernels")
        self._held = runtime_cache

    def _read(self) -> bytes:
        """The kernels in the file; nothing unless these very bytes have the hash of the record."""
        try:
            record, content = json.loads(self.record_path.read_bytes()), self.path.read_bytes()
        except (OSError, ValueError, RecursionError):
            return b""
        return content if record == self._record(content) else b""

    def _record(self, content: bytes) -> Mapping[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        return {**asdict(self._key), "sha256": digest, "bytes": len(content)}

    def save(self) -> None:
        """Keep what was compiled, if anything was.

        The songs are made by then: a folder that cannot be written to is a warning.
        """
        runtime_cache = self._held
        if runtime_cache is None:
            return
        content = bytes(runtime_cache.serialize() or b"")
        if not content or hashlib.sha256(content).hexdigest() == self._kept:
            return
        try:
            with atomic_path(self.path) as part:
                part.write_bytes(content)
            # A run that ends between the two, or another one that writes at the same time, leaves what is not loaded.
            write_json_atomic(self.record_path, self._record(content))
        except (JukeboxError, OSError) as error:
            warnings.warn(f"compiled kernels were not kept: {error}", RuntimeWarning, stacklevel=2)


def no_kernels_to_keep(target: str) -> str:
    """Why a flavour has no such cache."""
    return f"{target} compiles kernels when it builds, not where an engine runs: drop --kernel-caches."
