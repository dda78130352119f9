"""How engines for TensorRT are run: the options that commands share which run them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from jukebox_deploy.cli.options import PATH, UsualFloat, grouped

if TYPE_CHECKING:
    from jukebox_deploy.engines.tensorrt.features import TensorRtOptions

tensorrt_options = grouped(
    click.option("--host-code", is_flag=True, help="Let engines for TensorRT bring code for the processor."),
    click.option("--lean-runtime", type=PATH, help="Library that runs version-compatible engines of another version."),
    click.option(
        "--weight-budget",
        type=UsualFloat(min=0),
        metavar="GIB",
        help="Of each engine that streams its weights: how much of them stays on the GPU.",
    ),
    click.option("--weights-from", type=PATH, metavar="ONNX_BUNDLE", help="Where stripped engines get their weights."),
    click.option(
        "--kernel-caches", type=PATH, metavar="DIR", help="Keep here what TensorRT-RTX compiled, for the next run."
    ),
)
"""For `chosen_tensorrt`."""

TENSORRT_CHOICES = ("host_code", "lean_runtime", "weight_budget", "weights_from", "kernel_caches")
"""Their names among a command's choices."""


def chosen_tensorrt(options: Mapping[str, Any]) -> TensorRtOptions | None:
    """The options of `tensorrt_options` that were given; `None` if none was."""
    from jukebox_deploy.engines.bundle import open_bundle
    from jukebox_deploy.engines.tensorrt.features import TensorRtOptions

    budget, source, kernels = options["weight_budget"], options["weights_from"], options["kernel_caches"]
    if not any((options["host_code"], options["lean_runtime"], budget is not None, source, kernels)):
        return None
    return TensorRtOptions(
        host_code=options["host_code"],
        lean_runtime=options["lean_runtime"],
        weight_budget=None if budget is None else int(budget * 2**30),
        weights_from=None if source is None else open_bundle(source),
        kernel_caches=kernels,
    )
