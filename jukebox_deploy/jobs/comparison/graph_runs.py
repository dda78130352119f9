"""Running of a single graph of an engine on given inputs, whether it is stateless or works on slots."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from jukebox_deploy.contract import GraphKind, GraphSpec, TensorSpec, find_graph
from jukebox_deploy.engine import Engine

FeedMaker = Callable[[TensorSpec], np.ndarray]
"""Makes one input at a time, so that large ones need not be in memory together."""


def run_graph(engine: Engine, spec: GraphSpec, slots: int, feed: FeedMaker) -> Iterator[tuple[str, np.ndarray]]:
    """Yield outputs by name, one at a time. Step and prefill run in a session with the given number of slots."""
    if not spec.states:
        yield from engine.runner(spec.kind, spec.level)({t.input_name: feed(t) for t in spec.inputs}).items()
        return
    # A prefill may run on fewer slots than a step, which always runs on all slots of a session.
    step = find_graph(engine.graphs, GraphKind.STEP, spec.level)
    session = engine.prior_session(spec.level, max(slots, step.range("B").minimum))
    for tensor in spec.inputs:
        values = feed(tensor)
        # The prefill has the column caches in another shape, but uses the same memory as the step.
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
