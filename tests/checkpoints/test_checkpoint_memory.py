"""The measurement of an import's memory measures an import."""

from __future__ import annotations

import sys

import pytest

from jukebox_deploy.benchmarks.checkpoint_memory import Case, main, measure


def test_a_level_that_the_model_lacks_is_a_sentence():
    with pytest.raises(SystemExit, match="tiny has no prior for level 9"):
        main(["--preset", "tiny", "--levels", "0", "9"])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_import_is_measured(tiny_openai_files, tmp_path):
    result = measure(Case("tiny", "openai", tuple(tiny_openai_files)), tmp_path)
    assert result["largest_file_bytes"] == tiny_openai_files[3].stat().st_size
    assert result["peak_bytes"] >= result["baseline_bytes"] > 50e6  # torch alone takes more
    assert result["seconds"] > 0
    assert list(tmp_path.iterdir()) == []
