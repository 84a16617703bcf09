"""``pinhole completion``: a script that makes a shell complete this command's words."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from pinhole.commands import Commands, add_command, needing_modules

SHELLS = ("bash", "zsh", "fish")

EPILOG = """
examples:
  eval "$(pinhole completion bash)"                  for this shell; in ~/.bashrc, for all
  pinhole completion fish > pinhole.fish             belongs into ~/.config/fish/completions
  pinhole completion zsh > _pinhole                  belongs into a folder of $fpath
"""


def add(commands: Commands) -> None:
    """Add the command."""
    about = "print a script that completes this command's words"
    command = add_command(commands, "completion", about, run, EPILOG)
    command.add_argument("shell", choices=SHELLS)


def run(options: argparse.Namespace) -> int:
    """Print the script; returns the exit code."""
    with needing_modules("completion"):
        import shtab
    parser: argparse.ArgumentParser = options.parser
    complete_files(parser, shtab.FILE)
    print(shtab.complete(parser, options.shell))
    return 0


def complete_files(parser: argparse.ArgumentParser, files: Mapping[str, object]) -> None:
    """Mark every argument that is a path, so that the shell offers files for it."""
    for action in parser._actions:
        if action.type is Path:
            action.complete = files  # type: ignore[attr-defined]
        for command in action.choices.values() if isinstance(action.choices, dict) else ():
            complete_files(command, files)
