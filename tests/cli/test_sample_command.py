"""`sample`: every mode, runs that are killed and resumed, and a sentence for everything that cannot be."""

from __future__ import annotations

import errno
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.cli.main import cli
from jukebox_deploy.engines.bundle import EngineBundle, write_manifest
from jukebox_deploy.engines.device import NoDeviceError
from jukebox_deploy.engines.manifest import FORMAT_VERSION, Target
from jukebox_deploy.jobs import sample_job
from jukebox_deploy.optional_packages import OPTIONAL_PACKAGES
from jukebox_deploy.runtime.song import LevelSettings
from jukebox_deploy.runtime.store import read_record
from tests.sampling_cases import RATE, all_codes, write_sound
from tests.source_tree import REPOSITORY

TOP_ONLY = ("--lowest-level", 2)  # a third of a second takes no time, but is too short for the upsamplers


@pytest.fixture
def sample(tiny_engine_bundle: EngineBundle):
    def sample(*arguments: object) -> Result:
        return CliRunner().invoke(cli, ["sample", str(tiny_engine_bundle.folder), *map(str, arguments)])

    return sample


@pytest.fixture
def start(tiny_engine_bundle: EngineBundle):
    """Sample in a process of its own."""

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "jukebox_deploy.cli.main", "sample", tiny_engine_bundle.folder, *arguments]
        # Tests that a script runs in the background ignore Ctrl-C, and so would what they start.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return subprocess.Popen([*map(str, command)], cwd=REPOSITORY, text=True, stdout=-1, stderr=-1)
        finally:
            signal.signal(signal.SIGINT, before)

    return start


