"""``mmalign env``: what a bug report needs to know of this machine."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from mmalign.cli.options import parse


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvCommand:
    """Print versions, devices and settings, for a bug report; nothing of it names you or your files."""

    json: bool = False
    """As JSON."""


def main(arguments: Sequence[str]) -> int:
    """Run ``mmalign env``."""
    command = parse(EnvCommand, arguments, prog="mmalign env")
    from mmalign.training.versions import environment

    found = environment()
    if command.json:
        print(json.dumps(found, indent=2))
    else:
        width = max(map(len, found))
        for name, value in found.items():
            print(f"{name:<{width}}  {value}")
    return 0
