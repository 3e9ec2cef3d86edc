"""Holds a command before a change to its files, for as long as something else is done beside it."""

import os
import signal
import time
from collections.abc import Callable

from tests.faults.events import Event
from tests.faults.warm import Started


def holding_before(part: str) -> Callable[[Event], None]:
    """Stops the process, which can go on, before its first change to a path with this in it."""
    done: list[bool] = []

    def hold(event: Event) -> None:
        if not done and part in event.path and not event.path.endswith((".lock", ".partial")):
            done.append(True)
            os.kill(os.getpid(), signal.SIGSTOP)

    return hold


def wait_for_stop(started: Started, *, within_s: float = 300) -> None:
    """Until a command holds.

    Raises:
        TimeoutError: it does not.
    """
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        pid, status = os.waitpid(started.pid, os.WUNTRACED | os.WNOHANG)
        if pid and os.WIFSTOPPED(status):
            return
        assert not pid, (
            f"ended with {status} before it could be held: {(started.logs / 'err').read_text()[-500:]}"
        )
        time.sleep(0.01)
    raise TimeoutError(f"not held within {within_s} s")
