"""HTTP read strictly and with patience that ends: what the servers of our own share, beneath what they answer.

A request that two programs could read in two ways is refused, and its connection with it: with two lengths, in chunks,
or with a line among its headers that is none. A caller has so long for a head and so long for a body; one that sends a
byte now and then holds a connection for no longer than that.
"""

import contextlib
import email.errors
import io
import select
import socket
import time
from http.server import BaseHTTPRequestHandler
from typing import Any

MOST_LENGTH_DIGITS = 15
ODD = (
    email.errors.FirstHeaderLineIsContinuationDefect,
    email.errors.MisplacedEnvelopeHeaderDefect,
    email.errors.MissingHeaderBodySeparatorDefect,
)
"""What is wrong with lines among headers; what a multipart body lacks is no concern of its head."""
LINGER_S, LINGER_BYTES = 1.0, 2**22
"""How long, and how much, of a refused body is still read, since closing over unread bytes may lose the answer."""
SLOWEST_BYTES_PER_S = 2**17
"""A body has its share of time at this rate, beside what the caller may be idle."""


class RefusedError(Exception):
    """Ends a request with a status, a word for programs and a sentence for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Patience(io.RawIOBase):
    """Bytes of a connection, up to a moment.

    Args:
        connection: to the caller.
        idle_s: without a byte, after which reading ends too.

    Reading raises ``TimeoutError`` where either is over.
    """

    def __init__(self, connection: socket.socket, idle_s: float) -> None:
        self._connection, self.idle_s = connection, idle_s
        self.until(idle_s)

    def until(self, seconds: float) -> None:
        """Give the caller so long from now."""
        self._end = time.monotonic() + seconds

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Whatever has come, or comes in time."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the caller took too long")
        self._connection.settimeout(min(left, self.idle_s))
        return self._connection.recv_into(buffer)


class _Lines:
    """The lines of a head, and whether one of them has an end in its middle, which others may take for two lines."""

    def __init__(self, file: Any) -> None:
        self._file, self.odd = file, False

    def readline(self, limit: int = -1) -> bytes:
        line: bytes = self._file.readline(limit)
        self.odd |= b"\r" in line.removesuffix(b"\n").removesuffix(b"\r") or b"\0" in line
        return line


class StrictHandler(BaseHTTPRequestHandler):
    """One connection.

    ``idle_s`` is how long a head may take, and how long a caller may send nothing. A subclass answers in ``do_GET`` and
    the like, and says refusals in ``send_refusal``.
    """

    server_version, sys_version = "mmalign", ""
    idle_s = 30.0

    def setup(self) -> None:
        """Give up on callers that say nothing."""
        super().setup()
        self.patience = Patience(self.connection, self.idle_s)
        self.rfile = io.BufferedReader(self.patience)
        self._probed = self._lingers = False

    def finish(self) -> None:
        """Let the caller read a refusal before the connection is closed over what it still sends."""
        with contextlib.suppress(OSError):
            if self._lingers:
                self._take_the_rest()
        with contextlib.suppress(OSError):
            super().finish()

    def _take_the_rest(self) -> None:
        end, taken = time.monotonic() + LINGER_S, 0
        self.connection.shutdown(socket.SHUT_WR)
        while taken < LINGER_BYTES and (left := end - time.monotonic()) > 0:
            self.connection.settimeout(left)
            part = self.connection.recv(2**16)
            if not part:
                return
            taken += len(part)

    def linger(self) -> None:
        """Do so: something of the request was not read."""
        self._lingers = True

    def handle_one_request(self) -> None:
        """One request, whose head has its time."""
        self.patience.until(self.idle_s)
        super().handle_one_request()

    def parse_request(self) -> bool:
        """Read the head; False once it was refused."""
        whole = self.rfile
        lines = self.rfile = _Lines(whole)  # type: ignore[assignment]
        try:
            parsed = super().parse_request()
        finally:
            self.rfile = whole
        if not parsed:
            return False
        try:
            self._length = self._framed(odd=lines.odd)
        except RefusedError as refusal:
            self.refuse(refusal)
            return False
        return True

    def _framed(self, *, odd: bool) -> int:
        """Bytes of the body."""
        if self.request_version not in ("HTTP/1.0", "HTTP/1.1"):
            raise RefusedError(505, "version", "expected HTTP/1.0 or 1.1")
        odd |= any("\n" in value or "\r" in value for value in self.headers.values())
        rest = self.headers.get_payload()  # what follows a line that is no header
        if odd or (isinstance(rest, str) and rest) or any(isinstance(d, ODD) for d in self.headers.defects):
            raise RefusedError(400, "bad_request", "a line among the headers is none")
        if self.headers.get_all("Transfer-Encoding"):
            raise RefusedError(411, "length_required", "expected a Content-Length, got a body in chunks")
        lengths = self.headers.get_all("Content-Length") or []
        if len(lengths) > 1:
            raise RefusedError(400, "bad_request", f"expected one Content-Length, got {len(lengths)}")
        if len(self.headers.get_all("Host") or []) > 1:
            raise RefusedError(400, "bad_request", "expected one Host")
        text = lengths[0].strip(" \t") if lengths else "0"
        if not (text.isascii() and text.isdigit()):
            raise RefusedError(400, "bad_request", "Content-Length: expected a whole number")
        if len(text) > MOST_LENGTH_DIGITS:
            raise RefusedError(413, "too_large", f"a body of {text[:MOST_LENGTH_DIGITS]}… bytes; send fewer")
        return int(text)

    @property
    def body_length(self) -> int:
        """Bytes of the body that the head promises."""
        return self._length

    def body_time(self, length: int) -> None:
        """Give the caller time for a body of this length."""
        self.patience.until(self.idle_s + length / SLOWEST_BYTES_PER_S)

    def refuse(self, refusal: RefusedError) -> None:
        """Say no, and end the connection: what was not read would be taken for the next request."""
        self.close_connection = self._lingers = True
        self.request_version = "HTTP/1.1"  # one that sent none gets a whole answer too
        self.connection.settimeout(self.idle_s)
        self.send_refusal(refusal)

    def send_refusal(self, refusal: RefusedError) -> None:
        """Write a refusal as this server writes its answers."""
        raise NotImplementedError

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the library refuses, as our own refusals are: an unknown method is 405."""
        del explain
        if code == 501:
            code, message = 405, f"no method {str(self.command)[:20]} here"
        words = {405: "method", 413: "too_large", 414: "too_large", 431: "too_large"}
        said = message or self.responses.get(code, ("refused", ""))[0]
        self.refuse(RefusedError(code, words.get(code, "bad_request"), said[:200]))

    def finish_head(self) -> None:
        """End the headers of an answer."""
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def write(self, data: bytes) -> None:
        """The body of an answer, which one to HEAD does not have."""
        if getattr(self, "command", None) != "HEAD":
            self.wfile.write(data)

    def is_gone(self) -> bool:
        """Whether the caller has left.

        One that will send no more may still listen, so it is sent an interim answer, which HTTP lets everybody pass
        over; where nobody listens, the connection then breaks.
        """
        poll = select.poll()
        half = getattr(select, "POLLRDHUP", 0)
        poll.register(self.connection, half)
        state = sum(event for _, event in poll.poll(0))
        if state & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
            return True
        if state & half and not self._probed and self.request_version == "HTTP/1.1":
            self._probed = True
            try:
                self.connection.settimeout(self.idle_s)
                self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            except OSError:
                return True
        return False

    def log_message(self, form: str, *values: Any) -> None:
        """Only errors are worth a line; a request's path may hold anything."""

    def log_error(self, form: str, *values: Any) -> None:
        """One line on standard error."""
        BaseHTTPRequestHandler.log_message(self, form, *values)
