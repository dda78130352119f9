"""Run any single graph of an engine on given inputs, whether it is stateless or works on slots."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jukebox_deploy.contract import GraphKind, GraphSpec, TensorSpec
from jukebox_deploy.engine import Engine

FeedMaker = Callable[[TensorSpec], np.ndarray]
"""Makes one input, so that large ones need not be in memory together."""


def run_graph(engine: Engine, spec: GraphSpec, slots: int, feed: FeedMaker) -> dict[str, np.ndarray]:
    """Outputs by output name. Step and prefill go through a session with that many slots."""
    if not spec.states:
        return engine.runner(spec.kind, spec.level)({t.input_name: feed(t) for t in spec.inputs})
    session = engine.prior_session(spec.level, slots)
    for tensor in spec.inputs:
        values = feed(tensor)
        # The prefill sees the column caches in another shape; the memory is the step's.
        shape = session.spec.tensor(tensor.name).shape({"B": slots})
        for slot, value in enumerate(values.reshape(shape)):
            session.write(tensor.name, slot, value)
    if spec.kind is GraphKind.STEP:
        session.step(1)
    else:
        session.prefill(range(slots))
    return {
        t.output_name: np.stack([session.read(t.name, slot) for slot in range(slots)]).reshape(t.shape({"B": slots}))
        for t in spec.outputs
    }