def succeed(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def refusal(result: Result) -> str:
    """The one sentence of a run that failed on purpose."""
    assert result.exit_code not in (0, None), result.output
    assert isinstance(result.exception, SystemExit)
    (sentence,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert result.stderr.endswith(sentence + "\n")
    return sentence


class TestModes:
    def test_one_song(self, sample, tmp_path: Path) -> None:
        out = tmp_path / "song"
        names = ("--artist", "the tin foxes", "--genre", "Folk", "--lyrics", "Stones in the river")
        result = succeed(sample("--out", out, "--seconds", 0.3, *names, *TOP_ONLY, "--spectrogram"))
        assert {path.name for path in out.iterdir()} == {
            *("codes_0.npy", "codes_1.npy", "codes_2.npy", "song.json", ".lock", "level_2.wav", "level_2.png")
        }
        assert soundfile.info(out / "level_2.wav").subtype == "FLOAT"
        assert "warning" not in result.output
        assert read_record(out).request.lyrics == "Stones in the river"

    def test_settings_per_level_and_lyrics_from_a_file(self, sample, tmp_path: Path) -> None:
        lyrics = tmp_path / "lyrics.txt"
        lyrics.write_text("Stones in the river\n")
        settings = ("--temperature", 0.9, "--temperature", "2=0.5", "--top-k", "1=40", "--top-p", "2=0.8")
        place = ("--total-seconds", 30, "--offset", 2.5, "--seed", 7)
        succeed(
            sample("--out", tmp_path / "a", "--seconds", 0.3, "--lyrics-file", lyrics, *settings, *place, *TOP_ONLY)
        )
        request = read_record(tmp_path / "a").request
        assert request.levels == (LevelSettings(0.9), LevelSettings(0.9, top_k=40), LevelSettings(0.5, top_p=0.8))
        assert (request.lyrics, request.seed) == ("Stones in the river\n", 7)
        assert (request.total_seconds, request.offset_seconds) == (30.0, 2.5)

    def test_greedy_sampling_needs_no_seed(self, sample, tmp_path: Path) -> None:
        for seed in (1, 2):
            out = tmp_path / str(seed)
            succeed(sample("--out", out, "--seconds", 0.3, "--seed", seed, "--temperature", 0, *TOP_ONLY))
        assert all_codes(tmp_path / "1") == all_codes(tmp_path / "2")

    def test_several_songs_and_a_summary_as_json(self, sample, tmp_path: Path) -> None:
        arguments = ("--songs", 3, "--slots", 2, "--format", "pcm16", "--json")
        result = succeed(sample("--out", tmp_path, "--seconds", 0.3, *arguments, *TOP_ONLY))
        summary = json.loads(result.stdout)
        assert [song["folder"] for song in summary["songs"]] == [str(tmp_path / f"song_{n}") for n in range(3)]
        assert len({str(all_codes(tmp_path / f"song_{n}")) for n in range(3)}) == 3
        assert soundfile.info(summary["songs"][2]["path"]).subtype == "PCM_16"

    def test_a_song_per_line(self, sample, tmp_path: Path) -> None:
        lines = [
            {"artist": "the tin foxes", "lyrics": "One", "seed": 3, "seconds": 0.25},
            {"artist": "glass harbour", "genre": "folk", "lyrics": "Two", "seed": 4, "seconds": 0.3},
        ]
        songs = tmp_path / "songs.jsonl"
        songs.write_text("".join(json.dumps(line) + "\n" for line in lines))
        succeed(sample("--out", tmp_path, "--requests", songs, *TOP_ONLY))
        for number, line in enumerate(lines):
            request = read_record(tmp_path / f"song_{number}").request
            assert {name: getattr(request, name) for name in line} == line
        alone = ("--artist", "the tin foxes", "--lyrics", "One", "--seed", 3, "--seconds", 0.25)
        succeed(sample("--out", tmp_path / "alone", *alone, *TOP_ONLY))
        assert all_codes(tmp_path / "alone") == all_codes(tmp_path / "song_0")

    def test_a_prompt_that_goes_on_and_is_sampled_anew_below(self, sample, tmp_path: Path) -> None:
        """Stereo at another rate; then the song goes on, and then its top codes get new lower levels."""
        prompt = write_sound(tmp_path / "prompt.flac", 0.9, rate=22_050, channels=2)
        first, second, third = (tmp_path / name for name in ("first", "second", "third"))
        succeed(sample("--out", first, "--seconds", 0.78, "--prompt", prompt, "--prompt-seconds", 0.76))
        succeed(sample("--out", second, "--seconds", 0.8, "--continue", first))
        succeed(sample("--out", third, "--upsample", first, "--prompt-seconds", 0.75, "--seed", 3, "--lowest-level", 1))
        given = read_record(first).lengths.given
        assert given == (4 * 4 * 261, 4 * 261, 261)
        assert len(soundfile.read(first / "level_0.wav")[0]) == int(0.78 * RATE) // 128 * 128
        for level in range(3):
            continued, begun = all_codes(second)[level], all_codes(first)[level]
            assert len(continued) > len(begun) > given[level]
            assert continued[: len(begun)] == begun
        assert all_codes(third)[2] == all_codes(first)[2][:258]
        assert all_codes(third)[1] != all_codes(first)[1][: 258 * 4]

    def test_songs_have_the_numbers_of_their_folders(self, sample, tmp_path: Path) -> None:
        several = succeed(sample("--out", tmp_path / "n", "--seconds", 0.3, "--songs", 2, *TOP_ONLY)).output
        for number in (0, 1):
            assert f"song {number}: 0.30 s in {tmp_path / 'n' / f'song_{number}'}" in several
        assert "song 2" not in several
        assert "song: 0.30 s in" in succeed(sample("--out", tmp_path / "a", "--seconds", 0.3, *TOP_ONLY)).output

    def test_a_continued_song_keeps_its_labels(self, sample, tmp_path: Path) -> None:
        first, second = tmp_path / "first", tmp_path / "second"
        labels = ("--artist", "the tin foxes", "--genre", "folk", "--lyrics", "la", "--total-seconds", 9, "--offset", 2)
        succeed(sample("--out", first, "--seconds", 0.3, *labels, *TOP_ONLY))
        continued = ("--seconds", 0.4, "--continue", first, "--genre", "blues", *TOP_ONLY)
        succeed(sample("--out", second, *continued))
        request = read_record(second).request
        assert (request.artist, request.genre, request.lyrics) == ("the tin foxes", "blues", "la")
        assert (request.total_seconds, request.offset_seconds) == (9.0, 2.0)
        shutil.rmtree(first)
        succeed(sample("--out", second, *continued, "--resume"))
        assert "artist was 'the tin foxes', is now ''" in refusal(
            sample("--out", second, *continued, "--artist", "", "--resume")
        )

    def test_pytorch_gives_the_same_codes(self, sample, tiny_checkpoint: CheckpointBundle, tmp_path: Path) -> None:
        eager = ("--backend", "eager", "--checkpoint", tiny_checkpoint.folder)
        for name, backend in (("onnx", ()), ("eager", eager)):
            succeed(sample("--out", tmp_path / name, "--seconds", 0.3, "--threads", 1, *backend, *TOP_ONLY))
        assert all_codes(tmp_path / "onnx") == all_codes(tmp_path / "eager")


class TestWarnings:
    def test_an_unknown_artist_gets_close_names(self, sample, tmp_path: Path) -> None:
        names = ("--artist", "the tin foxe", "--genre", "polka")
        result = succeed(sample("--out", tmp_path / "a", "--seconds", 0.3, *names, *TOP_ONLY))
        assert "does not know the artist 'the tin foxe'" in result.output
        assert "Close names: 'the tin foxes'" in result.output
        assert "does not know the genre 'polka'" in result.output

    def test_characters_that_are_spelled_out(self, sample, tmp_path: Path) -> None:
        result = succeed(sample("--out", tmp_path / "a", "--seconds", 0.3, "--lyrics", "日 ♥ é", *TOP_ONLY))
        assert "they are transliterated: '日' as 'Ri ', '♥' as 'hearts'." in result.output

    def test_a_number_without_a_name(self, sample, tmp_path: Path) -> None:
        result = succeed(sample("--out", tmp_path / "a", "--seconds", 0.3, "--artist", "#7", *TOP_ONLY))
        assert "song: warning: No artist of the model has the number #7" in result.output

    def test_a_file_of_lyrics_without_any(self, sample, tmp_path: Path) -> None:
        lyrics = tmp_path / "lyrics.txt"
        lyrics.write_text(" \n")
        arguments = ("--seconds", 0.3, "--lyrics-file", lyrics, "--songs", 2, "--json", *TOP_ONLY)
        result = succeed(sample("--out", tmp_path / "a", *arguments))
        assert f"song 1: warning: There are no lyrics in {lyrics}" in result.stderr
        assert all("There are no lyrics" in song["warnings"][0] for song in json.loads(result.stdout)["songs"])

    def test_more_lyrics_than_the_song_has_room_for(self, sample, tmp_path: Path) -> None:
        result = succeed(sample("--out", tmp_path / "a", "--seconds", 0.3, "--lyrics", "la " * 500, *TOP_ONLY))
        assert "of the 1500 characters of the lyrics are seen by no window" in result.output

    def test_characters_that_are_left_out(self, sample, tmp_path: Path) -> None:
        result = succeed(sample("--out", tmp_path / "a", "--seconds", 0.3, "--lyrics", "Hej ☃ då", *TOP_ONLY))
        assert "they are left out: '☃' (1x)" in result.output


class TestInterruption:
    ARGUMENTS = ("--seconds", 0.76, "--songs", 2, "--lyrics", "Slow water", "--seed", 12)

    @pytest.mark.slow
    def test_a_killed_run_goes_on_with_the_same_codes(self, start, sample, tmp_path: Path) -> None:
        succeed(sample("--out", tmp_path / "whole", *self.ARGUMENTS))
        out = tmp_path / "killed"
        kills = 0
        moments = random.Random(5)
        while kills < 3:
            process = start("--out", out, *self.ARGUMENTS, "--resume")
            deadline = time.monotonic() + 60
            while not (out / "song_1" / "song.json").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(moments.uniform(0.0, 2.0))
            process.kill()
            process.communicate()
            kills += 1
        succeed(sample("--out", out, *self.ARGUMENTS, "--resume"))
        for name in ("song_0", "song_1"):
            assert all_codes(out / name) == all_codes(tmp_path / "whole" / name)
            assert not [path.name for path in (out / name).iterdir() if "partial" in path.name]

    def test_an_interrupt_says_how_to_go_on(self, start, sample, tmp_path: Path) -> None:
        out = tmp_path / "song"
        process = start("--out", out, "--seconds", 6.0, "--seed", 2)
        codes = out / "codes_2.npy"
        while not codes.exists() or codes.stat().st_size < 1000:  # the top level is done, or far
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "--resume" in errors
        assert "Traceback" not in output + errors
        assert not list(out.glob("*.wav"))
        assert "already holds a song" in refusal(sample("--out", out, "--seconds", 6.0, "--seed", 2, *TOP_ONLY))
        succeed(sample("--out", out, "--seconds", 6.0, "--seed", 2, "--resume", *TOP_ONLY))
        assert not [path.name for path in out.iterdir() if "partial" in path.name]

    def test_a_full_disk(self, sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The song stays as far as it was; with room it goes on and ends as if nothing had been."""
        save, calls = np.save, []

        def save_until_full(*arguments: object) -> None:
            calls.append(arguments)
            if len(calls) == 4:  # the empty codes of three levels, then the top level's
                raise OSError(errno.ENOSPC, "No space left on device")
            save(*arguments)  # type: ignore[arg-type]

        out, length = tmp_path / "song", ("--seconds", 0.3)
        with monkeypatch.context() as patch:
            patch.setattr(np, "save", save_until_full)
            assert "codes_2.npy: could not be written: the disk is full" in refusal(
                sample("--out", out, *length, *TOP_ONLY)
            )
        assert {path.name for path in out.iterdir()} == {
            *("codes_0.npy", "codes_1.npy", "codes_2.npy", "song.json", ".lock")
        }
        succeed(sample("--out", out, *length, *TOP_ONLY, "--resume"))
        succeed(sample("--out", tmp_path / "whole", *length, *TOP_ONLY))
        assert all_codes(out) == all_codes(tmp_path / "whole")

    def test_another_song_is_not_resumed(self, sample, tmp_path: Path) -> None:
        succeed(sample("--out", tmp_path / "a", "--seconds", 0.3, *TOP_ONLY))
        told = refusal(sample("--out", tmp_path / "a", "--seconds", 0.3, "--seed", 9, *TOP_ONLY, "--resume"))
        assert "seed was 0, is now 9" in told


def silence(path: Path) -> None:
    soundfile.write(path, np.zeros(RATE), RATE)


def not_a_number(path: Path) -> None:
    audio = np.zeros(RATE, np.float32)
    audio[500] = np.nan
    soundfile.write(path, audio, RATE, subtype="FLOAT")


def too_short(path: Path) -> None:
    soundfile.write(path, np.full(127, 0.5), RATE)


def no_sound(path: Path) -> None:
    path.write_text("This is not a sound file.")


class TestBadInput:
    """One sentence, an exit code that is not 0, no traceback, and nothing written."""

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            ((), "needs the length of the song; give it with --seconds"),
            (("--seconds", 0), "Invalid value for '--seconds': 0.0 is not in the range x>0."),
            (("--seconds", -3), "Invalid value for '--seconds': -3.0 is not in the range x>0."),
            (("--seconds", "nan"), "Invalid value for '--seconds': nan is no usual number"),
            (("--seconds", 0.001), "less than one top-level code"),
            (
                ("--seconds", 0.5),
                "level 0 needs a song of at least 0.8 s, but this one has 0.50 s: --seconds 0.8, or --lowest-level 2.",
            ),
            (
                ("--seconds", "1e8"),
                "--seconds: a song of 1e+08 s is longer than the model supports: 1.00 s to 120.00 s",
            ),
            (("--seconds", "1e308"), "Invalid value for '--seconds': 1e308 is no usual number"),
            (("--seconds", "inf"), "Invalid value for '--seconds': inf is no usual number"),
            (
                ("--seconds", 3, "--total-seconds", "1e300"),
                "Invalid value for '--total-seconds': 1e300 is no usual number",
            ),
            (("--seconds", 3, "--total-seconds", "nan"), "Invalid value for '--total-seconds': nan is no usual number"),
            (("--seconds", 3, "--artist", "\udcff"), "--artist '\\udcff' is not text in UTF-8"),
            (("--seconds", 121), "longer than the model supports: 1.00 s to 120.00 s"),
            (("--seconds", 3, "--total-seconds", 2), "after the song's end at 2.00 s"),
            (("--seconds", 3, "--total-seconds", 500), "longer than the model supports"),
            (("--seconds", 3, "--offset", -1), "Invalid value for '--offset': -1.0 is not in the range x>=0."),
            (("--seconds", 3, "--top-p", 0), "Invalid value for '--top-p': 0.0 is not in the range 0<x<=1."),
            (("--seconds", 3, "--top-p", "1=1.5"), "Invalid value for '--top-p': 1.5 is not in the range 0<x<=1."),
            (("--seconds", 3, "--top-k", 0), "Invalid value for '--top-k': 0 is not in the range x>=1."),
            (("--seconds", 3, "--top-k", 5, "--top-p", 0.5), "exclude each other"),
            (
                ("--seconds", 3, "--temperature", -0.5),
                "Invalid value for '--temperature': -0.5 is not in the range x>=0.",
            ),
            (("--seconds", 3, "--temperature", "3=1"), "there is no level 3"),
            (("--seconds", 3, "--temperature", "warm"), "neither a number nor LEVEL=VALUE"),
            (("--seconds", 3, "--lowest-level", 3), "the model has no level 3"),
            (("--seconds", 3, "--slots", 0), "Invalid value for '--slots': 0 is not in the range x>=1."),
            (("--seconds", 3, "--songs", 0), "Invalid value for '--songs': 0 is not in the range x>=1."),
            (
                ("--seconds", 3, "--seed", -1),
                "Invalid value for '--seed': -1 is not in the range 0<=x<=18446744073709551615.",
            ),
            (("--seconds", 3, "--seed", 2**64), "Invalid value for '--seed': 18446744073709551616 is not in the range"),
            (("--seconds", 3, "--artist", "#99"), "There is no artist #99"),
            (("--seconds", 3, "--lyrics", "a", "--lyrics-file", "b.txt"), "exclude each other"),
            (("--seconds", 3, "--lyrics-file", "nowhere.txt"), "the lyrics cannot be read"),
            (("--songs", 2, "--requests", "songs.jsonl"), "exclude each other"),
            (("--requests", "nowhere.jsonl"), "the songs cannot be read"),
            (("--seconds", 3, "--prompt", "a.wav", "--upsample", "b"), "exclude each other"),
            (("--seconds", 3, "--prompt-seconds", 1), "needs --prompt"),
            (
                ("--seconds", 3, "--prompt", "a.wav", "--prompt-seconds", 0),
                "Invalid value for '--prompt-seconds': 0.0 is not in the range x>0.",
            ),
            (("--seconds", 3, "--prompt", "nowhere.wav"), "there is no such sound file"),
            (("--seconds", 3, "--continue", "nowhere"), "there is no such song folder"),
            (("--upsample", "nowhere"), "there is no such song folder"),
            (("--seconds", 3, "--backend", "eager"), "name it with --checkpoint"),
            (("--seconds", 3, "--checkpoint", "x"), "drop --checkpoint"),
            (
                ("--seconds", 3, "--backend", "eager", "--checkpoint", "nowhere"),
                "give the folder of a checkpoint bundle",
            ),
        ],
    )
    def test_requests(self, sample, tmp_path: Path, arguments: tuple[object, ...], told: str) -> None:
        result = sample("--out", tmp_path / "song", *arguments)
        assert told in refusal(result)
        assert (result.exit_code == 2) == ("Usage: " in result.stderr)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("slots", [17, 20])
    def test_more_slots_than_the_graphs_take(
        self, sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slots: int
    ) -> None:
        monkeypatch.setattr(sample_job, "onnx_engine", lambda *given: pytest.fail("the graphs were opened"))
        told = refusal(sample("--out", tmp_path / "song", "--seconds", 3, "--slots", slots))
        assert f"{slots} slots are asked for, and step_0 takes 1 to 16" in told
        assert "`export` again with another --batch (engines: `build` with other --slots)" in told
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(("out", "told"), [("", "an empty name"), ("\udcff", "is not text in UTF-8")])
    def test_folders(self, sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, told: str) -> None:
        monkeypatch.chdir(tmp_path)
        assert told in refusal(sample("--out", out, "--seconds", 0.3, *TOP_ONLY))
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("write", "told"),
        [
            (silence, "the prompt is silent"),
            (not_a_number, "NaN or infinite"),
            (too_short, "less than one top-level code (2.90 ms)"),
            (no_sound, "is not a sound file that can be read"),
        ],
    )
    def test_prompts(self, sample, tmp_path: Path, write, told: str) -> None:
        prompt = tmp_path / "prompt.wav"
        write(prompt)
        assert told in refusal(sample("--out", tmp_path / "song", "--seconds", 3, "--prompt", prompt))
        assert list(tmp_path.iterdir()) == [prompt]

    def test_a_prompt_as_long_as_the_song(self, sample, tmp_path: Path) -> None:
        prompt = write_sound(tmp_path / "prompt.wav", 1.0)
        assert "already gives 1.00 s" in refusal(sample("--out", tmp_path / "song", "--seconds", 1, "--prompt", prompt))
        assert list(tmp_path.iterdir()) == [prompt]

    def test_one_bad_song_among_good_ones(self, sample, tmp_path: Path) -> None:
        songs = tmp_path / "songs.jsonl"
        songs.write_text('{"seconds": 1}\n{"seconds": 500}\n')
        assert "longer than the model supports" in refusal(sample("--out", tmp_path / "out", "--requests", songs))
        assert not (tmp_path / "out" / "song_0").exists()

    def test_a_folder_that_cannot_be_made(self, sample, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        told = refusal(sample("--out", tmp_path / "file" / "song", "--seconds", 0.3, *TOP_ONLY))
        assert "cannot be used as a song folder" in told

    def test_no_cuda(self, sample, tmp_path: Path) -> None:
        onnxruntime = pytest.importorskip("onnxruntime")
        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            pytest.skip("this machine has what the test wants to be missing")
        assert "has no CUDAExecutionProvider" in refusal(
            sample("--out", tmp_path / "song", "--seconds", 3, "--provider", "cuda")
        )
        assert list(tmp_path.iterdir()) == []


class TestBadBundles:
    @pytest.fixture
    def copied(self, tiny_engine_bundle: EngineBundle, tmp_path: Path) -> EngineBundle:
        """A bundle whose files may be changed, one by one."""
        folder = tmp_path / "bundle"
        folder.mkdir()
        for name in (*tiny_engine_bundle.manifest.files, "manifest.json"):
            (folder / name).write_bytes((tiny_engine_bundle.folder / name).read_bytes())
        return EngineBundle(folder, tiny_engine_bundle.manifest)

    def refused(self, folder: Path) -> str:
        out = folder.parent / "song"
        told = refusal(CliRunner().invoke(cli, ["sample", str(folder), "--out", str(out), "--seconds", "3"]))
        assert not out.exists()
        return told

    def test_no_bundle(self, tiny_checkpoint: CheckpointBundle, tmp_path: Path) -> None:
        assert "there is no manifest.json" in self.refused(tmp_path / "nowhere")

    def test_another_version(self, copied: EngineBundle) -> None:
        path = copied.folder / "manifest.json"
        path.write_text(path.read_text().replace(f'"format_version": {FORMAT_VERSION}', '"format_version": 99'))
        assert "99" in self.refused(copied.folder)

    def test_graphs_of_another_version(self, copied: EngineBundle) -> None:
        entry = copied.manifest.graphs["step_2"]
        renamed = [replace(t, name="finished") if t.name == "not_finite" else t for t in entry.spec.tensors]
        graphs = {**copied.manifest.graphs, "step_2": replace(entry, spec=replace(entry.spec, tensors=tuple(renamed)))}
        write_manifest(copied.folder, replace(copied.manifest, graphs=graphs))
        assert "the tables of step_2 are not those of this version" in self.refused(copied.folder)

    def test_a_song_of_another_model(self, copied: EngineBundle, sample, tmp_path: Path) -> None:
        succeed(sample("--out", tmp_path / "first", "--seconds", 0.3, *TOP_ONLY))
        write_manifest(copied.folder, replace(copied.manifest, checkpoint="0" * 64))
        for arguments in (("--continue", "--seconds", "3"), ("--upsample",)):
            option, *rest = arguments
            command = ["sample", str(copied.folder), "--out", str(tmp_path / "song"), option, str(tmp_path / "first")]
            told = refusal(CliRunner().invoke(cli, [*command, *rest]))
            assert f"{tmp_path / 'first'} is a song of another model: made with tiny" in told
        assert not (tmp_path / "song").exists()

    def test_a_changed_file(self, copied: EngineBundle) -> None:
        path = copied.folder / "step_2.onnx"
        data = path.read_bytes()
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        assert "step_2.onnx is not the file of the manifest" in self.refused(copied.folder)

    def test_a_missing_file(self, copied: EngineBundle) -> None:
        (copied.folder / "prior_1.weights").unlink()
        assert "prior_1.weights is missing" in self.refused(copied.folder)

    def test_engines_without_a_gpu(self, copied: EngineBundle, monkeypatch: pytest.MonkeyPatch) -> None:
        def open_platform(*_: object) -> None:
            raise NoDeviceError("there is no GPU.")

        monkeypatch.setattr("jukebox_deploy.engines.tensorrt.engine.open_platform", open_platform)
        write_manifest(copied.folder, replace(copied.manifest, target=Target.TENSORRT_RTX))
        assert "there is no GPU." in self.refused(copied.folder)


WITHOUT_PACKAGES = """
import sys
blocked = sys.argv.pop(1).split(",")
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Blocker())
from jukebox_deploy.cli.main import main
main()
"""


def test_sampling_needs_only_the_packages_of_its_engine(tiny_engine_bundle: EngineBundle, tmp_path: Path) -> None:
    blocked = ",".join({*OPTIONAL_PACKAGES, "transformers"} - {"onnxruntime"})
    arguments = ["sample", tiny_engine_bundle.folder, "--out", tmp_path / "song", "--seconds", 0.3, *TOP_ONLY]
    command = [sys.executable, "-c", WITHOUT_PACKAGES, blocked, *map(str, [*arguments, "--spectrogram"])]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "song" / "level_2.wav").exists()
