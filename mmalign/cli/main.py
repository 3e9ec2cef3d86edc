"""The ``mmalign`` command: finds the subcommand, imports only that, and turns our errors into one sentence."""

import errno
import importlib
import os
import sys
from collections.abc import Sequence

from mmalign.errors import ConfigError, MmalignError, UnknownNameError
from mmalign.files import WAYS_OUT, disk_fault
from mmalign.launching import check_alone
from mmalign.stopping import exit_status, stoppable
from mmalign.trust import trusting, unused

COMMANDS = {
    "align": "run a recipe: align a generator with a reward or with preferences",
    "compare": "runs side by side, with paired intervals",
    "data": "check or convert a preference file, or see how far annotators agree",
    "env": "versions, devices and settings, for a bug report",
    "export": "a run's weights for diffusers or PEFT, or merged into the model, and a check that they load",
    "generate": "draw samples, with or without a LoRA or the guidance of rewards",
    "label": "a page on which people say what they prefer",
    "merge": "several LoRAs as one, in weight space",
    "mesh": "views of an object as a mesh, and a film of one turn around it",
    "pairs": "preference pairs or rankings from scored samples, or the pairs to label next",
    "recipes": "list recipes",
    "report": "write the report of a run, or follow one that is being made",
    "reward": "train a reward from preferences, judge one on them, or see how far it can be pushed",
    "rewards": "list rewards, or show the card of one",
    "score": "score media with one or several rewards",
    "serve": "a reward over HTTP",
}
"""Each is ``main(arguments) -> exit status`` in ``mmalign.cli.<name>``."""

SHARED = ("align", "env", "generate", "recipes", "rewards")
"""What several processes do as one, or what does nothing; the rest is refused where a launcher started several."""


TRUST = "--trust"
OF_EVERY_COMMAND = f"""
of every command:
  {TRUST} NAME  let the reward, model or address of this name run Python code of its own, fetch what it names, or read
                beyond its folder; once for each. Nothing but this option does, whatever a file says."""


def usage() -> str:
    """What ``mmalign --help`` prints."""
    lines = [f"  {name:<10} {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "usage: mmalign COMMAND ...",
            "",
            "Align image, video, 3D, audio and speech generators with what people prefer.",
            "",
            *lines,
            OF_EVERY_COMMAND,
            "",
            "mmalign COMMAND --help says more; a first run: mmalign align image/flow_dpo",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return the exit status: 2 for a mistake of the user, 128 + n where signal n ended it."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from mmalign import __version__

        print(__version__)
        return 0
    name, *rest = arguments
    try:
        if name not in COMMANDS:
            raise UnknownNameError("command", name, COMMANDS)
        if name not in SHARED:
            check_alone(name)
        rest, names = take_trust(rest)
        with stoppable(), trusting(names):
            return _run(name, rest)
    except MmalignError as error:
        print(f"mmalign: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print("mmalign: stopped", file=sys.stderr)
        return exit_status(stopped)
    except BrokenPipeError:  # whoever read standard output has enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        number = disk_fault(error)
        if number is None:
            raise
        # Not every one of them is about writing: a file that may not be read is no folder to choose.
        said = error.strerror if number in (errno.EACCES, errno.EPERM) else WAYS_OUT[number]
        print(f"mmalign: {error.filename or 'the output'}: {said}", file=sys.stderr)
        return 2


def take_trust(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments of a command without ``--trust NAME``, and the names.

    >>> take_trust(["a.png", "--trust", "theirs", "--reward", "theirs", "--trust=more"])
    (['a.png', '--reward', 'theirs'], ['theirs', 'more'])

    Raises:
        ConfigError: no name follows.
    """
    rest, names = [], []
    given = iter(arguments)
    for argument in given:
        option, equals, name = argument.partition("=")
        if option != TRUST:
            rest.append(argument)
            continue
        name = name if equals else next(given, "")
        if not name or name.startswith("--"):
            raise ConfigError(f"{TRUST}: say whom: the name of a reward or model, as the command names it")
        names.append(name)
    return rest, names


def _run(name: str, arguments: list[str]) -> int:
    """Run a subcommand; what it did not say of ``--trust`` is said behind it."""
    try:
        status: int = importlib.import_module(f"mmalign.cli.{name}").main(arguments)
    except SystemExit:
        if "--help" in arguments or "-h" in arguments:
            print(OF_EVERY_COMMAND)
        raise
    for left in unused():
        print(f"mmalign: {TRUST} {left} opened nothing: nothing of this name asked for it", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
