"""The command lines in a document, and what is wrong with them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

import click

from jukebox_deploy.cli.main import COMMANDS, cli

PROGRAM = "jukebox-deploy"
_BLOCK_LINE = re.compile(rf"^\s*(?:\$ )?(?:\S*/)?{PROGRAM} (.+)$", re.MULTILINE)
_SPAN = re.compile(r"`([^`]+)`")
_PLACEHOLDER = re.compile(r"…|\.\.\.|[A-Z_]+")


def code_spans(text: str) -> list[str]:
    """What stands between backticks, fences left out; a span may go over the end of a line."""
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [" ".join(span.replace(r"\|", "|").split()) for span in _SPAN.findall(outside)]


def problems_of(text: str) -> list[str]:
    """Every command line and option in a document that the program does not have, with the reason."""
    whole = [shlex.split(line, comments=True) for line in _BLOCK_LINE.findall(text.replace("\\\n", " "))]
    parts = [words for span in code_spans(text) if (words := _command_words(span))]
    found = [(words, problem) for words in whole for problem in (*_unknown(words), *_refused(words))]
    found += [(words, problem) for words in parts for problem in _unknown(words)]
    found += [([name], "no command has it") for name in _lone_options(text) if name not in every_option()]
    return [f"{shlex.join(words)}: {problem}" for words, problem in found]


def every_option() -> set[str]:
    """The options of all commands."""
    return {name for command in _commands_below(cli) for name in _options(command)}


def _command_words(span: str) -> list[str]:
    """`jukebox-deploy export X` and `export --weights int8` without the program; nothing for other code."""
    words = shlex.split(re.sub("['\"]", "", span)) if "=" not in span else []
    if words[:1] == [PROGRAM]:
        return words[1:]
    return words if words and words[0] in COMMANDS and any(word.startswith("--") for word in words) else []


def _lone_options(text: str) -> set[str]:
    return {span.split()[0] for span in code_spans(text) if re.match(r"--\w", span)}


def _unknown(words: Sequence[str], command: click.Command = cli, called: str = PROGRAM) -> list[str]:
    """Commands and options that there are not; alternatives as in `vqvae|prior` are taken apart."""
    for place, word in enumerate(words):
        if word.startswith("-"):
            if word.partition("=")[0] not in _options(command):
                return [f"{called} has no {word}", *_unknown(words[place + 1 :], command, called)]
        elif isinstance(command, click.Group):
            if _PLACEHOLDER.fullmatch(word):
                return []
            return [problem for name in word.split("|") for problem in _unknown_in(command, name, words[place + 1 :])]
    return []


def _unknown_in(group: click.Group, name: str, words: Sequence[str]) -> list[str]:
    command = group.get_command(click.Context(group), name)
    return [f"there is no command {name}"] if command is None else _unknown(words, command, name)


def _refused(words: Sequence[str]) -> list[str]:
    """What the program itself says of a command line that is written out; it is parsed, not run."""
    if any("…" in word or word == "..." for word in words):
        return []
    command: click.Command = cli
    context = click.Context(cli, info_name=PROGRAM)
    rest = list(words)
    while isinstance(command, click.Group) and rest:
        chosen = command.get_command(context, rest.pop(0))
        if chosen is None:
            return []  # `_unknown` has told
        command = chosen
    try:
        command.make_context(words[0], rest, parent=context)
    except click.exceptions.Exit:
        return []  # of --help
    except click.UsageError as error:
        return [error.format_message()]
    return []


def _options(command: click.Command) -> set[str]:
    names = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return {name for name in names if name.startswith("-")} | {"-h", "--help"}


def _commands_below(command: click.Command) -> Iterator[click.Command]:
    yield command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from _commands_below(child)
