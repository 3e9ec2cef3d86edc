"""Files read in threads while the models work on those before, as far as there is room in memory."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeAlias

from mmalign.errors import DataError
from mmalign.media import Sample
from mmalign.media.decoding import MOST_BYTES, decoding
from mmalign.media.room import Room, held_bytes
from mmalign.rewards.base import OK, PreparingReward, Reward

OPTION = "--max-medium-mb"
"""What raises the limit of a medium's size, in every command that reads many."""
_Loaded: TypeAlias = tuple[list[Sample], str]
"""A file's sample as each reward wants it, and "ok" or what is wrong with the file."""


class Loadable(Protocol):
    """A sample whose medium is not read yet, such as ``SampleFile``."""

    @property
    def id(self) -> str:
        """What the row is called."""
        ...

    @property
    def path(self) -> Path | None:
        """Where the medium lies; None where nothing is named."""
        ...

    @property
    def prompt(self) -> str | None:
        """What it was made for."""
        ...

    def load(self) -> Sample:
        """Read the medium, or raise a ``DataError``."""
        ...


class Ahead:
    """Files read in threads ahead of their use, as far as there is room in memory.

    Args:
        files: in order.
        rewards: each is given a file's sample as it wants it.
        ahead: files that are waited for at a time.
        threads: that read.
        most_bytes: that reading one file may take, and all that is read and not used yet together.
    """

    def __init__(
        self,
        files: Sequence[Loadable],
        rewards: Sequence[Reward],
        *,
        ahead: int,
        threads: int,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.files, self.rewards, self.ahead, self.threads = files, rewards, ahead, threads
        self.room = Room(most_bytes)
        self._waiting: deque[Future[_Loaded]] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self._begun = 0

    def parts(self, start: int, stop: int) -> Iterator[list[_Loaded]]:
        """The files from ``start`` to ``stop`` in as few parts as fit into memory, usually one.

        Where they end depends on the sizes of the files alone, so that a repeated run has the same. What was yielded
        is taken to be used once the next is asked for.
        """
        part: list[_Loaded] = []
        for number in range(start, stop):
            future = self._next()
            if part and self.room.needs_more(number):
                yield part
                part = []
                self.room.release(number - 1)
            part.append(future.result())
        yield part
        self.room.release(stop - 1)

    def _next(self) -> "Future[_Loaded]":
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="load")
        while self._begun < len(self.files) and len(self._waiting) <= self.ahead:
            self._waiting.append(self._pool.submit(self._load, self._begun))
            self._begun += 1
        return self._waiting.popleft()

    def close(self) -> None:
        """Read nothing more."""
        for future in self._waiting:
            future.cancel()
        self.room.close()
        if self._pool is not None:
            self._pool.shutdown()

    def _load(self, number: int) -> _Loaded:
        """A file's sample as each reward wants it, with "ok" or what is wrong with the file."""
        kept: list[Sample] = []
        try:
            with decoding(
                most_bytes=self.room.total,
                option=OPTION,
                admit=lambda size: self.room.admit(number, size),
            ):
                sample, fault = _loaded(self.files[number])
                # The whole picture is let go here, so that a queue of large ones stays small.
                kept = [_prepared(sample, reward) for reward in self.rewards]
                del sample
            return kept, fault
        finally:
            self.room.settle(number, held_bytes(*kept))


def _loaded(file: Loadable) -> tuple[Sample, str]:
    try:
        return file.load(), OK
    except DataError as error:
        return Sample(file.prompt or ""), _one_line(error)
    except Exception as error:  # memory, a disk that is gone: this file's misfortune, not that of the others
        return Sample(file.prompt or ""), f"cannot be read ({type(error).__name__}: {_one_line(error)})"


def _one_line(error: Exception) -> str:
    """What an error says, on one line even where a file's name has several."""
    return " ".join(str(error).splitlines())


def _prepared(sample: Sample, reward: Reward) -> Sample:
    try:
        return reward.prepare(sample) if isinstance(reward, PreparingReward) else sample
    except Exception:
        return sample  # the reward meets it whole, and what it raises then becomes a status
