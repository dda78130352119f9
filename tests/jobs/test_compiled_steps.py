"""Steps through `torch.compile`: the same codes, one trace for each session, and a song that goes on."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from torch._dynamo.utils import counters

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.engines.bundle import EngineBundle
from jukebox_deploy.errors import SamplingError
from jukebox_deploy.graphs import GraphOptions, declare_graphs
from jukebox_deploy.jobs.opening.eager import eager_engine
from jukebox_deploy.jobs.sample_job import Backend, EngineChoice, open_model
from jukebox_deploy.models.compilation import compile_for_inference
from jukebox_deploy.runtime.sampler import SamplingOptions, SongJob
from jukebox_deploy.runtime.song import SongRequest
from tests.gpu import suite
from tests.sampling_cases import all_codes, sample

TOP = 2


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are traced, but kernels are not compiled: that takes ten seconds for each session."""
    counters.clear()
    compile_step = partial(compile_for_inference, backend="aot_eager")
    monkeypatch.setattr("jukebox_deploy.jobs.opening.eager.compile_for_inference", compile_step)


@pytest.mark.parametrize("level", range(3))
def test_codes_are_those_of_plain_steps(traced: None, tiny_checkpoint: CheckpointBundle, level: int) -> None:
    graphs = declare_graphs(tiny_checkpoint.config, GraphOptions(logits=True))
    plain, compiled = eager_engine(tiny_checkpoint, graphs), eager_engine(tiny_checkpoint, graphs, compiled=True)
    suite.check_chosen_codes(plain, compiled, level)
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 2  # one for each session


def test_slots_do_not_see_each_other(traced: None, tiny_checkpoint: CheckpointBundle) -> None:
    graphs = declare_graphs(tiny_checkpoint.config)
    suite.check_slots_are_independent(eager_engine(tiny_checkpoint, graphs, compiled=True), 0)


def test_kernels_of_a_compiler_give_the_same_logits(tiny_checkpoint: CheckpointBundle) -> None:
    graphs = declare_graphs(tiny_checkpoint.config, GraphOptions(logits=True))
    plain, compiled = eager_engine(tiny_checkpoint, graphs), eager_engine(tiny_checkpoint, graphs, compiled=True)
    suite.check_given_codes(plain, compiled, 0)


def test_a_compiled_song_goes_on_compiled(
    traced: None, tiny_engine_bundle: EngineBundle, tiny_checkpoint: CheckpointBundle, tmp_path: Path
) -> None:
    """Its sums may be rounded in another order, so nothing else may take it over."""
    choice = EngineChoice(Backend.EAGER, checkpoint=tiny_checkpoint.folder)
    plain, compiled = (
        open_model(tiny_engine_bundle.folder, replace(choice, compiled=compiled)) for compiled in (False, True)
    )
    job = SongJob(SongRequest(seconds=0.3), tmp_path / "song")
    sample(compiled, [job], SamplingOptions(lowest_level=TOP))
    before = all_codes(job.folder)
    sample(compiled, [job], SamplingOptions(lowest_level=TOP, resume=True))
    assert all_codes(job.folder) == before
    with pytest.raises(SamplingError, match=r"engine was 'eager cpu on threads for \d+ cores \w+ compiled fp32"):
        sample(plain, [job], SamplingOptions(lowest_level=TOP, resume=True))
