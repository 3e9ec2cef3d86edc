"""Begins a command, holds it in the middle, and begins another on the same folder: the second refuses, the first ends.

``python -m tests.faults.twice --count 7 --log twice.jsonl --place FOLDER`` goes on after the rows of the log.
"""

import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass

from tests.faults import rows
from tests.faults.commands import COMMANDS
from tests.faults.contents import contents, differences
from tests.faults.damage import killing_before
from tests.faults.followed import followed
from tests.faults.holding import holding_before, wait_for_stop
from tests.faults.place import Place
from tests.faults.sentences import has_traceback, one_sentence
from tests.faults.warm import finish

_RESUME = ("align", "--resume", "run")
HELD_AT = {
    "image/flow_dpo": "step-000002",
    "score": "scores.jsonl",
    "generate": "00008.png",
    "reward train": "card.yaml",
    "export": "exported/",
}
"""The change before which the first command is held, by its name."""
FOLLOWED = "align followed on a page"
NAMES = (
    "align twice",
    "align resumed twice",
    "score twice",
    "generate twice",
    "reward train twice",
    "export twice",
    FOLLOWED,
)


@dataclass(frozen=True)
class Twice:
    """Two commands on one folder.

    Args:
        pair: of ``NAMES``.
        said: the sentence of the second.
        result: "equal", or what is wrong.
    """

    pair: str
    said: str
    result: str


def twice(place: Place, number: int) -> Twice:
    """Hold the first, run the second, let the first go on, and compare."""
    pair = NAMES[number % len(NAMES)]
    if pair == FOLLOWED:
        return Twice(pair, "", followed(place))
    name = "image/flow_dpo" if pair.startswith("align") else pair.removesuffix(" twice")
    command, wanted = COMMANDS[name], place.wanted(name)
    place.begin(command)
    first = second = command.arguments
    if pair == "align resumed twice":
        killed = place.run(first, on=killing_before("step-000001"))
        assert killed.killed, killed.words
        first = second = _RESUME
    elif name == "image/flow_dpo":
        second = _RESUME
    held = place.start(first, on=holding_before(HELD_AT[name]))
    try:
        wait_for_stop(held)
        second_ended = place.run(second)
    finally:
        with suppress(ProcessLookupError):
            os.kill(held.pid, signal.SIGCONT)
    first_ended = finish(held)
    said = one_sentence(second_ended)
    if said is None:
        trace = " with a stack trace" if has_traceback(second_ended) else ""
        result = f"the second ended with status {second_ended.status}{trace}: {second_ended.words}"
    elif first_ended.status:
        result = f"the first ended with status {first_ended.status}: {first_ended.words}"
    else:
        result = "; ".join(differences(contents(place.work), wanted)) or rows.GOOD
    return Twice(pair, said or "", result)


if __name__ == "__main__":
    sys.exit(rows.main(sys.argv[1:], twice, NAMES, about=__doc__ or ""))
