"""What is said of a graph that torch cannot trace."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from jukebox_deploy.errors import ExportError
from jukebox_deploy.export.tracing import GraphToTrace, _reason, trace_together
from jukebox_deploy.graphs import declare_graphs
from jukebox_deploy.models.builders import build_model
from jukebox_deploy.presets import preset

ANNOUNCEMENT = "Failed to export the model. \x1b[96mThis is step 1/3\x1b[0m of exporting. Next steps:\n- modify it"


class StepError(Exception):
    """As torch raises one around another."""


def failing(*causes: Exception):
    """An exporter that raises the first of these, because of the second, and so on."""

    def export(*_: object, **__: object) -> None:
        for error, cause in pairwise(causes):
            error.__cause__ = cause
        raise causes[0]

    return export


@pytest.mark.parametrize(
    ("causes", "said"),
    [
        (
            [StepError(ANNOUNCEMENT), StepError("between"), TypeError("\x1b[31mno scatter\x1b[0m\nfor half")],
            "Failed to export the model. This is step 1/3 of exporting. (TypeError: no scatter)",
        ),
        ([StepError(ANNOUNCEMENT), KeyError()], "(KeyError: KeyError)"),
        ([ValueError("no such\nthing")], "condition_0 could not be traced: no such"),
        ([ValueError()], "condition_0 could not be traced: ValueError"),
    ],
)
def test_a_failure_names_its_innermost_cause(monkeypatch, causes, said):
    config = preset("tiny")
    spec = declare_graphs(config)["condition_0"]
    monkeypatch.setattr(torch.onnx, "export", failing(*causes))
    with pytest.raises(ExportError) as caught:
        trace_together([GraphToTrace(spec, lambda: build_model(config, spec.model_level))])
    assert str(caught.value).endswith(said)
    assert "\x1b" not in str(caught.value)


def test_torch_tells_its_causes_as_expected():
    """The real exporter: a branch that depends on data."""

    class Branching(torch.nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(Exception, match=r"torch\.export") as caught:
        torch.onnx.export(Branching().eval(), (torch.ones(3),), dynamo=True, verbose=False)
    assert "data-dependent" in _reason(caught.value)
    assert "data-dependent" not in str(caught.value).splitlines()[0]
