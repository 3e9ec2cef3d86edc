"""Ctrl-C, SIGTERM and SIGHUP are one thing: they stop, or wait for a piece of work to end."""

import errno
import os
import signal

import pytest

from mmalign.cli import main as cli
from mmalign.stopping import SIGNALS, Stopped, held_back, stoppable


def send(signum: int) -> None:
    os.kill(os.getpid(), signum)


def test_three_signals() -> None:
    assert set(SIGNALS) == {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


@pytest.mark.parametrize("signum", SIGNALS)
def test_every_signal_stops_a_command_with_its_own_status(
    signum: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mmalign.cli import recipes

    before = {s: signal.getsignal(s) for s in SIGNALS}
    done = []

    def stopped(arguments: object) -> int:
        try:
            send(signum)
        finally:
            done.append(arguments)
        return 0

    monkeypatch.setattr(recipes, "main", stopped)
    assert cli.main(["recipes"]) == 128 + signum
    assert len(done) == 1, "what was to be put away was not"
    assert capsys.readouterr().err == "mmalign: stopped\n"
    assert {s: signal.getsignal(s) for s in SIGNALS} == before


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "mmalign: the output: the disk is full; make room",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "a.csv"), "mmalign: a.csv: Permission denied"),
        (OSError(errno.EROFS, "Read-only file system", "out"), "mmalign: out: this file system is read-only"),
    ],
)
def test_the_system_is_quoted_in_a_sentence(
    error: OSError, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mmalign.cli import recipes

    def fail(arguments: object) -> int:
        raise error

    monkeypatch.setattr(recipes, "main", fail)
    assert cli.main(["recipes"]) == 2
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize("signum", SIGNALS)
def test_held_back_the_first_is_noted_and_the_second_stops(signum: signal.Signals) -> None:
    noted: list[int] = []
    with held_back(noted.append) as stopped:
        assert stopped() is None
        send(signum)
        assert stopped() == signum
        assert noted == [signum]
        with pytest.raises(Stopped) as caught:
            send(signal.SIGTERM)
    assert caught.value.signum == signal.SIGTERM


def test_a_launchers_copy_of_a_signal_is_no_second_one() -> None:
    with held_back(lambda signum: None, echo_s=60.0) as stopped:
        send(signal.SIGINT)
        send(signal.SIGTERM)
        assert stopped() == signal.SIGINT


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        with stoppable():
            send(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
