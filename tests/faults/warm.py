"""Runs commands in children forked off a process that has imported what they import: seconds less for each.

The parent runs no tensor operation and starts no thread, so that a child begins as a fresh process would.
"""

import gc
import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ENDS_WITHIN_S = 600
"""No command here takes as long, on a busy machine either; one that does hangs."""
IMPORTED = "imported"
"""Beside a command's output: the modules that it imported and its parent had not."""


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Args:
        status: of its exit, or minus the number of the signal that ended it.
        out: standard output.
        err: standard error.
        seconds: it took.
    """

    status: int
    out: str
    err: str
    seconds: float

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it, or the alarm that is set for the same end."""
        return self.status in (-signal.SIGKILL, -signal.SIGALRM)

    @property
    def words(self) -> str:
        """The last lines of standard error, for a message."""
        return " | ".join(self.err.strip().splitlines()[-3:])[-600:]


@dataclass(frozen=True)
class Started:
    """A command that runs."""

    pid: int
    logs: Path
    begun: float


def warm_up() -> None:
    """Import what every command here needs; :func:`learn` imports the rest."""
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", HF_HUB_OFFLINE="1", MPLBACKEND="agg")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch  # noqa: F401

    from mmalign.cli import align, main  # noqa: F401

    align._quiet()


def learn(imported: Path) -> None:
    """Import what a command imported, of which the file has the names, so that the next child has it.

    Raises:
        RuntimeError: a thread was started, which a fork would lose.
    """
    for name in imported.read_text().split():
        try:
            importlib.import_module(name)
        except Exception:
            continue  # made by another module, as a namespace or a lazy one
    gc.collect()
    gc.freeze()  # pages that stay as they are stay shared
    # onnxruntime starts one of its own, which nothing here uses.
    if threading.active_count() != 1:
        raise RuntimeError(f"{threading.enumerate()} run after the imports; a fork would lose all but one")


def start(
    arguments: Sequence[str], *, here: Path, logs: Path, first: Callable[[], None] = lambda: None
) -> Started:
    """Begin ``mmalign ARGUMENTS``.

    Args:
        arguments: of the command line.
        here: the working directory.
        logs: a folder that takes standard output and error.
        first: called in the child before the command.
    """
    logs.mkdir(parents=True, exist_ok=True)
    for name in ("out", "err", IMPORTED):
        (logs / name).unlink(missing_ok=True)  # of a command before
    sys.stdout.flush()
    sys.stderr.flush()
    begun, pid = time.monotonic(), os.fork()
    if pid == 0:
        _child(arguments, here, logs, first)
    return Started(pid, logs, begun)


def _child(arguments: Sequence[str], here: Path, logs: Path, first: Callable[[], None]) -> None:
    status, known = 70, set(sys.modules)
    try:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(logs / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
        os.chdir(here)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        from mmalign.cli.main import main

        first()
        status = main(arguments)
        (logs / IMPORTED).write_text("\n".join(name for name in sys.modules if name not in known))
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def finish(started: Started, *, within_s: float = ENDS_WITHIN_S) -> Ended:
    """Wait for a command.

    Raises:
        TimeoutError: it did not end in time, and was killed.
    """
    found = status = 0
    while not found:
        found, status = os.waitpid(started.pid, os.WNOHANG)
        if not found and time.monotonic() - started.begun > within_s:
            os.kill(started.pid, signal.SIGKILL)
            os.waitpid(started.pid, 0)
            said = (started.logs / "err").read_text(errors="replace")[-500:]
            raise TimeoutError(f"still running after {within_s} s; it had said: {said}")
        time.sleep(0.01)
    out, err = (
        (started.logs / name).read_text(encoding="utf-8", errors="replace")
        if (started.logs / name).exists()
        else ""  # killed before it began
        for name in ("out", "err")
    )
    return Ended(os.waitstatus_to_exitcode(status), out, err, time.monotonic() - started.begun)


def run(
    arguments: Sequence[str], *, here: Path, logs: Path, first: Callable[[], None] = lambda: None
) -> Ended:
    """Begin a command and wait for its end."""
    return finish(start(arguments, here=here, logs=logs, first=first))
