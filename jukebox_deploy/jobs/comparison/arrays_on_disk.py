"""Arrays kept on disk, so that two large models can be compared within the memory of one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np


class ArraysOnDisk(Mapping[str, np.ndarray]):
    """A mapping whose arrays are read on access. Its files are deleted when the context ends."""

    def __init__(self, arrays: Iterable[tuple[str, np.ndarray]]) -> None:
        """Write the arrays one at a time, as they are produced."""
        self._folder = tempfile.TemporaryDirectory(prefix="jukebox-arrays-")
        self._files: dict[str, tuple[Path, np.dtype]] = {}
        for name, array in arrays:
            path = Path(self._folder.name) / f"{len(self._files)}.npy"
            np.save(path, array)
            self._files[name] = path, array.dtype

    def __getitem__(self, name: str) -> np.ndarray:
        path, dtype = self._files[name]
        array: np.ndarray = np.load(path)
        return array.view(dtype)  # of bfloat16, the file format only knows that it has two bytes

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the files."""
        self._folder.cleanup()
