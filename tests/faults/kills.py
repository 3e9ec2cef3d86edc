"""Kills commands at random changes to their files, goes on as documented, and compares with what nobody disturbed.

``python -m tests.faults.kills --count 100 --log kills.jsonl --place FOLDER`` goes on after the rows of the log.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults import rows
from tests.faults.commands import COMMANDS
from tests.faults.contents import contents, differences
from tests.faults.events import Event
from tests.faults.place import Place

AGAIN = 0.25
"""Probability that a command which goes on is killed too."""
LATER = 0.5
"""Probability that a kill comes a moment after its event rather than before it, in the middle of whatever follows."""
MOMENT_S = 0.02
"""The longest such moment."""
MOST = 6
"""Times that one command is run."""
DONE = "exists already; give another --out"
"""What is said of a result that was whole when its command was killed, with nothing left to do but to say so."""


@dataclass(frozen=True)
class Kill:
    """One command, killed once or more.

    Args:
        command: by name.
        at: numbers of the events that it was killed at, from 1.
        of: events of the undisturbed command.
        kinds: of these events, with their paths.
        result: "equal", or what is wrong.
        seconds: it took.
    """

    command: str
    at: list[int]
    of: int
    kinds: list[str]
    result: str
    seconds: float


def kill_once(place: Place, number: int) -> Kill:
    """Run the command whose turn it is, kill it, go on until it ends, and compare."""
    name = list(COMMANDS)[number % len(COMMANDS)]
    command, chance = COMMANDS[name], random.Random(number)
    total, wanted = len(place.events(name)), place.wanted(name)
    place.begin(command)
    begun, at, kinds = time.monotonic(), list[int](), list[str]()
    arguments, result = command.arguments, f"not at its end after {MOST} times"
    for attempt in range(MOST):
        kill = not at or (attempt < MOST - 1 and chance.random() < AGAIN)
        event = chance.randint(1, total) if kill else 0
        later = chance.random() * MOMENT_S if chance.random() < LATER else 0.0
        ended = place.run(arguments, on=_killing(event, later, place.folder / "last"))
        if ended.killed:
            at.append(event)
            kinds.append((place.folder / "last").read_text().replace(f"{place.work}/", ""))
            arguments = command.again(place.work)
        elif ended.status == 0 and not at:
            place.begin(command)  # some changes are made by the clock, and it came to fewer; once more
        elif ended.status == 0 or (at and DONE in ended.words):
            result = "; ".join(differences(contents(place.work), wanted)) or rows.GOOD
            break
        else:
            result = f"mmalign {' '.join(arguments[:3])} ended with status {ended.status}: {ended.words}"
            break
    return Kill(name, at, total, kinds, result, round(time.monotonic() - begun, 1))


def _killing(number: int, later_s: float, note: Path) -> Callable[[Event], None]:
    """Ends the process at an event, 0 for never, and notes at which; ``later_s`` lets it run on a little."""
    log = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    seen = [0]

    def kill(event: Event) -> None:
        seen[0] += 1
        if seen[0] != number:
            return
        os.write(log, f"{'after' if later_s else 'before'} {event.kind} {event.path}".encode())
        if later_s:
            signal.setitimer(signal.ITIMER_REAL, later_s)  # SIGALRM ends the process in whatever code it is
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


if __name__ == "__main__":
    sys.exit(rows.main(sys.argv[1:], kill_once, list(COMMANDS), about=__doc__ or ""))
