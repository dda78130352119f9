"""Numbers computed by the original implementation, on id lists made up for the purpose."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jukebox_deploy.labels.vocabulary import Vocabulary
from jukebox_deploy.labels.vocabulary_files import read_vocabulary

GOLDENS = Path(__file__).parents[1] / "goldens"


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    return json.loads((GOLDENS / "labels_and_windows.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def golden_bins() -> dict[str, np.ndarray]:
    with np.load(GOLDENS / "label_bins.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def openai_folder(golden: dict[str, Any], tmp_path: Path) -> Path:
    """A folder of id lists as in OpenAI's source tree."""
    folder = tmp_path / "jukebox" / "data" / "ids"
    folder.mkdir(parents=True)
    for name, text in golden["ids"].items():
        (folder / f"{name}_ids.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def vocabulary(openai_folder: Path) -> Vocabulary:
    return read_vocabulary(openai_folder)
