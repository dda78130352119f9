"""The export options that `export` and `build` share."""

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
    """Parse `3` (a number of parts) or `4GB` (the largest size of a part)."""
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
        help="How to store the weights of the transformer stacks' linear layers: in the precision, or quantised, with "
        "scales. [default: precision]",
    ),
    click.option(
        "--keep",
        callback=comma_separated,
        metavar="layers.0,layers.71.mlp",
        help="Linear layers that --weights does not quantise, given by parts of their names; * matches anything.",
    ),
    click.option(
        "--calibrate",
        metavar="none|self|SONG",
        help="Calibration data for --weights: codes that the model samples itself (self), or those of a song folder "
        "or of all song folders in a folder. [default: self for int4, else none]",
    ),
    click.option(
        "--max-kl",
        type=UsualFloat(min=0),
        metavar="NATS",
        help="Fail if quantised weights change the probabilities of codes by a mean KL divergence above this. "
        "[default: 0.01 for int8, 0.05 for int4 and fp8]",
    ),
    click.option(
        "--measure-quality/--no-measure-quality",
        default=True,
        help="Measure how quantised weights change the probabilities of codes, and apply --max-kl. Without this, large "
        "models are exported sooner, but whatever the weights have lost, and the manifest has no figure.",
    ),
    click.option(
        "--parts",
        "cutting",
        callback=_cutting,
        metavar="N|SIZE",
        help="Split step and prefill graphs at layer boundaries into N parts, or into parts with at most SIZE of "
        "weights each, such as 4GB. Parts are built separately and run one after the other. [default: 1]",
    ),
    click.option(
        "--logits/--no-logits",
        default=True,
        help="Let step graphs also output their logits, which verify and evaluate use.",
    ),
    click.option(
        "--validate/--no-validate", default=True, help="Run each graph in ONNX Runtime and compare it with PyTorch."
    ),
)
"""The options of an export, except precision and slots."""


def quantisation(choices: Mapping[str, Any]) -> QuantisationRequest:
    """Return how weights are stored. Raises `ExportError` or `UsageError` for options that would have no effect."""
    from jukebox_deploy.jobs.quantised_export import Calibration, QuantisationRequest, song_folders

    calibrate: str | None = choices["calibrate"]
    songs: tuple[Path, ...] = ()
    if calibrate is not None and calibrate not in (Calibration.NONE, Calibration.SELF):
        songs, calibrate = song_folders(Path(calibrate)), Calibration.SONGS
    weights = LinearWeights(choices["weights"] or LinearWeights.AS_PRECISION)
    calibration = None if calibrate is None else Calibration(calibrate)
    limit, judged = choices["max_kl"], choices["measure_quality"]
    if weights is not LinearWeights.AS_PRECISION and judged and not choices["logits"]:
        raise click.UsageError(
            f"--no-logits: what {weights} weights cost is measured by the logits of the steps; leave it out, or add "
            "--no-measure-quality."
        )
    return QuantisationRequest(weights, choices["keep"], calibration, songs, limit, judged)


def cutting(choices: Mapping[str, Any]) -> Cutting:
    """Return how step and prefill graphs are split into parts."""
    from jukebox_deploy.export.cutting import Cutting

    chosen: Cutting | None = choices["cutting"]
    return chosen or Cutting()
