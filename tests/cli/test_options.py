"""What commands share: the order of grouped options, reports, tables."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner

from jukebox_deploy.cli.main import cli
from jukebox_deploy.cli.options import UsualFloat, comma_separated, give_report, grouped, numbers_from, report_options
from jukebox_deploy.cli.tables import output_console, plain_table, print_table


@click.command()
@report_options
@grouped(click.option("--first"), click.option("--second", callback=comma_separated))
def tell(out, as_json, first, second):
    give_report({"first": first, "second": second}, out, as_json, lambda: click.echo(f"for people: {first}"))


def test_help_shows_grouped_options_in_their_order():
    assert [parameter.name for parameter in tell.params] == ["out", "as_json", "first", "second"]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_report_goes_to_a_file_and_to_people_or_programs(tmp_path, as_json):
    out = tmp_path / "report.json"
    arguments = ["--first", "x", "--second", "a, b,", "--out", str(out), *["--json"] * as_json]
    result = CliRunner().invoke(tell, arguments, catch_exceptions=False)
    document = {"first": "x", "second": ["a", "b"]}
    assert json.loads(out.read_text()) == document
    if as_json:
        assert json.loads(result.stdout) == document
    else:
        assert result.stdout == "for people: x\n"


def test_a_report_that_nobody_asked_for_writes_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(tell, ["--first", "x"]).stdout == "for people: x\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "an empty name"),
        ("folder", "is a directory"),
        ("file/report.json", "is a file, not a folder"),
        ("file/deeper/report.json", "is a file, not a folder"),
    ],
)
def test_a_report_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch, name, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    result = CliRunner().invoke(tell, ["--first", "x", "--out", name])
    assert result.exit_code == 2
    assert reason in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("empty", ["", " ", ",", " , "])
def test_an_empty_list_is_not_the_default(empty):
    result = CliRunner().invoke(tell, ["--second", empty])
    assert result.exit_code == 2
    assert "an empty list; name something, or leave the option out" in " ".join(result.stderr.split())


def test_a_folder_without_permission_is_named_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)  # the tests may run as root, who may write anywhere
    result = CliRunner().invoke(tell, ["--first", "x", "--out", str(tmp_path / "new" / "report.json")])
    assert result.exit_code == 2
    assert f"{tmp_path} cannot be written to" in " ".join(result.stderr.split())


def test_missing_folders_of_a_report_are_made(tmp_path):
    out = tmp_path / "new" / "deeper" / "report.json"
    assert CliRunner().invoke(tell, ["--first", "x", "--out", str(out)], catch_exceptions=False).exit_code == 0
    assert json.loads(out.read_text())["first"] == "x"


def test_a_table_in_a_pipe_keeps_its_columns_and_wraps_only_where_it_may(capsys):
    table = plain_table("name", "words", "size", right={"size"}, wrapped={"words"}, title="All")
    table.add_row("a-long-name", "many words that go on", "1")
    output_console(38).print(table)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[0] == "All"
    assert lines[1].split() == ["name", "words", "size"]
    assert lines[3].split()[:2] == ["a-long-name", "many"]
    assert lines[3].endswith(" 1")
    assert lines[-1].split()[-1] == "on"


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_a_table_keeps_its_numbers_on_a_narrow_terminal(columns, capsys):
    numbers = ("layers", "caches in place", "engine MiB", "seconds")
    table = plain_table("graph", *numbers, "remarks", right=numbers, wrapped={"remarks"})
    table.add_row("vqvae_encode_0", "1,000", "144", "1234.5", "61.1", "words that may wrap where it is narrow")
    console = output_console(columns)
    print_table(console, table)
    words = capsys.readouterr().out.split()
    assert {"vqvae_encode_0", "1,000", "144", "1234.5", "61.1", "layers", "caches", "seconds"} <= set(words)
    assert console.width == columns


def test_dots_in_a_cell_do_not_widen_a_table(capsys):
    table = plain_table("name", "remarks", wrapped={"remarks"})
    table.add_row("a", "checkpoint 0123456789ab…, " + "and many more words " * 5)
    print_table(output_console(60), table)
    assert max(len(line.rstrip()) for line in capsys.readouterr().out.splitlines()) <= 60


def test_names_that_look_like_markup_or_emoji_are_printed_as_they_are(capsys):
    table, names = plain_table("name"), ["[bold] 12", "bundle[/b]", ":dog:"]
    for name in names:
        output_console().print(name)
        table.add_row(name)
    print_table(output_console(), table)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert [line for line in lines if line in names] == names * 2


@click.command()
@click.option("--slots", callback=numbers_from(1))
def count_slots(slots):
    click.echo(slots)


def test_numbers_are_sorted_and_each_counts_once():
    assert CliRunner().invoke(count_slots, ["--slots", "16, 1,4,1"]).output == "(1, 4, 16)\n"
    assert CliRunner().invoke(count_slots, []).output == "()\n"


@pytest.mark.parametrize("numbers", ["0,4", "1,-4", "some", "1.5"])
def test_other_numbers_are_refused(numbers):
    result = CliRunner().invoke(count_slots, ["--slots", numbers])
    assert result.exit_code == 2
    assert f"'{numbers}': give numbers from 1 on, separated by commas" in " ".join(result.output.split())


@click.command()
@click.option("--size", type=UsualFloat(min=0, min_open=True))
def weigh(size):
    click.echo(size)


@pytest.mark.parametrize("size", ["nan", "inf", "1e400", "1e300", "0", "-1", "much"])
def test_a_number_that_cannot_be_counted_with_is_refused(size):
    result = CliRunner().invoke(weigh, ["--size", size])
    assert result.exit_code == 2
    assert "Invalid value for '--size'" in result.output


def test_other_numbers_are_taken():
    assert [CliRunner().invoke(weigh, ["--size", size]).output for size in ("0.5", "1e15")] == ["0.5\n", f"{1e15}\n"]


@pytest.mark.parametrize("number", ["nan", "inf"])
@pytest.mark.parametrize(
    "command",
    [
        ["inspect", ".", "--memory"],
        ["bench", "run", ".", "--against", ".", "--seconds"],
        ["bench", "growth", "songs", "--preset", "tiny", "--workdir", ".", "--seconds"],
        ["evaluate", ".", "--data", ".", "--seconds"],
        ["data", "requests", ".", "--out", "requests", "--seconds"],
        *(["sample", ".", "--out", "song", option] for option in ("--offset", "--temperature", "--weight-budget")),
        ["export", ".", "--out", "graphs", "--weights", "int8", "--max-kl"],
    ],
)
def test_commands_refuse_them_before_any_work(command, number):
    result = CliRunner().invoke(cli, [*command, number])
    assert result.exit_code == 2
    assert f"{number} is no usual number" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("command", "value"),
    [
        (["evaluate", ".", "--data", ".", "--train-fraction"], "2"),
        (["train", "upsampler", "--data", ".", "--out", "run", "--bundle", ".", "--steps", "1", "--level"], "-1"),
    ],
)
def test_numbers_out_of_range_are_usage_errors(command, value):
    result = CliRunner().invoke(cli, [*command, value])
    assert result.exit_code == 2
    assert "is not in the range" in result.output
