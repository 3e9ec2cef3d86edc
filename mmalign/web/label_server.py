"""The labelling page at an address, until it is stopped."""

import socket
import threading
from pathlib import Path
from typing import Any

from mmalign.data.label_items import Listed
from mmalign.data.label_store import LabelSettings, LabelStore
from mmalign.errors import MissingExtraError
from mmalign.web.address import cannot_listen
from mmalign.web.label_media import LabelMedia
from mmalign.web.label_page import LabelPage, label_app
from mmalign.web.tokens import check_token


class LabelServer:
    """One page over one file of labels, listening when it is made; ``run`` answers.

    Args:
        folder: of samples; nothing outside it is served.
        listed: its samples.
        out: the file of labels.
        settings: what is asked.
        host: loopback, unless others are to reach it.
        port: 0 for any that is free.
        token: what a browser has to show; None where only this machine can reach the page.

    Raises:
        ConfigError: the token is short, nothing can listen at this address, the extra ``web`` is missing, or the file
            of labels was begun for something else or is in use.
        DataError: the file of labels is something else.
    """

    def __init__(
        self,
        folder: Path,
        listed: Listed,
        out: Path,
        settings: LabelSettings,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
    ) -> None:
        if token is not None:
            check_token(token)
        try:
            import uvicorn
        except ImportError:
            raise MissingExtraError("gradio", "web") from None
        self.token = token
        self.store = LabelStore(out, listed.samples, settings, folder=folder)
        self._page = LabelPage(self.store, LabelMedia(folder))
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            app: Any = label_app(self._page, token=token)
            self._socket.bind((host, port))
            self._socket.listen(64)
        except OSError as error:
            self.close()
            raise cannot_listen(host, port, error) from None
        except BaseException:
            self.close()
            raise
        # A browser that stays open does not keep the server from ending.
        config = uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)

    @property
    def url(self) -> str:
        """Where it answers, with the token if there is one."""
        host, port = self._socket.getsockname()[:2]
        base = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
        return base if self.token is None else f"{base}?token={self.token}"

    def run(self) -> None:
        """Answer until SIGINT or SIGTERM, or ``stop`` from another thread."""
        self._server.run(sockets=[self._socket])

    def start(self) -> threading.Thread:
        """Answer in a thread of its own."""
        thread = threading.Thread(target=self.run, name="label", daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        """End ``run``."""
        self._server.should_exit = True

    def close(self) -> None:
        """Let go of the address and of the file of labels."""
        self._socket.close()
        self._page.close()
        self.store.close()
