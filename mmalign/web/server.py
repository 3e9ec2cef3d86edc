"""A reward over HTTP: JSON in, JSON out, for callers that hold the token.

    GET  /health       {"status": "ok"}, without a token
    GET  /v1/card      the reward's card
    POST /v1/score     {"samples": [...]} -> {"scores": [...]}, as ``mmalign.rewards.wire`` describes them
    POST /compute      the same reward for a trainer that speaks Flow-Factory's remote rewards (``mmalign.web.compute``)

An error is {"error": {"code": WORD, "message": SENTENCE}} with a fitting HTTP status. Nothing is ever unpickled.
"""

import socket
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any

from mmalign.errors import ConfigError
from mmalign.rewards.base import Reward
from mmalign.web.batching import Batcher
from mmalign.web.handler import Handler, Limits
from mmalign.web.tokens import check_token


class RewardServer(ThreadingHTTPServer):
    """One reward at one address, ready when it is made; ``serve_forever`` answers.

    Args:
        reward: what scores.
        host: loopback, unless others are to reach it.
        port: 0 for any that is free.
        token: what callers have to show, as a bearer or as a password.
        root: the folder whose files requests may name; None for none.
        limits: of requests.
        batch_size: samples per call of the reward.
        wait_s: how long a batch waits for further callers.

    Raises:
        ConfigError: the token is short, nothing can listen at this address, or the reward judges pairs, or compares the
            samples of a prompt with each other, which requests may part.
    """

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(
        self,
        reward: Reward,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str,
        root: Path | None = None,
        limits: Limits | None = None,
        batch_size: int = 32,
        wait_s: float = 0.005,
    ) -> None:
        check_token(token)
        if not isinstance(reward, Reward):
            raise ConfigError(f"reward '{reward.card.name}' judges pairs, and samples are what is served")
        if getattr(reward, "whole_groups", False):
            raise ConfigError(
                f"reward '{reward.card.name}' compares samples of a prompt, and requests may part them; serve what it "
                "is made of"
            )
        self.reward, self.token, self.root = reward, token, root
        self.limits = limits or Limits()
        self.places = threading.BoundedSemaphore(self.limits.requests)
        if ":" in host:
            self.address_family = socket.AF_INET6
        self.batcher = Batcher(reward, batch_size=batch_size, wait_s=wait_s)
        try:
            super().__init__((host, port), Handler)
        except OSError as error:
            raise ConfigError(
                f"nothing can listen at {host}, port {port} ({error.strerror or error})"
            ) from None

    def server_bind(self) -> None:
        """Without the look-up of this machine's name that ``http.server`` does, which may wait for a network."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    @property
    def url(self) -> str:
        """Where it answers."""
        host, port = self.server_address[:2]
        name = host.decode() if isinstance(host, bytes | bytearray) else host
        return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"

    def server_close(self) -> None:
        """Stop listening, and finish what waits."""
        super().server_close()
        self.batcher.close()

    def handle_error(self, *_: Any) -> None:
        """A caller that hung up is no news."""
