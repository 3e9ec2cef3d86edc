"""A server of our own at one address, for those who show its token."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from mmalign.errors import ConfigError
from mmalign.web.tokens import check_token


class TokenServer(ThreadingHTTPServer):
    """Listens as soon as it is made; ``serve_forever`` answers.

    Args:
        handler: of requests; it asks for the token.
        host: loopback, unless others are to reach it.
        port: 0 for any that is free.
        token: what callers have to show.
        connections: at a time, each with a thread of its own; more are closed at once.

    Raises:
        ConfigError: the token is short, or nothing can listen at this address.
    """

    daemon_threads = True

    def __init__(
        self,
        handler: type[BaseHTTPRequestHandler],
        *,
        host: str,
        port: int,
        token: str,
        connections: int = 256,
    ) -> None:
        check_token(token)
        self.token = token
        self._connections = threading.BoundedSemaphore(connections)
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), handler)
        except OSError as error:
            raise cannot_listen(host, port, error) from None

    def server_bind(self) -> None:
        """Without the look-up of this machine's name that ``http.server`` does, which may wait for a network."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, or hang up where there are too many."""
        if not self._connections.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._connections.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One connection, from its first request to its last."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    @property
    def url(self) -> str:
        """Where it answers."""
        host, port = self.server_address[:2]
        name = host.decode() if isinstance(host, bytes | bytearray) else host
        return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"

    def handle_error(self, *_: Any) -> None:
        """A caller that hung up is no news."""


def cannot_listen(host: str, port: int, error: OSError) -> ConfigError:
    """Why an address cannot be had."""
    return ConfigError(f"nothing can listen at {host}, port {port} ({error.strerror or error})")
