"""Room in memory for the media of one request: it waits for others, and says when the request is too large for it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mmalign.media import Sample
from mmalign.media.decoding import decoding
from mmalign.media.room import Share, held_bytes
from mmalign.web.strict import RefusedError

OPTION = "--max-medium-mb"
"""What raises the limit, on the command line of the server."""


class RequestRoom:
    """What one request takes of the room of all.

    A medium that is above the limit alone is that sample's failure. One that is above it beside those of its request
    before it is the request's: its caller is told to send fewer.

    Args:
        share: of all requests.
        may_wait: called where a wait begins; what it returns is asked now and then whether to go on waiting, and raises
            once the caller has left.
    """

    def __init__(self, share: Share, may_wait: Callable[[], Callable[[], bool]]) -> None:
        self.share, self.may_wait = share, may_wait
        self._held = self._kept = 0
        self._stop: BaseException | None = None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read one sample inside.

        Raises:
            RefusedError: the media of the request are too large together, or there was no room in time.
        """
        try:
            with decoding(most_bytes=self.share.total, option=OPTION, admit=self._admit):
                yield
        finally:
            self._settle()
            if self._stop is not None:  # a reader may have taken it for damage of the file
                raise self._stop

    def keep(self, sample: Sample) -> Sample:
        """Count what a sample keeps, in the place of what reading it took."""
        self._kept += held_bytes(sample)
        return sample

    def _settle(self) -> None:
        if self._held > self._kept:
            self.share.give(self._held - self._kept)
            self._held = self._kept

    def give_back(self) -> None:
        """All of it."""
        self.share.give(self._held)
        self._held = self._kept = 0

    def _admit(self, size: int) -> None:
        try:
            if self._kept and self._held + size > self.share.total:
                raise RefusedError(
                    413,
                    "too_large",
                    f"the media of one request take more than {self.share.total // 10**6} MB; send fewer at a time, "
                    f"or start the server with a larger {OPTION}",
                )
            if not self.share.take(size, may_wait=self.may_wait()):
                raise RefusedError(503, "busy", "no room for these media just now; try again in a moment")
        except BaseException as error:
            self._stop = error
            raise
        self._held += size
