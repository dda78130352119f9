"""Run any single graph of an engine on given inputs, whether it is stateless or works on slots."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from jukebox_deploy.contract import GraphKind, GraphSpec, TensorSpec
from jukebox_deploy.engine import Engine

FeedMaker = Callable[[TensorSpec], np.ndarray]
"""Makes one input, so that large ones need not be in memory together."""


def run_graph(engine: Engine, spec: GraphSpec, slots: int, feed: FeedMaker) -> Iterator[tuple[str, np.ndarray]]:
    """Outputs with their names, read one at a time. Step and prefill go through a session with that many slots."""
    if not spec.states:
        yield from engine.runner(spec.kind, spec.level)({t.input_name: feed(t) for t in spec.inputs}).items()
        return
    # A prefill may run on fewer slots than a step, which always runs on all of a session's.
    step = engine.graphs[f"{GraphKind.STEP}_{spec.level}"]
    (fewest,) = [r.minimum for r in step.ranges if r.symbol == "B"]
    session = engine.prior_session(spec.level, max(slots, fewest))
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
    for tensor in spec.outputs:
        rows = [session.read(tensor.name, slot) for slot in range(slots)]
        yield tensor.output_name, np.stack(rows).reshape(tensor.shape({"B": slots}))
