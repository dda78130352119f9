"""The command line as a whole: instant help, and one sentence for whatever goes wrong."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from jukebox_deploy import __version__
from jukebox_deploy.cli import main
from jukebox_deploy.cli.lazy_group import CommandEntry
from jukebox_deploy.cli.main import COMMANDS, RootGroup, cli
from jukebox_deploy.errors import CheckpointError

HEAVY = {"torch", "numpy", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "rich", "soundfile", "matplotlib"}

RUN_AND_LIST_MODULES = """
import json, sys
arguments, blocked = json.loads(sys.argv[1])

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
from jukebox_deploy.cli.main import cli
try:
    cli(arguments, prog_name="jukebox-deploy")
finally:
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), file=sys.stderr)
"""


def run_fresh(arguments, blocked=()):
    """Run the command line in a fresh interpreter: the process, and the names of the modules it loaded."""
    done = subprocess.run(
        [sys.executable, "-c", RUN_AND_LIST_MODULES, json.dumps([arguments, sorted(blocked)])],
        capture_output=True,
        text=True,
        check=False,
    )
    return done, set(json.loads(done.stderr.splitlines()[-1]))


class TestHelp:
    @pytest.mark.parametrize("option", ["-h", "--help"])
    def test_the_overview_imports_nothing_heavy(self, option):
        done, modules = run_fresh([option])
        assert done.returncode == 0
        assert not modules & HEAVY
        for name, entry in COMMANDS.items():
            assert name in done.stdout
            assert entry.summary.split()[0] in done.stdout

    @pytest.mark.parametrize("name", COMMANDS)
    def test_the_help_of_a_command_needs_no_engine(self, name):
        done, modules = run_fresh([name, "-h"], blocked=HEAVY - {"numpy"})
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"Usage: jukebox-deploy {name}")
        assert "torch" not in modules

    def test_summaries_fit_a_line(self):
        longest = max(map(len, COMMANDS))
        assert all(len(entry.summary) + longest + 4 <= 80 for entry in COMMANDS.values())

    def test_version(self):
        result = CliRunner().invoke(cli, ["--version"])
        assert result.output == f"jukebox-deploy, version {__version__}\n"

    def test_a_misspelt_command_gets_a_suggestion(self):
        result = CliRunner().invoke(cli, ["exprot"])
        assert result.exit_code == 2
        assert "'export'" in result.output


@pytest.fixture
def failing(monkeypatch):
    """Run the command line with a single command `fail`, which raises the given error."""

    def run(error, *options):
        @click.command()
        def fail():
            raise error

        monkeypatch.setattr(CommandEntry, "load", lambda _: fail)
        group = RootGroup(params=cli.params, entries={"fail": CommandEntry("nowhere:fail", "Fail.")})
        return CliRunner().invoke(group, [*options, "fail"])

    return run


class TestErrors:
    def test_an_error_of_ours_is_one_sentence(self, failing):
        result = failing(CheckpointError("model.bin: truncated. Get it again."))
        assert result.exit_code == 1
        assert result.stderr == "Error: model.bin: truncated. Get it again.\n"
        assert result.stdout == ""

    def test_debug_shows_where_it_came_from(self, failing):
        result = failing(CheckpointError("model.bin: truncated."), "--debug")
        assert result.exit_code == 1
        assert "Traceback" in result.stderr
        assert result.stderr.endswith("Error: model.bin: truncated.\n")

    def test_an_interrupt_says_how_to_go_on(self, failing):
        result = failing(KeyboardInterrupt())
        assert result.exit_code == 130
        assert "--resume" in result.stderr
        assert "Traceback" not in result.stderr

    def test_a_full_disk(self, failing):
        result = failing(OSError(errno.ENOSPC, "No space left on device", "/music/song.wav"))
        assert result.exit_code == 1
        assert result.stderr == "Error: the disk is full: /music/song.wav. Make room and run the same command again.\n"

    def test_too_little_memory(self, failing):
        result = failing(MemoryError("Unable to allocate 2.5 TiB"))
        assert result.exit_code == 1
        assert result.stderr == "Error: the memory is too small: Unable to allocate 2.5 TiB.\n"
        assert failing(MemoryError()).stderr == "Error: the memory is too small.\n"

    def test_another_error_of_the_system(self, failing):
        result = failing(PermissionError(errno.EACCES, "Permission denied", "/some/place/x"))
        assert result.exit_code == 1
        assert result.stderr == "Error: Permission denied: /some/place/x.\n"

    def test_a_missing_package_names_its_extra(self, failing):
        result = failing(ModuleNotFoundError("No module named 'tensorrt_rtx'", name="tensorrt_rtx"))
        assert result.exit_code == 1
        assert result.stderr == (
            "Error: this needs the package tensorrt-rtx, which is not installed. In a clone of the repository: "
            "pip install '.[tensorrt-rtx]'.\n"
        )

    @pytest.mark.parametrize(
        "error",
        [
            ModuleNotFoundError("No module named 'x'", name="x"),
            ModuleNotFoundError("No module named 'torch.x'", name="torch.x"),  # torch is there, but another version
            ZeroDivisionError(),
        ],
    )
    def test_a_bug_is_not_hidden(self, failing, error):
        assert failing(error).exception is error

    def test_a_usage_error_keeps_its_exit_code(self, failing):
        assert failing(click.UsageError("wrong")).exit_code == 2

    def test_a_closed_pipe_is_quiet(self):
        program = [sys.executable, "-m", main.__name__, "presets", "--json"]
        reader = [sys.executable, "-c", "import sys; sys.stdin.close()"]
        with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
            subprocess.run(reader, stdin=writer.stdout, check=True)
            assert writer.stdout is not None
            assert writer.stderr is not None
            writer.stdout.close()
            assert b"Traceback" not in writer.stderr.read()


@pytest.mark.parametrize(
    "arguments",
    [
        ["import", "openai", "vqvae.pth.tar", "--preset", "tiny", "--out", "BUNDLE"],
        ["export", "BUNDLE", "--out", "GRAPHS"],
        ["build", "BUNDLE", "--out", "ENGINES"],
        ["verify", "GRAPHS", "--against", "BUNDLE"],
        ["train", "vqvae", "--data", "SONGS", "--preset", "tiny", "--steps", "1", "--out", "RUN"],
        ["evaluate", "BUNDLE", "--data", "SONGS"],
        ["align", "SONG", "--checkpoint", "BUNDLE"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_needs_pytorch_says_how_to_install_it(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    Path("BUNDLE").mkdir()
    Path("BUNDLE", "config.json").write_text("{}")
    done, _ = run_fresh(arguments, blocked=["torch"])
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == (
        "Error: this needs the package torch, which is not installed. In a clone of the repository: "
        "pip install '.[export]'; without an NVIDIA GPU, first python tools/install_torch.py, for the small CPU build "
        "of PyTorch."
    )


WAITING = """
import click, signal, sys, time; from pathlib import Path
from jukebox_deploy.cli import main; from jukebox_deploy.files import atomic_directory

@click.command()
def wait():
    with atomic_directory(Path(out)):
        print("begun", flush=True)
        time.sleep(60)

out, handler = sys.argv[1:]
signal.signal(signal.SIGINT, getattr(signal, handler))
main.CommandEntry.load = lambda _: wait
sys.argv[1:] = ["export"]
main.main()
"""


@pytest.mark.parametrize(
    ("by", "handler"),
    [
        (signal.SIGINT, "default_int_handler"),
        (signal.SIGTERM, "default_int_handler"),
        (signal.SIGTERM, "SIG_IGN"),  # in a shell script's background
    ],
)
def test_a_signal_ends_a_command_in_order(tmp_path: Path, by: signal.Signals, handler: str) -> None:
    command = [sys.executable, "-c", WAITING, str(tmp_path / "out"), handler]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(by)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + by
    assert errors.startswith("Error: interrupted. No half-written file is left")
    assert os.listdir(tmp_path) == []
