"""Being asked to stop: Ctrl-C, SIGTERM of a supervisor or scheduler, SIGHUP of a terminal that closes, all alike.

Where nothing else is said they end what is being done as Ctrl-C does, through every ``finally``; what is on the disk
then is whole. Inside ``held_back`` they are only noted, so that a piece of work ends well.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopped(KeyboardInterrupt):
    """Somebody asked this process to stop; Ctrl-C outside of a command is a plain KeyboardInterrupt."""

    def __init__(self, signum: int = signal.SIGINT) -> None:
        self.signum = signum
        super().__init__(signal.Signals(signum).name)


def exit_status(stopped: KeyboardInterrupt) -> int:
    """What a shell expects of a process that a signal ended.

    >>> exit_status(Stopped(signal.SIGTERM)), exit_status(KeyboardInterrupt())
    (143, 130)
    """
    return 128 + (stopped.signum if isinstance(stopped, Stopped) else signal.SIGINT)


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn the signals into ``Stopped``; one that is ignored, as SIGHUP is under nohup, stays so."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Stopped(signum)

    with _handled(stop):
        yield


@contextmanager
def held_back(note: Callable[[int], None], *, echo_s: float = 0.0) -> Iterator[Callable[[], int | None]]:
    """Only note the first signal, and tell ``note`` of it; a second one stops at once.

    Args:
        note: told of the first.
        echo_s: for so long after the first another is the same one: a terminal sends Ctrl-C to a launcher and to all
            that it started, and the launcher passes it on.

    Yields:
        What says which signal came, None for none.
    """
    asked: list[int] = []
    first = math.inf

    def hold(signum: int, frame: FrameType | None) -> None:
        nonlocal first
        if asked and time.monotonic() - first < echo_s:
            return
        if asked:
            raise Stopped(signum)
        first = time.monotonic()
        asked.append(signum)
        note(signum)

    with _handled(hold):
        yield lambda: asked[0] if asked else None


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may listen to signals
        return
    heard = [signum for signum in SIGNALS if _is_heard(signum)]
    before = {signum: signal.signal(signum, handler) for signum in heard}
    try:
        yield
    finally:
        for signum, old in before.items():
            signal.signal(signum, old)


def _is_heard(signum: int) -> bool:
    now = signal.getsignal(signum)
    if now is None:
        return False  # a listener in C, which could not be put back
    # A shell's script starts what it puts into the background with SIGINT ignored, and then sends it one to end it.
    return now is not signal.SIG_IGN or signum == signal.SIGINT
