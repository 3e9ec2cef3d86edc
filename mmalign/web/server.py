"""A reward over HTTP: JSON in, JSON out, for callers that hold the token.

    GET  /health       {"status": "ok"}, without a token
    GET  /v1/card      the reward's card
    POST /v1/score     {"samples": [...]} -> {"scores": [...]}, as ``mmalign.rewards.wire`` describes them
    POST /compute      the same reward for a trainer that speaks Flow-Factory's remote rewards (``mmalign.web.compute``)

An error is {"error": {"code": WORD, "message": SENTENCE}} with a fitting HTTP status. Nothing is ever unpickled.
"""

import threading
from pathlib import Path

from mmalign.errors import ConfigError
from mmalign.media.room import Share
from mmalign.rewards.base import Reward
from mmalign.rewards.groups import refuse_comparing
from mmalign.web.address import TokenServer
from mmalign.web.batching import Batcher
from mmalign.web.handler import Handler, Limits
from mmalign.web.tokens import check_token


class RewardServer(TokenServer):
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

    allow_reuse_address = True
    request_queue_size = 1024

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
        refuse_comparing(reward, "requests may part them; serve what it is made of")
        self.reward, self.root = reward, root
        self.limits = limits or Limits()
        self.places = threading.BoundedSemaphore(self.limits.requests)
        self.bodies, self.media = Share(self.limits.bodies_bytes), Share(self.limits.medium_bytes)
        self.reading = threading.Lock()
        self.batcher = Batcher(reward, batch_size=batch_size, wait_s=wait_s)
        super().__init__(Handler, host=host, port=port, token=token, connections=self.limits.connections)

    def server_close(self) -> None:
        """Stop listening, and finish what waits."""
        super().server_close()
        self.batcher.close()
