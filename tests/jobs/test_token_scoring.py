"""An engine that goes through a window token by token scores it as the model that sees it at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.data.windows import WindowBatch
from jukebox_deploy.engine import Engine
from jukebox_deploy.errors import EngineError
from jukebox_deploy.graphs import GraphOptions, declare_graphs
from jukebox_deploy.jobs.evaluation.data import DataChoice, evaluation_windows
from jukebox_deploy.jobs.evaluation.token_scoring import score_with_engine, score_with_model
from jukebox_deploy.jobs.opening.eager import eager_engine
from jukebox_deploy.jobs.song_codes import code_cache, encode_songs
from tests.jobs.small_evaluation import CONFIGS, VOCABULARY, prior_of, write_checkpoint, write_songs

SEVEN = 7
"""Windows: no multiple of the slots."""


class Case:
    """A checkpoint, and windows of songs."""

    def __init__(self, config: JukeboxConfig, folder: Path) -> None:
        self.prior = prior_of(config)
        self.checkpoint = write_checkpoint(config, folder / "checkpoint")
        songs = DataChoice(write_songs(folder / "songs"), held_out=False).songs()
        coded = encode_songs(
            songs, self.engine(), code_cache(folder / "codes", "x", config.vqvae), lambda done, total: None
        )
        self.windows = evaluation_windows(coded, config, 0, VOCABULARY, SEVEN).batches

    def engine(self, **options) -> Engine:
        return eager_engine(self.checkpoint, declare_graphs(self.checkpoint.config, GraphOptions(**options)))

    def by_model(self, windows, listen=lambda done, total: None):
        return score_with_model(self.checkpoint.load_prior(0), self.prior, windows, listen)


@pytest.fixture(scope="module", params=CONFIGS)
def case(request, tmp_path_factory) -> Case:
    return Case(CONFIGS[request.param], tmp_path_factory.mktemp(request.param))


def test_engine_and_model_agree(case):
    expected = case.by_model(case.windows)
    heard: list[tuple[int, int]] = []
    found = score_with_engine(case.engine(logits=True), case.prior, case.windows, lambda *done: heard.append(done))
    assert found.music.tokens == expected.music.tokens == SEVEN * case.prior.window
    assert found.music.bits_per_token == pytest.approx(expected.music.bits_per_token, rel=1e-5)
    assert found.music.hits == expected.music.hits
    everything = SEVEN * case.prior.transformer.context
    assert [total for _, total in heard] == [everything] * len(heard)
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    assert heard[-1] == (everything, everything)


def test_lyrics_are_scored_apart(case):
    by_model = case.by_model(case.windows)
    by_engine = score_with_engine(case.engine(logits=True), case.prior, case.windows, lambda done, total: None)
    if case.prior.lyrics is None:
        assert by_model.lyrics is by_engine.lyrics is None
        return
    assert by_model.lyrics is not None
    assert by_model.lyrics.tokens == SEVEN * case.prior.lyrics.tokens
    if case.prior.lyrics.encoder:
        assert by_engine.lyrics is None  # what the encoder would say next is no output of a graph
    else:
        assert by_engine.lyrics is not None
        assert by_engine.lyrics.bits_per_token == pytest.approx(by_model.lyrics.bits_per_token, rel=1e-5)


def test_scores_are_means_over_windows(case):
    singly = [case.by_model([window]).music.bits_per_token for window in case.windows]
    assert len(set(singly)) > 1
    assert case.by_model(case.windows).music.bits_per_token == pytest.approx(sum(singly) / SEVEN, rel=1e-6)


def test_what_conditions_a_window_counts(case):
    """A window with the artist, the lyrics or the upper codes of another one is scored otherwise, by both."""
    window, engine = case.windows[0], case.engine(logits=True)

    def bits(batch: WindowBatch) -> float:
        by_model = case.by_model([batch]).music.bits
        by_engine = score_with_engine(engine, case.prior, [batch], lambda done, total: None).music.bits
        assert by_engine == pytest.approx(by_model, rel=1e-5)
        return by_model

    unchanged = bits(window)
    names = window.keys() - {"codes"}
    assert names
    for name in names:
        assert bits({**window, name: (window[name] + 1) % 4}) != pytest.approx(unchanged, rel=1e-5), name


def test_a_step_without_logits_is_refused(case):
    with pytest.raises(EngineError, match="step_0 gives no logits; export it without --no-logits"):
        score_with_engine(case.engine(logits=False), case.prior, case.windows, lambda done, total: None)


def test_missing_graphs_are_named(case):
    tables = declare_graphs(case.checkpoint.config, GraphOptions(logits=True))
    engine = eager_engine(case.checkpoint, {name: spec for name, spec in tables.items() if name != "prefill_0"})
    with pytest.raises(EngineError, match="scoring level 0 needs prefill_0, and the bundle has vqvae_encode_0"):
        score_with_engine(engine, case.prior, case.windows, lambda done, total: None)
