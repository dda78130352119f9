"""The package's modules as syntax trees, for the tests of layers and of style."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "jukebox_deploy"
REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class SourceModule:
    """One module of the package."""

    name: str  # `jukebox_deploy.models.prior`
    is_package: bool
    text: str

    @property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.text, self.name)


def source_modules(repository: Path = REPOSITORY) -> Iterator[SourceModule]:
    """All modules of the package, through its links too."""
    for folder, folders, files in os.walk(repository / PACKAGE, followlinks=True):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for file in sorted(files):
            if file.endswith(".py"):
                path = Path(folder, file)
                parts = path.relative_to(repository).with_suffix("").parts
                is_package = parts[-1] == "__init__"
                yield SourceModule(".".join(parts[:-1] if is_package else parts), is_package, path.read_text())
