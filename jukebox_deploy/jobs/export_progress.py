"""What an export tells while it runs: which of its graphs are done, and what it does now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class ExportProgress:
    """How far an export is."""

    done: int  # number of graphs that are exported and checked
    graphs: int  # number of graphs in all
    activity: str = ""  # what is done now, for instance `comparing step_0 with PyTorch`; empty: all is done


ProgressListener = Callable[[ExportProgress], None]
"""Called before every activity, and at the end."""


@dataclass
class Teller:
    """Tells a listener what an export does, with the number of graphs that are done."""

    listener: ProgressListener
    graphs: int
    done: int = 0

    def begin(self, activity: str) -> None:
        """Tell what is done from now on."""
        self.listener(ExportProgress(self.done, self.graphs, activity))

    def count(self) -> None:
        """Count a graph as done. The last one counts when the manifest is written, which takes time for large files."""
        self.done = min(self.done + 1, self.graphs - 1)

    def finish(self) -> None:
        """Tell that all is done."""
        self.listener(ExportProgress(self.graphs, self.graphs))
