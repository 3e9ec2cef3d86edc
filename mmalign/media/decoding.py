"""How much memory reading a medium may take: said before a file is decoded, refused above a limit, and counted.

Readers say what they are about to take (``take``), from a file's header or as they go; who reads files of strangers
sets the limit around them (``decoding``). Without one nothing is counted, and readers keep their own limits.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from mmalign.errors import ConfigError

MB = 10**6
MOST_BYTES = 512 * MB
"""What reading one sample may take by default: pictures of 25 megapixels, 81 frames of 832 x 480, four minutes of
stereo at 44.1 kHz."""
BYTES_PER_PIXEL = 20
"""Of a picture while it is read: the decoder's copy, ours with 8 bits, and fp32."""
BYTES_PER_FRAME_PIXEL = 15
"""Of a video: all frames with 8 bits, and as fp32."""
BYTES_PER_SOUND_VALUE = 24
"""Of a sound: its blocks, their join, the order that we keep, and what rewards make of it in float64."""
BYTES_PER_MESH_BYTE = 16
"""Of a mesh file: its text, what is parsed, and the arrays."""


@dataclass(slots=True)
class Decoding:
    """One sample that is being read.

    Args:
        most_bytes: what reading all its media may take.
        option: what raises the limit, for the message.
        admit: told of every further number of bytes before they are taken; it may wait until there is room.
    """

    most_bytes: int
    option: str
    admit: Callable[[int], None] | None = None
    taken: int = 0

    def take(self, size: int) -> None:
        """Count bytes that are about to be taken.

        Raises:
            ConfigError: they are more than the limit allows; nothing was taken.
        """
        if self.taken + size > self.most_bytes:
            raise ConfigError(
                f"reading it takes {_mb(self.taken + size)} MB of memory, the limit is {_mb(self.most_bytes)} MB; make "
                f"it smaller, or raise the limit with {self.option}"
            )
        if self.admit is not None:
            self.admit(size)
        self.taken += size


_current: ContextVar[Decoding | None] = ContextVar("decoding", default=None)


@contextmanager
def decoding(
    *, most_bytes: int, option: str, admit: Callable[[int], None] | None = None
) -> Iterator[Decoding]:
    """Count what readers take inside this, in this thread.

    Args:
        most_bytes: above which they refuse.
        option: what raises the limit, for the message.
        admit: told of every number of bytes before they are taken.
    """
    counted = Decoding(most_bytes, option, admit)
    token = _current.set(counted)
    try:
        yield counted
    finally:
        _current.reset(token)


def counted() -> bool:
    """Whether somebody counts what is read here, so that readers need no limits of their own."""
    return _current.get() is not None


def take(size: int) -> None:
    """Say that a reader is about to take so many bytes.

    Raises:
        ConfigError: they are more than may be taken here.
    """
    counted = _current.get()
    if counted is not None:
        counted.take(size)


class Growing:
    """Bytes of a medium whose size only its end tells: what its header promises is taken first, and then what follows.

    Args:
        promised: bytes; 0 where the header says nothing.
    """

    def __init__(self, promised: int = 0) -> None:
        self._taken = promised
        take(promised)

    def reach(self, size: int) -> None:
        """Say that the medium has so many bytes by now.

        Raises:
            ConfigError: they are more than may be taken here.
        """
        if size > self._taken:
            take(size - self._taken)
            self._taken = size


def _mb(size: int) -> str:
    return f"{-(-size // MB):,}"
