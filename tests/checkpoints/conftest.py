"""A `tiny` checkpoint in OpenAI's layout and its bundle, made once per run."""

from __future__ import annotations

from pathlib import Path

import pytest

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.checkpoints.openai import import_openai
from jukebox_deploy.checkpoints.random_bundle import write_random_openai_checkpoint


@pytest.fixture(scope="session")
def tiny_openai_files(tmp_path_factory) -> list[Path]:
    """`vqvae.pth.tar` and `prior_level_0.pth.tar` to `prior_level_2.pth.tar`. Not to be changed."""
    return write_random_openai_checkpoint("tiny", tmp_path_factory.mktemp("openai") / "tiny", seed=3)


@pytest.fixture(scope="session")
def tiny_bundle(tiny_openai_files, tmp_path_factory) -> CheckpointBundle:
    """The same as a bundle. Not to be changed."""
    return import_openai(tiny_openai_files, "tiny", tmp_path_factory.mktemp("bundle") / "tiny")
