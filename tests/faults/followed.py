"""A run that is followed on a page while it is made: the page answers, ends when asked to, and changes nothing."""

import os
import signal
import time
import urllib.request
from contextlib import suppress

from tests.faults import rows
from tests.faults.commands import COMMANDS
from tests.faults.contents import contents, differences
from tests.faults.holding import holding_before, wait_for_stop
from tests.faults.place import Place
from tests.faults.sentences import has_traceback
from tests.faults.warm import Started, finish

WITHIN_S = 120
"""To listen and to end, on a busy machine too."""


def followed(place: Place) -> str:
    """Hold a run in its training, read its page, end the page, let the run go on, and compare; what is wrong."""
    command, wanted = COMMANDS["image/flow_dpo"], place.wanted("image/flow_dpo")
    place.begin(command)
    held = place.start(command.arguments, on=holding_before("step-000002"))
    try:
        wait_for_stop(held)
        fault = _read_page(place.start(("report", "run", "--serve"), logs="page"))
    finally:
        with suppress(ProcessLookupError):
            os.kill(held.pid, signal.SIGCONT)
    ended = finish(held)
    if fault or ended.status:
        return fault or f"the run ended with status {ended.status}: {ended.words}"
    return "; ".join(differences(contents(place.work), wanted)) or rows.GOOD


def _read_page(server: Started) -> str:
    """Read the page once and end its server; what is wrong, or ""."""
    try:
        with urllib.request.urlopen(_address(server), timeout=WITHIN_S) as answer:
            page = answer.read().decode()
    finally:
        os.kill(server.pid, signal.SIGTERM)
    ended = finish(server, within_s=time.monotonic() - server.begun + WITHIN_S)
    if (
        "run – mmalign" not in page or "loss" not in page
    ):  # while it is made, a page has the folder's name and curves
        return f"no page of the run: {page[:200]}"
    if ended.status < 0 or has_traceback(ended):
        return f"the page ended with status {ended.status}: {ended.words}"
    return ""


def _address(server: Started) -> str:
    """What the server printed, once it listens."""
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        said = (server.logs / "out").read_text() if (server.logs / "out").exists() else ""
        if said.endswith("\n"):
            return said.split()[-1]
        time.sleep(0.05)
    raise TimeoutError(f"no address within {WITHIN_S} s")
