"""Notices that another process of the same job is gone, wherever this one is waiting for it, and says which.

Every process counts its beats in the store at which all met, and watches the next one, so that nobody asks about
everybody. Beats are counted and not timed: a job that is suspended as a whole goes on where it was.
"""

import atexit
import os
import sys
import threading
from datetime import timedelta
from typing import Any

from mmalign.errors import MmalignError

BEAT_S = 1.0
LOST_AFTER = 30
"""Of our own beats without one of the other's: about half a minute, longer than any call that holds Python up."""
BROKEN_AFTER = 5
"""The same, once a connection to somebody broke: all that is left to find out is to whom."""
ANSWER_S = 15.0
"""For the store's answer to a beat."""
STATUS = 2
LOST = "mmalign/lost"
"""The store's name for the process that is gone."""
WAY_OUT = ". What was written is whole: go on with --resume"


class LostProcessError(MmalignError):
    """Another process of this job is gone."""


class Peers:
    """Watches the processes of a job.

    Args:
        rank: of this one.
        count: of all.
        store: at which they met, a ``torch.distributed.Store``.
    """

    def __init__(self, rank: int, count: int, store: Any) -> None:
        self.rank, self.count = rank, count
        self._store = store.clone()  # a connection of its own: another may be waiting for something
        self._store.set_timeout(timedelta(seconds=ANSWER_S))
        self._patience = LOST_AFTER
        self._named = threading.Event()
        self._ended = threading.Event()
        self._lost: int | None = None
        self._thread = threading.Thread(target=self._watch, name="peers", daemon=True)
        self._thread.start()
        atexit.register(self.stop)

    def stop(self) -> None:
        """Watch no longer: the work is done, and the others may leave when they like."""
        self._ended.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(2 * BEAT_S)

    def broken(self, reason: BaseException) -> LostProcessError:
        """What to raise where a call between processes failed: names the process that is gone."""
        self._patience = BROKEN_AFTER
        if self._named.wait((BROKEN_AFTER + 3) * BEAT_S + ANSWER_S):
            return LostProcessError(self._said())
        said = " ".join(str(reason).split())[:200]
        return LostProcessError(
            f"process {self.rank} of {self.count}: the others do not answer ({said}){WAY_OUT}"
        )

    def _said(self) -> str:
        who = "process 0 or the launcher" if self._lost is None else f"process {self._lost}"
        return f"{who} of {self.count} processes is gone; process {self.rank} ends too{WAY_OUT}"

    def _watch(self) -> None:
        """Beat, and end this process where the next one is silent or somebody else says who is gone."""
        next_one = (self.rank + 1) % self.count
        last, silent = -1, 0
        while not self._ended.wait(BEAT_S):
            try:
                self._store.add(f"mmalign/beat/{self.rank}", 1)
                beats = self._store.add(f"mmalign/beat/{next_one}", 0)
                silent, last = (silent + 1 if beats == last else 0), beats
                if silent >= self._patience:
                    self._store.set(LOST, str(next_one))
                lost = int(self._store.get(LOST)) if self._store.check([LOST]) else None
            except Exception:  # the store is gone, and with it whoever keeps it
                lost = -1
            if lost is not None and not self._ended.is_set():
                self._lost = None if lost < 0 else lost
                self._end()
                return

    def _end(self) -> None:
        """Say it, here where the main thread waits: it may do so for ever."""
        self._named.set()
        if self._patience != BROKEN_AFTER:
            print(f"mmalign: {self._said()}", file=sys.stderr, flush=True)
            os._exit(STATUS)
