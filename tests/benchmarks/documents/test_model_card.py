"""The card's tables are those of the bundle's record and of the result files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jukebox_deploy.benchmarks.documents.filled_blocks import fill
from jukebox_deploy.benchmarks.documents.model_card import (
    CARD,
    CARD_BLOCKS,
    EVALUATION,
    MODEL,
    NOT_MEASURED,
    NOT_TRAINED,
    ONE_SONG,
    RESULTS,
    SONGS,
    TRAINING,
)
from jukebox_deploy.errors import JukeboxError
from jukebox_deploy.jobs.shipped_model import shipped_model
from tests.documented_commands import problems_of
from tests.source_tree import REPOSITORY


def run(part: str, level: int | None = None, **settings: Any) -> dict[str, Any]:
    """What a bundle says of a training run."""
    optimiser = {"learning_rate": 0.0008, "weight_decay": 0.0, "beta2": 0.95, "clip": 1.0, "warm_up": 100, "anneal": 50}
    numbers = {"steps": 4000, "batch": 8, "accumulate": 1, "seed": 1, "precision": "bf16", "train_fraction": 0.9}
    own = {"average_decay": None, "seconds": None, "revival_threshold": 1.0, "songs": 193, **settings}
    return {"part": part, "level": level, "optimiser": optimiser, **numbers, **own}


PARTS = {
    "vqvae": run("vqvae", seconds=0.512, revival_threshold=0.4, aligned=True, loss={"waveform": [1.0, 1.0, 0.1]}),
    "prior_2": run("prior", 2),
    "prior_1": run("upsampler", 1),
    "prior_0": run("upsampler", 0),
}
LEVEL = {
    "snr_decibel": 12.34,
    "spectral_convergence": 0.2,
    "codes_used": 500,
    "codebook_size": 512,
    "perplexity": 300.0,
}
EVALUATED = {
    "levels": [{"level": level, "entropy_bits": 5.5, **LEVEL} for level in range(3)],
    "by_frequency": [{"level": 0, "bits_per_token": 8.5, "counted_songs": 24, "counted_codes": 1_703_680}],
    "bundles": [
        {
            "backend": "PyTorch",
            "precision": "fp32",
            "priors": [
                {"level": 0, "bits_per_token": 4.5, "top1": 0.25},
                {"level": 1, "not_run": "no logits"},
            ],
        },
        {
            "backend": "onnxruntime",
            "precision": "fp32",
            "weights": "int4",
            "priors": [{"level": 0, "bits_per_token": 4.59, "top1": 0.24, "cost": 0.02, "costly": True}],
        },
    ],
}
HEARD = {
    "levels": [
        {
            "level": 0,
            "recognitions": [
                {
                    "kind": "artist",
                    "samples": 72,
                    "accuracy": 0.5,
                    "interval": {"low": 0.4, "high": 0.6},
                    "chance": 1 / 6,
                    "corpus_accuracy": 0.86,
                }
            ],
            "scale": {
                "samples": 72,
                "asked": {"mean": 0.75, "error": 0.05},
                "others": {"mean": 0.6, "error": None},
                "corpus": 0.92,
                "corpus_others": 0.63,
                "noise": 0.55,
                "random": 0.59,
            },
        }
    ]
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / MODEL).mkdir(parents=True)
    (tmp_path / CARD).write_text("".join(f"{block.begin}\n{block.end}\n" for block in CARD_BLOCKS))
    return tmp_path


def write(repository: Path, name: str, data: object) -> None:
    path = repository / "benchmarks" / "results" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def write_model(repository: Path, parts: dict[str, Any]) -> None:
    (repository / MODEL / "config.json").write_text(json.dumps({"source": {"format": "joined", "parts": parts}}))


def card(repository: Path) -> str:
    fill(repository, CARD_BLOCKS, check=False)
    return (repository / CARD).read_text()


def test_nothing_is_claimed_of_a_model_that_is_not_there(repository: Path) -> None:
    text = card(repository)
    assert text.count(NOT_TRAINED) == 2
    assert text.count(NOT_MEASURED) == 5
    assert "| ---" not in text


def test_the_record_says_how_each_part_was_trained(repository: Path) -> None:
    write_model(repository, PARTS)
    write(repository, TRAINING, {"machine": "a processor", "seconds": {"vqvae": [1500.0]}})
    text = card(repository)
    assert "| VQ-VAE | 4,000 | 8 | 0.0008 | bf16 | 1 | 193 | 25 |" in text
    assert "| top prior | 4,000 | 8 | 0.0008 | bf16 | 1 | 193 |  |" in text
    assert "The times were measured on a processor." in text


def test_the_commands_are_those_that_train_takes(repository: Path) -> None:
    from jukebox_deploy.cli.train_command import command

    write_model(repository, PARTS)
    lines = [line for line in card(repository).splitlines() if line.startswith("jukebox-deploy train")]
    assert "--seconds 0.512 --revival-threshold 0.4" in lines[0]
    assert "--aligned --waveform-weight 2=0.1 " in lines[0]
    assert "--aligned" not in lines[1]
    assert "--bundle" not in lines[0]
    assert "upsampler --data corpus --preset small_demo --bundle runs/vqvae/bundle --level 0" in lines[3]
    for line in lines:
        part, *arguments = line.split()[2:]
        chosen = command.commands[part].make_context(part, arguments).params
        assert (chosen["steps"], chosen["learning_rate"], chosen["anneal"], chosen["seed"]) == (4000, 0.0008, 50, 1)


def test_a_part_that_was_fine_tuned_has_a_row_and_a_command_for_each_run(repository: Path) -> None:
    from jukebox_deploy.cli.train_command import command

    tuned = {**run("prior", 2, steps=700), "data": "songs", "began_with": PARTS["prior_2"]}
    write_model(repository, {**PARTS, "prior_2": tuned})
    write(repository, TRAINING, {"seconds": {"prior_2": [600, 1200]}})
    text = card(repository)
    assert "| top prior | 4,000 | 8 | 0.0008 | bf16 | 1 | 193 | 10 |" in text
    assert "| top prior, fine-tuned | 700 | 8 | 0.0008 | bf16 | 1 | 193 | 20 |" in text
    lines = [line for line in text.splitlines() if line.startswith("jukebox-deploy")]
    assert lines[4].endswith(" runs/prior_0 --dtype fp16 --out earlier_model")
    assert lines[5].startswith(
        "jukebox-deploy train prior --data corpus --bundle earlier_model --fine-tune --steps 700 "
    )
    assert lines[6].startswith(
        "jukebox-deploy import trained earlier_model runs/prior_2_further --later-wins --dtype fp16"
    )
    assert all("--data earlier_corpus " in line for line in lines[:4])
    command.commands["prior"].make_context("prior", lines[5].split()[3:])


def test_a_record_without_the_run_of_the_vqvae_is_refused(repository: Path) -> None:
    write_model(repository, {**PARTS, "vqvae": PARTS["prior_2"]})
    with pytest.raises(JukeboxError, match="the VQ-VAE's run first"):
        card(repository)


def test_results_become_tables(repository: Path) -> None:
    write(repository, EVALUATION, EVALUATED)
    write(repository, SONGS, HEARD)
    text = card(repository)
    assert "| 2 | 12.3 dB | 0.200 | 500 of 512 | 300 |" in text
    assert "| level 0 | PyTorch fp32 | 4.500 | 0.00 % | 8.500 | 25 % |" in text
    assert "| level 0 | onnxruntime fp32, int4 weights | 4.590 | **2.00 %** | 8.500 | 24 % |" in text
    assert "in the other 23 of the 24 encoded songs. All 24 together have 1,703,680 codes at level 0." in text
    assert "level 1" not in text
    assert "| 0 | artist recognised | 72 | 50 % | 40 % to 60 % | 17 % | 86 % |" in text
    assert "| 0 | energy on the genre's scale | 72 | 75 % | 70 % to 80 % | 55 % to 59 % | 92 % |" in text
    assert "| 0 | energy on the scales of other genres | 72 | 60 % |  |  | 63 % |" in text


def test_entropies_of_older_files_are_not_taken_for_what_frequencies_tell(repository: Path) -> None:
    """They were of few codes, and of these very ones."""
    write(repository, EVALUATION, {name: value for name, value in EVALUATED.items() if name != "by_frequency"})
    text = card(repository)
    assert "| level 0 | PyTorch fp32 | 4.500 | 0.00 % |  | 25 % |" in text
    assert "frequencies alone* is" not in text


def test_the_command_is_the_one_that_was_recorded(repository: Path) -> None:
    write(repository, EVALUATION, {"command": "jukebox-deploy evaluate x", "date": "2026-11-29T20:15:00Z", **EVALUATED})
    write(repository, SONGS, HEARD)
    text = card(repository)
    assert "Measured on 2026-11-29 with:\n\n```sh\njukebox-deploy evaluate x\n```" in text
    assert f"(the result file predates the recording of commands):\n\n```sh\n{RESULTS[SONGS]}\n```" in text


def test_stated_commands_exist_and_are_those_of_the_stored_results() -> None:
    results = REPOSITORY / "benchmarks" / "results"
    commands = [command for name in (EVALUATION, SONGS, ONE_SONG) for command in RESULTS[name].split(" && ")]
    assert [problem for command in commands for problem in problems_of(f"`{command}`")] == []
    stored = json.loads((results / EVALUATION).read_text())
    windows = {prior["windows"] for bundle in stored["bundles"] for prior in bundle["priors"]}
    assert windows == {int(RESULTS[EVALUATION].partition("--windows ")[2].split()[0])}
    assert json.loads((results / ONE_SONG).read_text())["command"] == RESULTS[ONE_SONG].rpartition(" && ")[2]


def test_labels_of_the_stored_songs_were_asked_for_evenly() -> None:
    stored = json.loads((REPOSITORY / "benchmarks" / "results" / SONGS).read_text())
    for level in stored["levels"]:
        for heard in level["recognitions"]:
            assert {sum(row) for row in heard["confusion"]} == {18}
            assert heard["chance"] == pytest.approx(1 / 6)


@pytest.mark.parametrize("text", ["{", "[]", '{"levels": 3}'])
def test_a_damaged_result_is_named(text: str, repository: Path) -> None:
    write(repository, EVALUATION, {})
    (repository / "benchmarks" / "results" / EVALUATION).write_text(text)
    with pytest.raises(JukeboxError, match=EVALUATION):
        card(repository)


@pytest.mark.skipif(shipped_model() is None, reason="there is no model in models/small_demo")
def test_the_shipped_model_is_measured() -> None:
    folder = REPOSITORY / "benchmarks" / "results"
    missing = [f"{folder / name}: {command}" for name, command in RESULTS.items() if not (folder / name).is_file()]
    assert not missing, "these results are wanted:\n" + "\n".join(missing)
