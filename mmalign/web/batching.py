"""One model, many callers: samples that arrive at about the same time are scored in one batch."""

import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from mmalign.errors import MmalignError
from mmalign.media import Sample
from mmalign.rewards.base import Reward, Score
from mmalign.rewards.rows import join_scores, pick
from mmalign.rewards.scoring import score_safely


class BusyError(MmalignError):
    """So many samples wait already that a further one would only time out."""


@dataclass(slots=True)
class _Job:
    samples: list[Sample]
    answer: "Future[Score]" = field(default_factory=Future)


class Batcher:
    """Scores in a thread of its own, for any number of threads that wait.

    A model is called by one thread only, with at most ``batch_size`` samples: those of the first caller in line, and of
    whoever comes within ``wait_s``. A caller gets its own samples' scores, whatever stood beside them.

    Args:
        reward: its ``score`` is all that is called.
        batch_size: samples per call of the reward.
        wait_s: how long a batch that is not full waits for further callers.
        most_waiting: samples in line above which a caller is sent away.
    """

    def __init__(
        self, reward: Reward, *, batch_size: int = 32, wait_s: float = 0.005, most_waiting: int = 1024
    ) -> None:
        self.reward, self.batch_size, self.wait_s, self.most_waiting = (
            reward,
            batch_size,
            wait_s,
            most_waiting,
        )
        self.batches = 0
        """Calls of the reward so far."""
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._waiting, self._lock, self._closed = 0, threading.Lock(), False
        self._thread = threading.Thread(target=self._work, name="reward", daemon=True)
        self._thread.start()

    def score(self, samples: Sequence[Sample]) -> Score:
        """The scores of these samples, once it is their turn.

        Raises:
            BusyError: too many samples wait already, or the batcher was closed.
        """
        if not samples:
            return join_scores([])
        job = _Job(list(samples))
        with self._lock:
            if self._closed:
                raise BusyError("the server is shutting down")
            if self._waiting and self._waiting + len(samples) > self.most_waiting:
                raise BusyError(f"{self._waiting} samples wait already; try again in a moment")
            self._waiting += len(samples)
            self._jobs.put(job)
        try:
            return job.answer.result()
        finally:
            with self._lock:
                self._waiting -= len(samples)

    def close(self) -> None:
        """Finish what waits, and take nothing more."""
        with self._lock:
            self._closed = True
            self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        open_ = True
        while open_:
            job = self._jobs.get()
            if job is None:
                return
            jobs, open_ = self._more(job)
            samples = [sample for entry in jobs for sample in entry.samples]
            try:
                batches = range(0, len(samples), self.batch_size)
                score = join_scores(
                    [score_safely(self.reward, samples[i : i + self.batch_size]) for i in batches]
                )
                self.batches += len(batches)
                start = 0
                for entry in jobs:
                    entry.answer.set_result(pick(score, range(start, start + len(entry.samples))))
                    start += len(entry.samples)
            except BaseException as error:  # nobody is to wait for ever
                for entry in jobs:
                    if not entry.answer.done():
                        entry.answer.set_exception(error)

    def _more(self, first: _Job) -> tuple[list[_Job], bool]:
        """The first job and those that come in time to fill its batch; and whether to go on after them."""
        jobs, count, until = [first], len(first.samples), time.monotonic() + self.wait_s
        while count < self.batch_size:
            try:
                job = self._jobs.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if job is None:
                return jobs, False
            jobs.append(job)
            count += len(job.samples)
        return jobs, True
