"""One page with the help text of every command, as it is printed."""

import contextlib
import importlib
import io
import os
import re
from collections.abc import Sequence

from mmalign.cli.main import COMMANDS, usage

ANSI = re.compile(r"\x1b\[[0-9;]*m")
MORE = {"align": "image/flow_dpo", "pairs": "--select"}
"""What has a help of its own beside its command's; of recipes one stands for all."""


def parts(command: str) -> list[str]:
    """What a command keeps help for: itself, and its actions as its usage names them."""
    said = help_text(command, "").partition("\n\n")[0]
    actions = re.findall(rf"(?:mmalign {command} |\| )([a-z]+)", said)
    return ["", *([MORE[command]] if command in MORE else actions)]


def help_text(command: str, part: str) -> str:
    """What ``mmalign COMMAND PART --help`` prints, 100 columns wide and without colours."""
    arguments: Sequence[str] = [part, "--help"] if part else ["--help"]
    printed = io.StringIO()
    before = dict(os.environ)
    os.environ.update(COLUMNS="100", NO_COLOR="1", TERM="dumb")
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            importlib.import_module(f"mmalign.cli.{command}").main(arguments)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return ANSI.sub("", printed.getvalue()).strip()


def page() -> str:
    """All commands, in alphabetical order."""
    blocks = [f"# Command line\n\nAs `--help` prints it.\n\n```text\n{usage()}\n```"]
    for command in sorted(COMMANDS):
        blocks.append(f"## mmalign {command}\n\n{COMMANDS[command][0].upper()}{COMMANDS[command][1:]}.")
        for part in parts(command):
            title = f"### mmalign {command} {part}\n\n" if part else ""
            blocks.append(f"{title}```text\n{help_text(command, part)}\n```")
    return "\n\n".join(blocks) + "\n"
