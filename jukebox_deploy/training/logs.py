"""Logs of a run's metrics by step: CSV files and, optionally, TensorBoard."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jukebox_deploy.files import write_text_atomic

Numbers = Mapping[str, float | int]


class RunLog:
    """One table of a run: `NAME.csv`, and curves under that name if `board` is a TensorBoard writer."""

    def __init__(self, folder: Path, name: str, board: Any = None) -> None:
        self._path = folder / f"{name}.csv"
        self._name = name
        self._board = board

    def append(self, step: int, numbers: Numbers) -> None:
        """Add a row; all rows of a table must have the same columns."""
        row = {"step": step, **numbers}
        with self._path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, row, lineterminator="\n")
            if file.tell() == 0:  # new, or left empty by a run that was killed before its first row
                writer.writeheader()
            writer.writerow({n: f"{value:.6g}" if isinstance(value, float) else value for n, value in row.items()})
        if self._board is not None:
            for name, value in numbers.items():
                self._board.add_scalar(f"{self._name}/{name}", value, step)

    def has(self, step: int) -> bool:
        """Return whether there is a row of a step."""
        rows = self._path.read_text(encoding="utf-8").splitlines() if self._path.is_file() else []
        return any(row.partition(",")[0] == str(step) for row in rows)

    def cut(self, step: int) -> None:
        """Remove the rows after a step, which an interrupted run logged after its last checkpoint."""
        if not self._path.is_file() or not (lines := self._path.read_text(encoding="utf-8").splitlines()):
            return
        header, *rows = lines
        kept = [row for row in rows if (number := row.partition(",")[0]).isdigit() and int(number) <= step]
        write_text_atomic(self._path, "\n".join([header, *kept]) + "\n")

    def close(self) -> None:
        """Flush the TensorBoard log to disk; rows of the table are written at once."""
        if self._board is not None:
            self._board.close()


def require_board() -> None:
    """Raise `ModuleNotFoundError` if TensorBoard is not installed; to be called before a run does any work."""
    import tensorboard  # noqa: F401  # only to check that it is installed


def open_board(folder: Path, step: int) -> Any:
    """Open a TensorBoard writer that continues after `step`; raise `ModuleNotFoundError` if it is not installed."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)
