"""Options for running TensorRT engines, shared by all commands that run them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from jukebox_deploy.cli.options import PATH, UsualFloat, grouped

if TYPE_CHECKING:
    from jukebox_deploy.engines.tensorrt.features import TensorRtOptions

tensorrt_options = grouped(
    click.option("--host-code", is_flag=True, help="Allow TensorRT engines that contain host (CPU) code."),
    click.option(
        "--lean-runtime",
        type=PATH,
        help="TensorRT lean runtime library, to run version-compatible engines of another version.",
    ),
    click.option(
        "--weight-budget",
        type=UsualFloat(min=0),
        metavar="GB",
        help="GPU memory for the weights of each engine built with weight-streaming, in GB (10^9 bytes); the rest is "
        "streamed.",
    ),
    click.option(
        "--weights-from", type=PATH, metavar="ONNX_BUNDLE", help="ONNX bundle with the weights of stripped engines."
    ),
    click.option(
        "--kernel-caches",
        type=PATH,
        metavar="DIR",
        help="Folder that keeps kernels compiled by TensorRT-RTX for later runs.",
    ),
)
"""The options that `chosen_tensorrt` reads."""

TENSORRT_CHOICES = ("host_code", "lean_runtime", "weight_budget", "weights_from", "kernel_caches")
"""Names of these options in a command's parameters."""


def chosen_tensorrt(options: Mapping[str, Any]) -> TensorRtOptions | None:
    """Return the `tensorrt_options` of a command line; `None` if none was given."""
    from jukebox_deploy.engines.bundle import open_bundle
    from jukebox_deploy.engines.tensorrt.features import TensorRtOptions

    budget, source, kernels = options["weight_budget"], options["weights_from"], options["kernel_caches"]
    if not any((options["host_code"], options["lean_runtime"], budget is not None, source, kernels)):
        return None
    return TensorRtOptions(
        host_code=options["host_code"],
        lean_runtime=options["lean_runtime"],
        weight_budget=None if budget is None else int(budget * 1e9),
        weights_from=None if source is None else open_bundle(source),
        kernel_caches=kernels,
    )
