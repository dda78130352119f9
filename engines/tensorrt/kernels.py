"""Kernel caches, which store for later runs the kernels that TensorRT-RTX compiles on the machine that runs an engine.

An engine has no kernels for the shapes of a session; they are compiled when its execution context is created. A cache
belongs to one engine, one version of the library and one GPU, and its file is named after all of these. Kernels are
code, so a record with the file's hash is stored beside it, and a file that does not match its record is never loaded.
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
    """Everything on which compiled kernels depend."""

    engine: str  # SHA-256 of the engine file, hexadecimal
    target: str
    version: str  # version of the flavour
    device: str
    compute_capability: str


class KernelCache:
    """The kernels of one engine: a file in a folder and, while the engine is open, an `IRuntimeCache`."""

    def __init__(self, folder: Path, key: KernelKey) -> None:
        self._folder = folder
        self._key = key
        self._kept: str | None = None  # hash of the kernels in the file
        self._held: Any = None  # the `IRuntimeCache`

    @classmethod
    def of(cls, folder: Path, engine_sha256: str, platform: Platform) -> Self:
        """Return the cache of an engine on a platform."""
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
        """Attach the cache to a context that is about to be created; it then also collects newly compiled kernels.

        A file that is damaged, or that the library rejects as one of another environment, is ignored and later
        replaced. Raises `EngineError` if the flavour has no kernel caches, or does not accept this one.
        """
        if not hasattr(runtime_config, "create_runtime_cache"):
            raise EngineError(no_kernels_to_keep(platform.target))
        runtime_cache = runtime_config.create_runtime_cache()
        if content := self._read():
            if runtime_cache.deserialize(content):
                self._kept = hashlib.sha256(content).hexdigest()
            else:
                platform.failure("rejected")  # discards the library's messages, which would be blamed on the next call
        accepted = runtime_config.set_runtime_cache(runtime_cache)
        platform.require(accepted, f"{platform.target} does not accept the kernel cache")
        self._held = runtime_cache

    def _read(self) -> bytes:
        """Return the kernels in the file; empty unless the bytes that were read have the hash in the record."""
        try:
            record, content = json.loads(self.record_path.read_bytes()), self.path.read_bytes()
        except (OSError, ValueError, RecursionError):
            return b""
        return content if record == self._record(content) else b""

    def _record(self, content: bytes) -> Mapping[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        return {**asdict(self._key), "sha256": digest, "bytes": len(content)}

    def save(self) -> None:
        """Write the kernels to the file if any were compiled.

        An error only causes a warning, because the songs are complete by then.
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
            # If the process ends between the two writes, or another process writes too, the pair does not match and is
            # not loaded.
            write_json_atomic(self.record_path, self._record(content))
        except (JukeboxError, OSError) as error:
            warnings.warn(f"compiled kernels were not kept: {error}", RuntimeWarning, stacklevel=2)


def no_kernels_to_keep(target: str) -> str:
    """Return the message for a flavour that has no kernel cache."""
    return f"{target} compiles kernels when it builds, not where an engine runs: drop --kernel-caches."
