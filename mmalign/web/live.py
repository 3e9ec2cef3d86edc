"""A running alignment at an address: one page, made of the run's files whenever it is asked for.

    GET  /    the page of ``mmalign.evaluation.live``, for who shows the token (``/?token=...``, or as a bearer)

Nothing is written, and no other file of the machine can be asked for.
"""

import threading
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from mmalign.errors import MmalignError
from mmalign.evaluation.live import live_page
from mmalign.web.address import TokenServer
from mmalign.web.strict import RefusedError, StrictHandler
from mmalign.web.tokens import is_token, token_of

HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
IDLE_S = 30.0


class LiveServer(TokenServer):
    """The page of one run, listening when it is made; ``serve_forever`` answers.

    Args:
        folder: of the run.
        host: loopback, unless others are to reach it.
        port: 0 for any that is free.
        token: what a browser has to show.

    Raises:
        ConfigError: the token is short, or nothing can listen at this address.
    """

    def __init__(self, folder: Path, *, host: str = "127.0.0.1", port: int = 0, token: str) -> None:
        self.folder = folder
        self.drawing = threading.Lock()
        """One page is made at a time: curves are drawn by what may not be used in two threads."""
        super().__init__(_Handler, host=host, port=port, token=token)

    @property
    def url(self) -> str:
        """Where it answers, with the token."""
        return f"{super().url}/?token={self.token}"


class _Handler(StrictHandler):
    idle_s = IDLE_S

    def do_GET(self) -> None:  # noqa: N802
        server = cast(LiveServer, self.server)
        address = urlsplit(self.path)
        shown = parse_qs(address.query).get("token", [""])[0]
        if not is_token(shown or token_of(self.headers.get("Authorization", "")), server.token):
            self._send(
                401, "text/plain", "this page wants its token: open it as http://HOST:PORT/?token=TOKEN"
            )
        elif address.path != "/":
            self._send(404, "text/plain", "there is nothing at this address")
        else:
            try:
                with server.drawing:
                    text = live_page(server.folder)
            except (MmalignError, OSError, ValueError) as error:
                self._send(503, "text/plain", f"not readable just now ({type(error).__name__}); try again")
                return
            self._send(200, "text/html", text)

    def _send(self, status: int, kind: str, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.finish_head()
        self.write(data)

    def send_refusal(self, refusal: RefusedError) -> None:
        self._send(refusal.status, "text/plain", str(refusal))

    def log_error(self, form: str, *values: Any) -> None:
        """Nothing: a request's path holds the token."""
