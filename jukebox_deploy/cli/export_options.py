"""The choices of an export, which `export` and `build` share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jukebox_deploy.cli.options import UsualFloat, comma_separated, grouped
from jukebox_deploy.contract import LinearWeights

if TYPE_CHECKING:
    from jukebox_deploy.export.cutting import Cutting
    from jukebox_deploy.jobs.quantised_export import QuantisationRequest

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?GB")


def _cutting(context: click.Context, parameter: click.Parameter, value: str | None) -> Cutting | None:
    """`3` parts, or parts of at most `4GB`."""
    if value is None:
        return None
    from jukebox_deploy.export.cutting import Cutting

    if value.isdecimal() and int(value) > 0:
        return Cutting(int(value))
    size = _SIZE.fullmatch(value)
    if size is None or not float(size[1]):
        raise click.BadParameter(f"{value!r} is neither a number of parts nor a size like 4GB.")
    return Cutting(largest_bytes=round(float(size[1]) * 1e9))


export_options = grouped(
    click.option(
        "--weights",
        type=click.Choice([str(w) for w in LinearWeights]),
        help="Of the stacks' linear layers: as the precision, or small values with scales. [default: precision]",
    ),
    click.option(
        "--keep",
        callback=comma_separated,
        metavar="layers.0,layers.71.mlp",
        help="Linear layers that --weights leaves in the precision, by parts of their names; * stands for anything.",
    ),
    click.option(
        "--calibrate",
        metavar="none|self|SONG",
        help="What --weights learns the layers' inputs from: codes that the model samples, or a song folder, or a "
        "folder of them. [default: self for int4, none for others]",
    ),
    click.option(
        "--max-kl",
        type=UsualFloat(min=0),
        metavar="NATS",
        help="How far --weights may move the probabilities of codes, on average. [default: 0.01 int8, 0.05 int4 and "
        "fp8]",
    ),
    click.option(
        "--parts",
        "cutting",
        callback=_cutting,
        metavar="N|SIZE",
        help="Cut steps and prefills into so many parts of whole layers, or into parts of at most so many weights, "
        "as in 4GB: each is built by itself, and they run one after the other. [default: 1]",
    ),
    click.option(
        "--logits/--no-logits", default=True, help="The step also gives its logits, which verify and evaluate compare."
    ),
    click.option("--validate/--no-validate", default=True, help="Compare each graph with PyTorch in ONNX Runtime."),
)
"""The options of an export, apart from precision and slots."""


def quantisation(choices: Mapping[str, Any]) -> QuantisationRequest:
    """How weights are stored. Raises `ExportError` for choices that would do nothing."""
    from jukebox_deploy.jobs.quantised_export import Calibration, QuantisationRequest, song_folders

    calibrate: str | None = choices["calibrate"]
    songs: tuple[Path, ...] = ()
    if calibrate is not None and calibrate not in (Calibration.NONE, Calibration.SELF):
        songs, calibrate = song_folders(Path(calibrate)), Calibration.SONGS
    weights = LinearWeights(choices["weights"] or LinearWeights.AS_PRECISION)
    calibration = None if calibrate is None else Calibration(calibrate)
    return QuantisationRequest(weights, choices["keep"], calibration, songs, choices["max_kl"])


def cutting(choices: Mapping[str, Any]) -> Cutting:
    """How steps and prefills are cut."""
    from jukebox_deploy.export.cutting import Cutting

    chosen: Cutting | None = choices["cutting"]
    return chosen or Cutting()
