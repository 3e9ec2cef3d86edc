"""Room in memory for media that are decoded ahead: counted in bytes, and given in order."""

import threading
from collections.abc import Callable

import torch

from mmalign.media.sample import Sample


def held_bytes(*samples: Sample) -> int:
    """Bytes of the tensors of samples, each counted once where several samples share it.

    >>> from mmalign.media import Image
    >>> picture = Image(torch.zeros(3, 2, 2))
    >>> held_bytes(Sample("a", picture), Sample("b", picture))
    48
    """
    storages = {}
    for sample in samples:
        for medium in (sample.media, *sample.context.values()):
            for value in vars(medium).values() if medium is not None and not isinstance(medium, str) else ():
                for tensor in (value, *vars(value).values()) if hasattr(value, "__dict__") else (value,):
                    if isinstance(tensor, torch.Tensor):
                        storage = tensor.untyped_storage()
                        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


class Room:
    """Gives readers room in the order of their numbers, so that the one whose turn it is never waits for a later one.

    A reader takes room (``admit``) before it decodes, says what it kept (``settle``), and the room is free again when
    its sample was used (``release``, in the order of the numbers).

    Args:
        total: bytes.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.most = 0
        """Bytes that were held at once, so far."""
        self._held: dict[int, int] = {}
        self._asked: dict[int, int] = {}
        self._settled: set[int] = set()
        self._turn = self._oldest = 0
        self._closed = False
        self._changed = threading.Condition()

    def admit(self, number: int, size: int) -> None:
        """Wait until there is room for a reader's next bytes.

        Raises:
            RuntimeError: the room was closed meanwhile.
        """
        with self._changed:
            self._asked[number] = size
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed or self._fits(number))
            if self._closed:
                raise RuntimeError("nobody waits for this any more")
            del self._asked[number]
            self._held[number] = self._held.get(number, 0) + size
            self.most = max(self.most, sum(self._held.values()))
            self._pass_turn()

    def settle(self, number: int, size: int) -> None:
        """A reader is done, and keeps so many bytes."""
        with self._changed:
            self._held[number] = size
            self._settled.add(number)
            self._pass_turn()

    def release(self, number: int) -> None:
        """What a reader kept is gone, and so is what all before it kept."""
        with self._changed:
            self._held = {other: size for other, size in self._held.items() if other > number}
            self._oldest = max(self._oldest, number + 1)
            self._changed.notify_all()

    def needs_more(self, number: int) -> bool:
        """Wait until a reader is done (False), or has to wait for what is held by those before it (True)."""

        def stands_still() -> bool:
            return number in self._asked and number <= self._turn and not self._fits(number)

        with self._changed:
            self._changed.wait_for(lambda: number in self._settled or stands_still())
            return number not in self._settled

    def close(self) -> None:
        """Send all who wait away."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fits(self, number: int) -> bool:
        if number > self._turn:
            return False
        return number <= self._oldest or sum(self._held.values()) + self._asked[number] <= self.total

    def _pass_turn(self) -> None:
        while self._turn in self._held or self._turn < self._oldest:
            self._turn += 1
        self._changed.notify_all()


class Share:
    """Room that requests take from in any order, as long as they only wait for those who will give theirs back.

    Args:
        total: bytes.
    """

    def __init__(self, total: int) -> None:
        self.total, self.held = total, 0
        self._changed = threading.Condition()

    def take(self, size: int, *, may_wait: Callable[[], bool]) -> bool:
        """Take bytes, and whether they were had: False where there is no room and ``may_wait`` says to give up.

        ``may_wait`` is asked a few times a second.
        """
        with self._changed:
            while self.held and self.held + size > self.total:
                if not may_wait():
                    return False
                self._changed.wait(0.2)
            self.held += size
            return True

    def give(self, size: int) -> None:
        """Give bytes back."""
        with self._changed:
            self.held -= size
            self._changed.notify_all()
