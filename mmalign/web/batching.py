"""One model, many callers: samples that arrive at about the same time are scored in one batch."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field

from mmalign.errors import MmalignError
from mmalign.media import Sample
from mmalign.rewards.base import Reward, Score
from mmalign.rewards.rows import join_scores, pick, without_score
from mmalign.rewards.scoring import score_safely

ASK_S = 0.25
"""Between two looks at whether a caller is still there."""


class BusyError(MmalignError):
    """So many samples wait already that a further one would only time out."""


@dataclass(slots=True)
class _Job:
    samples: list[Sample]
    answer: "Future[Score]" = field(default_factory=Future)
    gone: bool = False


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

    def score(self, samples: Sequence[Sample], *, is_gone: Callable[[], bool] | None = None) -> Score | None:
        """The scores of these samples, once it is their turn; None where their caller has left meanwhile.

        Args:
            samples: any number.
            is_gone: asked a few times a second whether the caller has left; its samples are then not scored any more.

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
            while True:
                try:
                    return job.answer.result(timeout=None if is_gone is None else ASK_S)
                except FutureTimeoutError:
                    if is_gone is not None and is_gone():
                        job.gone = True
                        return None
        finally:
            with self._lock:
                self._waiting -= len(samples)

    @property
    def waiting(self) -> int:
        """Samples in line, and those that are scored just now."""
        return self._waiting

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
            self._answer([entry for entry in jobs if not entry.gone])
            del job, jobs  # samples are large, and the next may be long in coming

    def _answer(self, jobs: list[_Job]) -> None:
        """Score the samples of some jobs, but for batches all of whose callers have left."""
        owners = [entry for entry in jobs for _ in entry.samples]
        samples = [sample for entry in jobs for sample in entry.samples]
        try:
            parts = []
            for i in range(0, len(samples), self.batch_size):
                rows = slice(i, i + self.batch_size)
                if all(owner.gone for owner in owners[rows]):
                    parts.append(without_score(["the caller has left"] * len(samples[rows])))
                    continue
                parts.append(score_safely(self.reward, samples[rows]))
                self.batches += 1
            score = join_scores(parts)
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
