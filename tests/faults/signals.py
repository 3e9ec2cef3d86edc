"""Asks commands to stop, in every stage and with every signal that does: they say how to go on, and lose nothing.

``python -m tests.faults.signals --count 27 --log signals.jsonl --place FOLDER`` is every signal in every stage.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.faults import rows
from tests.faults.commands import COMMANDS
from tests.faults.contents import contents, differences
from tests.faults.events import Event
from tests.faults.place import Place
from tests.faults.sentences import has_traceback

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
STAGES = {
    "loading": ("image/flow_dpo", "read", "shapes-flow/model_index.json"),
    "held-out samples, before": ("image/flow_dpo", "", "samples/before/"),
    "training samples": ("image/flow_dpo", "", "samples/training/"),
    "training": ("image/flow_dpo", "", "step-000002"),
    "held-out samples, after": ("image/flow_dpo", "", "samples/after/"),
    "report": ("image/flow_dpo", "", "report.html"),
    "score": ("score", "read", "drawn/00009.png"),
    "generate": ("generate", "", "00006.png"),
    "reward train": ("reward train", "read", "drawn/00009.png"),
}
"""Where a signal comes: in which command, before what kind of event ("" for a change), to a path with what in it."""
WITHIN_S = 60
"""A step is finished first, on a busy machine too."""


@dataclass(frozen=True)
class Stop:
    """One signal, and what came of it.

    Args:
        stage: of ``STAGES``.
        signal: that was sent.
        said: the last line of standard error.
        result: "equal", or what is wrong.
        stopping_s: from the signal to the end.
    """

    stage: str
    signal: str
    said: str
    result: str
    stopping_s: float


def stop_once(place: Place, number: int) -> Stop:
    """Send a signal in the stage whose turn it is, go on, and compare."""
    stage = list(STAGES)[number % len(STAGES)]
    # Each round over the stages begins with the next signal.
    sent = SIGNALS[(number // len(STAGES) + number) % len(SIGNALS)]
    name, kind, part = STAGES[stage]
    command, wanted = COMMANDS[name], place.wanted(name)
    place.begin(command)
    note = place.folder / "signalled"
    note.unlink(missing_ok=True)
    ended = place.run(command.arguments, on=_sending(sent, kind, part, str(note)), reads=kind == "read")
    if not note.exists():
        return Stop(stage, sent.name, "", f"never came to {part}: {ended.words}", 0.0)
    took = time.time() - float(note.read_text())
    lines = ended.err.strip().splitlines() or [""]
    result = _fault(ended.status, 128 + sent, ended.err, took) or (
        "a stack trace" if has_traceback(ended) else ""
    )
    if not result:
        again = place.run(command.again(place.work))
        found = differences(contents(place.work), wanted) if again.status == 0 else [again.words]
        result = "; ".join(found) or rows.GOOD
    return Stop(stage, sent.name, lines[-1], result, round(took, 1))


def _fault(status: int, wanted: int, said: str, took_s: float) -> str:
    """What is wrong with an end, or ""."""
    if status < 0:
        return f"ended at once by signal {-status}, without a word"
    if status != wanted:
        return f"status {status} instead of {wanted}: {said.strip()[-300:]}"
    if took_s > WITHIN_S:
        return f"ended {took_s:.0f} s after the signal"
    return "" if "stopped" in said else f"not a word of stopping: {said.strip()[-300:]}"


def _sending(sent: signal.Signals, kind: str, part: str, note: str) -> Callable[[Event], None]:
    """Sends a signal to the process before its first event of this kind at a path with this in it, and notes when."""
    done: list[bool] = []

    def send(event: Event) -> None:
        if done or part not in event.path or (event.kind == "read") != (kind == "read"):
            return
        done.append(True)
        descriptor = os.open(note, os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, str(time.time()).encode())
        os.close(descriptor)
        os.kill(os.getpid(), sent)

    return send


if __name__ == "__main__":
    sys.exit(rows.main(sys.argv[1:], stop_once, list(STAGES), about=__doc__ or ""))
