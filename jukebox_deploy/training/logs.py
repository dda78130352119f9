"""Numbers of a run by step: CSV files, and TensorBoard for who wants it."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jukebox_deploy.files import atomic_path

Numbers = Mapping[str, float | int]


class RunLog:
    """One table of a run: `NAME.csv`, and curves under that name where `board` is a TensorBoard writer."""

    def __init__(self, folder: Path, name: str, board: Any = None) -> None:
        self._path = folder / f"{name}.csv"
        self._name = name
        self._board = board

    def append(self, step: int, numbers: Numbers) -> None:
        """Add a row; the first one decides on the columns."""
        row = {"step": step, **numbers}
        new = not self._path.exists()
        with self._path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, row, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow({n: f"{value:.6g}" if isinstance(value, float) else value for n, value in row.items()})
        if self._board is not None:
            for name, value in numbers.items():
                self._board.add_scalar(f"{self._name}/{name}", value, step)

    def cut(self, step: int) -> None:
        """Drop the rows after a step: what a run that was killed had logged since its last checkpoint."""
        if not self._path.is_file():
            return
        header, *rows = self._path.read_text(encoding="utf-8").splitlines()
        kept = [row for row in rows if (number := row.partition(",")[0]).isdigit() and int(number) <= step]
        with atomic_path(self._path) as partial:
            partial.write_text("\n".join([header, *kept]) + "\n", encoding="utf-8")

    def close(self) -> None:
        """Have what was logged for TensorBoard on the disk; rows of the table are there already."""
        if self._board is not None:
            self._board.close()


def require_board() -> None:
    """`ModuleNotFoundError` without TensorBoard, before a run has done anything."""
    import tensorboard  # noqa: F401  # is only looked for


def open_board(folder: Path, step: int) -> Any:
    """A TensorBoard writer in a folder, which goes on after `step`. `ModuleNotFoundError` without the package."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)
