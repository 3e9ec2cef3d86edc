"""``mmalign serve``: a reward over HTTP."""

import secrets
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from mmalign.cli.options import parse
from mmalign.errors import ConfigError
from mmalign.ranges import COUNT, PORT, Range, check_ranges
from mmalign.rewards.cards import find_card
from mmalign.training.preflight_rewards import check_ready
from mmalign.web.tokens import check_address, chosen_token


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeCommand:
    """Answer requests for scores: POST /v1/score, GET /v1/card, GET /health.

    Another mmalign scores with it as `--reward http://HOST:PORT`, and trainers that speak Flow-Factory's remote rewards
    by their server_url. Callers show a token. Between machines, put TLS before it: a token in plain HTTP can be read.
    """

    reward: str
    """Its name, as `mmalign rewards` lists it."""
    host: str = "127.0.0.1"
    """Where to listen. For other machines than this one, --token or the variable MMALIGN_TOKEN has to be set."""
    port: Annotated[int, PORT] = 8000
    """0 for any that is free."""
    token: str | None = None
    """What callers have to show; on this machine one is made up if it is not given. MMALIGN_TOKEN keeps it out of the
    list of processes."""
    root: Path | None = None
    """Requests may name files below this folder instead of sending them."""
    batch_size: Annotated[int, COUNT] = 32
    """Samples per call of the reward; callers who come together share one."""
    wait_ms: Annotated[float, Range(least=0, most=60_000)] = 5.0
    """How long a batch waits for further callers."""
    max_body_mb: Annotated[float, Range(above=0, most=16_384)] = 64.0
    """Of one request."""
    max_samples: Annotated[int, COUNT] = 256
    """Of one request."""
    max_requests: Annotated[int, COUNT] = 32
    """At a time; more are told to come back."""

    def __post_init__(self) -> None:
        check_ranges(self, place="--")
        if self.root is not None and not self.root.is_dir():
            raise ConfigError(f"--root {self.root} is no folder")
        check_address(self.host, self.port, self.token)

    @property
    def given_token(self) -> str | None:
        """The token, if somebody chose one."""
        return chosen_token(self.token)


def main(arguments: Sequence[str]) -> int:
    """Run ``mmalign serve``.

    Raises:
        MmalignError: wrong usage, or nothing can listen there.
    """
    return run(parse(ServeCommand, arguments, prog="mmalign serve"))


def run(command: ServeCommand) -> int:
    """Load the reward, say where it is, and answer until Ctrl-C, or until whoever supervises it ends it."""
    check_ready(find_card(command.reward))
    import torch
    from rich.console import Console

    from mmalign.rewards.cards import load_reward
    from mmalign.web.server import Limits, RewardServer

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    token = command.given_token or secrets.token_urlsafe(24)
    reward = load_reward(command.reward, device="cuda" if torch.cuda.is_available() else "cpu")
    server = RewardServer(
        reward,
        host=command.host,
        port=command.port,
        token=token,
        root=command.root,
        limits=Limits(
            body_bytes=round(command.max_body_mb * 2**20),
            samples=command.max_samples,
            requests=command.max_requests,
        ),
        batch_size=command.batch_size,
        wait_s=command.wait_ms / 1000,
    )
    if command.given_token is None:
        console.print(f"token: {token}", markup=False)
    console.print(f"{reward.card.name} is served; Ctrl-C ends it", markup=False)
    # Ctrl-C does not reach what a shell started in the background; SIGTERM is what supervisors send.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(server.url, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        console.print("stopped")
    finally:
        server.server_close()
    return 0
