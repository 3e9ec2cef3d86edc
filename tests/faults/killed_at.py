"""One command killed before its N-th change below the working directory, to look at a row of the log by hand.

``python -m tests.faults.killed_at 69 -- align image/flow_dpo --out run ...``; 0 kills nothing and counts.
"""

import os
import signal
import sys
from pathlib import Path

from tests.faults.events import Event, watch


def main(arguments: list[str]) -> int:
    """Run the command; its changes go to standard error, numbered."""
    number, dashes, *rest = arguments
    assert dashes == "--", "python -m tests.faults.killed_at N -- ARGUMENTS of mmalign"
    seen = [0]

    def count(event: Event) -> None:
        seen[0] += 1
        os.write(2, f"{seen[0]} {event.kind} {event.path}\n".encode())
        if seen[0] == int(number):
            os.kill(os.getpid(), signal.SIGKILL)

    watch(Path.cwd(), count)
    from mmalign.cli.main import main

    return main(rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
