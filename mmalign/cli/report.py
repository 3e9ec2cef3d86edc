"""``mmalign report``: the page of a run, written anew, or followed while the run is made."""

import secrets
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from mmalign.cli.options import parse
from mmalign.errors import ConfigError
from mmalign.ranges import PORT, check_ranges
from mmalign.web.tokens import check_address, chosen_token


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportCommand:
    """Write a run's report.html and README.md from its files, or follow a run that is being made with --serve."""

    run: Positional[Path]
    """A run folder."""
    serve: bool = False
    """A page on this machine that follows the run: progress and time left, curves, guards, samples over the steps."""
    host: str = "127.0.0.1"
    """Where to listen. For other machines than this one, --token or the variable MMALIGN_TOKEN has to be set."""
    port: Annotated[int, PORT] = 0
    """0 for any that is free."""
    token: str | None = None
    """What a browser has to show; one is made up if it is not given. MMALIGN_TOKEN keeps it out of the list of
    processes."""

    def __post_init__(self) -> None:
        check_ranges(self, place="--")
        check_address(self.host, self.port, self.token)
        if not self.serve and (self.port or self.token or self.host != "127.0.0.1"):
            raise ConfigError("--host, --port and --token belong to --serve")


def main(arguments: Sequence[str]) -> int:
    """Run ``mmalign report``; the page's path or address is the last line of standard output."""
    command = parse(ReportCommand, arguments, prog="mmalign report")
    if command.serve:
        return serve(command)
    from mmalign.evaluation.model_card import write_model_card
    from mmalign.evaluation.report import write_report

    write_model_card(command.run)
    print(write_report(command.run))
    return 0


def serve(command: ReportCommand) -> int:
    """Answer until Ctrl-C."""
    from mmalign.evaluation.live import live_page
    from mmalign.web.live import LiveServer

    live_page(command.run)  # a folder without a run is said before anything listens
    token = chosen_token(command.token) or secrets.token_urlsafe(24)
    server = LiveServer(command.run, host=command.host, port=command.port, token=token)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print("Ctrl-C ends it", file=sys.stderr)
    print(server.url, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    finally:
        server.server_close()
    return 0
